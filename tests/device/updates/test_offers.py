"""Which of a repository's models is for this device."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_repository import bundle_bytes, installed

from soundpost.device.bundle import MAX_BUNDLE_BYTES, parse_bundle
from soundpost.device.errors import InputError, UpdateRefusedError
from soundpost.device.updates.offers import (
    CUSTOM_KEY,
    Installed,
    Offer,
    check_fetched,
    choose,
    compare_versions,
    read_offers,
)


def offer(version: str = "1.0.0", **more: Any) -> Offer:
    content = bundle_bytes(version)
    bundle = parse_bundle(content, "bundle")
    return replace(Offer.of(bundle.manifest, len(content), bundle.sha256), **more)


OLD = offer("1.0.0", channels=("stable",))
NEW = offer("1.1.0", channels=("canary",))


# The order that https://semver.org gives in section 11, and its example of numbers.
ORDER = [
    *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
    *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1", "2.1.10", "10.0.0"),
]


def test_versions_are_ordered_as_published() -> None:
    for older, newer in pairwise(ORDER):
        assert compare_versions(older, newer) < 0
        assert compare_versions(newer, older) > 0
    for version in ORDER:
        assert compare_versions(version, f"{version}+build.7") == 0


def test_a_channel_has_the_model_that_stands_in_it() -> None:
    offers = (OLD, NEW)
    assert choose(offers, "attic", "stable", None).offer == OLD
    assert choose(offers, "attic", "canary", installed(OLD)).offer == NEW


def test_a_pin_goes_before_the_channel() -> None:
    pinned = replace(OLD, channels=(), devices=("attic",))
    offers = (pinned, NEW)
    assert choose(offers, "attic", "canary", None).offer == pinned
    assert choose(offers, "cellar", "canary", None).offer == NEW


def test_an_empty_channel_names_those_with_models() -> None:
    choice = choose((OLD, NEW), "attic", "beta", None)
    assert choice.offer is None
    assert choice.result == "failed"
    assert choice.reason.startswith("channel 'beta' is empty: the repository has models in canary,")


def test_what_is_installed_or_newer_stays() -> None:
    assert choose((OLD,), "attic", "stable", installed(OLD)).offer is None
    older = choose((OLD,), "attic", "stable", installed(NEW))
    assert older.offer is None
    assert "older than the 1.1.0 installed" in older.reason
    same = replace(installed(OLD), sha256="0" * 64)
    assert "no newer than the 1.0.0" in choose((OLD,), "attic", "stable", same).reason


def test_an_older_one_is_taken_where_the_operator_signed_for_it() -> None:
    back = replace(OLD, allow_older=True)
    assert choose((back,), "attic", "stable", installed(NEW)).offer == back


def test_another_model_has_versions_of_its_own() -> None:
    other = Installed("other", "9.0.0", "0" * 64)
    assert choose((OLD,), "attic", "stable", other).offer == OLD


def test_what_was_taken_back_is_not_taken_again() -> None:
    choice = choose((NEW,), "attic", "canary", installed(OLD), [NEW.sha256])
    assert choice.offer is None
    assert "taken back" in choice.reason
    assert choice.result == "rejected"


def test_two_models_in_one_channel_are_none() -> None:
    both = (OLD, replace(NEW, channels=("stable",)))
    assert "several models: tiny-1.0.0.bundle, tiny-1.1.0.bundle" in (
        choose(both, "attic", "stable", None).reason
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"kind": "transformer"},
            "is of kind 'transformer': this soundpost runs window and frames",
        ),
        ({"length": MAX_BUNDLE_BYTES + 1}, "expected at most 64000000"),
        ({"front_end_hash": "0" * 64}, "was made for another front end (000000000000, here "),
        ({"front_end": '{"n_mels": 64}'}, "cannot hear with: front end: unknown or missing"),
        ({"front_end": "[" * 100_000}, "note without front end"),
        ({"front_end": "[]"}, "cannot hear with: front end: unknown or missing"),
    ],
)
def test_what_this_device_cannot_run_is_not_taken(change: dict[str, Any], reason: str) -> None:
    choice = choose((replace(OLD, **change),), "attic", "stable", None)
    assert (choice.offer, choice.result) == (None, "refused")
    assert reason in choice.reason


# ------------------------------------------------------------------------------- the note


def test_a_note_reads_back_and_keeps_what_it_does_not_know() -> None:
    made = replace(NEW, devices=("attic",), allow_older=True)
    custom = json.loads(json.dumps(made.to_custom()))
    custom[CUSTOM_KEY]["later"] = [1]
    read = Offer.from_custom(made.path, made.length, made.sha256, custom)
    assert read == made
    assert read.to_custom() == custom


def test_notes_of_a_later_version_do_not_hide_the_others() -> None:
    later = {CUSTOM_KEY: {"schema": "soundpost.offer/2"}}
    rows = [("x", 1, "0" * 64, later), (OLD.path, OLD.length, OLD.sha256, OLD.to_custom())]
    assert read_offers([*rows, ("y", 1, "0" * 64, None)]) == (OLD,)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.sampled_from(sorted(NEW.to_custom()[CUSTOM_KEY])), VALUES)
def test_any_value_in_a_note_is_read_or_one_line(key: str, value: object) -> None:
    custom = {CUSTOM_KEY: {**NEW.to_custom()[CUSTOM_KEY], key: value}}
    try:
        read = Offer.from_custom(NEW.path, NEW.length, NEW.sha256, custom)
    except InputError as error:
        told = str(error)
        assert "\n" not in told
    else:
        assert choose((read,), "attic", "canary", installed(OLD)).reason


# ------------------------------------------------------------------------------- the file


def test_a_file_is_what_was_offered_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "fetched"
    path.write_bytes(bundle_bytes("1.0.0"))
    assert check_fetched(OLD, path).manifest.version == "1.0.0"
    for change in (
        {"sha256": "0" * 64},
        {"name": "other"},
        {"version": "1.0.1"},
        {"kind": "frames"},
        {"front_end_hash": "0" * 64},
    ):
        with pytest.raises(UpdateRefusedError, match="the repository says"):
            check_fetched(replace(OLD, **change), path)
    path.write_bytes(b"PK")
    with pytest.raises(UpdateRefusedError, match=r"tiny-1\.0\.0\.bundle: .* damaged or no bundle"):
        check_fetched(OLD, path)
