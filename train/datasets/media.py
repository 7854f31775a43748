"""Sound and pictures of a part of a file, decoded with PyAV: any container and codec of FFmpeg.

Time zero is the start of the container, so that sound and pictures of one time belong together.
One thread decodes: workers run side by side, and threads of each would only wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from soundpost.device.audio import check_channel, to_float
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.catalogue import Problem

Frames = NDArray[np.uint8]

# Tables give whole seconds, cuts are made at packets: a file may begin or end this much beside.
SLACK_S = 0.5
# Sound on both sides of a part, so that the resampler's filter has it and a decoder that needs its
# past (AAC, MP3) has run in.
_MARGIN_S = 0.1
_RUN_IN_S = 0.5
# From here on it is quicker to seek than to decode what comes before.
_SEEK_FROM_S = 2.0
# Containers that know where a time lies; others guess by the bit rate.
_SEEKABLE = ("mov,mp4", "matroska,webm", "wav", "flac")
# Matroska rounds times to 1 ms: less than this is no gap.
_JITTER_S = 0.02
_ATTACHED_PICTURE = 0x400
_COPY = "copy or download it again"


@dataclass(frozen=True)
class MediaInfo:
    """What a container says of itself.

    seconds : length, None where it does not say
    rate_hz, n_channels : of its first sound stream, None and 0 without one
    size : (height, width) of its first video stream, None without one
    frame_rate : pictures a second on average; n_frames: as the container says, 0 where not
    """

    seconds: float | None
    rate_hz: int | None
    n_channels: int
    size: tuple[int, int] | None
    frame_rate: float | None
    n_frames: int


def probe(path: Path) -> MediaInfo:
    """What a file says of itself; ProblemError where it is no media file."""
    with _open(path) as container:
        sound, video = _first(container, "audio"), _first(container, "video")
        rate = getattr(video, "average_rate", None)
        return MediaInfo(
            None if container.duration is None else container.duration / 1e6,
            sound.rate if sound is not None else None,
            sound.channels if sound is not None else 0,
            (video.height, video.width) if video is not None else None,
            float(rate) if rate else None,
            video.frames if video is not None else 0,
        )


def read_audio(
    path: Path, rate_hz: int, start_s: float | None = None, end_s: float | None = None
) -> FloatArray:
    """Sound of a part of a file, the mean of its channels.

    Parameters
    ----------
    start_s, end_s : the part; without them from the start, to the end

    Returns
    -------
    (n_samples,) float32, full scale ±1.0
        round(end_s * rate_hz) - round(start_s * rate_hz) samples: what a part of a clip holds does
        not depend on where it is cut. Up to 0.5 s that the file lacks at the end are silent.

    Raises ProblemError: no sound stream, a damaged container, a part outside the file.
    """
    begin_s = _check_span(path, start_s, end_s)
    with _open(path) as container:
        stream = _stream(container, "audio", path)
        first = next(container.decode(stream), None)
        if first is None:
            raise Problem(str(path), "its sound stream is empty", "sound", _COPY).error()
        # Not the stream's rate: of some AAC it is half of what is decoded.
        rate_in_hz = int(first.sample_rate)
        check_channel("mix", len(first.layout.channels), str(path))
        start, end = _samples(begin_s, rate_hz), None if end_s is None else _samples(end_s, rate_hz)
        # Input samples from which and up to which the resampler gets sound, the first of them at
        # a whole output sample.
        common = math.gcd(rate_in_hz, rate_hz)
        step_in, step_out = rate_in_hz // common, rate_hz // common
        margin = math.ceil(_MARGIN_S * rate_in_hz / step_in)
        block = max(0, start // step_out - margin)
        stop = None if end is None else math.ceil(end * step_in / step_out) + margin * step_in
        frames = chain([first], container.decode(stream))
        if begin_s > _SEEK_FROM_S and _can_seek(container):
            _seek(container, stream, max(0.0, block * step_in / rate_in_hz - _RUN_IN_S))
            frames = container.decode(stream)
        samples = _gather(frames, _origin_s(container), rate_in_hz, block * step_in, stop)
    if rate_in_hz != rate_hz:
        samples = soxr.resample(samples, rate_in_hz, rate_hz, quality="HQ")
    samples = samples[start - block * step_out :]
    if end is None:
        return np.ascontiguousarray(samples)
    return _fill(samples[: end - start], end - start, path, begin_s, rate_hz)


def read_frames(
    path: Path, times_s: Sequence[float], size: tuple[int, int] | None = None
) -> Frames:
    """Pictures that are shown at some times.

    Parameters
    ----------
    times_s : in any order
    size : (height, width) to which a picture is scaled, its shape not kept; without it, its own

    Returns
    -------
    (n_times, height, width, 3) uint8, RGB

    Raises ProblemError: no video stream, a damaged container, a time outside the file.
    """
    order = sorted(range(len(times_s)), key=lambda i: times_s[i])
    for time_s in times_s:
        _check_span(path, time_s, None)
    frames = np.empty((len(order), *(size or (0, 0)), 3), np.uint8)
    if not order:
        return frames
    waiting = [times_s[i] for i in order]
    with _open(path) as container:
        stream = _stream(container, "video", path)
        if waiting[0] > _SEEK_FROM_S and _can_seek(container):
            _seek(container, stream, waiting[0])
        origin_s = _origin_s(container)
        period_s = 1 / float(stream.average_rate) if stream.average_rate else 0.0
        done = 0
        shown, ends_s = None, 0.0
        for n, frame in enumerate(container.decode(stream)):
            at_s = n * period_s if frame.time is None else frame.time - origin_s
            if shown is None:
                if at_s > waiting[0] + SLACK_S:
                    raise _outside(path, waiting[0], f"pictures from {at_s:.2f} s on")
                shown = frame
                if size is None:
                    frames = np.empty((len(order), frame.height, frame.width, 3), np.uint8)
            # 0.1 ms: times are written with fewer digits than they have.
            while done < len(order) and waiting[done] < at_s - 1e-4:
                frames[order[done]] = _picture(shown, frames)
                done += 1
            if done == len(order):
                return frames
            shown, ends_s = frame, at_s + period_s
        if shown is None:
            raise Problem(str(path), "its video stream is empty", "pictures", _COPY).error()
        for at, time_s in zip(order[done:], waiting[done:], strict=True):
            if time_s > ends_s + SLACK_S:
                raise _outside(path, time_s, f"pictures up to {ends_s:.2f} s")
            frames[at] = _picture(shown, frames)
    return frames


def frame_times_s(start_s: float, end_s: float, per_second: float) -> list[float]:
    """Times of pictures at equal distance, the first at start_s, all before end_s.

    Their number is rounded: at one a second, files of nominally 10 s have ten, be they 9.98 or
    10.01 s long.
    """
    n = max(1, _samples((end_s - start_s) * per_second, 1))
    return [start_s + i / per_second for i in range(n)]


def read_frames_per_second(
    path: Path,
    per_second: float,
    start_s: float | None = None,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
) -> Frames:
    """Pictures of a part of a file, so many a second; see read_frames and frame_times_s."""
    begin_s = _check_span(path, start_s, end_s)
    if end_s is None:
        end_s = probe(path).seconds
    if end_s is None:
        raise Problem(
            str(path), "does not say how long it is", "a container that does", "give an end"
        ).error()
    return read_frames(path, frame_times_s(begin_s, end_s, per_second), size)


def count_decoded(path: Path) -> tuple[int, float]:
    """Pictures and seconds of sound that a file really holds: all of it is decoded.

    Raises ProblemError where something in it is damaged.
    """
    with _open(path) as container:
        streams = [_first(container, kind) for kind in ("audio", "video")]
        n_frames, seconds = 0, 0.0
        for frame in container.decode([stream for stream in streams if stream is not None]):
            if hasattr(frame, "samples"):
                seconds += frame.samples / frame.sample_rate
            else:
                n_frames += 1
    return n_frames, seconds


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """An open container; what FFmpeg says of it, or while it is read, becomes a problem."""
    import av
    import av.error

    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise Problem(str(path), found, "a sound or video file", "check the path").error()
    if path.stat().st_size == 0:
        raise Problem(str(path), "is empty (0 bytes)", "a media file", _COPY).error()
    # `file:` first, as a name may hold a colon.
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise Problem(
            str(path),
            f"is not a container that can be read ({_reason(error)})",
            "a media file",
            _COPY,
        ).error() from error
    with container:
        try:
            for stream in container.streams:
                if stream.type in ("audio", "video"):
                    stream.codec_context.thread_count = 1
            yield container
        except av.error.FFmpegError as error:
            raise Problem(
                str(path), f"is damaged ({_reason(error)})", "a whole media file", _COPY
            ).error() from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _first(container: Any, kind: str) -> Any:
    """The first stream of a kind that plays; a picture on a record's sleeve does not."""
    for stream in container.streams:
        if stream.type == kind and not int(getattr(stream, "disposition", 0)) & _ATTACHED_PICTURE:
            return stream
    return None


def _stream(container: Any, kind: str, path: Path) -> Any:
    stream = _first(container, kind)
    if stream is None:
        name = "sound" if kind == "audio" else "video"
        has = ", ".join(sorted({other.type for other in container.streams})) or "nothing"
        raise Problem(
            str(path),
            f"has no {name} stream (it has {has})",
            f"a file with {'sound' if kind == 'audio' else 'pictures'}",
            "download it again, or take the clip out",
        ).error()
    return stream


def _origin_s(container: Any) -> float:
    return (container.start_time or 0) / 1e6


def _can_seek(container: Any) -> bool:
    return str(container.format.name).startswith(_SEEKABLE)


def _seek(container: Any, stream: Any, time_s: float) -> None:
    time_s += _origin_s(container)
    container.seek(int(time_s / stream.time_base), stream=stream)


def _samples(time_s: float, rate_hz: int) -> int:
    return math.floor(time_s * rate_hz + 0.5)


def _check_span(path: Path, start_s: float | None, end_s: float | None) -> float:
    start_s = 0.0 if start_s is None else start_s
    if not start_s >= 0 or (end_s is not None and not end_s > start_s):
        raise InputError(
            f"{path}: the part from {start_s:g} to {end_s} s; expected a start of 0 or more and an "
            "end after it"
        )
    return start_s


def _outside(path: Path, time_s: float, holds: str) -> InputError:
    return Problem(
        str(path), f"{time_s:g} s is asked for", holds, "correct the times, or download it again"
    ).error()


def _gather(
    frames: Iterator[Any], origin_s: float, rate_hz: int, start: int, stop: int | None
) -> FloatArray:
    """Samples start to stop of a stream, the mean of its channels, silent where there are none."""
    parts: list[FloatArray] = []
    have = start
    position: int | None = None
    for frame in frames:
        samples = _mean(frame)
        if frame.time is not None:
            at = _samples(frame.time - origin_s, rate_hz)
            if position is None or abs(at - position) > _JITTER_S * rate_hz:
                position = at
        at = position if position is not None else 0
        position = at + len(samples)
        if at > have:
            gap = (at if stop is None else min(at, stop)) - have
            parts.append(np.zeros(gap, np.float32))
            have += gap
        kept = samples[max(0, have - at) : None if stop is None else max(0, stop - at)]
        parts.append(kept)
        have += len(kept)
        if stop is not None and have >= stop:
            break
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _mean(frame: Any) -> FloatArray:
    """(n_samples,) float32 of a decoded frame, planar or not, of any sample format."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    mean: FloatArray = to_float(array).mean(axis=0, dtype=np.float32)
    return mean


def _fill(samples: FloatArray, n: int, path: Path, start_s: float, rate_hz: int) -> FloatArray:
    lacks = n - len(samples)
    if lacks > SLACK_S * rate_hz or not len(samples):
        holds = start_s + len(samples) / rate_hz
        raise _outside(
            path,
            start_s + n / rate_hz,
            f"sound up to {holds:.2f} s" if len(samples) else "sound of that time",
        )
    return np.ascontiguousarray(np.pad(samples, (0, lacks)))


def _picture(frame: Any, frames: Frames) -> Frames:
    """RGB of a picture, of the size of the array it is for."""
    height, width = frames.shape[1:3]
    picture: Frames = frame.reformat(
        width=width, height=height, format="rgb24", interpolation="BILINEAR"
    ).to_ndarray()
    return picture
