"""The folder of hard examples: two files each, ID.json that tells of it and ID.flac or ID.npz.

The record is written first, and holds the hash of the other: what a power cut leaves of an example
is removed at the next start. Only files with such a name are ever deleted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import InputError, UsageError
from soundpost.device.feedback.example import MAX_EXAMPLE_RECORD_BYTES, SUFFIXES, Example
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.feedback.hard_examples import REASONS
from soundpost.device.files import check_free, write_atomically
from soundpost.device.identifiers import UUID7_PATTERN

logger = logging.getLogger(__name__)

_ID = rf"(?P<id>{UUID7_PATTERN.pattern})"
_NAME = re.compile(rf"{_ID}\.(?P<kind>flac|npz|json)")
# What write_atomically leaves where it was killed.
_PART = re.compile(rf"\.({_ID}\.(flac|npz|json)|(labels|days)\.json)\.[\w-]+\.part", re.ASCII)
_LABELS: Final = "labels.json"
_DAYS: Final = "days.json"
_DAY_S: Final = 86_400.0
_MB: Final = 1_000_000
# An example is written within this time of its sound.
_WRITTEN_S: Final = 3_600.0
# Readable by the sensor and its group, not by every user of the machine.
_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_MAX_LABELS: Final = 2_000
_MAX_SMALL_BYTES: Final = 300_000


@dataclass(frozen=True)
class _Held:
    """An example on the disk.

    begins_s : Unix time, as far as the clock was right
    seen_s : monotonic time since which it is known here
    """

    example: Example
    begins_s: float
    seen_s: float = field(default_factory=time.monotonic)


class ExampleStore:
    """One folder of examples; methods may be called from any thread.

    settings : their folder is made where it is missing

    Raises InputError where the folder cannot be made, read or written.
    """

    def __init__(self, settings: FeedbackSettings) -> None:
        self.folder = folder = settings.folder
        self._limits = settings
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._read_folder()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold feedback ({error.strerror}); make it a folder that this "
                "user may write, or choose another with feedback.folder"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: cannot hold feedback: this user may not write there")
        self.labels: tuple[str, ...] = _texts(self._small(_LABELS).get("labels"))
        self._taken = _counts(self._small(_DAYS).get("taken"))
        self.expire()

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    @property
    def examples(self) -> list[Example]:
        """All that are there, oldest first."""
        with self._lock:
            return [self._held[key].example for key in sorted(self._held)]

    @property
    def n_bytes(self) -> int:
        """Of all examples, without their records."""
        with self._lock:
            return sum(held.example.n_bytes for held in self._held.values())

    def taken(self, day: str) -> dict[str, int]:
        """Examples of a day, by label, that were deleted because a person has them."""
        with self._lock:
            return dict(self._taken.get(day, {}))

    def _small(self, name: str) -> Mapping[str, object]:
        """A file of ours beside the examples; nothing where it is missing or damaged."""
        try:
            with (self.folder / name).open("rb") as file:
                content = json.loads(file.read(_MAX_SMALL_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _read_folder(self) -> None:
        names: dict[str, set[str]] = {}
        for path in self.folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
            elif (match := _NAME.fullmatch(path.name)) is not None:
                names.setdefault(match["id"], set()).add(match["kind"])
        for key, kinds in names.items():
            example = self._read_record(key) if "json" in kinds else None
            if example is None or example.file.rpartition(".")[2] not in kinds:
                # A kill came between the two files: half an example.
                self._unlink(key)
            else:
                self._held[key] = _Held(example, self._dated(example))

    def _read_record(self, key: str) -> Example | None:
        path = self.folder / f"{key}.json"
        try:
            with path.open("rb") as file:
                example = Example.from_json(file.read(MAX_EXAMPLE_RECORD_BYTES + 1), str(path))
            complete = (self.folder / example.file).stat().st_size == example.n_bytes
            return example if complete and example.id == key else None
        except (OSError, InputError) as error:
            logger.warning("an example is left out and deleted: %s", error)
            return None

    def _dated(self, example: Example) -> float:
        """Unix time of an example: of its record, or of its file where that was set right."""
        if example.time_synced:
            return example.time.timestamp()
        return (self.folder / example.file).stat().st_mtime

    def know(self, labels: Iterable[str]) -> None:
        """Keep the names of these labels too: a person chooses among them."""
        with self._lock:
            wanted = tuple(dict.fromkeys([*self.labels, *labels]))[:_MAX_LABELS]
            if wanted != self.labels:
                self._write_small(_LABELS, {"labels": wanted})
                self.labels = wanted

    def _write_small(self, name: str, content: Mapping[str, object]) -> None:
        raw = json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"
        write_atomically(self.folder / name, raw, mode=_FILE_MODE)

    def write(self, example: Example, content: bytes) -> None:
        """Write an example; before and after, delete what is beyond the limits.

        Raises InputError where the disk is full or refuses; nothing is left then.
        """
        with self._lock:
            self.expire()
            check_free(
                self.folder,
                len(content),
                self._limits.min_free_mb,
                "an example",
                "feedback.min_free_mb",
            )
            record = self.folder / f"{example.id}.json"
            write_atomically(record, example.to_json().encode() + b"\n", mode=_FILE_MODE)
            try:
                write_atomically(self.folder / example.file, content, mode=_FILE_MODE)
            except InputError:
                record.unlink(missing_ok=True)
                raise
            self._held[example.id] = _Held(example, self._dated(example))
            self.expire()

    def read(self, key: str, offset: int, length: int) -> bytes:
        """A part of an example's file; shorter at its end.

        Raises UsageError where there is no such example, InputError where it cannot be read.
        """
        with self._lock:
            path = self.folder / self._example(key).file
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(length)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    def _example(self, key: str) -> Example:
        held = self._held.get(key)
        if held is None:
            raise UsageError(f"example {key[:40]!r}: is not there (any more)")
        return held.example

    def collected(self, key: str) -> None:
        """A person has this example: it is the first to go when there is no room."""
        with self._lock:
            example = replace(self._example(key), collected=True)
            if not self._held[key].example.collected:
                path = self.folder / f"{key}.json"
                write_atomically(path, example.to_json().encode() + b"\n", mode=_FILE_MODE)
                self._held[key] = replace(self._held[key], example=example)

    def take_away(self, key: str) -> None:
        """Delete an example that a person has; its place of the day stays taken."""
        with self._lock:
            example = self._example(key)
            of_day = self._taken.setdefault(example.day, Counter())
            of_day[example.label] += 1
            for day in sorted(self._taken)[:-2]:
                del self._taken[day]
            # First: a power cut in between leaves too few places, not too many.
            self._write_small(_DAYS, {"taken": self._taken})
            self.delete(key)

    def delete(self, key: str) -> None:
        """Delete an example, if it is there."""
        with self._lock:
            if key in self._held:
                try:
                    self._unlink(key)
                except OSError as error:
                    raise InputError(
                        f"{self.folder}: {key} cannot be deleted ({error.strerror})"
                    ) from error
                del self._held[key]

    def _unlink(self, key: str) -> None:
        # The record last: without it, what is left would be nobody's.
        for suffix in (*SUFFIXES.values(), ".json"):
            (self.folder / f"{key}{suffix}").unlink(missing_ok=True)

    def expire(self) -> None:
        """Delete what is too old; and what is too much, that which says least first."""
        with self._lock:
            now_s, max_age_s = time.time(), self._limits.max_age_days * _DAY_S
            synchronised = clock_synchronised()
            if synchronised:
                self._date_anew(now_s)
            known_s = time.monotonic() - max_age_s
            excess = self.n_bytes - self._limits.max_size_mb * _MB
            for key in sorted(self._held, key=self._worth):
                held = self._held[key]
                too_old = synchronised and held.begins_s < now_s - max_age_s
                if not (too_old or held.seen_s < known_s or excess > 0):
                    continue
                try:
                    self.delete(key)
                except InputError as error:
                    logger.warning("%s", error)
                    continue
                excess -= held.example.n_bytes

    def _worth(self, key: str) -> tuple[bool, int, float, str]:
        """Rises with what an example is worth: not collected, by its reason, newer."""
        held = self._held[key]
        rank = REASONS.index(held.example.reason)
        return not held.example.collected, rank, held.begins_s, key

    def _date_anew(self, now_s: float) -> None:
        """Date from now on what was written by a clock that was not right.

        The file's time keeps the new date over restarts; only where it differs from the record's
        has that been done before.
        """
        for key, held in self._held.items():
            example = held.example
            wrong = not example.time_synced and (
                abs(held.begins_s - example.time.timestamp()) < _WRITTEN_S
            )
            if not wrong and held.begins_s <= now_s:
                continue
            try:
                os.utime(self.folder / example.file, (now_s, now_s))
            except OSError as error:
                logger.warning("example %s cannot be dated anew: %s", key, error.strerror)
            # Of a key that is there: the dictionary does not change under its loop.
            self._held[key] = replace(held, begins_s=now_s)


def _texts(found: object) -> tuple[str, ...]:
    if not isinstance(found, list):
        return ()
    return tuple(text for text in found if isinstance(text, str))[:_MAX_LABELS]


def _counts(found: object) -> dict[str, Counter[str]]:
    """Counts by label by day, as far as they are such."""
    days: dict[str, Counter[str]] = {}
    for day, labels in (found if isinstance(found, dict) else {}).items():
        if isinstance(labels, dict):
            days[day] = Counter(
                {label: n for label, n in labels.items() if type(n) is int and n > 0}
            )
    return days
