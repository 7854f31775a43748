"""A connection to a web server within a time: name, addresses and handshake included."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult

from soundpost.device.errors import UpdateUnreachableError


@dataclass
class Deadline:
    """The end of a whole job, of one request or of many.

    seconds : from its making
    """

    seconds: float
    _end_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._end_s = time.monotonic() + self.seconds

    def left_s(self, where: str) -> float:
        """Seconds left, more than 0; raises UpdateUnreachableError once there are none."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0.0:
            raise UpdateUnreachableError(
                f"{where}: did not end within {self.seconds:g} s; what has arrived is kept, and "
                "the next attempt goes on there"
            )
        return left_s


def connect(parts: SplitResult, url: str, timeout_s: float) -> socket.socket:
    """A connection, encrypted where the address says so.

    timeout_s : for the name and all of its addresses together, and again for the handshake
    """
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    deadline = Deadline(timeout_s)
    addresses = _resolve(parts.hostname, port, timeout_s)
    peer = None
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        # One that swallows what is sent to it leaves time for those behind it.
        share_s = deadline.left_s(url) / (len(addresses) - number)
        peer = socket.socket(family, kind, protocol)
        try:
            peer.settimeout(share_s)
            peer.connect(address)
            break
        except BaseException as error:
            peer.close()
            if not isinstance(error, OSError) or number == len(addresses) - 1:
                raise
    assert peer is not None
    peer.settimeout(timeout_s)
    if not secure:
        return peer
    try:
        # The timeout holds for the handshake as a whole.
        return ssl.create_default_context().wrap_socket(peer, server_hostname=parts.hostname)
    except BaseException:
        peer.close()
        raise


def _resolve(host: str, port: int, timeout_s: float) -> list[Any]:
    """Addresses of a name; raises OSError, also where that takes too long.

    The C library's resolver has no limit that could be given, so it gets a thread that may be left
    behind: it ends when the resolver gives up.
    """
    found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    try:
        result = found.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(
            f"no address was found for {host[:60]} within {timeout_s:.0f} s"
        ) from None
    if isinstance(result, OSError):
        raise result
    return result
