"""The last picture of a camera, for who only looks at it."""

from __future__ import annotations

from typing import Any

from soundpost.device.session.camera import Camera, CameraFrame


class LatestPicture:
    """Takes the pictures of a CameraFeed as a VideoWriter does, and keeps the last alone.

    Attributes
    ----------
    written : pictures so far
    latest : av.VideoFrame, None before the first
    last_sample : nobody asks where among the samples it lies
    """

    def __init__(self) -> None:
        self.written = 0
        self.latest: Any = None
        self.last_sample = 0.0

    def camera(self, camera: Camera) -> None:
        """A camera begins."""

    def put(self, frame: CameraFrame, *, wait: bool = False) -> None:
        """The next picture."""
        self.latest = frame.picture
        self.written += 1

    def notify(self) -> None:
        """The camera's state has changed."""
