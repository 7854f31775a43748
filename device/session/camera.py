"""Cameras: pictures with the time at which they were taken.

    v4l2:/dev/video0            a USB camera; with settings: v4l2:/dev/video0?size=640x480&fps=30
    file:street.mp4             a video, at its own pace
    gst:PIPELINE                GStreamer (Jetson, CSI cameras): what would stand before a sink
    pipe:COMMAND                a program that writes video to its standard output
    picamera2:                  the camera of a Raspberry Pi, by the package of that name

The kernel and the Pi's camera stamp pictures by the machine's own clock. A file, a pipeline or a
program stamps them by a clock of its own, which clock_line.py fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

from soundpost.device.errors import CaptureError, InputError, MissingExtraError, UsageError
from soundpost.device.files import expand_home


class CameraLostError(CaptureError):
    """A camera is absent, or delivers no pictures any more."""


class CameraFrame(NamedTuple):
    """A picture.

    picture : av.VideoFrame
    sensor_time_s : when it was taken, by the camera's clock
    arrived_s : monotonic clock when it was handed over
    """

    picture: Any
    sensor_time_s: float
    arrived_s: float


class Camera(Protocol):
    """An open camera.

    name : what to call it in a message
    monotonic : its clock is the machine's monotonic one
    paced : pictures come as time passes; else as fast as they are read
    size : width and height of its pictures
    settling_s : pictures may have waited for us so long when the first of them are read
    """

    name: str
    monotonic: bool
    paced: bool
    size: tuple[int, int]
    settling_s: float

    def frames(self) -> Iterator[CameraFrame]:
        """Pictures in order until the camera is closed or, of a file, ends.

        Raises CameraLostError where it delivers no more.
        """
        ...

    def close(self) -> None:
        """Stop; safe in any state and from any thread."""
        ...


def open_camera(url: str, *, paced: bool = True) -> Camera:
    """Open the camera that a URL names; a bare path is a file, or a device below /dev.

    paced : of a file: at its own pace, not as fast as it is read

    Raises UsageError for another kind, CameraLostError where it is absent or in use, InputError for
    a file that is no video, MissingExtraError where a package is missing.
    """
    kind, colon, rest = url.partition(":")
    if not colon or kind not in _OPENERS:
        if url.startswith("/dev/"):
            kind, rest = "v4l2", url
        elif Path(url).exists():
            kind, rest = "file", url
        else:
            known = ", ".join(f"{name}:" for name in sorted(_OPENERS))
            raise UsageError(
                f"camera {url[:80]!r}: expected one of {known} or the path of a video that exists"
            )
    try:
        return _OPENERS[kind](rest, paced)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"camera {url[:80]!r}: needs the package {error.name}: pip install 'soundpost[array]'"
        ) from error


class ContainerCamera:
    """What FFmpeg's libraries read, through PyAV: a device, a file, or a stream of bytes.

    monotonic, paced, settling_s : see Camera
    wait : called with a picture's time since the first, before it is handed out
    ends : it is a file, whose end is no loss
    """

    def __init__(
        self,
        what: Any,
        name: str,
        *,
        monotonic: bool = False,
        paced: bool = True,
        settling_s: float = 0.0,
        wait: Callable[[float], None] | None = None,
        ends: bool = False,
        **options: Any,
    ) -> None:
        import av
        import av.error

        self.name = name
        self.monotonic = monotonic
        self.paced = paced
        self.settling_s = settling_s
        self._wait = wait
        self._ends = ends
        self._closed = False
        try:
            self._container: Any = av.open(what, **options)
        except (OSError, av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CameraLostError(
                f"camera {name}: cannot be opened: {reason}; see that it is there and that no "
                "other program uses it"
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise CameraLostError(f"camera {name}: delivers no pictures; expected a video")
        self._stream = self._container.streams.video[0]
        self.size = (self._stream.width, self._stream.height)
        if min(self.size) < 1:
            self._container.close()
            raise CameraLostError(f"camera {name}: tells no size of its pictures")

    def frames(self) -> Iterator[CameraFrame]:
        """Pictures in order; see Camera."""
        import av.error

        start_s: float | None = None
        base = float(self._stream.time_base)
        try:
            for picture in self._container.decode(self._stream):
                arrived_s = time.monotonic()
                sensor_s = arrived_s if picture.pts is None else picture.pts * base
                if self._ends:
                    # A file's clock begins with its first picture, and its pace is ours to keep.
                    start_s = sensor_s if start_s is None else start_s
                    sensor_s -= start_s
                    if self._wait is not None:
                        self._wait(sensor_s)
                        arrived_s = time.monotonic()
                if self._closed:
                    return
                yield CameraFrame(picture, sensor_s, arrived_s)
        except (OSError, av.error.FFmpegError) as error:
            if not self._closed:
                reason = getattr(error, "strerror", None) or str(error)
                raise CameraLostError(f"camera {self.name}: lost: {reason}") from error
        if not self._ends and not self._closed:
            raise CameraLostError(f"camera {self.name}: lost: its stream has ended")

    def close(self) -> None:
        """Stop; a running `frames` ends with the next picture."""
        self._closed = True


def _open_v4l2(rest: str, _paced: bool) -> Camera:
    path, _, query = rest.partition("?")
    path = path or "/dev/video0"
    names = {"size": "video_size", "fps": "framerate", "format": "input_format"}
    options = {}
    for name, value in parse_qsl(query):
        if name not in names:
            raise UsageError(f"camera v4l2:{rest}: setting {name!r}; expected {', '.join(names)}")
        options[names[name]] = value
    if not Path(path).exists():
        raise CameraLostError(
            f"camera {path}: not found; plug it in, and see `ls /dev/video*` for its name"
        )
    # The driver stamps pictures by the monotonic clock ("abs" would make it the system clock).
    options["timestamps"] = "default"
    return ContainerCamera(path, path, monotonic=True, format="v4l2", options=options)


def _open_file(rest: str, paced: bool) -> Camera:
    path = expand_home(rest[2:] if rest.startswith("///") else rest)
    if not path.is_file():
        raise InputError(f"camera {path}: no such file; check the path")
    start_s: list[float] = []

    def wait(picture_s: float) -> None:
        if not start_s:
            start_s.append(time.monotonic())
        if (left_s := start_s[0] + picture_s - time.monotonic()) > 0:
            time.sleep(left_s)

    try:
        return ContainerCamera(
            str(path), path.name, paced=paced, wait=wait if paced else None, ends=True
        )
    except CameraLostError as error:
        raise InputError(f"{path}: is no video that can be read; convert it with ffmpeg") from error


def _open_pipe(rest: str, _paced: bool) -> Camera:
    from soundpost.device.session.camera_process import open_program

    return open_program(rest)


def _open_gst(rest: str, _paced: bool) -> Camera:
    from soundpost.device.session.camera_process import open_pipeline

    return open_pipeline(rest)


def _open_picamera2(rest: str, _paced: bool) -> Camera:
    from soundpost.device.session.camera_pi import PiCamera

    return PiCamera(rest)


_OPENERS: dict[str, Callable[[str, bool], Camera]] = {
    "file": _open_file,
    "gst": _open_gst,
    "picamera2": _open_picamera2,
    "pipe": _open_pipe,
    "v4l2": _open_v4l2,
}
