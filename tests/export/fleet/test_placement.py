"""What a repository says at each point of a roll-out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from fleet_examples import NEW, OLD, offer, rolling
from hypothesis import given
from hypothesis import strategies as st
from kill_points import killed_at
from signed_repository import Operator, bundle_bytes

from soundpost.device.bundle import parse_bundle
from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import Installed, choose
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.export.fleet.placement import keep_fresh, place, placed, published_offers
from soundpost.export.fleet.roll_out import Member, Stage
from soundpost.export.repository.settings import Days, RepositorySettings

DEVICES = [f"hall-{number}" for number in range(4)]
STAGES = st.sampled_from(get_args(Stage))
LOUD = Installed("loud", "3.0.0", "3" * 64)


def offers(*pinned: str) -> dict[str, Any]:
    """The old model in `stable`, the new in `canary`, and one that others are pinned to."""
    made = (
        offer(OLD, channels=("stable",)),
        offer(channels=("canary",), devices=pinned),
        offer(LOUD, devices=("attic",)),
    )
    return {one.path: one for one in made}


MEMBERS = [Member(device, 1 + number // 2) for number, device in enumerate(DEVICES)]


@given(STAGES, st.integers(1, 2), st.sets(st.sampled_from(DEVICES)), st.booleans(), st.booleans())
def test_what_is_placed(stage: Any, wave: int, kept: set[str], back: bool, older: bool) -> None:
    """Idempotent; strangers keep what they have; each sensor is offered what the stage is for."""
    roll_out = rolling(
        *MEMBERS,
        stage=stage,
        wave=wave,
        kept=tuple(sorted(kept)) if not back else (),
        take_back=back,
    )
    roll_out = replace(roll_out, settings=replace(roll_out.settings, allow_older=older))
    once = placed(offers("cellar"), roll_out)
    assert placed(once, roll_out) == once
    # From wherever an earlier stage had left it.
    assert placed(placed(offers("cellar", *DEVICES), roll_out), roll_out) == once

    def offered(device: str, has: Installed) -> str | None:
        found = choose(list(once.values()), device, "stable", has).offer
        return None if found is None else found.path

    assert offered("attic", OLD) == "loud-3.0.0.bundle"
    assert offered("cellar", OLD) == "mine-1.1.0.bundle"
    for member in MEMBERS:
        newly, again = offered(member.device, OLD), offered(member.device, NEW)
        if stage in ("running", "paused"):
            assert newly == ("mine-1.1.0.bundle" if member.wave <= wave else None)
        elif stage in ("finishing", "done"):
            assert newly == "mine-1.1.0.bundle"
        else:
            assert newly == ("mine-1.1.0.bundle" if not back and member.device in kept else None)
            taken = back and stage in ("aborting", "aborted")
            assert again == ("mine-1.0.0.bundle" if taken else None)
    finished = stage in ("finishing", "done")
    assert ("stable" in once["mine-1.1.0.bundle"].channels) is finished


def test_a_model_that_has_gone() -> None:
    left = {
        path: one
        for path, one in offers().items()
        if one.name != "mine" or one.channels == ("stable",)
    }
    with pytest.raises(UsageError, match="is no longer in the repository"):
        placed(left, rolling(*MEMBERS))
    # It can be given up all the same.
    assert placed(left, rolling(*MEMBERS, stage="aborting")) == left


def operator(folder: Path, days: Days | None = None) -> Operator:
    made = Operator(folder, RepositorySettings(devices=tuple(DEVICES), days=days or Days()))
    made.release("1.0.0")
    made.add(bundle_bytes("1.1.0"), channel="canary")
    made.push()
    return made


def real(model: bytes, **fields: Any) -> Any:
    bundle = parse_bundle(model, "bundle")
    installed = Installed("tiny", bundle.manifest.version, bundle.sha256)
    return replace(
        rolling(*MEMBERS, **fields), model=installed, path=f"tiny-{installed.version}.bundle"
    )


def seen(one: Operator, state: Path) -> dict[str, Any]:
    """Offers by path, as a device fetches them."""
    root = (one.path / "signed" / "1.root.json").read_bytes()
    reader = TrustedRepository(str(one.public), root, state, synchronised=lambda: True)
    return {offer.path: offer for offer in reader.refresh()}


@pytest.mark.parametrize("stage", ["running", "finishing"])
def test_killed_at_any_change_of_the_disk_it_is_completed_by_the_next(
    memory_path: Path, stage: str
) -> None:
    """Exhaustively: a device sees what was, or what is to be; after the next, what is to be."""
    whole = operator(memory_path / "whole")
    roll_out = real(bundle_bytes("1.1.0"), stage=stage)
    before = published_offers(whole.folder)
    # A model that nobody is to have any more is taken out.
    after = {
        path: one for path, one in placed(before, roll_out).items() if one.channels or one.devices
    }
    place_at, device = memory_path / "repository", memory_path / "device"
    points = 0
    while True:
        shutil.rmtree(place_at, ignore_errors=True)
        shutil.copytree(whole.path, place_at)
        copy = object.__new__(Operator)
        copy.path, copy.late = place_at, whole.late

        def job(one: Operator = copy) -> None:
            place(one.folder, one.ring(), roll_out, one.now())

        cut = killed_at(points, job)
        shutil.rmtree(device, ignore_errors=True)
        assert seen(copy, device) in (before, after)
        job()
        assert seen(copy, device) == published_offers(copy.folder) == after
        if not cut:
            break
        points += 1
    assert points >= 8


def test_nothing_is_published_twice(memory_path: Path) -> None:
    one = operator(memory_path / "repository")
    roll_out = real(bundle_bytes("1.1.0"))
    first = place(one.folder, one.ring(), roll_out, one.now())
    assert first is not None
    assert place(one.folder, one.ring(), roll_out, one.now()) is None


def test_the_timestamp_is_kept_fresh(memory_path: Path) -> None:
    """Else sensors would refuse the repository in the middle of a roll-out of days."""
    from datetime import timedelta

    one = operator(memory_path / "repository", Days(timestamp=2))
    now = one.now()
    assert keep_fresh(one.folder, one.ring(), now + timedelta(hours=23)) is None
    fresh = keep_fresh(one.folder, one.ring(), now + timedelta(hours=25))
    assert fresh is not None
    assert fresh.expires == now + timedelta(hours=25 + 48)
    # What others have staged is theirs to publish.
    one.add(bundle_bytes("1.2.0"), channel="canary")
    assert keep_fresh(one.folder, one.ring(), now + timedelta(days=9)) is None
