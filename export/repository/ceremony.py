"""Roots of trust: made in a ceremony, replaced and signed anew.

A device believes whatever the root keys say, so that they are many, few of which must sign, and lie
where no network is. The other roles sign from day to day with one key each, which a root replaces
when it is lost. A new root is signed by enough keys of the last one and of its own; it waits in
`staged` until the last of them has been at hand (`add_signatures`), on other machines if need be.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Role, Root, Targets

from soundpost.device.errors import InputError, UsageError
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import ROLES, KeyRing, Passphrase, save_key
from soundpost.export.repository.publish import Published, push
from soundpost.export.repository.settings import RepositorySettings, write_settings
from soundpost.export.repository.signing import (
    missing_signatures,
    next_targets,
    required_signers,
    sign,
    signers_of,
)

# More than any council of operators; each is a signature in every root.
MAX_ROOT_KEYS = 20


@dataclass(frozen=True)
class RootKeys:
    """How many root keys there are, and how many of them must sign."""

    count: int = 3
    threshold: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= self.count <= MAX_ROOT_KEYS:
            raise UsageError(
                f"{self.count} root keys of which {self.threshold} sign: expected at most "
                f"{MAX_ROOT_KEYS} keys, and a threshold of 1 to their number"
            )


@dataclass(frozen=True)
class RootChange:
    """What became of a root.

    version : of the root that is staged
    key_files : that were written
    missing : a line for each threshold it does not reach yet
    """

    version: int
    key_files: tuple[Path, ...]
    missing: tuple[str, ...]


def init_repository(
    path: Path,
    settings: RepositorySettings,
    root_keys: RootKeys,
    passphrase: Passphrase,
    now: datetime,
    root_folder: Path | None = None,
) -> tuple[Published, tuple[Path, ...]]:
    """Make keys and an empty repository, and publish it; returns the files of the keys too.

    root_folder : for the root keys alone, such as a memory stick

    Raises InputError where something is there already; nothing is changed then. One that is cut
    short leaves either nothing under the name, or a repository that `push` publishes.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path}: is there already; choose another name, or go on with `soundpost repo push "
            f"{path}` if it is a repository"
        )
    locked_by = passphrase.get(new=True)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        (aside / "keys").mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror})") from error
    try:
        ring = KeyRing([path / "keys", *([root_folder] if root_folder else [])], passphrase)
        root = Root(expires=now + timedelta(days=settings.days.root), consistent_snapshot=True)
        saved = []
        for role in ROLES:
            for _ in range(root_keys.count if role == Root.type else 1):
                signer = CryptoSigner.generate_ed25519()
                ring.remember(signer)
                root.add_key(signer.public_key, role)
                elsewhere = root_folder if role == Root.type else None
                saved.append(save_key(signer, role, elsewhere or aside / "keys", locked_by))
        root.roles[Root.type].threshold = root_keys.threshold
        write_settings(aside, settings)
        made = RepositoryFolder(aside)
        signed = Metadata(root)
        sign(signed, signers_of(ring, Root.type, signed))
        made.stage_root(signed)
        targets = Metadata(Targets(expires=now + timedelta(days=settings.days.targets)))
        sign(targets, signers_of(ring, Targets.type, signed))
        made.stage_targets(targets)
        try:
            aside.rename(path)
            _flush(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be made ({error.strerror})") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    files = tuple(
        path / "keys" / file.name if file.parent == aside / "keys" else file for file in saved
    )
    return push(RepositoryFolder(path), ring, now), files


def rotate(
    repository: RepositoryFolder,
    role: str,
    ring: KeyRing,
    now: datetime,
    root_keys: RootKeys | None = None,
    key_folder: Path | None = None,
) -> RootChange:
    """Stage a root in which new keys have taken the place of a role's.

    root_keys : of the new root, where `role` is root; as many as before by default
    key_folder : for the new keys; the repository's own by default

    Raises UsageError without any root key at hand; nothing is changed then.
    """
    with repository.lock():
        root, before = _next_root(repository, ring, now)
        old = root.signed.roles[role]
        wanted = RootKeys(len(old.keyids), old.threshold)
        if role == Root.type and root_keys is not None:
            wanted = root_keys
        locked_by = ring.passphrase.get(new=True)
        for keyid in list(old.keyids):
            root.signed.revoke_key(keyid, role)
        saved = []
        for _ in range(wanted.count):
            signer = CryptoSigner.generate_ed25519()
            ring.remember(signer)
            root.signed.add_key(signer.public_key, role)
            folder = key_folder or repository.path / "keys"
            saved.append(save_key(signer, role, folder, locked_by))
        root.signed.roles[role] = Role(root.signed.roles[role].keyids, wanted.threshold)
        if role == Targets.type:
            # First, for without it nothing could be published once the root is staged.
            _renew_targets(repository, ring, now, root)
        return replace(_stage(repository, root, before, ring), key_files=tuple(saved))


def renew(repository: RepositoryFolder, role: str, ring: KeyRing, now: datetime) -> RootChange:
    """Sign root or targets anew with the keys they have, for another term.

    Raises UsageError without the keys; nothing is changed then.
    """
    if role not in (Root.type, Targets.type):
        raise UsageError(f"--renew {role}: every `soundpost repo push` renews it; push")
    with repository.lock():
        if role == Root.type:
            root, before = _next_root(repository, ring, now)
            return _stage(repository, root, before, ring)
        version = _renew_targets(repository, ring, now)
        return RootChange(version, (), ())


def add_signatures(repository: RepositoryFolder, ring: KeyRing) -> RootChange:
    """Add the signatures of the root keys at hand to the staged root.

    Raises UsageError where no root is staged, or none of the keys that it lacks is at hand.
    """
    with repository.lock():
        root = repository.staged_root()
        if root is None:
            raise UsageError(
                f"{repository.path}: no root waits for signatures; nothing was changed"
            )
        before = repository.published_root()
        signers = signers_of(ring, Root.type, before, root)
        new = [signer for signer in signers if signer.public_key.keyid not in root.signatures]
        missing = missing_signatures(root, before)
        if missing and not new:
            raise UsageError(f"{missing[0]}; give their folder with --keys; nothing was changed")
        for signer in new:
            root.sign(signer, append=True)
        repository.stage_root(root)
        return RootChange(root.signed.version, (), tuple(missing_signatures(root, before)))


def _next_root(
    repository: RepositoryFolder, ring: KeyRing, now: datetime
) -> tuple[Metadata[Root], Metadata[Root]]:
    """A copy of the root that devices have under the next number, and that root."""
    before = repository.published_root()
    if before is None:
        raise InputError(f"{repository.path}: was never published; run `soundpost repo push` first")
    staged = repository.staged_root()
    if staged is not None:
        raise UsageError(
            f"root {staged.signed.version} is staged already: sign it if need be (`soundpost repo "
            f"sign`) and push, or give it up by removing {repository.staged_root_file}; nothing "
            "was changed"
        )
    if not signers_of(ring, Root.type, before):
        # Raises, and says which keys.
        required_signers(ring, Root.type, before)
    root: Metadata[Root] = Metadata.from_bytes(before.to_bytes())
    root.signed.version += 1
    root.signed.expires = now + timedelta(days=repository.settings.days.root)
    return root, before


def _stage(
    repository: RepositoryFolder, root: Metadata[Root], before: Metadata[Root], ring: KeyRing
) -> RootChange:
    sign(root, signers_of(ring, Root.type, before, root))
    repository.stage_root(root)
    return RootChange(root.signed.version, (), tuple(missing_signatures(root, before)))


def _renew_targets(
    repository: RepositoryFolder,
    ring: KeyRing,
    now: datetime,
    root: Metadata[Root] | None = None,
) -> int:
    targets, signers = next_targets(repository, ring, now, root)
    sign(targets, signers)
    repository.stage_targets(targets)
    return targets.signed.version


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
