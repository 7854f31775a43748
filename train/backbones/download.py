"""Fetching one large file: verified, and never half there under its own name."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.device.files import replacing

_ATTEMPTS = 4
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def download(
    url: str, path: Path, sha256: str | None, *, quiet: bool = False, pause_s: float = 1.0
) -> str:
    """Fetch a file, with a progress bar.

    A connection that breaks is taken up again where it stopped, if the server can do that. The file
    gets its name when all of it is on disk and its hash is right; otherwise nothing is left.

    Parameters
    ----------
    sha256 : expected, all of it or its first digits; None where none is published
    pause_s : before the second attempt, twice that before each further one

    Returns
    -------
    SHA-256 of what was fetched.

    Raises InputError with what to do by hand.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
        ) from error
    with replacing(path) as file:
        bar = tqdm(desc=path.name, unit="B", unit_scale=True, disable=quiet, leave=False, total=0)
        with bar:
            found = _Transfer(url, path, file, bar).run(pause_s)
        if sha256 is not None and not found.startswith(sha256):
            raise InputError(
                f"{path.name}: what {url} sent has sha256 {found}, expected {sha256}; nothing was "
                "kept: try again, or look up whether the file was replaced"
            )
    return found


class _Transfer:
    """What has arrived so far, over one or more connections."""

    def __init__(self, url: str, path: Path, file: IO[bytes], bar: tqdm[Any]) -> None:
        self._url = url
        self._path = path
        self._file = file
        self._bar = bar
        self._digest = hashlib.sha256()
        self._done = 0
        self._total: int | None = None
        self._version: str | None = None

    def run(self, pause_s: float) -> str:
        """Fetch everything and return its hash."""
        for attempt in range(1, _ATTEMPTS + 1):
            broken = self._connection()
            if broken is None:
                return self._digest.hexdigest()
            if attempt < _ATTEMPTS:
                time.sleep(pause_s * 2 ** (attempt - 1))
        of = "" if self._total is None else f" of {self._total / 1e6:.1f}"
        raise InputError(
            f"{self._path.name}: the download from {self._url} broke off {_ATTEMPTS} times, at last"
            f" after {self._done / 1e6:.1f}{of} MB ({broken}); nothing was kept: try again, or "
            f"fetch it by other means and put it at {self._path}"
        )

    def _connection(self) -> str | None:
        """Receive until the end, or until it breaks: then why."""
        request = urllib.request.Request(self._url)
        if self._done:
            request.add_header("Range", f"bytes={self._done}-")
            if self._version is not None:
                # A file that was replaced meanwhile is sent from its start.
                request.add_header("If-Range", self._version)
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                return f"the server answered {error.code}"
            raise InputError(
                f"{self._path.name}: {self._url} answered {error.code} {error.reason}; look up "
                f"where the file is now, and put it at {self._path}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            return _reason(error)
        with response:
            self._begin(response)
            while True:
                # Only what the network does: an error of the disk is the caller's.
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    return _reason(error)
                if not chunk:
                    break
                self._keep(chunk)
        if self._total is not None and self._done < self._total:
            return "the server closed the connection"
        return None

    def _begin(self, response: http.client.HTTPResponse) -> None:
        continues = response.status == HTTPStatus.PARTIAL_CONTENT and (
            response.headers["Content-Range"] or ""
        ).startswith(f"bytes {self._done}-")
        if not continues:
            self._file.seek(0)
            self._file.truncate()
            self._digest = hashlib.sha256()
            self._done = 0
            self._bar.reset()
        length = response.headers["Content-Length"]
        if length is not None and length.isdecimal():
            self._total = self._done + int(length)
            self._bar.total = self._total
        version = response.headers["ETag"]
        # A weak one does not promise the same bytes.
        self._version = None if version is None or version.startswith("W/") else version

    def _keep(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self._done += len(chunk)
        self._bar.update(len(chunk))


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
