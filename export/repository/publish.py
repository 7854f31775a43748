"""Publication: what is staged becomes what devices fetch, in an order that is safe at any instant.

All is signed and kept first. Then it is copied out: files of models, the list of models, the
snapshot that names the list, all under names that nothing public names yet; then the timestamp, by
whose replacement devices see it all; then the next root. Where keys were replaced, everything new
is signed by the old key too if it is at hand, and so is valid before that root and after it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.export.repository.folder import RepositoryFolder, vouches
from soundpost.export.repository.keys import KeyRing
from soundpost.export.repository.signing import missing_signatures, required_signers


@dataclass(frozen=True)
class Published:
    """Version of each role as devices see it now; notes are lines on what was left out or is due.

    files : of models that were not there before
    """

    root: int
    targets: int
    snapshot: int
    timestamp: int
    expires: datetime
    files: int
    notes: tuple[str, ...]


def push(repository: RepositoryFolder, ring: KeyRing, now: datetime) -> Published:
    """Publish what is staged and a new timestamp; with nothing staged, the timestamp alone.

    Raises
    ------
    UsageError
        The keys of snapshot or timestamp are not at hand; root or list of models has expired, or is
        not signed by the keys that the root names. Nothing is changed then.
    InputError
        A file that the list names is missing or damaged, or the folder cannot be written: devices
        then see what they saw before.
    """
    with repository.lock():
        notes: list[str] = []
        before = repository.published_root()
        root = _root_to_publish(repository, before, notes)
        targets = _targets_to_publish(repository, root, before, notes)
        for role, metadata in ((Root.type, root), (Targets.type, targets)):
            left = metadata.signed.expires - now
            if left <= timedelta(0):
                raise UsageError(
                    f"the {role} metadata expired on {metadata.signed.expires:%Y-%m-%d}: "
                    f"`soundpost repo rotate {repository.path} {role} --renew` first, with the "
                    f"{role} keys; nothing was changed"
                )
            if left < timedelta(days=getattr(repository.settings.days, role)) / 4:
                notes.append(
                    f"{role} expires in {left / timedelta(days=1):.1f} days: soundpost repo rotate "
                    f"{repository.path} {role} --renew"
                )
        public = repository.public_root()
        keys = {
            role: required_signers(ring, role, root, public)
            for role in (Snapshot.type, Timestamp.type)
        }
        if public is not None and root.signed.version > public.signed.version:
            _note_gap(public, targets, keys, notes)

        files = _publish_bundles(repository, targets)
        number = targets.signed.version
        listed = _keep(repository, f"{number}.targets.json", targets)
        snapshot = _snapshot(repository, root, listed, number, now)
        if not snapshot.signatures:
            for signer in keys[Snapshot.type]:
                snapshot.sign(signer, append=True)
        content = _keep(repository, f"{snapshot.signed.version}.snapshot.json", snapshot)
        last = repository.published_timestamp()
        timestamp = Metadata(
            Timestamp(
                version=last.signed.version + 1 if last else 1,
                expires=now + timedelta(days=repository.settings.days.timestamp),
                snapshot_meta=MetaFile.from_data(snapshot.signed.version, content, ["sha256"]),
            )
        )
        for signer in keys[Timestamp.type]:
            timestamp.sign(signer, append=True)
        _keep(repository, "timestamp.json", timestamp)
        _keep(repository, f"{root.signed.version}.root.json", root)
        names = [f"{number}.targets.json", f"{snapshot.signed.version}.snapshot.json"]
        roots = [f"{version}.root.json" for version in range(1, root.signed.version + 1)]
        # Where no device has a root yet, the roots go before what they vouch for.
        names += [*roots, "timestamp.json"] if public is None else ["timestamp.json", *roots]
        for name in names:
            _copy_out(repository, name)
        repository.clear_staged()
        return Published(
            root.signed.version,
            number,
            snapshot.signed.version,
            timestamp.signed.version,
            timestamp.signed.expires,
            files,
            tuple(notes),
        )


def _root_to_publish(
    repository: RepositoryFolder, before: Metadata[Root] | None, notes: list[str]
) -> Metadata[Root]:
    staged = repository.staged_root()
    if staged is None:
        return repository.root()
    missing = missing_signatures(staged, before)
    if not missing:
        return staged
    if before is None:
        raise UsageError(f"{missing[0]}; sign it with `soundpost repo sign`")
    notes.extend(f"{line}; it waits (`soundpost repo sign`)" for line in missing)
    return before


def _targets_to_publish(
    repository: RepositoryFolder,
    root: Metadata[Root],
    before: Metadata[Root] | None,
    notes: list[str],
) -> Metadata[Targets]:
    staged, published = repository.staged_targets(), repository.published_targets()
    for targets in (staged, published):
        if targets is not None and vouches(root.signed, Targets.type, targets):
            if targets is published and staged is not None:
                notes.append("the staged list of models waits for the root that names its key")
            return targets
    raise UsageError(
        f"the list of models is not signed by the targets key of root {root.signed.version}: "
        f"`soundpost repo rotate {repository.path} targets --renew` with that key; nothing was "
        "changed"
    )


def _note_gap(
    public: Metadata[Root],
    targets: Metadata[Targets],
    keys: dict[str, list[CryptoSigner]],
    notes: list[str],
) -> None:
    """Tell of old keys that were not at hand: what they would have signed is not yet valid."""
    absent = [] if vouches(public.signed, Targets.type, targets) else [Targets.type]
    for role, signers in keys.items():
        old = public.signed.roles[role]
        if sum(signer.public_key.keyid in old.keyids for signer in signers) < old.threshold:
            absent.append(role)
    if absent:
        notes.append(
            f"the old {' and '.join(absent)} key was not at hand: a device that asked within this "
            "very push was refused, and succeeds when it asks again"
        )


def _publish_bundles(repository: RepositoryFolder, targets: Metadata[Targets]) -> int:
    """Put every file that the list names in its place; returns how many were not there."""
    count = 0
    for target in targets.signed.targets.values():
        (name,) = target.get_prefixed_paths()
        place = repository.targets / name
        if _is_whole(place, target):
            continue
        staged = repository.staged_bundles / f"{target.hashes['sha256']}.bundle"
        if not _is_whole(staged, target):
            raise InputError(
                f"{place}: is missing or damaged, and not staged either; `soundpost repo add` the "
                "bundle again; devices see what they saw before"
            )
        _make_folder(repository.targets)
        write_atomically(place, staged.read_bytes())
        count += 1
    return count


def _is_whole(path: Path, target: TargetFile) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        # Missing, or made a folder of by whoever else may write there.
        return False
    return hashlib.sha256(content).hexdigest() == target.hashes["sha256"]


def _snapshot(
    repository: RepositoryFolder,
    root: Metadata[Root],
    listed: bytes,
    number: int,
    now: datetime,
) -> Metadata[Snapshot]:
    """The published snapshot where it still does; else the next one, not yet signed."""
    last = repository.published_snapshot()
    term = timedelta(days=repository.settings.days.snapshot)
    if (
        last is not None
        and last.signed.meta["targets.json"].version == number
        and last.signed.expires - now > term / 2
        and vouches(root.signed, Snapshot.type, last)
    ):
        return last
    return Metadata(
        Snapshot(
            version=last.signed.version + 1 if last else 1,
            expires=now + term,
            meta={"targets.json": MetaFile.from_data(number, listed, ["sha256"])},
        )
    )


def _keep(repository: RepositoryFolder, name: str, metadata: Metadata[Any]) -> bytes:
    """Keep signed metadata; returns their content."""
    content = metadata.to_bytes()
    _write_new(repository.metadata / name, content)
    return content


def _copy_out(repository: RepositoryFolder, name: str) -> None:
    _write_new(repository.public_metadata / name, (repository.metadata / name).read_bytes())


def _write_new(path: Path, content: bytes) -> None:
    """Write a file unless it is there already."""
    _make_folder(path.parent)
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be made ({error.strerror}); see that what is published is mounted, "
            "and that this user may write there"
        ) from error
