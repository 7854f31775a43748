"""Segments of web videos: what the tables of AudioSet and of DCASE's tasks of 2017 and 2018 list.

The tables say which part of which video is meant and what is heard in it; sound and pictures are
files of one's own, found by the names that such files usually get (media_files).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import MediaClip, Problem
from soundpost.train.datasets.media_files import FoundFile, MediaFiles

# Y-5QrBL6MzLg_60.000_70.000.wav: `Y`, the video's id, start and end.
_FILE_NAME = re.compile(r"^(?P<id>.+)_(?P<start>\d+\.\d+)_(?P<end>\d+\.\d+)\.wav$")


@dataclass(frozen=True)
class Folders:
    """Where a set lies.

    tables : folder of the tables, or one that has them in one of the published places below
    audio, video : folders of the files; without either, the folder of the tables
    whole_videos : files without times in their name hold whole videos, so that a clip is the part
        from its start to its end; else they are cut to the segment
    """

    tables: Path
    audio: Path | None = None
    video: Path | None = None
    whole_videos: bool = False

    def files(self) -> MediaFiles:
        """Every sound and video file there is; InputError where a folder is not there."""
        folders = [folder for folder in (self.audio, self.video) if folder is not None]
        for folder in [self.tables, *folders]:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; give the one that holds the set")
        return MediaFiles(folders or [self.tables])

    def table(self, *places: str) -> Path | None:
        """The first of some places, relative to the folder of the tables, that is a file."""
        return next((path for p in places if (path := self.tables / p).is_file()), None)


@dataclass(frozen=True)
class Segment:
    """One row of a table. id : the clip's, as published; video_id : of the video it is from."""

    id: str
    video_id: str
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    split: str
    source: str
    labelled: bool = True


def segment_id(video_id: str, start_s: float, end_s: float) -> str:
    """Id of a segment whose table has none: as DCASE names its files, without the suffix."""
    return f"{video_id}_{start_s:.3f}_{end_s:.3f}"


def parse_file_name(name: str) -> tuple[str, float, float] | None:
    """Video, start and end in seconds of a published file name, or None."""
    match = _FILE_NAME.match(name)
    if match is None or float(match["start"]) >= float(match["end"]):
        return None
    video_id = match["id"]
    # Ids have 11 characters and may begin with Y themselves.
    if len(video_id) == 12 and video_id.startswith("Y"):
        video_id = video_id[1:]
    return video_id, float(match["start"]), float(match["end"])


def attach_files(
    segments: Iterable[Segment], files: MediaFiles, whole_videos: bool
) -> tuple[MediaClip, ...]:
    """Clips of segments with the files that are there. A video without a sound file has its own."""
    clips = []
    for segment in segments:
        sound = files.find_sound(segment.video_id, segment.start_s, segment.end_s)
        video = files.find_video(segment.video_id, segment.start_s, segment.end_s)
        sound = sound or video
        found = [file for file in (sound, video) if file is not None]
        whole = whole_videos and bool(found) and not any(file.has_times for file in found)
        if whole_videos and not whole:
            # One file is cut and the other is not: the clip has one span for both, so the cut
            # one stands.
            sound, video = _cut(sound), _cut(video)
        clips.append(
            MediaClip(
                segment.id,
                sound.path if sound else None,
                video.path if video else None,
                segment.labels,
                segment.split,
                segment.start_s if whole else None,
                segment.end_s if whole else None,
                segment.end_s - segment.start_s,
                segment.labelled,
                group=segment.video_id,
                source=segment.source,
            )
        )
    return tuple(clips)


def _cut(file: FoundFile | None) -> FoundFile | None:
    return file if file is not None and file.has_times else None


def missing_table(folder: Path, names: Sequence[str]) -> InputError:
    """The error of a folder in which there is no table at all."""
    return InputError(
        f"{folder}: has none of {', '.join(names)}; expected the tables as published: download "
        "them into this folder"
    )


def bad_file_name(where: str, name: str) -> Problem:
    """A row whose file name does not tell the segment."""
    return Problem(
        where,
        f"file name {name!r}",
        "one such as Y-BJNMHMZDcU_50.000_60.000.wav: video, start, end",
        "take the row as published",
    )
