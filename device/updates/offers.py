"""What a repository offers, and which of it is for this device.

Beside each bundle the repository signs a note, `soundpost.offer/1`: name, version, kind and front
end of the model, the channels that it stands in and the devices that are pinned to it. A channel
holds one model. What a note says decides what is downloaded; the bundle that arrives must agree
with it (`check_fetched`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from soundpost.device.bundle import MAX_BUNDLE_BYTES, Bundle, read_bundle
from soundpost.device.errors import BundleError, InputError, UpdateRefusedError
from soundpost.device.features import FrontEnd
from soundpost.device.manifest import KIND_FRAMES, KIND_WINDOW, VERSION, Manifest

_LOGGER = logging.getLogger(__name__)

SCHEMA = "soundpost.offer/1"
# Beside the notes of other programs in a target's custom metadata.
CUSTOM_KEY = "soundpost"
KINDS = (KIND_WINDOW, KIND_FRAMES)
# As long as a level of an MQTT topic needs to be.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Longer ones are no numbers to compare, nor a file's name.
MAX_VERSION = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Offer:
    """One bundle of a repository.

    path : of the target, `name-version.bundle`
    length, sha256 : of the file
    kind : of the model, `window` or `frames`
    front_end, front_end_hash : parameters as JSON (signed metadata hold no fractions), and the hash
        that the manifest of the bundle gives for them
    channels : that it is the model of
    devices : that are pinned to it, whatever their channel
    allow_older : whether a device may go back to it from a newer version
    """

    path: str
    length: int
    sha256: str
    name: str
    version: str
    kind: str
    front_end: str
    front_end_hash: str
    channels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    allow_older: bool = False
    read_from: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, manifest: Manifest, length: int, sha256: str, **more: Any) -> Offer:
        """Offer of a bundle with this manifest."""
        return cls(
            path=target_path(manifest.name, manifest.version),
            length=length,
            sha256=sha256,
            name=manifest.name,
            version=manifest.version,
            kind=manifest.kind,
            front_end=json.dumps(manifest.front_end.to_dict(), sort_keys=True),
            front_end_hash=manifest.front_end.hash(),
            **more,
        )

    def to_custom(self) -> dict[str, Any]:
        """Custom metadata of the target; unknown fields that were read are kept."""
        note = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "front_end": {"hash": self.front_end_hash, "parameters": self.front_end},
            "channels": list(self.channels),
            "devices": list(self.devices),
            "allow_older": self.allow_older,
        }
        return {CUSTOM_KEY: {**self.read_from, **note}}

    @classmethod
    def from_custom(cls, path: str, length: int, sha256: str, custom: object) -> Offer:
        """Read what `to_custom` writes; raises InputError naming the field."""
        note = custom.get(CUSTOM_KEY) if isinstance(custom, Mapping) else None
        if not isinstance(note, Mapping) or note.get("schema") != SCHEMA:
            raise InputError(f"{path}: has no note of schema '{SCHEMA}'; update soundpost")
        front_end = note.get("front_end")
        front_end = front_end if isinstance(front_end, Mapping) else {}
        fields: dict[str, object] = {
            "name": note.get("name"),
            "version": note.get("version"),
            "kind": note.get("kind"),
            "front_end": front_end.get("parameters"),
            "front_end_hash": front_end.get("hash"),
        }
        for key, value in fields.items():
            _check(isinstance(value, str), path, key, value, "text")
        version = str(fields["version"])
        _check(
            VERSION.fullmatch(version) and len(version) <= MAX_VERSION,
            path,
            "version",
            version,
            "1.0.0",
        )
        _check(_SHA256.fullmatch(sha256), path, "sha256", sha256, "64 hex digits")
        for key in ("channels", "devices"):
            names = note.get(key)
            _check(
                isinstance(names, list) and all(isinstance(name, str) for name in names),
                path,
                key,
                names,
                "a list of names",
            )
        older = note.get("allow_older")
        _check(type(older) is bool, path, "allow_older", older, "true or false")
        return cls(
            path,
            length,
            sha256,
            channels=tuple(note["channels"]),
            devices=tuple(note["devices"]),
            allow_older=note["allow_older"],
            read_from=dict(note),
            **fields,  # type: ignore[arg-type]
        )


def _check(held: object, path: str, key: str, found: object, expected: str) -> None:
    if not held:
        raise InputError(f"{path}: {key} of its note is {str(found)[:60]!r}: expected {expected}")


def target_path(name: str, version: str) -> str:
    """Path of a bundle within the repository."""
    return f"{name}-{version}.bundle"


def read_offers(targets: Iterable[tuple[str, int, str, object]]) -> tuple[Offer, ...]:
    """Offers of targets (path, length, sha256, custom); those that are none of ours are left out.

    One that a later soundpost has written must not keep an earlier one from its own.
    """
    offers = []
    for path, length, sha256, custom in targets:
        try:
            offers.append(Offer.from_custom(path, length, sha256, custom))
        except InputError as error:
            _LOGGER.info("not offered here: %s", error)
    return tuple(offers)


@dataclass(frozen=True)
class Installed:
    """The model that runs now."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Choice:
    """The offer to take, or none.

    reason : one line, why this one or why none
    result : where there is none, whether that is as it should be (`up_to_date`), the repository's
        fault (`failed`), or because the model does not fit here (`refused`) or was no good
        (`rejected`)
    """

    offer: Offer | None
    reason: str
    result: Literal["up_to_date", "failed", "refused", "rejected"] = "up_to_date"


def choose(
    offers: Collection[Offer],
    device: str,
    channel: str,
    installed: Installed | None,
    rejected: Collection[str] = (),
) -> Choice:
    """Which offer this device is to install.

    A pin goes before the channel. Of the model that is installed, only a newer version is taken,
    unless the offer allows an older one.

    Parameters
    ----------
    device, channel : of this device
    installed : None where nothing is
    rejected : sha256 of bundles that were tried here and taken back
    """
    pinned = [offer for offer in offers if device in offer.devices]
    meant = pinned or [offer for offer in offers if channel in offer.channels]
    how = f"{device!r} is pinned to" if pinned else f"channel {channel!r} has"
    if not meant:
        filled = sorted({name for offer in offers for name in offer.channels})
        return Choice(
            None,
            f"channel {channel!r} is empty: the repository has models in "
            f"{', '.join(filled) or 'none'}; set another channel, or `soundpost repo add` one",
            "failed",
        )
    if len(meant) > 1:
        listed = ", ".join(sorted(offer.path for offer in meant))
        return Choice(
            None, f"{how} several models: {listed}; `soundpost repo add` one of them", "failed"
        )
    (offer,) = meant
    unfit = _unfit(offer)
    if unfit:
        return Choice(None, f"{how} {offer.path}, which {unfit}", "refused")
    if offer.sha256 in rejected:
        return Choice(
            None,
            f"{how} {offer.path}, which was tried on this device and taken back",
            "rejected",
        )
    if installed is None:
        return Choice(offer, f"{how} {offer.path}; nothing is installed")
    if offer.sha256 == installed.sha256:
        return Choice(None, f"{how} {offer.path}, which is installed")
    if offer.name == installed.name and not offer.allow_older:
        order = compare_versions(offer.version, installed.version)
        if order <= 0:
            what = "older than" if order < 0 else "no newer than"
            return Choice(None, f"{how} {offer.path}, {what} the {installed.version} installed")
    return Choice(offer, f"{how} {offer.path}; {installed.name} {installed.version} is installed")


def _unfit(offer: Offer) -> str:
    """Why no device with this soundpost can run it; empty where nothing is known against it."""
    if offer.length > MAX_BUNDLE_BYTES:
        return f"has {offer.length} bytes: expected at most {MAX_BUNDLE_BYTES}"
    if offer.kind not in KINDS:
        return f"is of kind {offer.kind[:40]!r}: this soundpost runs {' and '.join(KINDS)}"
    try:
        parameters = json.loads(offer.front_end)
        computed = FrontEnd.from_dict(parameters if isinstance(parameters, dict) else {}).hash()
    except InputError as error:
        return f"this device cannot hear with: {error}"
    except (ValueError, RecursionError):
        return "has a note without front end; `soundpost repo add` it again"
    if computed != offer.front_end_hash:
        return (
            f"was made for another front end ({offer.front_end_hash[:12]}, here "
            f"{computed[:12]}); update soundpost on this device or export the bundle again"
        )
    return ""


def compare_versions(first: str, second: str) -> int:
    """Negative where the first is older, 0 where neither is (https://semver.org, section 11)."""
    one, other = _precedence(first), _precedence(second)
    return (one > other) - (one < other)


def _precedence(version: str) -> tuple[object, ...]:
    release, _, before = version.partition("+")[0].partition("-")
    numbers = tuple(int(number) for number in release.split("."))
    # A release follows all of its pre-releases; numbers come before words.
    parts = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in before.split(".")
    )
    return (numbers, not before, parts if before else ())


def check_fetched(offer: Offer, path: Path) -> Bundle:
    """The bundle of a downloaded file, once it is what the offer says.

    Raises UpdateRefusedError: not a bundle in order, or another model than was offered.
    """
    try:
        bundle = read_bundle(path)
    except BundleError as error:
        raise UpdateRefusedError(f"{offer.path}: {error}") from error
    manifest = bundle.manifest
    told = (offer.sha256, offer.name, offer.version, offer.kind, offer.front_end_hash)
    found = (
        bundle.sha256,
        manifest.name,
        manifest.version,
        manifest.kind,
        manifest.front_end.hash(),
    )
    words = ("sha256", "name", "version", "kind", "front end")
    for word, expected, is_there in zip(words, told, found, strict=True):
        if expected != is_there:
            raise UpdateRefusedError(
                f"{offer.path}: its {word} is {is_there[:40]}, the repository says "
                f"{expected[:40]}; add the bundle to the repository again"
            )
    return bundle
