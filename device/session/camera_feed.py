"""Keeps a camera going while a session is recorded: one that goes away is opened again."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from soundpost.device.errors import SoundpostError
from soundpost.device.session.camera import Camera, CameraFrame, CameraLostError
from soundpost.device.session.session_json import CameraGap

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0
# A camera that is there and delivers nothing is as good as none.
_STALLED_S: Final = 3.0
_END_S = 3.0


class PictureTaker(Protocol):
    """What a feed hands its pictures to.

    written : pictures so far
    last_sample : place of the last one among the samples
    """

    written: int
    last_sample: float

    def camera(self, camera: Camera) -> None:
        """A camera begins."""
        ...

    def put(self, frame: CameraFrame, *, wait: bool = False) -> None:
        """The next picture; wait: rather than to drop one."""
        ...

    def notify(self) -> None:
        """The camera's state has changed."""
        ...


class CameraFeed:
    """Reads a camera in a thread of its own and hands its pictures to the writer.

    camera : open already
    again : opens it once more
    writer : a VideoWriter, or who only looks

    Attributes
    ----------
    fault : why there are no pictures, None while there are
    ended : a file is at its end
    """

    def __init__(
        self,
        camera: Camera,
        again: Callable[[], Camera],
        writer: PictureTaker,
    ) -> None:
        self._camera: Camera | None = camera
        self._again = again
        self._writer = writer
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._gaps: list[CameraGap] = []
        self._last_s = time.monotonic()
        # The camera that was closed because it hung: once is enough.
        self._let_go: Camera | None = None
        # Pictures that there were when the present gap began.
        self._written = 0
        self.fault: str | None = None
        self.ended = False
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def gaps(self) -> tuple[CameraGap, ...]:
        """Times without pictures; the last has no length while it lasts."""
        with self._lock:
            return tuple(self._gaps)

    def watch(self) -> None:
        """Let go of a camera that says nothing; to be called now and then."""
        camera, last_s = self._camera, self._last_s
        if camera is None or camera is self._let_go or not camera.paced or self.ended:
            return
        # Also one that was opened again and has shown nothing yet: it may hang like the last.
        if time.monotonic() - last_s > _STALLED_S:
            self._let_go = camera
            self._lose(f"camera {camera.name}: no picture for {_STALLED_S:g} s")
            camera.close()

    def close(self) -> None:
        """Stop, and end what is open."""
        self._stopping.set()
        camera = self._camera
        if camera is not None:
            camera.close()
        # A driver that hangs must not keep the session open.
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            camera = self._camera
            if camera is None:
                if self._stopping.wait(_AGAIN_S):
                    return
                with contextlib.suppress(SoundpostError):
                    camera = self._again()
                    # Before it is there to be watched.
                    self._last_s = time.monotonic()
                    self._camera = camera
                    if self._stopping.is_set():
                        # `close` has not seen this one.
                        camera.close()
                continue
            self._writer.camera(camera)
            try:
                for frame in camera.frames():
                    self._last_s = time.monotonic()
                    if self._stopping.is_set():
                        return
                    self._writer.put(frame, wait=not camera.paced)
                    if self.fault is not None and self._writer.written > self._written:
                        self._found()
                if not self._stopping.is_set() and self.fault is None:
                    self.ended = True
                    self._lose(f"camera {camera.name}: the file has ended")
                    return
            except CameraLostError as error:
                self._lose(str(error))
            except Exception as error:
                # Whatever a camera does, the sound goes on.
                logger.exception("the camera has failed")
                self._lose(f"camera {camera.name}: failed: {error}")
            camera.close()
            self._camera = None

    def _lose(self, cause: str) -> None:
        with self._lock:
            if self.fault is None:
                self.fault = cause
                # From the last picture on, which is where a viewer sees it stand still.
                self._written = self._writer.written
                first = round(self._writer.last_sample) if self._written else 0
                self._gaps.append(CameraGap(first, None, cause))
        self._writer.notify()

    def _found(self) -> None:
        with self._lock:
            self.fault = None
            gap = self._gaps[-1]
            length = max(1, round(self._writer.last_sample) - gap.first_sample)
            self._gaps[-1] = dataclasses.replace(gap, length=length)
