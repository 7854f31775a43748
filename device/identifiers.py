"""Identifiers and times as records hold them: UUIDv7, RFC 3339 in UTC with microseconds."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import datetime, timezone
from typing import Final

UUID7_PATTERN: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
TIME_PATTERN: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
)


class _Uuid7Clock:
    """Issues UUIDv7 values that only ever grow within this process.

    RFC 9562, 5.7 and 6.2 method 2: 48 bits of Unix milliseconds, then 74 random bits that are
    incremented by a random step while the millisecond stays the same or the clock goes back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = -1
        self._tail = 0

    def next(self) -> int:
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # The top bit starts clear, so that increments have room before they overflow.
                self._tail = int.from_bytes(os.urandom(10), "big") >> 7
            else:
                self._tail += 1 + int.from_bytes(os.urandom(4), "big")
                if self._tail >> 74:
                    self._last_ms += 1
                    self._tail = int.from_bytes(os.urandom(10), "big") >> 7
            ms, tail = self._last_ms, self._tail
        rand_a, rand_b = tail >> 62, tail & ((1 << 62) - 1)
        return (ms & ((1 << 48) - 1)) << 80 | 7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b


_CLOCK = _Uuid7Clock()


def uuid7() -> str:
    """Return a new UUIDv7 (RFC 9562) in canonical lower case, greater than all before it.

    The order holds within one process, between threads and when the system clock goes back.
    """
    text = f"{_CLOCK.next():032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def format_time(moment: datetime) -> str:
    """RFC 3339 text in UTC with microseconds, such as `2026-11-20T10:00:01.250000Z`.

    Raises
    ------
    ValueError
        The moment has no time zone: which instant it means is unknown.
    """
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with a zone, found {moment.isoformat()} without one")
    utc = moment.astimezone(timezone.utc)
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read what `format_time` writes; exactly that form, so that text and instant are one to one.

    Raises
    ------
    ValueError
        The text has another form or names no real date.
    """
    if not TIME_PATTERN.fullmatch(text):
        raise ValueError(f"expected a time like 2026-11-20T10:00:01.250000Z, found {text[:40]!r}")
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)
