"""Cameras that are programs: whatever writes video with time stamps to its standard output.

GStreamer reaches the cameras that V4L2 does not (CSI cameras of a Jetson), and a program of its own
reaches all others. Their stream is read through a pipe: nothing of theirs runs in our process, and
one that crashes or hangs is a camera that was unplugged.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from soundpost.device.errors import UsageError
from soundpost.device.session.camera import CameraFrame, CameraLostError, ContainerCamera

# A stream is opened once its kind is known, and not once five seconds of it were looked at.
_OPTIONS = {"probesize": "200000", "analyzeduration": "500000", "fflags": "nobuffer"}
_OPEN_S = 10.0
_END_S = 1.0
# Time stamps of Matroska are milliseconds; a raw picture of 4K must fit through.
_MUXER = "matroskamux streamable=true ! fdsink fd=1 sync=false"


class ProgramCamera:
    """A program and what it writes; see open_program."""

    monotonic = False
    paced = True
    # A program writes from its start on, and a pipe holds some pictures.
    settling_s = 1.0

    def __init__(self, command: list[str], name: str) -> None:
        self.name = name
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A Ctrl-C in the terminal is for us; and what a shell starts ends with it.
                start_new_session=True,
            )
        except OSError as error:
            raise CameraLostError(
                f"camera {name}: {command[0]} cannot be started: {error.strerror}"
            ) from error
        assert self._process.stdout is not None
        try:
            self._stream = ContainerCamera(
                f"pipe:{self._process.stdout.fileno()}",
                name,
                options=_OPTIONS,
                timeout=(_OPEN_S, None),
            )
        except BaseException as error:
            self.close()
            if isinstance(error, CameraLostError):
                raise CameraLostError(
                    f"camera {name}: writes no video that can be read ({error.__cause__}); try "
                    "the same command in a terminal"
                ) from error
            raise

        self.size = self._stream.size

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def frames(self) -> Iterator[CameraFrame]:
        """Pictures in order; see Camera."""
        try:
            yield from self._stream.frames()
        except CameraLostError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            code = self._process.returncode
            how = "" if code is None else f" (it ended with {_ended(code)})"
            raise CameraLostError(f"{error}{how}") from error

    def close(self) -> None:
        """End the program; a running `frames` ends."""
        # Before the pipe: nobody reads any more, and what it still writes is not a camera lost.
        stream: Any = getattr(self, "_stream", None)
        if stream is not None:
            stream.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def open_program(command: str) -> ProgramCamera:
    """Start a program that writes video (Matroska, NUT, MPEG-TS, ...) to its standard output.

    Raises UsageError for a command that is none, CameraLostError where it writes none.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"camera pipe:{command[:80]}: {error}") from error
    if not words:
        raise UsageError("camera pipe: expected a command, such as pipe:'libcamera-vid ... -o -'")
    return ProgramCamera(words, f"pipe:{words[0]}")


def open_pipeline(pipeline: str) -> ProgramCamera:
    """Start a GStreamer pipeline, given without its sink, that ends in raw video, JPEG or H.264.

    Raises UsageError for none, CameraLostError without GStreamer, or where it writes nothing.
    """
    if not pipeline.strip():
        raise UsageError("camera gst: expected a pipeline, such as gst:'v4l2src ! jpegenc'")
    if shutil.which("gst-launch-1.0") is None:
        raise CameraLostError(
            "camera gst: gst-launch-1.0 is missing: sudo apt-get install gstreamer1.0-tools "
            "gstreamer1.0-plugins-good"
        )
    command = ["gst-launch-1.0", "-q", *shlex.split(pipeline), "!", *shlex.split(_MUXER)]
    return ProgramCamera(command, f"gst:{pipeline.split()[0]}")
