"""What a repository holds: bundles, each with the channels and the devices that it is for.

A change is signed at once with the targets key and staged; `push` publishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tuf.api.metadata import TargetFile, Targets

from soundpost.device.bundle import Bundle
from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import MAX_VERSION, Offer, compare_versions, read_offers
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import KeyRing
from soundpost.export.repository.settings import write_settings
from soundpost.export.repository.signing import next_targets, sign


@dataclass(frozen=True)
class Added:
    """What was staged.

    offer : as devices will see it
    replaced : paths of models that no channel and no device has any more
    """

    offer: Offer
    replaced: tuple[str, ...]


def offers_of(targets: Targets) -> tuple[Offer, ...]:
    """Offers of a list of models."""
    return read_offers(
        (path, target.length, target.hashes.get("sha256", ""), target.custom)
        for path, target in targets.targets.items()
    )


def add_bundle(
    repository: RepositoryFolder,
    bundle: Bundle,
    content: bytes,
    ring: KeyRing,
    now: datetime,
    *,
    channels: Sequence[str] = (),
    devices: Sequence[str] = (),
    allow_older: bool = False,
    new_devices: bool = False,
) -> Added:
    """Stage a bundle as the model of channels, or of devices that are pinned to it.

    Parameters
    ----------
    bundle, content : read and checked, and the bytes of its file
    allow_older : a version before the one that stands there; devices then go back to it
    new_devices : devices that the settings do not know are put there

    Raises UsageError: neither channel nor device, unknown ones, a version that goes back, a version
    that is there with another content, no targets key at hand. Nothing is changed then.
    """
    if not channels and not devices:
        raise UsageError(
            "for whom? give --channel, one of "
            f"{', '.join(repository.settings.channels)}, or --device"
        )
    repository.settings.check_channels(channels)
    settings = repository.settings
    if new_devices:
        settings = replace(settings, devices=tuple(dict.fromkeys((*settings.devices, *devices))))
    settings.check_devices(devices)
    manifest = bundle.manifest
    if len(manifest.version) > MAX_VERSION:
        raise UsageError(f"{bundle.where}: its version is longer than {MAX_VERSION} characters")
    with repository.lock():
        targets, signers = next_targets(repository, ring, now)
        offers = {offer.path: offer for offer in offers_of(targets.signed)}
        new = Offer.of(manifest, len(content), bundle.sha256)
        same = offers.get(new.path)
        if same is not None and same.sha256 != new.sha256:
            raise UsageError(
                f"{bundle.where}: {new.name} {new.version} is there with another content "
                f"(sha256 {same.sha256[:12]}); export it with a higher --version; nothing was "
                "changed"
            )
        if not allow_older:
            _refuse_older(new, offers.values(), channels, devices)
        if same is not None:
            new = replace(
                new, channels=same.channels, devices=same.devices, read_from=same.read_from
            )
        new = replace(
            new,
            channels=tuple(sorted({*new.channels, *channels})),
            devices=tuple(sorted({*new.devices, *devices})),
            allow_older=allow_older,
        )
        offers = {
            path: without(offer, channels, devices)
            for path, offer in offers.items()
            if path != new.path
        }
        offers[new.path] = new
        replaced = _store(targets.signed, offers)
        repository.stage_bundle(new.sha256, content)
        sign(targets, signers)
        if settings != repository.settings:
            write_settings(repository.path, settings)
        repository.stage_targets(targets)
        return Added(new, replaced)


def unpin(
    repository: RepositoryFolder, devices: Sequence[str], ring: KeyRing, now: datetime
) -> tuple[str, ...]:
    """Let devices follow their channel again; returns paths of models that nobody has any more.

    Raises UsageError where one of them is not pinned, or no targets key is at hand.
    """

    def change(offers: dict[str, Offer]) -> dict[str, Offer]:
        pinned = {device for offer in offers.values() for device in offer.devices}
        for device in devices:
            if device not in pinned:
                raise UsageError(
                    f"device {device!r} is not pinned; pinned: "
                    f"{', '.join(sorted(pinned)) or 'none'}; nothing was changed"
                )
        return {path: without(offer, (), devices) for path, offer in offers.items()}

    return change_offers(repository, ring, now, change) or ()


def change_offers(
    repository: RepositoryFolder,
    ring: KeyRing,
    now: datetime,
    change: Callable[[dict[str, Offer]], dict[str, Offer]],
) -> tuple[str, ...] | None:
    """Stage other channels and devices of the models that are there, as one list.

    change : is given the offers by path, and returns those that are to be; it may raise

    Returns paths of models that nobody has any more; None where nothing changes, and nothing is
    staged then. Raises UsageError where no targets key is at hand.
    """
    with repository.lock():
        present = {offer.path: offer for offer in offers_of(repository.targets_now().signed)}
        offers = change(present)
        if offers == present:
            return None
        targets, signers = next_targets(repository, ring, now)
        replaced = _store(targets.signed, offers)
        sign(targets, signers)
        repository.stage_targets(targets)
        return replaced


def _refuse_older(
    new: Offer, offers: Collection[Offer], channels: Sequence[str], devices: Sequence[str]
) -> None:
    for offer in offers:
        places = [f"channel {name!r}" for name in channels if name in offer.channels]
        places += [f"device {name!r}" for name in devices if name in offer.devices]
        older = offer.name == new.name and compare_versions(new.version, offer.version) < 0
        if places and older:
            raise UsageError(
                f"{places[0]} has {offer.name} {offer.version}, and {new.version} is older; give "
                "--allow-older to send devices back to it; nothing was changed"
            )


def without(offer: Offer, channels: Collection[str], devices: Collection[str]) -> Offer:
    """The offer without these channels and devices."""
    return replace(
        offer,
        channels=tuple(name for name in offer.channels if name not in channels),
        devices=tuple(name for name in offer.devices if name not in devices),
    )


def _store(targets: Targets, offers: dict[str, Offer]) -> tuple[str, ...]:
    """Write offers into the list, and take those out that are for nobody; returns their paths."""
    gone = tuple(path for path, offer in offers.items() if not offer.channels and not offer.devices)
    for path, offer in offers.items():
        if path in gone:
            targets.targets.pop(path, None)
            continue
        fields: dict[str, Any] = {"custom": offer.to_custom()}
        targets.targets[path] = TargetFile(
            offer.length, {"sha256": offer.sha256}, path, unrecognized_fields=fields
        )
    return gone
