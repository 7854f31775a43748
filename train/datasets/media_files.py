"""Which file of a folder holds a segment of a web video, by the names that such files usually get.

Sets of web videos are published as tables of a video's id, a start and an end; everybody fetches
the files alone, and names them by one of a few customs. With `Y` in front or without (some programs
take a name that begins with `-` for an option):

    -5QrBL6MzLg_60.000_70.000   start and end in seconds, as in DCASE's audio
    -5QrBL6MzLg_60000_70000     in milliseconds
    -5QrBL6MzLg_60_70           in whole seconds
    -5QrBL6MzLg_000060          the start in seconds, six digits
    -5QrBL6MzLg_60              the start in whole seconds
    -5QrBL6MzLg                 no times: cut to the segment, or the whole video
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from soundpost.train.clips import AUDIO_SUFFIXES

SOUND_SUFFIXES = AUDIO_SUFFIXES | {".m4a", ".aac", ".opus", ".wma"}
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".3gp", ".mpg", ".ts"})


@dataclass(frozen=True)
class FoundFile:
    """A file that holds a segment. has_times : its name says which, so that it was cut to it."""

    path: Path
    has_times: bool


class MediaFiles:
    """Sound and video files below some folders, by their name without its suffix."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.sound: dict[str, Path] = {}
        self.video: dict[str, Path] = {}
        for path in sorted(_walk(folders)):
            suffix = path.suffix.lower()
            if suffix in SOUND_SUFFIXES:
                self.sound.setdefault(path.stem, path)
            elif suffix in VIDEO_SUFFIXES:
                self.video.setdefault(path.stem, path)

    def find_sound(self, video_id: str, start_s: float, end_s: float) -> FoundFile | None:
        """The sound file of a segment."""
        return _find(self.sound, video_id, start_s, end_s)

    def find_video(self, video_id: str, start_s: float, end_s: float) -> FoundFile | None:
        """The video file of a segment."""
        return _find(self.video, video_id, start_s, end_s)


def usual_names(video_id: str, start_s: float, end_s: float) -> Iterator[tuple[str, bool]]:
    """Names without suffix that a segment's file may have, and whether they tell its times."""
    times = [
        f"_{start_s:.3f}_{end_s:.3f}",
        f"_{round(1000 * start_s)}_{round(1000 * end_s)}",
    ]
    if start_s == int(start_s):
        # Zero in milliseconds and in seconds read the same: 0_10 is tried after 0_10000.
        times += [f"_{int(start_s)}_{round(end_s)}", f"_{int(start_s):06d}", f"_{int(start_s)}"]
    for time in [*times, ""]:
        for prefix in ("Y", ""):
            yield f"{prefix}{video_id}{time}", bool(time)


def _find(files: dict[str, Path], video_id: str, start_s: float, end_s: float) -> FoundFile | None:
    for name, has_times in usual_names(video_id, start_s, end_s):
        if name in files:
            return FoundFile(files[name], has_times)
    return None


def _walk(folders: Iterable[Path]) -> Iterator[Path]:
    """Files below folders; links are followed, for large sets lie on other disks, but once."""
    seen = set()
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen or not folder.is_dir():
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path)
