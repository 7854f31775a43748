"""A part of a session as a session of its own."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np

from soundpost.device.errors import InputError, UsageError
from soundpost.device.identifiers import uuid7
from soundpost.device.session.lost_parts import write_lost
from soundpost.device.session.session_folder import make_session_folder
from soundpost.device.session.session_json import (
    ARRAY_FILE,
    CALIBRATION_FILE,
    CameraGap,
    ClockAnchor,
    SessionDescription,
    VideoDescription,
    write_description,
)
from soundpost.device.session.session_reader import VIDEO_FILE, Session
from soundpost.device.session.session_tables import (
    FrameTable,
    Gap,
    write_frames,
    write_gaps,
)
from soundpost.device.session.wav_segments import SegmentWriter, segment_length

_BLOCK_S: Final = 1.0


def trim_session(
    session: Session,
    first: int,
    last: int,
    out: Path,
    progress: Callable[[int], object] = lambda n_samples: None,
) -> SessionDescription:
    """Write samples first to last (exclusive), and the pictures taken meanwhile, as a new session.

    Sound is copied to the bit; pictures are encoded anew. session.json, which comes last, says what
    it is a part of.

    progress : told how many samples more are done

    Raises UsageError for a part that the session does not have, InputError where the folder cannot
    be written.
    """
    if not 0 <= first < last <= session.n_samples:
        rate_hz = session.rate_hz
        raise UsageError(
            f"{session.folder}: from {first / rate_hz:.3f} to {last / rate_hz:.3f} s; expected a "
            f"part of its {session.duration_s:.3f} s"
        )
    make_session_folder(out)
    known = session.description
    try:
        for name, there in (
            (ARRAY_FILE, session.array is not None),
            (CALIBRATION_FILE, session.calibration is not None),
        ):
            if there:
                shutil.copyfile(session.folder / name, out / name)
        length = segment_length(session.rate_hz, session.n_channels)
        segments = SegmentWriter(out, session.rate_hz, session.n_channels, length)
        try:
            for block in session.blocks(round(_BLOCK_S * session.rate_hz), first, last):
                segments.write(block)
                progress(len(block))
        finally:
            segments.close()
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written: {error.strerror}; free some space, delete the folder and "
            "run the same command again"
        ) from error
    write_gaps(out, _gaps(session.gaps, first, last))
    write_lost(out, filter(None, (part.within(first, last) for part in session.lost)))
    video = None
    if known.video is not None:
        video = _write_video(session, known.video, first, last, out)
    part = {"id": known.id, "first_sample": first, "last_sample": last}
    description = dataclasses.replace(
        known,
        id=uuid7(),
        segment_samples=length,
        n_samples=last - first,
        end=f"trimmed from {known.id}",
        clock=_anchors(session, first, last),
        video=video,
        extra={**known.extra, "part_of": part},
    )
    write_description(out, description)
    return description


def _gaps(gaps: tuple[Gap, ...], first: int, last: int) -> list[Gap]:
    kept = []
    for gap in gaps:
        low = max(gap.first_sample, first)
        high = min(gap.first_sample + gap.length, last)
        if low < high:
            kept.append(Gap(low - first, high - low, gap.cause))
    return kept


def _anchors(session: Session, first: int, last: int) -> tuple[ClockAnchor, ...]:
    """The anchors within, and one for the first sample."""
    clock = session.clock
    if not clock:
        return ()
    utc = session.utc(first)
    begins = clock[0]
    for anchor in clock:
        if anchor.sample <= first:
            begins = anchor
    elapsed_s = (utc - begins.utc) / timedelta(seconds=1)
    kept = [ClockAnchor(0, begins.monotonic_s + elapsed_s, utc)]
    kept += [
        dataclasses.replace(anchor, sample=anchor.sample - first)
        for anchor in clock
        if first < anchor.sample <= last
    ]
    return tuple(kept)


def _write_video(
    session: Session, video: VideoDescription, first: int, last: int, out: Path
) -> VideoDescription:
    table = session.frame_table
    low, high = (int(place) for place in np.searchsorted(table.samples, [first, last]))
    sensor_s, samples, arrived_s = (column[low:high] for column in table)
    if low < high:
        _encode(session, low, high, first, out, video)
    write_frames(out, FrameTable(sensor_s, samples - first, arrived_s))
    gaps = []
    for gap in video.gaps:
        end = session.n_samples if gap.length is None else gap.first_sample + gap.length
        start = max(gap.first_sample, first)
        if start < min(end, last):
            gaps.append(CameraGap(start - first, min(end, last) - start, gap.cause))
    return dataclasses.replace(video, gaps=tuple(gaps), dropped=0)


def _encode(
    session: Session, low: int, high: int, first: int, out: Path, video: VideoDescription
) -> None:
    import av
    import av.error

    from soundpost.device.session.video_file import VideoEncoder

    encoder = VideoEncoder(out / VIDEO_FILE, video.width, video.height)
    try:
        for frame in session.frames(low, high):
            picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
            encoder.add(picture, (frame.sample - first) / session.rate_hz)
        encoder.close()
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(
            f"{out / VIDEO_FILE}: cannot be written: {error.strerror}; free some space, delete the "
            "folder and run the same command again"
        ) from error
