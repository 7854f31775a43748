"""What a repository must say at each point of a roll-out: pins, then the channel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from tuf.api.metadata import Snapshot, Targets, Timestamp

from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import Offer
from soundpost.export.fleet.roll_out import RollOut
from soundpost.export.repository.contents import change_offers, offers_of, without
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import KeyRing
from soundpost.export.repository.publish import Published, push
from soundpost.export.repository.signing import required_signers

logger = logging.getLogger(__name__)


def pinned_now(roll_out: RollOut) -> tuple[str, ...]:
    """Devices that are to be pinned to the model."""
    if roll_out.stage in ("running", "paused"):
        return tuple(member.device for member in roll_out.begun)
    if roll_out.stage in ("stopping", "stopped", "aborting", "aborted"):
        return roll_out.kept
    return ()


def placed(offers: Mapping[str, Offer], roll_out: RollOut) -> dict[str, Offer]:
    """The offers of a repository as the roll-out wants them now; the same for the same roll-out.

    Only pins of its own members are touched, its channel, and who may go back.

    Raises UsageError where the model has gone, or the channel that sensors are to go back to is
    empty.
    """
    finished = roll_out.stage in ("finishing", "done")
    aborted = roll_out.stage in ("aborting", "aborted")
    members = [member.device for member in roll_out.members]
    channels = (roll_out.channel,) if finished else ()
    changed = {path: without(offer, channels, members) for path, offer in offers.items()}
    model = changed.get(roll_out.path)
    if model is not None and model.sha256 == roll_out.model.sha256:
        changed[roll_out.path] = replace(
            model,
            channels=tuple(sorted({*model.channels, *channels})),
            devices=tuple(sorted({*model.devices, *pinned_now(roll_out)})),
            allow_older=model.allow_older or roll_out.settings.allow_older,
        )
    elif not aborted:
        raise UsageError(
            f"{roll_out.path} is no longer in the repository; `soundpost repo add` it again, or "
            "`soundpost fleet abort`"
        )
    if aborted and roll_out.take_back:
        back = next((one for one in changed.values() if roll_out.channel in one.channels), None)
        if back is None:
            raise UsageError(
                f"channel {roll_out.channel!r} is empty: there is nothing that its sensors could "
                "go back to; nothing was changed"
            )
        changed[back.path] = replace(back, allow_older=True)
    return changed


def place(
    repository: RepositoryFolder, ring: KeyRing, roll_out: RollOut, now: datetime
) -> Published | None:
    """Let the repository say what the roll-out wants, and publish it; None where it does already.

    Done again after any interruption, it completes what was begun. Raises as `change_offers` and
    `push`.
    """
    change_offers(repository, ring, now, lambda offers: placed(offers, roll_out))
    if repository.staged_targets() is None and repository.is_public():
        return None
    return push(repository, ring, now)


def keep_fresh(repository: RepositoryFolder, ring: KeyRing, now: datetime) -> Published | None:
    """Sign a new timestamp where the present one has less than half of its term left."""
    timestamp = repository.published_timestamp()
    if timestamp is None or repository.staged_targets() is not None:
        return None
    left_days = (timestamp.signed.expires - now).total_seconds() / 86_400
    if left_days > repository.settings.days.timestamp / 2:
        return None
    return push(repository, ring, now)


def check_keys(repository: RepositoryFolder, ring: KeyRing) -> None:
    """Raise UsageError unless every key that a roll-out signs with is at hand and opens."""
    root = repository.root()
    for role in (Targets.type, Snapshot.type, Timestamp.type):
        required_signers(ring, role, root)


def published_offers(repository: RepositoryFolder) -> dict[str, Offer]:
    """Offers by path as devices see them.

    Raises UsageError where a change waits to be published, which a roll-out would publish too.
    """
    if repository.staged_targets() is not None:
        raise UsageError(
            f"{repository.path}: a change waits there: `soundpost repo push {repository.path}` "
            "first; nothing was changed"
        )
    return {offer.path: offer for offer in offers_of(repository.targets_now().signed)}
