"""Bytes of a web server or a folder, bounded in length, pace and time.

A server may be broken or hostile. What it sends is counted against a limit before and while it is
read; how long it is waited for is bounded three ways: no gap between bytes, a least rate (a byte
every few seconds leaves no gap), and an end to it all. The bounds hold for the headers as for the
body, for they are kept where bytes leave the socket.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from soundpost.device import __version__
from soundpost.device.errors import UpdateRefusedError, UpdateUnreachableError
from soundpost.device.terminal import printable
from soundpost.device.updates.connection import Deadline, connect

_BLOCK_BYTES = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")


class NotThereError(UpdateUnreachableError):
    """The server answers, and has no such file.

    status : of HTTP (404 for a folder that lacks it)
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLongError(UpdateRefusedError):
    """A file is longer than it may be."""


@dataclass(frozen=True)
class Pace:
    """How slow a server may be.

    connect_s : to accept a connection
    gap_s : between two bytes
    least_bytes_s : bytes per second, on average over each window of waiting for them
    window_s : length of that window
    redirects : that are followed
    """

    connect_s: float = 15.0
    gap_s: float = 30.0
    least_bytes_s: float = 500.0
    window_s: float = 20.0
    redirects: int = 3


class _PacedReader(io.RawIOBase):
    """The reading end of a socket: every byte is waited for within the bounds."""

    def __init__(self, peer: socket.socket, where: str, pace: Pace, deadline: Deadline) -> None:
        self._peer, self._where, self._pace, self._deadline = peer, where, pace, deadline
        # Time that the disk takes is no fault of the server's: only waiting is counted.
        self._waited_s = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._peer.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        self._peer.settimeout(min(self._pace.gap_s, self._deadline.left_s(self._where)))
        before_s = time.monotonic()
        try:
            count = self._peer.recv_into(buffer)
        except TimeoutError as error:
            self._deadline.left_s(self._where)
            raise UpdateUnreachableError(
                f"{self._where}: sends nothing for {self._pace.gap_s:g} s; try again later"
            ) from error
        self._waited_s += time.monotonic() - before_s
        self._received += count
        if self._waited_s >= self._pace.window_s:
            if self._received < self._pace.least_bytes_s * self._waited_s:
                raise UpdateUnreachableError(
                    f"{self._where}: sends {self._received / self._waited_s:.0f} bytes per second: "
                    f"expected at least {self._pace.least_bytes_s:g}; try again later"
                )
            self._waited_s, self._received = 0.0, 0
        return count


class _PacedSocket:
    """What http.client takes for a socket."""

    def __init__(self, peer: socket.socket, where: str, pace: Pace, deadline: Deadline) -> None:
        self._peer, self._reader = peer, _PacedReader(peer, where, pace, deadline)

    def sendall(self, content: bytes) -> None:
        self._peer.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader, _BLOCK_BYTES)

    def close(self) -> None:
        # http.client is done with the socket once it has the reader, with which the socket closes.
        pass


@dataclass(frozen=True)
class Body:
    """What is being received.

    start : offset of its first byte in the file; 0 where the server sends the whole in any case
    blocks : its bytes; iterating may raise as `open_body` does
    """

    start: int
    blocks: Iterator[bytes]


@contextmanager
def open_body(
    url: str, limit: int, pace: Pace, deadline: Deadline, start: int = 0
) -> Iterator[Body]:
    """Begin to receive a file.

    Parameters
    ----------
    url : http, https or file
    limit : bytes that the whole file may have
    start : offset to go on from, where the server can (RFC 9110, section 14)

    Raises
    ------
    UpdateUnreachableError
        No connection, an answer that breaks off, or is slower than the bounds allow.
    NotThereError
        The answer is an HTTP error, or a folder lacks the file.
    TooLongError
        The file is said to be longer, or is.
    UpdateRefusedError
        A redirection away from TLS, or to another kind of address.
    """
    parts = _checked(url)
    if parts.scheme == "file":
        with _open_file(Path(unquote(parts.path)), start, limit) as file:
            yield Body(start, _bounded(_file_blocks(file, url, deadline), url, start, limit))
        return
    with closing(_answer(url, pace, deadline, start)) as answer:
        begins = 0
        if answer.status == http.client.PARTIAL_CONTENT:
            told = _CONTENT_RANGE.fullmatch(answer.getheader("Content-Range", ""))
            begins = int(told[1]) if told else -1
            if begins != start:
                raise UpdateRefusedError(
                    f"{url}: sends another part than was asked for; mend the web server"
                )
        stated = answer.getheader("Content-Length", "")
        if stated.isdecimal() and len(stated) < 19 and begins + int(stated) > limit:
            raise TooLongError(_too_long(url, begins + int(stated), limit))
        yield Body(begins, _bounded(_answer_blocks(answer, url), url, begins, limit))


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UpdateRefusedError(f"{url[:200]!r}: is no address ({error})") from error
    named = parts.hostname if parts.scheme in ("http", "https") else parts.scheme == "file"
    # What ends a line would begin another header.
    if not named or not url.isascii() or not url.isprintable() or " " in url:
        raise UpdateRefusedError(
            f"{url[:200]!r}: expected an address that begins with https://, http:// or file://"
        )
    return parts


def _too_long(url: str, found: int, limit: int) -> str:
    return f"{url}: has {found} bytes or more: expected at most {limit}; nothing of it is used"


def _bounded(blocks: Iterator[bytes], url: str, start: int, limit: int) -> Iterator[bytes]:
    received = start
    for block in blocks:
        received += len(block)
        if received > limit:
            raise TooLongError(_too_long(url, received, limit))
        yield block


# ------------------------------------------------------------------------------------- folders


@contextmanager
def _open_file(path: Path, start: int, limit: int) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotThereError(f"{path}: is not there", 404) from error
    except OSError as error:
        raise UpdateUnreachableError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        size = file.seek(0, io.SEEK_END)
        if size > limit:
            raise TooLongError(_too_long(str(path), size, limit))
        file.seek(start)
        yield file


def _file_blocks(file: IO[bytes], url: str, deadline: Deadline) -> Iterator[bytes]:
    try:
        while block := file.read(_BLOCK_BYTES):
            yield block
            deadline.left_s(url)
    except OSError as error:
        raise UpdateUnreachableError(f"{url}: cannot be read ({error.strerror})") from error


# --------------------------------------------------------------------------------- web servers


def _answer(url: str, pace: Pace, deadline: Deadline, start: int) -> http.client.HTTPResponse:
    """The answer with status 200 or 206, redirections followed."""
    for _ in range(pace.redirects + 1):
        answer = _request(url, pace, deadline, start)
        if answer.status in (http.client.OK, http.client.PARTIAL_CONTENT):
            return answer
        answer.close()
        if answer.status not in _REDIRECTS:
            raise NotThereError(
                f"{url}: the web server answers {answer.status} {printable(answer.reason)[:60]}",
                answer.status,
            )
        target = urljoin(url, answer.getheader("Location", ""))
        kinds = ("https",) if urlsplit(url).scheme == "https" else ("https", "http")
        if _checked(target).scheme not in kinds:
            raise UpdateRefusedError(
                f"{url}: redirects to {target[:200]}: expected {' or '.join(kinds)}"
            )
        url = target
    raise UpdateUnreachableError(
        f"{url}: redirected more than {pace.redirects} times; mend the web server"
    )


def _request(url: str, pace: Pace, deadline: Deadline, start: int) -> http.client.HTTPResponse:
    parts = _checked(url)
    headers = {
        "User-Agent": f"soundpost/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if start:
        headers["Range"] = f"bytes={start}-"
    peer = None
    try:
        peer = connect(parts, url, min(pace.connect_s, deadline.left_s(url)))
        connection = http.client.HTTPConnection(parts.netloc.rpartition("@")[2])
        paced: Any = _PacedSocket(peer, url, pace, deadline)
        connection.sock = paced
        path = parts.path or "/"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path, headers=headers)
        return connection.getresponse()
    except BaseException as error:
        if peer is not None:
            peer.close()
        if isinstance(error, OSError | http.client.HTTPException):
            raise _unreachable(url, error) from error
        raise


def _answer_blocks(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    # Counted here: read1 takes the end of the connection for the end of the file, and before
    # Python 3.13 it leaves the length as it was.
    missing = answer.length
    try:
        while missing != 0:
            block = answer.read1(_BLOCK_BYTES if missing is None else min(missing, _BLOCK_BYTES))
            if not block:
                break
            if missing is not None:
                missing -= len(block)
            yield block
        if missing:
            raise UpdateUnreachableError(f"{url}: breaks off, {missing} bytes are missing")
        if missing is None and not answer.chunked:
            # The line that says how long it is may be what was cut off.
            raise UpdateUnreachableError(
                f"{url}: breaks off, or comes from a web server that says neither how long an "
                "answer is nor where it ends; mend the web server"
            )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> UpdateUnreachableError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
    return UpdateUnreachableError(
        f"{url}: cannot be fetched ({reason or type(error).__name__}); see that the address is "
        "right and the web server runs"
    )
