"""What a service tells systemd (sd_notify(3)): a datagram of assignments to a local socket.

Started by hand there is no socket, and every message goes nowhere.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

logger = logging.getLogger(__name__)

# systemd shows one line; a longer one says no more.
_STATUS_LENGTH = 500


class Notifier:
    """Messages to the service manager.

    address : of its socket: a path, or "@name" in Linux's abstract namespace; None: nobody listens
    watchdog_s : time without `watchdog` after which it ends the service; None: it does not watch
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s
        self._failed = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Notifier:
        """The one that NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID describe."""
        known = os.environ if environment is None else environment
        address = known.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET %r: expected a path or @name: not used", address)
            address = None
        watchdog_s = None
        # A watchdog that is meant for the process that started this one.
        ours = known.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = known.get("WATCHDOG_USEC", "")
        if address is not None and ours and text.isascii() and text.isdigit() and int(text) > 0:
            watchdog_s = int(text) / 1e6
        return cls(address, watchdog_s)

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(status))

    def watchdog(self) -> None:
        """All is well: the watchdog's time begins anew."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The settings are being read again; `ready` ends that."""
        # CLOCK_MONOTONIC, as systemd compares it with its own.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", _status(status))

    def _send(self, *assignments: str) -> None:
        if self.address is None:
            return
        name = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A service manager that does not read must not hold up the sensor.
                sender.settimeout(1.0)
                sender.sendto("\n".join(assignments).encode("utf-8", "replace"), name)
        except OSError as error:
            # Told once: the watchdog would repeat it every few seconds.
            if not self._failed:
                logger.warning("systemd at %s cannot be told: %s", self.address, error)
            self._failed = True
        else:
            self._failed = False


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_STATUS_LENGTH]}"
