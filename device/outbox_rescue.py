"""A damaged outbox: moved aside, and in its place a new one with all that can still be read.

The new file is complete on the disk before the damaged one is moved. A full disk, a kill or a power
cut at any moment before leaves the damaged one in its place, to be read again.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from soundpost.device.errors import InputError
from soundpost.device.outbox_file import (
    COLUMNS,
    INSERT,
    LOG,
    ROW_BYTES,
    SIDECARS,
    decode_anything,
    message_of,
    open_outbox_file,
    row_of,
    sync_folder,
    transaction,
)

_BLOCK: Final = 4096
# Keys are counted from 0 by one: no row lies this far behind another.
_FAR: Final = 2**40


@dataclass(frozen=True)
class Rescue:
    """What became of a damaged outbox.

    aside : where it lies now
    n_saved : messages in the new one
    lost : keys of messages that could not be read; where nothing tells which there were, those for
        which there is room between the ones that could
    """

    aside: Path
    n_saved: int
    lost: frozenset[int]


def rescue(path: Path, max_bytes: int, known: Collection[int] | None = None) -> Rescue:
    """Replace a damaged outbox by a new one.

    Parameters
    ----------
    path : of the database, which nobody has open
    max_bytes : that an outbox may hold; what is much larger is something else, and is not read
    known : keys that it held, where a process still knows

    Raises
    ------
    OSError, sqlite3.Error
        The new one cannot be written: all is as it was, and may be tried again.
    """
    new = _new(path)
    _discard(new)
    saved: set[int] = set()
    lost: set[int] = set()
    try:
        with contextlib.closing(open_outbox_file(new)) as connection:
            with transaction(connection):
                rows = _sound_rows(path, max_bytes, known, saved, lost)
                # Row by row: together they would take a multiple of their size.
                connection.executemany(INSERT, rows)
            # Into the file itself: its log would have to be moved in the same instant.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except BaseException:
        _discard(new)
        raise
    if Path(f"{new}{LOG}").exists():
        raise OSError(f"{new}{LOG} could not be written into its database")
    # One name, so that a card that fails is not filled with its own ruins.
    aside = Path(f"{path}.damaged")
    for suffix in SIDECARS:
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
    path.replace(aside)
    finish_rescue(path)
    return Rescue(aside, len(saved), frozenset(lost))


def finish_rescue(path: Path) -> None:
    """Put a new outbox in place whose rescue was cut off after the damaged one was moved."""
    new = _new(path)
    if path.exists() or not new.exists():
        return
    for suffix in SIDECARS:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.replace(f"{path}.damaged{suffix}")
    sync_folder(path.parent)
    new.replace(path)
    sync_folder(path.parent)


def _new(path: Path) -> Path:
    return Path(f"{path}.rescued")


def _discard(path: Path) -> None:
    for suffix in ("", *SIDECARS):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _sound_rows(
    path: Path, max_bytes: int, known: Collection[int] | None, saved: set[int], lost: set[int]
) -> Iterator[tuple[Any, ...]]:
    """Rows that are sound messages, oldest first; their keys, and those of the rest, are noted."""
    # The disk may have no room for a copy of a much larger file.
    most = 2 * max_bytes + 16_000_000
    if path.stat().st_size > most:
        lost.update(known or ())
        return
    gaps: list[range] = []
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.rescue-") as folder:
        # A copy, so that the ruin stays as it was found.
        copy = Path(folder, "copy")
        for suffix in ("", LOG):
            if Path(f"{path}{suffix}").exists():
                _copy(Path(f"{path}{suffix}"), Path(f"{copy}{suffix}"))
        _pad(copy, most)
        with contextlib.closing(sqlite3.connect(copy)) as damaged:
            decode_anything(damaged)
            known = known if known is not None else _indexed(damaged)
            n_bytes = 0
            for row in _readable(damaged, sorted(known or ()), gaps):
                try:
                    sound = row_of(message_of(row, 0), 0)
                except (InputError, TypeError, ValueError):
                    continue
                yield sound
                saved.add(row[0])
                n_bytes += len(row[1]) + ROW_BYTES
                if n_bytes > max_bytes:
                    break
    lost.update(set(known) - saved if known is not None else chain.from_iterable(gaps))


def _indexed(damaged: sqlite3.Connection) -> list[int] | None:
    """Keys that the index of ids tells of; None where it cannot be read."""
    try:
        found = damaged.execute("SELECT key FROM outbox INDEXED BY outbox_id WHERE id >= ''")
        return [key for (key,) in found.fetchall()]
    except sqlite3.Error:
        return None


def _readable(
    damaged: sqlite3.Connection, known: list[int], gaps: list[range]
) -> Iterator[tuple[Any, ...]]:
    """Rows in their order; what cannot be read is passed over, and its keys added to `gaps`."""
    read = last = -1
    while True:
        try:
            row = _row_behind(damaged, last)
        except sqlite3.Error:
            behind = _behind_damage(damaged, last, known)
            if behind is None:
                return
            last = behind
            continue
        if row is None:
            return
        if last != read:
            gaps.append(range(read + 1, row[0]))
        yield row
        read = last = row[0]


def _row_behind(damaged: sqlite3.Connection, key: int) -> tuple[Any, ...] | None:
    # One at a time: a cursor reads ahead, and throws away the row before one that it cannot read.
    query = f"SELECT {COLUMNS} FROM outbox NOT INDEXED WHERE key > ? ORDER BY key LIMIT 1"
    row: tuple[Any, ...] | None = damaged.execute(query, (key,)).fetchone()
    if row is not None and row[0] <= key:
        raise sqlite3.DatabaseError("a damaged page led back")
    return row


def _behind_damage(damaged: sqlite3.Connection, last: int, known: list[int]) -> int | None:
    """The first key behind `last` such that what follows can be read; None where nothing can.

    A page holds rows of neighbouring keys: those of a damaged one lie together.
    """

    def readable(key: int) -> bool:
        try:
            _row_behind(damaged, key)
        except sqlite3.Error:
            return False
        return True

    for key in known[bisect.bisect_right(known, last + 1) :]:
        if readable(key - 1):
            return key - 1
    # Behind all that the index tells of, or without it.
    bad = max([last, *known[-1:]])
    step = 1
    while not readable(bad + step):
        bad += step
        step *= 2
        if step > _FAR:
            return None
    good = bad + step
    while good - bad > 1:
        middle = (bad + good) // 2
        good, bad = (middle, bad) if readable(middle) else (good, middle)
    return good


def _copy(path: Path, to: Path) -> None:
    """Copy a file whose medium may fail: what it cannot tell is zero."""
    with path.open("rb", buffering=0) as file, to.open("wb") as out:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, _BLOCK):
            length = min(_BLOCK, size - start)
            out.write(_block(file, start, length).ljust(length, b"\0"))


def _block(file: BinaryIO, start: int, length: int) -> bytes:
    try:
        return os.pread(file.fileno(), length, start)
    except OSError:
        return b""


def _pad(path: Path, most: int) -> None:
    """Give a database that was cut off the length that its header tells, at most so many bytes.

    SQLite reads nothing of one that is too short, and all but the empty pages of one that is padded
    (https://www.sqlite.org/fileformat.html, 1.3).
    """
    with path.open("r+b") as file:
        header = file.read(100)
        length = int.from_bytes(header[16:18], "big") * int.from_bytes(header[28:32], "big")
        if header.startswith(b"SQLite format 3\0") and path.stat().st_size < length <= most:
            file.truncate(length)
