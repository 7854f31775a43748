"""The folder of clips: names, writing, and what is deleted when.

A clip is two files, NAME.flac and NAME.json, which tells of the event. The name says all that
retention needs, so that the folder is its own index:

    20261120T100001.250000Z__porch__smoke_alarm__0192f0c4-….flac
    when it begins (UTC)    source label         id of the event

Only files with such a name are ever deleted; others in the folder are left alone, and not counted.

A machine without a clock of its own names clips wrongly until it has the time. Nothing goes by its
date before the clock is right; what then turns out to be misnamed is dated by its file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import check_free, write_atomically

logger = logging.getLogger(__name__)

# A slug this long leaves a name below the 255 bytes of a file system.
_SLUG_LENGTH = 64
_STEM = (
    r"(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z)__(?P<source>[\w-]+?)__(?P<label>[\w-]+?)"
    r"__[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
)
_NAME = re.compile(rf"(?P<stem>{_STEM})\.(?P<kind>flac|json)", re.ASCII)
# What write_atomically leaves where it was killed.
_PART = re.compile(rf"\.{_STEM}\.(flac|json)\.[\w-]+\.part", re.ASCII)
_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_DAY_S = 86_400.0
_MB = 1_000_000
# A clip is written within this time of its beginning.
_WRITTEN_S = 3_600.0
# Readable by the sensor and its group, not by every user of the machine.
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


def slug(name: str) -> str:
    """A name as part of a file's: letters, digits, '-' and single '_' of ASCII."""
    return re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9-]", "_", name))[:_SLUG_LENGTH].strip("_") or "-"


def _begins_s(match: re.Match[str]) -> float:
    begins = datetime.strptime(match["time"], _TIME_FORMAT)
    return begins.replace(tzinfo=timezone.utc).timestamp()


def _parse(name: str) -> re.Match[str] | None:
    """Parts of a clip's file name; None where it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is not None:
        try:
            _begins_s(match)
        except ValueError:
            return None
    return match


@dataclass(frozen=True)
class ClipSettings:
    """Clips of events, and what is kept of them.

    enabled : keep any; off unless asked for
    folder : where they go
    pre_roll_s, post_roll_s : sound before the onset and after the end
    max_length_s : of a clip, the rolls included; the beginning is kept. Less where it would
        take too much memory: of many channels, or at a high rate
    labels : of which events; none given: of all
    channels : "source": what the source listens to; "all": every channel of it
    rate_hz : of the files; None: the source's
    max_age_days : older clips go; by the clock once it is right, and by the time that the sensor
        has run in any case
    max_size_mb : of all clips; beyond, the oldest go
    min_per_class : the newest clips of each label, which age and size spare
    min_free_mb : left free on the disk, for what matters more; a clip that would not leave it is
        not written
    """

    enabled: bool = False
    folder: Path = Path("clips")
    pre_roll_s: float = 1.0
    post_roll_s: float = 1.0
    max_length_s: float = 30.0
    labels: tuple[str, ...] = ()
    channels: Literal["source", "all"] = "source"
    rate_hz: int | None = None
    max_age_days: float = 30.0
    max_size_mb: float = 500.0
    min_per_class: int = 0
    min_free_mb: float = 200.0

    def __post_init__(self) -> None:
        if self.pre_roll_s >= self.max_length_s:
            raise UsageError(
                f"pre_roll_s ({self.pre_roll_s:g} s) leaves no room in max_length_s "
                f"({self.max_length_s:g} s)"
            )


@dataclass(frozen=True)
class _Clip:
    """What retention needs to know.

    begins_s : Unix time, by its name until that is known to be wrong
    checked : begins_s is not to be doubted any more
    seen_s : monotonic time since which it is known here
    """

    label: str
    begins_s: float
    n_bytes: int
    checked: bool = False
    seen_s: float = field(default_factory=time.monotonic)


class ClipStore:
    """One folder of clips; used by one thread.

    Parameters
    ----------
    settings : their folder is made where it is missing; leftovers of a write that was killed are
        removed

    Raises
    ------
    InputError
        The folder cannot be made, read or written.
    """

    def __init__(self, settings: ClipSettings) -> None:
        self.folder = folder = settings.folder
        self._limits = settings
        self._clips: dict[str, _Clip] = {}
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._read_folder()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold clips ({error.strerror}); make it a folder that this user "
                "may write, or choose another with clips.folder"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: cannot hold clips: this user may not write there")
        self.expire()

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def size_mb(self) -> float:
        """Megabytes of all clips."""
        return sum(clip.n_bytes for clip in self._clips.values()) / _MB

    def _read_folder(self) -> None:
        sizes: Counter[str] = Counter()
        whole: dict[str, re.Match[str]] = {}
        for path in self.folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
                continue
            match = _parse(path.name)
            if match is None or not path.is_file():
                continue
            sizes[match["stem"]] += path.stat().st_size
            if match["kind"] == "flac":
                whole[match["stem"]] = match
        for stem, n_bytes in sizes.items():
            if stem in whole:
                self._clips[stem] = _Clip(whole[stem]["label"], _begins_s(whole[stem]), n_bytes)
            else:
                # The record is written first: a kill came before the sound.
                (self.folder / f"{stem}.json").unlink(missing_ok=True)

    @staticmethod
    def name(begins: datetime, source: str, label: str, event_id: str) -> str:
        """File name of a clip; begins : an instant with a zone."""
        moment = begins.astimezone(timezone.utc).strftime(_TIME_FORMAT)
        return f"{moment}__{slug(source)}__{slug(label)}__{event_id}.flac"

    def write(self, name: str, sound: bytes, record: Mapping[str, Any]) -> None:
        """Write a clip and its record; before and after, delete what is beyond the limits.

        name : as `name` gives it
        sound : content of the FLAC file

        Raises InputError where the disk is full or refuses; nothing is left then.
        """
        match = _parse(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a clip")
        text = json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n"
        n_bytes = len(sound) + len(text)
        # First: it may make the room that is needed, and goes on where nothing can be written.
        self.expire()
        check_free(self.folder, n_bytes, self._limits.min_free_mb, "a clip", "clips.min_free_mb")
        side_car = self.folder / f"{match['stem']}.json"
        write_atomically(side_car, text, mode=_FILE_MODE)
        try:
            write_atomically(self.folder / name, sound, mode=_FILE_MODE)
        except InputError:
            side_car.unlink(missing_ok=True)
            raise
        self._clips[match["stem"]] = _Clip(match["label"], _begins_s(match), n_bytes)
        self.expire()

    def expire(self) -> None:
        """Delete what is too old or too much, oldest first."""
        limits = self._limits
        now_s, max_age_s = time.time(), limits.max_age_days * _DAY_S
        synchronised = clock_synchronised()
        if synchronised:
            self._check_dates(now_s, now_s - max_age_s)
        oldest_first = sorted(self._clips, key=lambda stem: (self._clips[stem].begins_s, stem))
        seen: Counter[str] = Counter()
        spared = set()
        for stem in reversed(oldest_first):
            label = self._clips[stem].label
            if seen[label] < limits.min_per_class:
                spared.add(stem)
            seen[label] += 1
        begun_s, known_s = now_s - max_age_s, time.monotonic() - max_age_s
        excess = sum(clip.n_bytes for clip in self._clips.values()) - limits.max_size_mb * _MB
        stuck: list[str] = []
        for stem in oldest_first:
            clip = self._clips[stem]
            too_old = (synchronised and clip.begins_s < begun_s) or clip.seen_s < known_s
            if stem in spared or not (too_old or excess > 0):
                continue
            try:
                # The sound first: a record without sound is removed at the next start.
                for kind in ("flac", "json"):
                    (self.folder / f"{stem}.{kind}").unlink(missing_ok=True)
            except OSError as error:
                stuck.append(f"{stem}: {error.strerror}")
                continue
            del self._clips[stem]
            excess -= clip.n_bytes
        if stuck:
            logger.warning("%d clips cannot be deleted, such as %s", len(stuck), stuck[0])

    def _check_dates(self, now_s: float, too_old_s: float) -> None:
        """Date anew, from now on, what a wrong clock has named: in the future, or long ago.

        The file's time keeps the new date over restarts. Only where it differs from the name has
        that been done before, or was the clock right when the file was written.
        """
        for stem, clip in self._clips.items():
            future = clip.begins_s > now_s
            if clip.checked or not (future or clip.begins_s < too_old_s):
                continue
            begins_s = clip.begins_s
            if future or not self._was_synchronised(stem):
                path = self.folder / f"{stem}.flac"
                try:
                    begins_s = path.stat().st_mtime
                    if begins_s > now_s or abs(begins_s - clip.begins_s) < _WRITTEN_S:
                        begins_s = now_s
                        os.utime(path, (now_s, now_s))
                except OSError as error:
                    logger.warning("clip %s cannot be dated anew: %s", stem, error.strerror)
            # Of a key that is there: the dictionary does not change under its loop.
            self._clips[stem] = replace(clip, begins_s=begins_s, checked=True)

    def _was_synchronised(self, stem: str) -> bool:
        """Whether the clock was right when the clip's event began, by its record."""
        try:
            record = json.loads((self.folder / f"{stem}.json").read_bytes())
            return record["event"]["time_synced"] is not False
        except (OSError, ValueError, LookupError, TypeError):
            return True
