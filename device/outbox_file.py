"""The file of an outbox on disk: one SQLite table, a row for each message."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from soundpost.device.clock import Moment
from soundpost.device.events import SoundEvent
from soundpost.device.outbox import Queued

# What a message occupies in the file beside its JSON: moments, index, room left in the pages. So
# measured with 28,000 messages.
ROW_BYTES: Final = 300
COLUMNS: Final = "key, event, boot_id, uptime_s, utc_s, synced, age_s"
INSERT: Final = "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Files beside the database that belong to it.
LOG: Final = "-wal"
SIDECARS: Final = (LOG, "-shm")
# The file's mark in SQLite's header ("Spob"), and the version of its table.
_APPLICATION_ID: Final = 0x53706F62
_TABLE_VERSION: Final = 1
_TABLE: Final = """
CREATE TABLE outbox (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  phase TEXT NOT NULL,
  event BLOB NOT NULL,
  boot_id TEXT NOT NULL,
  uptime_s REAL NOT NULL,
  utc_s REAL NOT NULL,
  synced INTEGER NOT NULL,
  age_s REAL,
  undated INTEGER NOT NULL
);
CREATE INDEX outbox_id ON outbox (id);
CREATE INDEX outbox_undated ON outbox (boot_id) WHERE undated;
"""


class DamagedError(Exception):
    """The file is no outbox of this version, or its content contradicts itself."""


def open_outbox_file(path: Path) -> sqlite3.Connection:
    """Open or create the database; it is sound and can be written.

    Raises DamagedError or sqlite3.DatabaseError where it is damaged, and sqlite3.OperationalError
    or OSError where it cannot be used now.
    """
    log = Path(f"{path}{LOG}")
    new = not path.exists()
    if not new and path.stat().st_size == 0 and log.exists() and log.stat().st_size:
        raise DamagedError("it is empty, but its log is not")
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        _check_and_create(connection)
    except BaseException:
        connection.close()
        raise
    if new:
        sync_folder(path.parent)
    return connection


def _check_and_create(connection: sqlite3.Connection) -> None:
    decode_anything(connection)
    # Read before anything is written: it may be a file of somebody else's.
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if n_tables:
        if (application_id, version) != (_APPLICATION_ID, _TABLE_VERSION):
            raise DamagedError("it is no outbox of this version of Soundpost")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise DamagedError(str(found[0]))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    with transaction(connection):
        if not n_tables:
            for statement in _TABLE.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        # Written each time: what cannot be written is to be known now.
        connection.execute(f"PRAGMA user_version = {_TABLE_VERSION}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; on the disk when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled it back already.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def decode_anything(connection: sqlite3.Connection) -> None:
    """Let text that is no UTF-8 be read: whether a row says anything is found out later."""
    connection.text_factory = lambda text: text.decode("utf-8", "replace")


def row_of(queued: Queued, base: int) -> tuple[Any, ...]:
    """What the file holds of a message; base is added to its key."""
    event, put = queued.event, queued.put
    return (
        queued.key + base,
        event.id,
        event.phase,
        event.to_json().encode(),
        put.boot_id,
        put.uptime_s,
        put.utc_s,
        put.synced,
        queued.age_s,
        queued.undated,
    )


def message_of(row: tuple[Any, ...], base: int) -> Queued:
    """Message of a row of COLUMNS; InputError, TypeError or ValueError where it is none."""
    key, event, boot_id, uptime_s, utc_s, synced, age_s = row
    put = Moment(str(boot_id), float(uptime_s), float(utc_s), bool(synced))
    age_s = None if age_s is None else float(age_s)
    return Queued(key - base, SoundEvent.from_json(event, f"message {key}"), put, age_s)


def sync_folder(folder: Path) -> None:
    """Flush a folder, in which a name is new, and the one above it.

    Some file systems know no such flush, and the folder above may be another user's.
    """
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):
            opened = os.open(place, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
