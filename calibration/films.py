"""Pictures as calibration reads them: from a video, or from a recorded session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.session.session_reader import VIDEO_FILE, open_session

GreyPicture = NDArray[np.uint8]


def grey_frames(path: Path, *, quiet: bool = True) -> Iterator[tuple[float, GreyPicture]]:
    """Time in seconds and brightness, (height, width), of each picture.

    path : a video, whose times are those of its stamps, or a session's folder, whose pictures have
        their times on the timeline of its sound as they were recorded: without what calibration
        knows of the camera's delay

    Raises InputError where it cannot be read. Needs PyAV, of the array extra.
    """
    if not path.is_dir():
        yield from _video_frames(path, quiet=quiet)
        return
    with open_session(path) as session:
        table, rate_hz = session.frame_table, session.rate_hz
    if not table.n_frames:
        raise InputError(f"{path}: has no pictures; expected some: record with --camera")
    number = 0
    for number, (_, picture) in enumerate(_video_frames(path / VIDEO_FILE, quiet=quiet), 1):
        if number <= table.n_frames:
            yield float(table.samples[number - 1]) / rate_hz, picture
    if number < table.n_frames:
        raise InputError(
            f"{path / VIDEO_FILE}: holds {number} frames; expected {table.n_frames}, as video.csv "
            f"says: copy it again, or run soundpost session check {path} --repair"
        )


def _video_frames(path: Path, *, quiet: bool) -> Iterator[tuple[float, GreyPicture]]:
    import av
    import av.error
    from tqdm import tqdm

    if not path.is_file():
        raise InputError(f"{path}: cannot be read: no such file; check the path")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: has no video; expected a file with pictures")
            total = container.streams.video[0].frames or None
            frames = container.decode(video=0)
            for frame in tqdm(frames, total=total, desc="video", unit="frame", disable=quiet):
                if frame.time is None:
                    raise InputError(f"{path}: a frame has no time; convert it to MKV or MP4")
                yield float(frame.time), frame.to_ndarray(format="gray")
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read as video ({error.strerror}); convert it, for example with "
            "ffmpeg"
        ) from error
