"""Events that wait for the broker's acknowledgement on disk, through power cuts.

`DiskOutbox` is one SQLite file with a write-ahead log that is flushed to the disk before `put`
returns, so that an event is there again after `kill -9` or a power cut at any later instant.
Deletions are committed together: a restart may send again what was acknowledged in the last
moments (delivery is at least once). Beside the file lies its lock, `NAME.lock`.

A file that is damaged at the start is moved aside (`NAME.damaged`), and a new one begun with the
messages that can still be read. While the disk is full or read-only, events are kept in memory, and
moved to the disk when it can be written again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from soundpost.device.clock import Moment
from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.outbox import MemoryOutbox, Queued
from soundpost.device.outbox_file import (
    COLUMNS,
    INSERT,
    ROW_BYTES,
    DamagedError,
    message_of,
    open_outbox_file,
    row_of,
    transaction,
)
from soundpost.device.outbox_rescue import finish_rescue, rescue

logger = logging.getLogger(__name__)

# A second or this many acknowledged messages are what a restart may send again. A subscriber
# remembers more (subscriber.py).
_DELETE_TOGETHER: Final = 500
_DELETE_AFTER_S: Final = 0.5
# Messages dated anew in one transaction: short enough to keep no source waiting.
_DATE_TOGETHER: Final = 200
_EXPIRE_EVERY_S: Final = 60.0
_RETRY_EVERY_S: Final = 30.0


@dataclass(frozen=True)
class OutboxSettings:
    """Where events wait on disk, and how much of them.

    path : the database; files beside it begin with its name
    max_size_mb : of waiting messages, in 10^6 bytes; the oldest events go beyond it. The log beside
        the file takes a few MB more.
    max_age_days : events that have waited longer go
    """

    path: Path
    max_size_mb: float = 20.0
    max_age_days: float = 30.0

    def __post_init__(self) -> None:
        if not self.max_size_mb > 0:
            raise UsageError(f"outbox size must be more than 0 MB, found {self.max_size_mb}")
        if not self.max_age_days > 0:
            raise UsageError(f"outbox age must be more than 0 days, found {self.max_age_days}")


class DiskOutbox:
    """An outbox that outlives the process, the machine's power and a full disk.

    Parameters
    ----------
    settings : file and bounds
    now : the clocks

    Attributes
    ----------
    unsaved : messages that could not be written when they were put, and went to memory

    Raises
    ------
    InputError
        Another process uses the file.
    """

    def __init__(self, settings: OutboxSettings, now: Callable[[], Moment] = Moment.now) -> None:
        self._path = settings.path
        self._max_bytes = int(settings.max_size_mb * 1e6)
        self._max_age_s = settings.max_age_days * 86_400.0
        self._now = now
        self._dropped = 0
        self.unsaved = 0
        # Held while the database is used; taken before `_lock`.
        self._disk = threading.Lock()
        # Guards what `delete` changes; never held while the disk is waited for.
        self._lock = threading.Lock()
        self._memory = MemoryOutbox(now=now)
        self._kept: dict[int, int] = {}  # size in bytes of every message on disk, by key
        self._kept_bytes = 0
        self._gone: list[int] = []  # deleted, but not yet on disk
        # Lost with a damaged file; those on their way to the broker may be acknowledged yet.
        self._missing: set[int] = set()
        self._next_key = 0
        # Key in the file of key 0: a process that could read its file only after it had put
        # messages still has them behind those of the process before.
        self._base: int | None = None
        self._undated = False
        self._reported: set[str] = set()
        self._lock_file: TextIO | None = None
        self._connection: sqlite3.Connection | None = None
        self._fault: str | None = None
        self._closed = False
        self._retry_s = self._delete_s = self._expire_s = 0.0
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def __enter__(self) -> DiskOutbox:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Of the database."""
        return self._path

    @property
    def fault(self) -> str | None:
        """Why messages are kept in memory only, in one line; None while they are on disk."""
        if self._fault is None:
            return None
        return f"{self._fault}: events are kept in memory only ({self.unsaved} messages so far)"

    @property
    def dropped(self) -> int:
        """Messages given up for want of room, after max_age_days, or because unreadable."""
        return self._dropped + self._memory.dropped

    @property
    def in_memory(self) -> int:
        """Messages that wait in memory only: the end of the process loses them."""
        return len(self._memory)

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept) + len(self._memory)

    def put(self, event: SoundEvent, age_s: float | None = None) -> Queued:
        """Keep a message; it is on disk when this returns, or `fault` says why it is not.

        Where there is no room, the oldest events are given up, each as a whole.
        """
        with self._disk:
            now = self._now()
            queued = Queued(self._next_key, event, now, age_s).dated(now)
            self._next_key += 1
            if self._fault is None:
                try:
                    self._write([queued])
                    return queued
                except sqlite3.Error as error:
                    self._fail(error)
            self._memory.keep(queued)
            self.unsaved += 1
            return queued

    def delete(self, key: int) -> None:
        """Forget a message; one that is gone already is no error. The disk learns of it later."""
        with self._lock:
            self._missing.discard(key)
            if self._memory.take(key):
                return
            n_bytes = self._kept.pop(key, None)
            if n_bytes is not None:
                self._kept_bytes -= n_bytes
                self._gone.append(key)

    def items(self, after: int | None = None, limit: int | None = None) -> list[Queued]:
        """What is kept, oldest first: after a key, and at most so many, where these are given.

        What is on a disk that cannot be read comes when it can, behind what waits in memory.
        """
        with self._disk:
            found: list[Queued] = []
            well = self._fault is None
            try:
                found = self._read(after, limit)
            except sqlite3.Error as error:
                self._fail(error)
                if well:
                    found = self._read_again(after, limit)
            if limit is None or len(found) < limit:
                # Behind all that is on disk: nothing goes there while something is left in memory.
                found += self._memory.items(after)
            if after is None:
                self._count_missing()
            now = self._now()
            return [queued.dated(now) for queued in found[:limit]]

    def tend(self) -> None:
        """Commit deletions, date events once the clock is right, give up old ones, retry a disk."""
        with self._disk:
            if self._closed:
                return
            now_s = time.monotonic()
            try:
                if self._fault is not None:
                    if now_s >= self._retry_s:
                        self._recover()
                    return
                with self._lock:
                    many = len(self._gone) >= _DELETE_TOGETHER
                    due = bool(self._gone) and now_s - self._delete_s >= _DELETE_AFTER_S
                if many or due:
                    self._delete_s = now_s
                    self._write([])
                if self._undated:
                    self._date(self._now())
                if now_s >= self._expire_s:
                    self._expire_s = now_s + _EXPIRE_EVERY_S
                    self._expire(self._now())
            except (OSError, sqlite3.Error, InputError) as error:
                self._fail(error)

    def close(self) -> None:
        """Commit what is due and let go of the file; what is put afterwards is kept in memory."""
        with self._disk:
            if self._closed:
                return
            self._closed = True
            self._count_missing()
            try:
                if self._fault is not None:
                    self._recover()
                elif self._gone:
                    self._write([])
            except (OSError, sqlite3.Error, InputError) as error:
                logger.debug("outbox %s: %s", self._path, error)
            self._fault = self._fault or f"outbox {self._path}: closed"
            self._disconnect()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    # --- the file; `_disk` is held

    def _open(self) -> None:
        """Lock, check and read the file; OSError or sqlite3.Error where it cannot be used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        self._claim()
        try:
            finish_rescue(self._path)
            self._disconnect()
            try:
                self._connection = open_outbox_file(self._path)
            except (DamagedError, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._begin_anew(" ".join(str(error).split()))
                self._connection = open_outbox_file(self._path)
            self._load()
        except BaseException:
            self._disconnect()
            raise

    def _load(self) -> None:
        connection = self._database()
        if self._base is None:
            (last,) = connection.execute("SELECT max(key) FROM outbox").fetchone()
            self._base = 0 if last is None else last + 1
        rows = connection.execute("SELECT key, length(event) FROM outbox").fetchall()
        with self._lock:
            gone = set(self._gone)
            self._kept = {key - self._base: size + ROW_BYTES for key, size in rows}
            for key in gone:
                self._kept.pop(key, None)
            self._kept_bytes = sum(self._kept.values())
        self._undated = True
        self._expire_s = 0.0

    def _claim(self) -> None:
        if self._lock_file is not None:
            return
        # A file of its own: the database may be moved aside, and its lock must not go with it.
        lock_file = Path(f"{self._path}.lock").open("a", encoding="ascii")  # noqa: SIM115
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock_file.close()
            raise InputError(
                f"outbox {self._path}: another soundpost uses it; end that one, or give this "
                "sensor a file of its own with outbox.path"
            ) from error
        self._lock_file = lock_file

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _begin_anew(self, reason: str) -> None:
        """Move a damaged file aside, and take over what can be read of it."""
        known = None if self._base is None else [key + self._base for key in self._kept]
        done = rescue(self._path, self._max_bytes, known)
        with self._lock:
            self._missing |= {key - (self._base or 0) for key in done.lost}
        logger.warning(
            "outbox %s is damaged (%s): moved to %s, a new one is begun with the %d messages that "
            "could be read%s",
            self._path,
            reason,
            done.aside,
            done.n_saved,
            f"; {len(done.lost)} could not, and count as dropped unless they are on their way"
            if done.lost
            else "",
        )

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("unable to open database file")
        return self._connection

    def _fail(self, error: Exception) -> None:
        """Go on in memory; say so once."""
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            # Damaged: opening it again moves it aside.
            self._disconnect()
        self._retry_s = time.monotonic() + _RETRY_EVERY_S
        if self._fault is None:
            logger.warning(
                "outbox %s: cannot be used (%s): events are kept in memory, and a restart loses "
                "them, until it can; free some space or make the folder writable",
                self._path,
                reason,
            )
        self._fault = f"outbox {self._path}: {reason}"

    def _recover(self) -> None:
        """Try the disk again, and move there what waits in memory."""
        self._retry_s = time.monotonic() + _RETRY_EVERY_S
        if self._connection is None:
            self._open()
        waiting = self._memory.items()
        self._write(waiting)
        self._fault = None
        logger.warning(
            "outbox %s: can be written again; %d messages were moved there from memory",
            self._path,
            len(waiting),
        )

    def _read_again(self, after: int | None, limit: int | None) -> list[Queued]:
        """Open the file again at once, or what comes now would go before what is older."""
        try:
            self._recover()
            return self._read(after, limit)
        except (OSError, sqlite3.Error, InputError) as error:
            self._fail(error)
            return []

    # --- rows; `_disk` is held

    def _read(self, after: int | None, limit: int | None) -> list[Queued]:
        if self._connection is None:
            return []
        found: list[Queued] = []
        assert self._base is not None
        last = -(2**62) if after is None else after + self._base
        while limit is None or len(found) < limit:
            wanted = -1 if limit is None else limit - len(found)
            rows = self._database().execute(
                f"SELECT {COLUMNS} FROM outbox WHERE key > ? ORDER BY key LIMIT ?", (last, wanted)
            )
            page = rows.fetchall()
            for row in page:
                last = row[0]
                with self._lock:
                    kept = last - self._base in self._kept
                queued = self._parse(row) if kept else None
                if queued is not None:
                    found.append(queued)
            if limit is None or len(page) < wanted:
                break
        return found

    def _parse(self, row: tuple[Any, ...]) -> Queued | None:
        """A row's message; one that is no event is given up."""
        assert self._base is not None
        try:
            return message_of(row, self._base)
        except (InputError, TypeError, ValueError) as error:
            self._report("unreadable", f"holds unreadable messages, which are given up: {error}")
            self.delete(row[0] - self._base)
            self._dropped += 1
            return None

    def _write(self, new: list[Queued]) -> None:
        """Delete what is gone, add, and give up the oldest where that is too much; all or nothing.

        Raises sqlite3.Error, and nothing has changed then.
        """
        self._database()
        assert self._base is not None
        sizes: dict[int, int] = {}
        dropped: list[int] = []
        with self._lock:
            gone = list(self._gone)
            kept_bytes = self._kept_bytes
        with transaction(connection := self._database()):
            self._remove(gone)
            for queued in new:
                row = row_of(queued, self._base)
                connection.execute(INSERT, row)
                sizes[queued.key] = len(row[3]) + ROW_BYTES
                kept_bytes += sizes[queued.key]
            while new and kept_bytes > self._max_bytes:
                oldest = self._oldest_event(new[-1])
                if not oldest:
                    break
                self._remove(oldest)
                dropped += oldest
                kept_bytes -= sum(oldest.values())
        with self._lock:
            del self._gone[: len(gone)]
            for queued in new:
                # Of those that waited in memory, some may have been acknowledged meanwhile.
                if self._fault is not None and not self._memory.take(queued.key):
                    self._gone.append(queued.key)
                else:
                    self._kept[queued.key] = sizes[queued.key]
                    self._kept_bytes += sizes[queued.key]
        self._forget(dropped, f"is full with {self._max_bytes / 1e6:g} MB: the oldest events")
        self._undated = self._undated or any(queued.undated for queued in new)

    def _remove(self, keys: Iterable[int]) -> None:
        assert self._base is not None
        rows = [(key + self._base,) for key in keys]
        self._database().executemany("DELETE FROM outbox WHERE key = ?", rows)

    def _oldest_event(self, newest: Queued) -> dict[int, int]:
        """Keys and sizes of what goes first where there is no room.

        It is the event that has waited longest, with all of its messages that are still here: a
        receiver is not to hear of half an event. The one that is being put stays; where nothing
        else is left, its own updates go, the oldest first, then its start.
        """
        assert self._base is not None
        execute = self._database().execute
        size = f"length(event) + {ROW_BYTES}"
        own = newest.event.id
        first = execute("SELECT id FROM outbox WHERE id != ? ORDER BY key LIMIT 1", (own,))
        row = first.fetchone()
        if row is not None:
            rows = execute(f"SELECT key, {size} FROM outbox WHERE id = ?", row)
        else:
            rows = execute(
                f"SELECT key, {size} FROM outbox WHERE key != ? "
                "ORDER BY phase != 'update', key LIMIT 1",
                (newest.key + self._base,),
            )
        return {key - self._base: n_bytes for key, n_bytes in rows}

    def _forget(self, keys: Iterable[int], why: str) -> None:
        """Count messages that were given up; one acknowledged in the meantime was not."""
        lost = 0
        with self._lock:
            for key in keys:
                n_bytes = self._kept.pop(key, None)
                if n_bytes is not None:
                    self._kept_bytes -= n_bytes
                    lost += 1
        if lost:
            self._dropped += lost
            self._report(why, f"{why} are given up and counted")

    def _count_missing(self) -> None:
        """Whoever begins at the oldest again has nothing on its way that is not here."""
        with self._lock:
            self._dropped += len(self._missing)
            self._missing.clear()

    def _report(self, kind: str, line: str) -> None:
        """Log a kind of loss once: it is counted in health as well."""
        if kind not in self._reported:
            self._reported.add(kind)
            logger.warning("outbox %s %s", self._path, line)

    def _date(self, now: Moment) -> None:
        """Date some events of this run of the machine, if the clock has become right."""
        if not now.synced:
            return
        rows = self._database().execute(
            f"SELECT {COLUMNS} FROM outbox WHERE undated AND boot_id = ? LIMIT ?",
            (now.boot_id, _DATE_TOGETHER),
        )
        found = rows.fetchall()
        dated = [queued.dated(now) for row in found if (queued := self._parse(row)) is not None]
        base = self._base or 0
        self._undated = len(found) == _DATE_TOGETHER
        if not dated:
            return
        with transaction(connection := self._database()):
            # An update: what was deleted meanwhile must not come back.
            connection.executemany(
                "UPDATE outbox SET event = ?, utc_s = ?, synced = ?, undated = ? WHERE key = ?",
                [
                    (row[3], row[6], row[7], row[9], row[0])
                    for row in (row_of(queued, base) for queued in dated)
                ],
            )

    def _expire(self, now: Moment) -> None:
        """Give up the events whose last message has waited too long."""
        assert self._base is not None
        execute = self._database().execute
        old: list[int] = []
        newest: dict[str, bool] = {}
        with contextlib.closing(execute(f"SELECT {COLUMNS} FROM outbox ORDER BY key")) as rows:
            for row in rows:
                queued = self._parse(row)
                if queued is None:
                    continue
                if now.since(queued.put) <= self._max_age_s:
                    break
                own = queued.event.id
                if own not in newest:
                    last = self._parse(
                        execute(
                            f"SELECT {COLUMNS} FROM outbox WHERE id = ? ORDER BY key DESC LIMIT 1",
                            (own,),
                        ).fetchone()
                    )
                    newest[own] = last is None or now.since(last.put) > self._max_age_s
                if newest[own]:
                    old.append(queued.key)
        if old:
            with transaction(self._database()):
                self._remove(old)
            days = self._max_age_s / 86_400
            self._forget(old, f"holds events older than {days:g} days, which")
