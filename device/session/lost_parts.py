"""lost.csv of a session: sound that some channels lack while others have it.

    first_sample,length,first_channel,n_channels,cause
    480048,48,8,8,lost

An array on the network sends its channels in several streams, and a packet of one may be lost:
zeros stand in for it on its channels alone. What all channels lack stands in gaps.csv. A session
without the file lacks nothing of this kind. It only grows while a session is recorded; a last line
that a killed recorder left without its end is not read.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically

LOST_FILE: Final = "lost.csv"
LOST_HEADER: Final = "first_sample,length,first_channel,n_channels,cause\n"
# What a power cut may take of the table: its zeros are on disk a moment earlier or later too.
_SYNC_S: Final = 1.0


@dataclass(frozen=True)
class LostPart:
    """Samples that some channels lack.

    first_sample, length : on the session's timeline
    first_channel, n_channels : which channels
    cause : one word
    """

    first_sample: int
    length: int
    first_channel: int
    n_channels: int
    cause: str

    def concerns(self, channel: int) -> bool:
        """Whether a channel lacks it."""
        return 0 <= channel - self.first_channel < self.n_channels

    def within(self, first: int, last: int) -> LostPart | None:
        """What of it lies from first to last (exclusive), counted from first; None: nothing."""
        low, high = max(self.first_sample, first), min(self.first_sample + self.length, last)
        if low >= high:
            return None
        return LostPart(low - first, high - low, self.first_channel, self.n_channels, self.cause)


class LostWriter:
    """Appends to the table, which is made with its first line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOST_FILE
        self._file: io.TextIOWrapper | None = None
        self._synced_s = 0.0

    def put(self, part: LostPart) -> None:
        """Append a line; raises OSError where the disk refuses it."""
        if self._file is None:
            write_atomically(self._path, LOST_HEADER.encode())
            self._file = self._path.open("a", encoding="utf-8", newline="")
        self._file.write(_line(part))
        # At once: what is told later may never be.
        self._file.flush()
        now_s = time.monotonic()
        if now_s - self._synced_s >= _SYNC_S:
            self._sync(self._file)
            self._synced_s = now_s

    def close(self) -> None:
        """End the table; raises OSError where the disk refuses it."""
        if self._file is not None:
            with self._file:
                self._sync(self._file)

    def _sync(self, file: io.TextIOWrapper) -> None:
        file.flush()
        os.fdatasync(file.fileno())


def write_lost(folder: Path, parts: Iterable[LostPart]) -> None:
    """Write the table anew, if there is anything to say; InputError where that cannot be done."""
    lines = "".join(map(_line, parts))
    if lines:
        write_atomically(folder / LOST_FILE, (LOST_HEADER + lines).encode())


def read_lost(folder: Path, n_samples: int | None, n_channels: int) -> tuple[LostPart, ...]:
    """The table of a session, in the order in which losses ended.

    n_samples : of the timeline; None where its end is not known yet

    Raises InputError naming the file and the line.
    """
    path = folder / LOST_FILE
    if not path.exists():
        return ()
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; copy it again") from error
    found, _, rest = text.partition("\n")
    if found + "\n" != LOST_HEADER:
        raise InputError(
            f"{path}, line 1: expected {LOST_HEADER.strip()!r}, found {found[:60]!r}; copy it again"
        )
    parts = []
    for number, row in enumerate(csv.reader(io.StringIO(rest[: rest.rfind("\n") + 1])), 2):
        try:
            first, length, channel, channels = map(int, row[:4])
            part = LostPart(first, length, channel, channels, row[4])
        except (ValueError, IndexError) as error:
            raise _bad(path, number, row, LOST_HEADER.strip()) from error
        if length < 1 or first < 0 or (n_samples is not None and first > n_samples - length):
            raise _bad(path, number, row, f"at least 1 sample within {n_samples}")
        if channels < 1 or not 0 <= channel <= n_channels - channels:
            raise _bad(path, number, row, f"at least 1 channel within {n_channels}")
        parts.append(part)
    return tuple(parts)


def _line(part: LostPart) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(astuple(part))
    return text.getvalue()


def _bad(path: Path, line: int, row: list[str], expected: str) -> InputError:
    return InputError(
        f"{path}, line {line}: expected {expected}, found {','.join(row)[:60]!r}; copy it again, "
        "or delete the file: what it says is then not known"
    )
