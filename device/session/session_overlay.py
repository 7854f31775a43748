"""Pictures and videos of a session with its energy maps over them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.geometry import Floats, ImageGrid
from soundpost.device.array.map_overlay import MapOverlay, OverlayStyle, Picture, level_db
from soundpost.device.audio import StreamResampler
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.calibrated_array import heard_frames
from soundpost.device.session.session_reader import Session

# Without a camera
BLANK_SIZE: Final = (640, 480)
VIDEO_SUFFIXES: Final = (".mp4", ".mkv")
_SOUND_RATE_HZ: Final = 48_000
_SOUND_BLOCK_S: Final = 1.0
_QUALITY: Final = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "4"}}


def picture_size(session: Session) -> tuple[int, int]:
    """Width and height of the camera's pictures, or of what stands for them."""
    video = session.description.video
    if video is None or not session.frame_table.n_frames:
        return BLANK_SIZE
    return video.width, video.height


def frame_at(session: Session, sample: float) -> Picture | None:
    """The picture that was taken nearest to a sample; None without a camera."""
    if not session.frame_table.n_frames:
        return None
    number = heard_frames(session).nearest(sample)
    return next(iter(session.frames(number, number + 1))).picture


def draw_at(
    session: Session,
    energy: FloatArray,
    sample: float,
    grid: ImageGrid,
    camera: CameraSection | None,
    style: OverlayStyle,
) -> Picture:
    """The picture nearest to a sample with one map over it."""
    overlay = MapOverlay(grid, *picture_size(session), camera, style)
    picture = frame_at(session, sample)
    return overlay.draw(energy, overlay.blank() if picture is None else picture)


def smoothed(energies: FloatArray, image_s: float, time_constant_s: float) -> FloatArray:
    """Maps that follow the sound with a time constant, at once upwards.

    energies : (n_images, rows, columns); NaN, where sound is missing, starts anew
    """
    if time_constant_s == 0:
        return energies
    keep = np.float32(np.exp(-image_s / time_constant_s))
    out = energies.copy()
    for before, now in itertools.pairwise(out):
        # maximum() would hand NaN on.
        np.fmax(now, before * keep, out=now, where=~np.isnan(now))
    return out


def write_overlay_video(
    path: Path,
    session: Session,
    energies: FloatArray,
    samples: Floats,
    grid: ImageGrid,
    camera: CameraSection | None,
    style: OverlayStyle,
    *,
    channel: int | None = 0,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a video of a part of a session, with the sound of one channel.

    Parameters
    ----------
    path : ends in .mp4 or .mkv
    energies : (n_images, rows, columns), NaN where sound is missing
    samples : (n_images,) middles of the images on the session's timeline
    channel : whose sound it has; None for none
    progress : called with the number of pictures that were written

    H.264, or MPEG-4 where there is no encoder for that. The top of the maps' range is the loudest
    of all of them, unless the style says one.

    Raises UsageError for another suffix or a channel that is not there, InputError where the file
    cannot be written or the session not be read; nothing is left then.
    """
    import av.error

    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(VIDEO_SUFFIXES)}")
    if channel is not None and not 0 <= channel < session.n_channels:
        raise UsageError(f"channel {channel}; expected 0 to {session.n_channels - 1}")
    image_samples = float(samples[1] - samples[0]) if len(samples) > 1 else session.rate_hz / 12
    first = max(0, round(float(samples[0]) - image_samples / 2))
    last = min(round(float(samples[-1]) + image_samples / 2), session.n_samples)
    shown = smoothed(energies, image_samples / session.rate_hz, style.smoothing_s)
    # As FFmpeg tells the container by the suffix, that stays.
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        try:
            with av.open(str(part), "w") as container:
                stream = _picture_stream(container, *picture_size(session))
                sound = None if channel is None else _sound_stream(container)
                # Of whole pictures: an odd row or column is cut off when they are written.
                overlay = MapOverlay(grid, *picture_size(session), camera, style)
                pictures = _pictures(session, overlay, first, last, image_samples)
                top_db = _top_db(shown)
                sounds = _sounds(session, channel, first, last) if channel is not None else None
                heard_s = 0.0
                for count, (sample, picture) in enumerate(pictures, 1):
                    index = int(np.clip((sample - first) / image_samples, 0, len(shown) - 1))
                    drawn = overlay.draw(shown[index], picture, top_db)
                    at_s = (sample - first) / session.rate_hz
                    while sounds is not None and heard_s <= at_s:
                        heard_s = _put_sound(container, sound, sounds, heard_s)
                    _put_picture(container, stream, drawn, at_s)
                    progress(count)
                while sounds is not None and np.isfinite(heard_s):
                    heard_s = _put_sound(container, sound, sounds, heard_s)
                for one in (stream, sound):
                    if one is not None:
                        container.mux(one.encode(None))
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"{path}: cannot be written ({reason}); free some space or choose another place, "
                "then run the same command again"
            ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def n_pictures(session: Session, first: float, last: float, image_samples: float) -> int:
    """How many pictures a video of this part has."""
    if session.frame_table.n_frames:
        low, high = np.searchsorted(heard_frames(session).samples, [first, last])
        if low < high:
            return int(high - low)
    return round((last - first) / image_samples)


def _pictures(
    session: Session, overlay: MapOverlay, first: int, last: int, image_samples: float
) -> Iterator[tuple[float, Picture]]:
    """Pictures of the camera with their positions, or dark ones where there is none."""
    if session.frame_table.n_frames:
        samples = heard_frames(session).samples
        low, high = np.searchsorted(samples, [first, last])
        if low < high:
            for frame in session.frames(int(low), int(high)):
                yield float(samples[frame.number]), frame.picture
            return
    for number in range(n_pictures(session, first, last, image_samples)):
        yield first + number * image_samples, overlay.blank()


def _top_db(energies: FloatArray) -> float | None:
    level = level_db(energies)
    top_db = float(level.max(initial=-np.inf))
    return top_db if np.isfinite(top_db) else None


def _picture_stream(container: Any, width: int, height: int) -> Any:
    import av.codec.codec

    name = "libx264"
    try:
        av.codec.codec.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        name = "mpeg4"
    # The rate is a hint; every picture has its own time, in milliseconds.
    stream = container.add_stream(name, rate=30, options=_QUALITY[name])
    # The encoders take whole blocks of 2 x 2.
    stream.width, stream.height = width - width % 2, height - height % 2
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1_000)
    return stream


def _sound_stream(container: Any) -> Any:
    return container.add_stream("aac", rate=_SOUND_RATE_HZ, layout="mono")


def _sounds(session: Session, channel: int, first: int, last: int) -> Iterator[NDArray[np.float32]]:
    """Sound of one channel at the video's rate."""
    resampler = StreamResampler(session.rate_hz, _SOUND_RATE_HZ)
    for block in session.blocks(round(_SOUND_BLOCK_S * session.rate_hz), first, last):
        yield resampler.push(np.ascontiguousarray(block[:, channel]))
    yield resampler.flush()


def _put_sound(
    container: Any, stream: Any, sounds: Iterator[NDArray[np.float32]], heard_s: float
) -> float:
    """Write the next sound; returns how long all of it is, infinity at its end."""
    import av

    block = next(sounds, None)
    if block is None:
        return float("inf")
    if not len(block):
        return heard_s
    frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
    frame.sample_rate = _SOUND_RATE_HZ
    frame.time_base = Fraction(1, _SOUND_RATE_HZ)
    frame.pts = round(heard_s * _SOUND_RATE_HZ)
    container.mux(stream.encode(frame))
    return heard_s + len(block) / _SOUND_RATE_HZ


def _put_picture(container: Any, stream: Any, picture: Picture, at_s: float) -> None:
    import av

    even = np.ascontiguousarray(picture[: stream.height, : stream.width])
    frame = av.VideoFrame.from_ndarray(even, format="rgb24")
    frame.time_base = Fraction(1, 1_000)
    frame.pts = round(at_s * 1_000)
    container.mux(stream.encode(frame))
