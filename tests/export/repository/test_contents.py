"""What stands in a channel, and what may be put there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signed_repository import DEVICE, Operator, bundle_bytes

from soundpost.device.bundle import parse_bundle
from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import Offer
from soundpost.export.repository.contents import add_bundle, change_offers, offers_of, unpin
from soundpost.export.repository.status import status_lines, status_table


@pytest.fixture
def operator(memory_path: Path) -> Operator:
    return Operator(memory_path / "repository")


def listed(operator: Operator) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    offers = offers_of(operator.folder.targets_now().signed)
    return {offer.path: (offer.channels, offer.devices) for offer in offers}


def test_a_model_goes_from_canary_to_stable_and_the_last_one_leaves(operator: Operator) -> None:
    operator.release("1.0.0")
    operator.add(bundle_bytes("1.1.0"), "canary")
    assert listed(operator) == {
        "tiny-1.0.0.bundle": (("stable",), ()),
        "tiny-1.1.0.bundle": (("canary",), ()),
    }
    added = operator.add(bundle_bytes("1.1.0"), "stable")
    assert added.replaced == ("tiny-1.0.0.bundle",)
    assert listed(operator) == {"tiny-1.1.0.bundle": (("canary", "stable"), ())}
    # Nothing of it is published yet.
    published = operator.folder.published_targets()
    assert published is not None
    assert [offer.version for offer in offers_of(published.signed)] == ["1.0.0"]


def test_a_device_is_pinned_to_one_model(operator: Operator) -> None:
    operator.release("1.1.0")
    operator.add(bundle_bytes("1.0.0"), None, DEVICE)
    operator.add(bundle_bytes("1.0.1"), None, DEVICE)
    assert listed(operator) == {
        "tiny-1.0.1.bundle": ((), (DEVICE,)),
        "tiny-1.1.0.bundle": (("stable",), ()),
    }
    with pytest.raises(UsageError, match=r"device 'attic' is not pinned; pinned: porch-pi; "):
        unpin(operator.folder, ["attic"], operator.ring(), operator.now())
    assert unpin(operator.folder, [DEVICE], operator.ring(), operator.now()) == (
        "tiny-1.0.1.bundle",
    )
    assert listed(operator) == {"tiny-1.1.0.bundle": (("stable",), ())}


def adding(operator: Operator, content: bytes, **more: Any) -> None:
    bundle = parse_bundle(content, "porch.bundle")
    add_bundle(operator.folder, bundle, content, operator.ring(), operator.now(), **more)


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        (
            bundle_bytes("1.2.0"),
            {},
            "for whom[?] give --channel, one of stable, canary, or --device",
        ),
        (bundle_bytes("1.2.0"), {"channels": ["stabel"]}, "did you mean stable[?]"),
        (bundle_bytes("1.2.0"), {"devices": ["porch-po"]}, "did you mean porch-pi[?]"),
        (
            bundle_bytes("1.2.0"),
            {"devices": ["a/b"], "new_devices": True},
            "device 'a/b': expected up to 64",
        ),
        (
            bundle_bytes("1.1.0", card="# other\n"),
            {"channels": ["canary"]},
            "tiny 1.1.0 is there with another content",
        ),
        (
            bundle_bytes("1.0.9"),
            {"channels": ["stable"]},
            "channel 'stable' has tiny 1.1.0, and 1.0.9 is older; give --allow-older",
        ),
        (bundle_bytes(f"1.0.{'9' * 80}"), {"channels": ["stable"]}, "longer than 64 characters"),
    ],
)
def test_what_may_not_be_added_changes_nothing(
    operator: Operator, content: bytes, more: dict[str, Any], told: str
) -> None:
    operator.release("1.1.0")
    before = {path: path.read_bytes() for path in operator.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=told) as error:
        adding(operator, content, **more)
    assert "\n" not in str(error.value)
    after = {path: path.read_bytes() for path in operator.path.rglob("*") if path.is_file()}
    assert after == before


def test_an_older_version_goes_back_only_when_told(operator: Operator) -> None:
    operator.release("1.1.0")
    adding(operator, bundle_bytes("1.0.0"), channels=["stable"], allow_older=True)
    (offer,) = offers_of(operator.folder.targets_now().signed)
    assert (offer.version, offer.allow_older) == ("1.0.0", True)


def test_a_change_that_changes_nothing_is_not_staged(operator: Operator) -> None:
    operator.release("1.0.0")
    folder = operator.folder
    assert change_offers(folder, operator.ring(), operator.now(), dict) is None
    assert folder.staged_targets() is None

    def pinned(offers: dict[str, Offer]) -> dict[str, Offer]:
        return {path: replace(offer, devices=(DEVICE,)) for path, offer in offers.items()}

    assert change_offers(folder, operator.ring(), operator.now(), pinned) == ()
    staged = folder.staged_targets()
    assert staged is not None
    assert [offer.devices for offer in offers_of(staged.signed)] == [(DEVICE,)]
    # Once more, before it is published: it is staged already.
    assert change_offers(folder, operator.ring(), operator.now(), pinned) is None


def test_a_new_device_is_kept_in_the_settings(operator: Operator) -> None:
    adding(operator, bundle_bytes("1.0.0"), devices=["attic"], new_devices=True)
    assert operator.folder.settings.devices == (DEVICE, "attic")


def test_two_at_once_one_is_told(operator: Operator) -> None:
    with operator.folder.lock():
        for job in (operator.push, lambda: operator.add(bundle_bytes("1.0.0"))):
            with pytest.raises(UsageError, match=r"another `soundpost repo` is at work here \(pro"):
                job()
    operator.release("1.0.0")


def test_status_tells_channels_pins_and_terms(operator: Operator) -> None:
    operator.release("1.0.0")
    operator.add(bundle_bytes("0.9.0"), None, DEVICE)
    operator.push()
    operator.add(bundle_bytes("1.1.0"), "canary")
    table = status_table(operator.folder, operator.now())
    assert table["channels"]["canary"] is None
    assert table["channels"]["stable"]["version"] == "1.0.0"
    assert table["pinned"][DEVICE]["version"] == "0.9.0"
    days = {role: state["days_left"] for role, state in table["roles"].items()}
    wanted = {"root": 365, "targets": 90, "snapshot": 7, "timestamp": 1}
    assert days == pytest.approx(wanted, abs=0.01)
    assert {model["version"] for model in table["staged"]} == {"0.9.0", "1.0.0", "1.1.0"}
    text = "\n".join(status_lines(table))
    assert "  canary     empty" in text
    assert "staged, to be published by `soundpost repo push`" in text
    with pytest.raises(UsageError, match=r"channel 'canary' is empty; with a model: stable; "):
        status_table(operator.folder, operator.now(), "canary")
    with pytest.raises(UsageError, match=r"did you mean stable\?"):
        status_table(operator.folder, operator.now(), "stabel")
