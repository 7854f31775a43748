"""What a repository's keys vouch for: its offers and their files.

The workflow is that of The Update Framework, by python-tuf's client: from the root that this device
was given, by signatures, versions and expiry, to the list of bundles and the sha256 of each
(https://theupdateframework.github.io/specification/latest/, section 5). Fetching is ours
(`bounded_fetch`), for python-tuf's stops gaps but not drips, and begins a file anew each time.

Expiry can be judged only by a clock that is right: without one nothing is fetched. Versions that
were seen are on disk, and an older one is refused whatever the clock says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import (
    InputError,
    UpdateDeferredError,
    UpdateError,
    UpdateRefusedError,
    UpdateUnreachableError,
)
from soundpost.device.files import write_atomically
from soundpost.device.updates.bounded_fetch import (
    NotThereError,
    Pace,
    TooLongError,
    open_body,
)
from soundpost.device.updates.connection import Deadline
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Offer, check_fetched, read_offers

# A repository of hundreds of bundles stays far below these.
_LENGTHS = UpdaterConfig(
    max_root_rotations=256,
    root_max_length=256_000,
    timestamp_max_length=16_384,
    snapshot_max_length=256_000,
    targets_max_length=4_000_000,
)
# No device that runs this program can see an earlier time. To be moved on with each release.
_EARLIEST_S = datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()
# By how much a clock may be set back: the system's own corrections, and then some.
_BACK_S = 86_400.0
_SEEN = "seen"


class _Fetcher(FetcherInterface):
    """python-tuf's way to the network: bounded, and with one deadline for all of a refresh."""

    def __init__(self, pace: Pace, deadline: Deadline) -> None:
        self._pace, self._deadline = pace, deadline

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("only download_bytes is called by a refresh")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            with open_body(url, max_length, self._pace, self._deadline) as body:
                return b"".join(body.blocks)
        except NotThereError as error:
            # python-tuf takes these two of a root for "there is no newer one", and no others.
            raise exceptions.DownloadHTTPError(str(error), error.status) from error
        except UpdateError as error:
            raise exceptions.DownloadError(str(error)) from error


class TrustedRepository:
    """One repository as this device trusts it.

    Parameters
    ----------
    location : address or folder that holds `metadata` and `targets`
    trusted_root : content of a root.json that came to this device by a safe way
    folder : what was verified is kept here, for this repository alone
    refresh_s, download_s : bounds on the time of a refresh, and of one attempt at a bundle
    synchronised, utc_s : tell whether the system clock is right, and what it says
    """

    def __init__(
        self,
        location: str,
        trusted_root: bytes,
        folder: Path,
        pace: Pace | None = None,
        *,
        refresh_s: float = 120.0,
        download_s: float = 1_800.0,
        synchronised: Callable[[], bool] = clock_synchronised,
        utc_s: Callable[[], float] = time.time,
    ) -> None:
        self.location = _address(location)
        self._trusted_root = trusted_root
        self._folder = folder
        self._pace = pace or Pace()
        self._refresh_s, self._download_s = refresh_s, download_s
        self._synchronised, self._utc_s = synchronised, utc_s

    def refresh(self) -> tuple[Offer, ...]:
        """What the repository offers now.

        Raises
        ------
        UpdateDeferredError
            The clock is not synchronised.
        UpdateUnreachableError
            The repository does not answer, or too slowly.
        UpdateRefusedError
            What it answers is not signed by its keys, is older than what was seen before, has
            expired, does not belong together, or is longer than it may be.
        InputError
            The folder cannot be written.
        """
        self._require_clock()
        fetcher = _Fetcher(self._pace, Deadline(self._refresh_s))
        with self._told():
            self._folder.mkdir(parents=True, exist_ok=True)
            known = _files(self._folder)
            updater = Updater(
                str(self._folder),
                f"{self.location}metadata/",
                fetcher=fetcher,
                config=_LENGTHS,
                bootstrap=self._trusted_root,
            )
            try:
                updater.refresh()
            finally:
                # Versions that were seen must outlive a power cut.
                _flush(self._folder, known)
            # The refresh has verified this file, whether it was there already or is new.
            targets = Metadata[Targets].from_file(str(self._folder / "targets.json")).signed
            self._see()
        return read_offers(
            (path, target.length, target.hashes.get("sha256", ""), target.custom)
            for path, target in targets.targets.items()
        )

    def download(
        self, offer: Offer, store: ModelStore, progress: Callable[[int], None] | None = None
    ) -> Path:
        """Fetch a bundle into the store's downloads; returns its file, verified and on disk.

        offer : of the last `refresh`
        progress : told how many bytes of it are there; what it raises breaks the attempt off

        An attempt that breaks off is continued by the next one. Raises as `refresh` does, and
        UpdateDeferredError where the disk has too little room.
        """
        self._require_clock()
        part = store.downloads / f"{offer.sha256}.part"
        target = TargetFile(offer.length, {"sha256": offer.sha256}, offer.path)
        with self._told():
            for other in store.downloads.iterdir():
                if other != part:
                    other.unlink()
            start = part.stat().st_size if part.exists() else 0
            if start < offer.length:
                store.require_space(offer.length - start)
            try:
                if start < offer.length:
                    self._receive(target, part, start, progress or (lambda _n_bytes: None))
                with part.open("rb") as file:
                    target.verify_length_and_hashes(file)
                check_fetched(offer, part)
            except (exceptions.RepositoryError, UpdateRefusedError):
                # It may be what an earlier attempt was given: the next one begins anew.
                part.unlink(missing_ok=True)
                raise
        return part

    def _receive(
        self, target: TargetFile, part: Path, start: int, progress: Callable[[int], None]
    ) -> None:
        (name,) = target.get_prefixed_paths()
        deadline = Deadline(self._download_s)
        with (
            open_body(
                f"{self.location}targets/{name}", target.length, self._pace, deadline, start
            ) as body,
            part.open("r+b" if start else "wb") as file,
        ):
            file.seek(body.start)
            file.truncate()
            try:
                for block in body.blocks:
                    file.write(block)
                    progress(file.tell())
            finally:
                file.flush()
                os.fsync(file.fileno())

    def _require_clock(self) -> None:
        if not self._synchronised():
            raise UpdateDeferredError(
                "updates wait for the clock: the system says that it is not synchronised, and "
                "without it nobody can tell what has expired; see `timedatectl`"
            )
        # A time server may be wrong, or lie, to let what has expired look fresh.
        now_s, seen_s = self._utc_s(), max(_EARLIEST_S, self._seen_s())
        if now_s < seen_s - _BACK_S:
            now, seen = (datetime.fromtimestamp(at, timezone.utc) for at in (now_s, seen_s))
            raise UpdateDeferredError(
                f"updates wait for the clock: it says {now:%Y-%m-%d}, and {seen:%Y-%m-%d} is past "
                "already; see `timedatectl`"
            )

    def _seen_s(self) -> float:
        """Time of the last refresh whose metadata were in order, which an early clock contradicts.

        One that was late is no harm: metadata that have not expired by it bound how late.
        """
        try:
            return int((self._folder / _SEEN).read_text("ascii"))
        except (OSError, ValueError):
            return 0.0

    def _see(self) -> None:
        now_s = self._utc_s()
        # A day is close enough, and saves an SD card.
        if now_s > self._seen_s() + _BACK_S:
            write_atomically(self._folder / _SEEN, f"{now_s:.0f}\n".encode())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of python-tuf and of the disk, as this package tells them."""
        try:
            yield
        except exceptions.DownloadError as error:
            cause = error.__cause__
            if isinstance(cause, TooLongError | UpdateRefusedError):
                raise UpdateRefusedError(str(cause)) from error
            raise UpdateUnreachableError(" ".join(str(error).split())[:300]) from error
        except exceptions.ExpiredMetadataError as error:
            raise UpdateRefusedError(
                f"{self.location}: {error}: it may be held back from this device; run `soundpost "
                "repo push`, and see that this device's clock is right"
            ) from error
        except (exceptions.RepositoryError, ValueError, KeyError, TypeError) as error:
            # The last three are what python-tuf's parser lets through of malformed metadata.
            reason = " ".join(str(error).split())[:200]
            raise UpdateRefusedError(f"{self.location}: is not to be trusted: {reason}") from error
        except OSError as error:
            raise InputError(
                f"{error.filename or self._folder}: cannot be written ({error.strerror}); free "
                "some space, or see that this user may write there"
            ) from error


def _address(location: str) -> str:
    scheme = urlsplit(location).scheme
    if scheme in ("http", "https", "file"):
        return location if location.endswith("/") else f"{location}/"
    if "://" in location:
        raise InputError(
            f"{location}: expected an address that begins with https:// or http://, or a folder"
        )
    return f"{Path(location).expanduser().resolve().as_uri()}/"


def _files(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """What tells whether a file has been written again, for each."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _flush(folder: Path, known: dict[Path, tuple[int, int, int]]) -> None:
    """Let what is new since `known`, and its names, reach the disk."""
    new = [path for path, mark in _files(folder).items() if known.get(path) != mark]
    # The link to the last root lies in the folder, too.
    folders = {folder, *(path.parent for path in new)} if new else set()
    for path in [*new, *sorted(folders)]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
