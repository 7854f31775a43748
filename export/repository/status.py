"""What a repository holds and how long its signatures last, for a person or a program."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tuf.api.metadata import Metadata, Root

from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import Offer
from soundpost.export.repository.contents import offers_of
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import ROLES, KeyRing
from soundpost.export.repository.signing import missing_signatures


def status_table(
    repository: RepositoryFolder, now: datetime, channel: str | None = None
) -> dict[str, Any]:
    """State of a repository as JSON holds it.

    channel : the only one to tell about

    Raises UsageError where that channel is unknown or empty.
    """
    published: dict[str, Metadata[Any] | None] = {
        "root": repository.published_root(),
        "targets": repository.published_targets(),
        "snapshot": repository.published_snapshot(),
        "timestamp": repository.published_timestamp(),
    }
    targets = published["targets"]
    offers = offers_of(targets.signed) if targets is not None else ()
    staged_root, staged = repository.staged_root(), repository.staged_targets()
    channels = {name: _in_channel(offers, name) for name in repository.settings.channels}
    if channel is not None:
        repository.settings.check_channels([channel])
        if channels[channel] is None:
            filled = ", ".join(name for name, model in channels.items() if model) or "none"
            raise UsageError(
                f"channel {channel!r} is empty; with a model: {filled}; `soundpost repo add` one"
            )
        channels = {channel: channels[channel]}
    return {
        "public": str(repository.public),
        "roles": {
            role: {
                "version": metadata.signed.version,
                "expires": f"{metadata.signed.expires:%Y-%m-%dT%H:%M:%SZ}",
                "days_left": round((metadata.signed.expires - now).total_seconds() / 86_400, 2),
            }
            for role, metadata in published.items()
            if metadata is not None
        },
        "channels": channels,
        "pinned": {device: _model(offer) for offer in offers for device in offer.devices},
        "staged": None
        if staged is None
        else [
            _model(offer) | {"channels": list(offer.channels), "devices": list(offer.devices)}
            for offer in offers_of(staged.signed)
        ],
        "staged_root": None
        if staged_root is None
        else {
            "version": staged_root.signed.version,
            "missing": missing_signatures(staged_root, published["root"]),
        },
    }


def _in_channel(offers: tuple[Offer, ...], name: str) -> dict[str, Any] | None:
    return next((_model(offer) for offer in offers if name in offer.channels), None)


def _model(offer: Offer) -> dict[str, Any]:
    return {
        "name": offer.name,
        "version": offer.version,
        "sha256": offer.sha256,
        "bytes": offer.length,
        "allow_older": offer.allow_older,
    }


def status_lines(table: dict[str, Any]) -> list[str]:
    """The table as a person reads it."""
    lines = [f"published in {table['public']}"]
    for role, state in table["roles"].items():
        left = state["days_left"]
        when = f"{left:.1f} days left" if left > 0 else "EXPIRED"
        lines.append(f"  {role:<10} version {state['version']:<5} until {state['expires']}, {when}")
    lines.append("channels")
    for name, model in table["channels"].items():
        lines.append(f"  {name:<10} {_line(model) if model else 'empty'}")
    if table["pinned"]:
        lines.append("pinned")
        lines += [f"  {device:<10} {_line(model)}" for device, model in table["pinned"].items()]
    if table["staged"] is not None:
        lines.append("staged, to be published by `soundpost repo push`")
        for model in table["staged"]:
            lines.append(f"  {_line(model)}: {', '.join(model['channels'] + model['devices'])}")
    if table["staged_root"] is not None:
        lines.append(f"root {table['staged_root']['version']} is staged")
        lines += [f"  {line}" for line in table["staged_root"]["missing"]]
    return lines


def _line(model: dict[str, Any]) -> str:
    size = f"{model['bytes']:,} bytes" + (", older allowed" if model["allow_older"] else "")
    return f"{model['name']} {model['version']} ({model['sha256'][:12]}, {size})"


def key_table(root: Root, ring: KeyRing) -> list[dict[str, Any]]:
    """Each key that a root names, and where its private half is (empty: out of reach)."""
    return [
        {
            "role": role,
            "threshold": root.roles[role].threshold,
            "keyid": keyid,
            "place": ring.place(role, keyid),
        }
        for role in ROLES
        for keyid in root.roles[role].keyids
    ]
