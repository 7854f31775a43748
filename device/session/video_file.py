"""video.mkv of a session: written so that a killed recorder leaves it readable, read by number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

_TIME_BASE: Final = Fraction(1, 1_000)
# A cluster is what reaches the file at once: what a killed recorder loses.
_CLUSTER_MS: Final = 500
_KEY_EVERY: Final = 30
# By FFmpeg's names, the best first, with what makes them fast and good enough to look at.
_ENCODERS: Final = (
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "21"}),
    ("h264_v4l2m2m", {"b": "4000000"}),
    ("libopenh264", {"b": "4000000"}),
    ("mpeg4", {"qscale": "3"}),
)


class VideoEncoder:
    """Writes a video.mkv.

    width, height : of the video, even; pictures of another size are scaled
    codec : by FFmpeg's name

    Raises InputError where there is no encoder; methods raise what PyAV raises (OSError or
    av.error.FFmpegError) where the disk takes no more.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        import av
        import av.error
        from av.video.reformatter import VideoReformatter

        # Colours have half the resolution.
        self.width, self.height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        self._last = -1
        # One for all pictures: each begins with threads of its own.
        self._scaler = VideoReformatter()
        options = {"cluster_time_limit": str(_CLUSTER_MS), "flush_packets": "1"}
        for name, settings in _ENCODERS:
            container: Any = av.open(str(path), "w", format="matroska", options=options)
            try:
                stream = container.add_stream(name, rate=30, options=settings)
                stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
                context = stream.codec_context
                context.time_base = _TIME_BASE
                context.gop_size = _KEY_EVERY
                context.max_b_frames = 0
                context.thread_count = 1
                context.open()
            except (ValueError, av.error.FFmpegError):
                continue
            self._container, self._stream = container, stream
            self.codec: str = context.codec.canonical_name
            return
        raise InputError(
            f"{path}: no encoder for video is here; expected one of "
            f"{', '.join(name for name, _ in _ENCODERS)}: install PyAV from PyPI"
        )

    def add(self, picture: Any, time_s: float) -> None:
        """Append a picture (av.VideoFrame) that players are to show at a time."""
        from av.video.frame import PictureType
        from av.video.reformatter import ColorRange

        # JPEGs of a camera use all values of a byte, and video players take 16 for black.
        scaled = self._scaler.reformat(
            picture, self.width, self.height, "yuv420p", dst_color_range=ColorRange.MPEG
        )
        # No two may have the same time, by which a picture is found again.
        self._last = max(self._last + 1, round(time_s / _TIME_BASE))
        scaled.pts, scaled.time_base = self._last, _TIME_BASE
        # The decoder's choice: every JPEG is a picture of its own, and a film of those is large.
        scaled.pict_type = PictureType.NONE
        for packet in self._stream.encode(scaled):
            self._container.mux(packet)

    def close(self, *, flush: bool = True) -> None:
        """End the video."""
        try:
            if flush:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
        finally:
            self._container.close()


def write_again(path: Path, n_frames: int) -> None:
    """Give a video that was cut off its index and its end, with its first n_frames pictures.

    Nothing is encoded anew. Raises InputError where the disk has no room for it.
    """
    import av
    import av.error

    aside = path.with_name(f".{path.name}.part")
    try:
        with _opened(path) as source, av.open(str(aside), "w", format="matroska") as target:
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            number = 0
            # The last packet may be torn.
            with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError):
                for packet in source.demux(stream):
                    if packet.dts is None or number >= n_frames:
                        continue
                    packet.stream = copy
                    target.mux(packet)
                    number += 1
        aside.replace(path)
    except (OSError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be written anew: {reason}; free some space") from error
    finally:
        aside.unlink(missing_ok=True)


def packet_times(path: Path) -> list[int]:
    """Presentation time of every frame that the file holds whole, in the stream's time base.

    Ends quietly where the file does: a killed recorder leaves one without an end.
    Raises InputError where it is no video.
    """
    import av.error

    times = []
    with _opened(path) as container:
        try:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is not None and packet.size and not packet.is_corrupt:
                    times.append(packet.pts)
        except av.error.FFmpegError:
            pass
    return sorted(times)


def read_pictures(path: Path, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures from number first to last (exclusive), (height, width, 3) uint8 RGB.

    Raises InputError where the file cannot be read or has fewer.
    """
    import av.error

    # Only the packets tell which number a time has, and reading them decodes nothing.
    times = packet_times(path) if first else []
    number = 0
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if first and first < len(times):
            container.seek(times[first], stream=stream, backward=True)
            number = -1
        try:
            for frame in container.decode(stream):
                if number < 0:
                    number = int(np.searchsorted(times, frame.pts))
                if number >= first:
                    yield frame.to_ndarray(format="rgb24")
                number += 1
                if number >= last:
                    return
        except av.error.FFmpegError as error:
            raise InputError(
                f"{path}: damaged after {number} frames: {error.strerror}; copy it again"
            ) from error
    raise InputError(
        f"{path}: holds {number} frames; expected {last}, as video.csv says: copy it again, or "
        f"run soundpost session check {path.parent} --repair"
    )


def _opened(path: Path) -> Any:
    import av
    import av.error

    try:
        container = av.open(str(path))
    except (OSError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}; copy it again") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no pictures; expected a video")
    return container
