"""Alerts in an SQLite file: one row for each event, which its messages fill in.

The row of an event is the same in whatever order and however often its messages come, so that a
broker may deliver them again. A batch is on disk when `write` returns (WAL, synchronous=FULL).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from soundpost.device.errors import InputError
from soundpost.device.events import PHASES, SoundEvent
from soundpost.device.identifiers import format_time

# `phase` is the latest one heard; without `end`, the event goes on or its end never came. `score`
# and `level_dba` are the greatest so far, `received` is when the first message came.
_COLUMNS: Final = {
    "id": "TEXT PRIMARY KEY",
    "device": "TEXT NOT NULL",
    "source": "TEXT NOT NULL",
    "label": "TEXT NOT NULL",
    "phase": "TEXT NOT NULL",
    "score": "REAL NOT NULL",
    "threshold": "REAL NOT NULL",
    "onset": "TEXT NOT NULL",
    "offset": "TEXT",
    "duration_s": "REAL",
    "time_synced": "INTEGER NOT NULL",
    "level_dba": "REAL",
    "stream": "TEXT NOT NULL",
    "sample": "INTEGER NOT NULL",
    "rate_hz": "INTEGER NOT NULL",
    "model": "TEXT NOT NULL",
    "model_version": "TEXT NOT NULL",
    "model_sha256": "TEXT NOT NULL",
    "clip": "TEXT",
    "received": "TEXT NOT NULL",
}
_DECLARED: Final = ", ".join(f'"{name}" {kind}' for name, kind in _COLUMNS.items())
_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS event ({_DECLARED});
CREATE INDEX IF NOT EXISTS event_by_onset ON event (onset);
"""
_NAMES: Final = ", ".join(f'"{name}"' for name in _COLUMNS)


def _rank(row: str) -> str:
    cases = " ".join(f"WHEN '{phase}' THEN {rank}" for rank, phase in enumerate(PHASES))
    return f"CASE {row}.phase {cases} END"


# A message that is further on, or whose clock was set right meanwhile, says when and what.
_NEWER: Final = (
    f"({_rank('excluded')}, excluded.time_synced) >= ({_rank('event')}, event.time_synced)"
)
_NEWEST: Final = ("phase", "threshold", "onset", "offset", "duration_s", "time_synced")
_SET: Final = ", ".join(
    f'"{name}" = CASE WHEN {_NEWER} THEN excluded."{name}" ELSE event."{name}" END'
    for name in _NEWEST
)
_WRITE: Final = f"""
INSERT INTO event ({_NAMES}) VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (id) DO UPDATE SET
  {_SET},
  score = max(score, excluded.score),
  level_dba = coalesce(max(level_dba, excluded.level_dba), level_dba, excluded.level_dba),
  clip = coalesce(clip, excluded.clip)
"""


class AlertDatabase:
    """An SQLite file of alerts, which other programs may read meanwhile.

    Raises InputError where the file cannot be opened, or holds another program's table `event`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Autocommit: transactions begin and end where `write` says.
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._fault("cannot be opened", error) from error
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(f"BEGIN IMMEDIATE; {_CREATE} COMMIT;")
            rows = self._connection.execute("PRAGMA table_info(event)").fetchall()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._fault("cannot be used", error) from error
        missing = [name for name in _COLUMNS if name not in {row[1] for row in rows}]
        if missing:
            self._connection.close()
            raise InputError(
                f"{path}: its table 'event' is not one of alerts (it has no column "
                f"{missing[0]!r}); give another file"
            )

    def write(self, events: Sequence[SoundEvent]) -> None:
        """Put messages of events on disk, all or none.

        Raises InputError where that fails; what was written before stays.
        """
        received = format_time(datetime.now(timezone.utc))
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_WRITE, [_row(event, received) for event in events])
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise self._fault("cannot be written", error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _fault(self, what: str, error: sqlite3.Error) -> InputError:
        return InputError(
            f"{self.path}: {what} ({error}); check the folder, the disk's space and that this is "
            "an SQLite file, then run the same command again"
        )


def _row(event: SoundEvent, received: str) -> tuple[Any, ...]:
    return (
        event.id,
        event.device,
        event.source,
        event.label,
        event.phase,
        event.score,
        event.threshold,
        format_time(event.onset),
        None if event.offset is None else format_time(event.offset),
        event.duration_s,
        int(event.time_synced),
        event.level_dba,
        event.stream,
        event.sample,
        event.rate_hz,
        event.model.name,
        event.model.version,
        event.model.sha256,
        event.clip,
        received,
    )
