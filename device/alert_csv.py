"""Alerts in a CSV file: one line for each message, only complete ones, each once."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from soundpost.device.errors import InputError
from soundpost.device.events import SoundEvent
from soundpost.device.identifiers import format_time
from soundpost.device.terminal import printable

_COLUMNS: Final = (
    *("onset", "offset", "duration_s", "device", "source", "label", "phase", "report", "score"),
    *(
        "threshold",
        "level_dba",
        "time_synced",
        "queued_s",
        "clip",
        "id",
        "stream",
        "sample",
        "rate_hz",
    ),
    *("model", "model_version"),
)
# Messages that a broker delivers again are those it was not acknowledged, some tens at most: the
# last lines of the file tell which of them it holds. A line has about 350 bytes.
_REMEMBERED_BYTES: Final = 1_000_000
_REMEMBERED: Final = 4_096

# queued_s is left out: it grows with each time that the sensor sends a message again.
_Key = tuple[str, ...]
_KEY: Final = ("id", "phase", "report", "score", "level_dba", "onset", "offset")


class AlertTableFile:
    """A CSV file of alerts, appended to.

    A line that a crash or a power cut left half is taken away; a message that the file holds
    already is not written again. Lines are on disk when `write` returns.

    Raises InputError where the file cannot be opened, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
            self._written = self._tidy()
        except OSError as error:
            raise self._fault(error) from error

    def write(self, events: Sequence[SoundEvent]) -> None:
        """Append messages; raises InputError where that fails, with none of them written."""
        new: dict[_Key, str] = {}
        for event in events:
            fields = _fields(event)
            key = tuple(fields[name] for name in _KEY)
            if key not in self._written:
                new[key] = _line(list(fields.values()))
        if not new:
            return
        content = "".join(new.values()).encode()
        before = self._file.seek(0, os.SEEK_END)
        try:
            # A raw file may take a part only, where the disk fills up.
            if self._file.write(content) != len(content):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            raise self._fault(error) from error
        self._written.update(dict.fromkeys(new))
        for key in list(self._written)[: max(0, len(self._written) - _REMEMBERED)]:
            del self._written[key]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _tidy(self) -> dict[_Key, None]:
        """Leave a header and complete lines; the keys of the last of them."""
        header = _line(list(_COLUMNS)).encode()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        first = self._file.read(len(header))
        if first != header:
            # Half a header, from a crash while the file was made, is no one else's file.
            if not header.startswith(first):
                raise InputError(
                    f"{self.path}: its first line is not that of a table of alerts; give another "
                    "file"
                )
            self._file.truncate(0)
            self._file.write(header)
            os.fsync(self._file.fileno())
            return {}
        start = max(len(header), end - _REMEMBERED_BYTES)
        self._file.seek(start)
        tail = self._file.read(end - start)
        complete = tail.rfind(b"\n") + 1
        if complete < len(tail):
            self._file.truncate(start + complete)
        lines = tail[:complete].decode("utf-8", "replace").splitlines()
        # The first of them may be cut, where the file is longer than what is looked at.
        rows = csv.DictReader(lines[start > len(header) :], _COLUMNS)
        return {tuple(row[name] or "" for name in _KEY): None for row in rows}

    def _fault(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror or error}); check the folder and the "
            "disk's space, then run the same command again"
        )


def _fields(event: SoundEvent) -> dict[str, str]:
    """An event's columns as text; names from another program hold no line break."""

    def number(value: float | None) -> str:
        return "" if value is None else repr(value)

    values = (
        format_time(event.onset),
        "" if event.offset is None else format_time(event.offset),
        number(event.duration_s),
        event.device,
        event.source,
        event.label,
        event.phase,
        "" if event.report is None else str(event.report),
        number(event.score),
        number(event.threshold),
        number(event.level_dba),
        "true" if event.time_synced else "false",
        number(event.queued_s),
        event.clip or "",
        event.id,
        event.stream,
        str(event.sample),
        str(event.rate_hz),
        event.model.name,
        event.model.version,
    )
    return dict(zip(_COLUMNS, map(printable, values), strict=True))


def _line(values: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
