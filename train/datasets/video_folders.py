"""Folders of videos that nobody labelled: each file is cut into clips of 3 to 5 s.

Jia et al. 2019, section 2: "We cut each video into 3 to 5 second-long clips", and reserve "the
videos, which have both vision and audio components". A file is cut into equal parts, as few as are
5 s at most: of one that is longer than 5 s none is below 2.5 s, and one of less than 5 s is one
clip. A clip is known by its file's place in the folder and by its seconds.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import (
    Listing,
    MediaClip,
    MediaSet,
    Problem,
    ProblemError,
)
from soundpost.train.datasets.media import probe
from soundpost.train.datasets.media_files import VIDEO_SUFFIXES

CLIP_S = 5.0
SPLIT = "all"
# Containers round their length; a clip of 5.00 s that says 5.02 is one clip.
_SLACK_S = 0.1


def read_videos(folder: Path) -> Listing:
    """Clips of every video file below a folder; InputError where there is none.

    What cannot be opened, or does not say how long it is, is a problem of the listing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the videos")
    paths = sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )  # fmt: skip
    if not paths:
        raise InputError(
            f"{folder}: holds no video; expected files of {', '.join(sorted(VIDEO_SUFFIXES))}, in "
            "it or below it"
        )
    clips: list[MediaClip] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            info = probe(path)
        except ProblemError as error:
            problems.append(error.problem)
            continue
        if not info.seconds:
            problems.append(
                Problem(
                    str(path),
                    "does not say how long it is",
                    "a container that does",
                    "copy it into one, such as with ffmpeg -i IN -c copy OUT.mkv",
                )
            )
            continue
        name = path.relative_to(folder).as_posix()
        sound = path if info.rate_hz is not None else None
        video = path if info.size is not None else None
        for start_s, end_s in clip_spans(info.seconds):
            clips.append(
                MediaClip(
                    f"{name}_{start_s:.3f}_{end_s:.3f}",
                    sound,
                    video,
                    (),
                    SPLIT,
                    start_s,
                    end_s,
                    end_s - start_s,
                    labelled=False,
                    group=name,
                    source=str(path),
                )
            )
    return Listing(MediaSet(folder, folder.resolve().name, (), tuple(clips)), tuple(problems))


def clip_spans(seconds: float) -> list[tuple[float, float]]:
    """Start and end of the clips of a file of this length, whole milliseconds."""
    n = max(1, math.ceil((seconds - _SLACK_S) / CLIP_S))
    edges = [math.floor(1000 * seconds * i / n) / 1000 for i in range(n + 1)]
    return list(itertools.pairwise(edges))
