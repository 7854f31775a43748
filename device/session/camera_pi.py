"""The camera of a Raspberry Pi, through picamera2 (Debian's python3-picamera2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from soundpost.device.clock import suspended_s
from soundpost.device.errors import MissingExtraError, UsageError
from soundpost.device.session.camera import CameraFrame, CameraLostError


class PiCamera:
    """picamera2:NUMBER?size=640x480&fps=30 as a camera.

    libcamera stamps the start of an exposure by CLOCK_BOOTTIME, which differs from the monotonic
    clock by the time that the machine slept.
    """

    monotonic = True
    paced = True
    settling_s = 0.0

    def __init__(self, rest: str) -> None:
        try:
            from picamera2 import Picamera2  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtraError(
                "camera picamera2: needs Debian's package: sudo apt-get install python3-picamera2, "
                "in an environment made with --system-site-packages"
            ) from error
        number, _, query = rest.partition("?")
        values = dict(parse_qsl(query))
        try:
            index = int(number or 0)
            width, height = map(int, values.get("size", "640x480").split("x"))
            fps = float(values.get("fps", "30"))
        except ValueError as error:
            raise UsageError(
                f"camera picamera2:{rest}: expected picamera2:NUMBER?size=640x480&fps=30"
            ) from error
        self.name = f"picamera2:{index}"
        self.size = (width, height)
        self._closed = False
        try:
            self._camera: Any = Picamera2(index)
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": (width, height), "format": "BGR888"},
                    controls={"FrameRate": fps},
                )
            )
            self._camera.start()
        except (RuntimeError, IndexError) as error:
            raise CameraLostError(f"camera {self.name}: cannot be opened: {error}") from error

    def frames(self) -> Iterator[CameraFrame]:
        """Pictures in order; see Camera."""
        import av

        while not self._closed:
            try:
                request = self._camera.capture_request()
            except RuntimeError as error:
                raise CameraLostError(f"camera {self.name}: lost: {error}") from error
            try:
                arrived_s = time.monotonic()
                # libcamera's BGR888 lies in memory as red, green, blue.
                picture = av.VideoFrame.from_ndarray(request.make_array("main"), format="rgb24")
                taken_s = request.get_metadata()["SensorTimestamp"] / 1e9 - suspended_s()
            finally:
                request.release()
            yield CameraFrame(picture, taken_s, arrived_s)

    def close(self) -> None:
        """Stop; a running `frames` ends with the next picture."""
        self._closed = True
        self._camera.stop()
        self._camera.close()
