"""The folder of a repository: what is published, what is staged, and who is at work.

    repository.json               settings
    keys/*.pem                    private keys, unless they are kept elsewhere
    staged/root.json              the next root, while it gathers signatures
    staged/targets.json           the next list of models, signed
    staged/bundles/*.bundle       their files
    signed/*.json                 every root, list of models, snapshot; the last timestamp
    public/metadata, /targets     what devices fetch: copies

What is public may lie on a machine that others have broken into: it is written, compared and never
believed. Whatever has a number never changes: `timestamp.json` alone is replaced, last, and names
the rest (TUF calls this consistent snapshots).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.export.repository.settings import RepositorySettings, read_settings


class RepositoryBusyError(UsageError):
    """Another command works on the repository."""


_T = TypeVar("_T", Root, Snapshot, Targets, Timestamp)


class RepositoryFolder:
    """One repository; raises InputError where the folder is none.

    A value of None means that nothing of the kind is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: RepositorySettings = read_settings(path)
        self.metadata = path / "signed"
        self.public = path / self.settings.public
        self.public_metadata, self.targets = self.public / "metadata", self.public / "targets"
        self._staged = path / "staged"
        self.staged_bundles = self._staged / "bundles"
        self.staged_root_file = self._staged / "root.json"
        self._staged_targets_file = self._staged / "targets.json"

    # --------------------------------------------------------------------------- what is there

    def published_root(self) -> Metadata[Root] | None:
        """The newest root that was published."""
        numbers = [
            int(number)
            for path in self.metadata.glob("*.root.json")
            if (number := path.name.removesuffix(".root.json")).isdecimal()
        ]
        return _read(self.root_file(max(numbers)), Root) if numbers else None

    def public_root(self) -> Metadata[Root] | None:
        """The newest root that devices can fetch; an older one after a push that was cut short."""
        published = self.published_root()
        for version in range(published.signed.version if published else 0, 0, -1):
            file = self.root_file(version)
            copy = self.public_metadata / file.name
            if copy.is_file() and copy.read_bytes() == file.read_bytes():
                return _read(file, Root)
        return None

    def is_public(self) -> bool:
        """Whether devices can fetch all that was published; not after a push that was cut short."""
        root, public = self.published_root(), self.public_root()
        if root is None or public is None or root.signed.version != public.signed.version:
            return False
        name = "timestamp.json"
        try:
            # It is copied out after all that it names.
            return (self.metadata / name).read_bytes() == (self.public_metadata / name).read_bytes()
        except OSError:
            return False

    def published_timestamp(self) -> Metadata[Timestamp] | None:
        """timestamp.json."""
        return _read(self.metadata / "timestamp.json", Timestamp)

    def published_snapshot(self) -> Metadata[Snapshot] | None:
        """The snapshot that the timestamp names."""
        timestamp = self.published_timestamp()
        if timestamp is None:
            return None
        version = timestamp.signed.snapshot_meta.version
        return _needed(self.metadata / f"{version}.snapshot.json", Snapshot)

    def published_targets(self) -> Metadata[Targets] | None:
        """The list of models that the snapshot names."""
        snapshot = self.published_snapshot()
        if snapshot is None:
            return None
        version = snapshot.signed.meta["targets.json"].version
        return _needed(self.metadata / f"{version}.targets.json", Targets)

    def staged_root(self) -> Metadata[Root] | None:
        """The next root, unless it is published already (a push that was cut short)."""
        staged = _read(self.staged_root_file, Root)
        published = self.published_root()
        if staged and published and staged.signed.version <= published.signed.version:
            return None
        return staged

    def staged_targets(self) -> Metadata[Targets] | None:
        """The next list of models, unless it is published already."""
        staged = _read(self._staged_targets_file, Targets)
        published = self.published_targets()
        if staged and published and staged.signed.version <= published.signed.version:
            return None
        return staged

    def root(self) -> Metadata[Root]:
        """The root that the next push is for: the staged one, else the published one."""
        root = self.staged_root() or self.published_root()
        if root is None:
            raise InputError(
                f"{self.path}: has no root metadata; make it anew: soundpost repo init"
            )
        return root

    def targets_now(self) -> Metadata[Targets]:
        """The list of models that the next push is to publish."""
        targets = self.staged_targets() or self.published_targets()
        if targets is None:
            raise InputError(
                f"{self.path}: has no list of models; make it anew: soundpost repo init"
            )
        return targets

    def root_file(self, version: int) -> Path:
        """Where a root is kept."""
        return self.metadata / f"{version}.root.json"

    # ------------------------------------------------------------------------------- staging

    def stage_root(self, root: Metadata[Root]) -> None:
        """Keep a root for the next push."""
        self._staged.mkdir(exist_ok=True)
        write_atomically(self.staged_root_file, root.to_bytes())

    def stage_targets(self, targets: Metadata[Targets]) -> None:
        """Keep a list of models for the next push."""
        self._staged.mkdir(exist_ok=True)
        write_atomically(self._staged_targets_file, targets.to_bytes())

    def stage_bundle(self, sha256: str, content: bytes) -> None:
        """Keep the file of a model for the next push."""
        self.staged_bundles.mkdir(parents=True, exist_ok=True)
        write_atomically(self.staged_bundles / f"{sha256}.bundle", content)

    def clear_staged(self) -> None:
        """Remove what a push has published; the next root stays while it lacks signatures."""
        if self.staged_root() is None:
            self.staged_root_file.unlink(missing_ok=True)
        if self.staged_targets() is None:
            self._staged_targets_file.unlink(missing_ok=True)
            for path in self.staged_bundles.glob("*"):
                path.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Work on the repository alone; RepositoryBusyError where another command does.

        The lock goes with its process, however that ends.
        """
        with alone(self.path, ".lock") as other:
            if other is not None:
                raise RepositoryBusyError(
                    f"{self.path}: another `soundpost repo` is at work here (process {other}); "
                    "wait for it, then run the same command again; nothing was changed"
                )
            yield


@contextmanager
def alone(folder: Path, name: str) -> Iterator[str | None]:
    """Hold the lock of this name in a folder; the process that has it already, or None.

    Raises InputError where the folder cannot be written.
    """
    try:
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            return
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield None
    finally:
        os.close(handle)


def vouches(delegator: Signed, role: str, metadata: Metadata[_T]) -> bool:
    """Whether enough keys of a role, as a root names them, have signed."""
    assert isinstance(delegator, Root)
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        return False
    return True


def _read(path: Path, kind: type[_T]) -> Metadata[_T] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        metadata: Metadata[_T] = Metadata.from_bytes(content)
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"is of type {metadata.signed.type}")
    except (RepositoryError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is damaged ({reason}); restore it from a copy") from error
    return metadata


def _needed(path: Path, kind: type[_T]) -> Metadata[_T]:
    metadata = _read(path, kind)
    if metadata is None:
        raise InputError(f"{path}: is missing, and published metadata names it; restore it")
    return metadata
