"""Writes video.mkv and video.csv of a session in a thread of its own.

Each picture is written down with its place among the samples as it is known then. When the session
ends, the clocks of sound and camera are known from end to end, and the places are computed anew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from soundpost.device.errors import InputError
from soundpost.device.session.camera import Camera, CameraFrame
from soundpost.device.session.clock_line import MAX_SLOPE, ClockLine
from soundpost.device.session.session_reader import VIDEO_FILE
from soundpost.device.session.session_tables import (
    FRAMES_FILE,
    FRAMES_HEADER,
    FrameTable,
    frame_line,
    write_frames,
)
from soundpost.device.session.video_file import VideoEncoder

logger = logging.getLogger(__name__)

# Two seconds of 30 a second.
_WAITING: Final = 60
_SYNC_S = 0.5
# No picture of a camera whose clock is the machine's is so old when it arrives.
_PLAUSIBLE_AGE_S = 5.0


@dataclass
class _CameraClock:
    """Clock of a camera from when it was opened to when it went away.

    line : None where it is the machine's own, or that of a file that is taken over
    settled_s : monotonic time from which on its pictures are new
    first : number of its first picture, None before it
    """

    line: ClockLine | None
    paced: bool
    settled_s: float
    first: int | None = None


class VideoWriter:
    """Appends pictures to a session.

    folder : of the session
    width, height : of the video; pictures of another size are scaled
    sound : clock of the sound, seconds of its timeline
    rate_hz : of the sound

    Attributes
    ----------
    written : pictures that are in the file
    dropped : pictures that came faster than they could be written
    codec : of the video, by FFmpeg's name
    end_sample : where the sound ends, once that is known: later pictures are left out
    past_end : one was
    settled : pictures come as they are taken
    latest : the last picture that was written (av.VideoFrame), None before the first
    last_sample : its place
    error : what the disk refused, None while it takes all
    """

    def __init__(
        self, folder: Path, width: int, height: int, sound: ClockLine, rate_hz: int
    ) -> None:
        self._folder = folder
        self._encoder = VideoEncoder(folder / VIDEO_FILE, width, height)
        self.width, self.height = self._encoder.width, self._encoder.height
        self.codec = self._encoder.codec
        self._sound = sound
        self._rate_hz = rate_hz
        self._table = (folder / FRAMES_FILE).open("w", encoding="utf-8")
        self._table.write(FRAMES_HEADER)
        self._table.flush()
        self._rows = array("d")
        # Clocks of the cameras that there were, with the number of the first picture of each.
        self._clocks: list[_CameraClock] = []
        self._synced_s = 0.0
        self._changed = threading.Condition()
        self._waiting: deque[tuple[CameraFrame, _CameraClock]] = deque()
        self._ending = False
        self.written = 0
        self.dropped = 0
        self.settled = False
        self.end_sample: int | None = None
        self.past_end = False
        self.latest: Any = None
        self.last_sample = 0.0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="video-writer", daemon=True)
        self._thread.start()

    def camera(self, camera: Camera) -> None:
        """A camera begins: its clock is one of its own, whatever the last one's was."""
        line = None if camera.monotonic or not camera.paced else ClockLine()
        clock = _CameraClock(line, camera.paced, time.monotonic() + camera.settling_s)
        with self._changed:
            self._clocks.append(clock)

    def wait_for(self, met: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait for a state of the writer or its camera, for so long, or until it cannot write."""
        with self._changed:
            self._changed.wait_for(lambda: met() or self.error is not None, seconds)

    def notify(self) -> None:
        """Let those who wait look: the camera's state has changed."""
        with self._changed:
            self._changed.notify_all()

    def put(self, frame: CameraFrame, *, wait: bool = False) -> None:
        """Append a picture; dropped and counted where too many wait, unless it is to wait."""
        with self._changed:
            while wait and len(self._waiting) >= _WAITING and self.error is None:
                self._changed.wait(0.1)
            if len(self._waiting) >= _WAITING:
                self.dropped += 1
                return
            self._waiting.append((frame, self._clocks[-1]))
            self._changed.notify_all()

    def _run(self) -> None:
        import av.error

        try:
            while True:
                with self._changed:
                    while not self._waiting and not self._ending:
                        self._changed.wait()
                    if not self._waiting:
                        return
                    frame, camera = self._waiting.popleft()
                    self._changed.notify_all()
                self._write(frame, camera)
        except Exception as error:
            # Whatever it is: who waits for this thread must be told.
            if not isinstance(error, OSError | av.error.FFmpegError):
                logger.exception("pictures cannot be written")
            self.dropped += 1
            self.error = error
            self.notify()

    def _write(self, frame: CameraFrame, camera: _CameraClock) -> None:
        age_s = frame.arrived_s - frame.sensor_time_s
        if camera.first is None and camera.paced and abs(age_s) > _PLAUSIBLE_AGE_S:
            # A driver that stamps by the clock of the wall, or of its own.
            camera.line = camera.line or ClockLine()
        if camera.line is not None:
            camera.line.add(frame.sensor_time_s, frame.arrived_s)
        if frame.arrived_s < camera.settled_s:
            return
        if not self.settled:
            self.settled = True
            self.notify()
        sample = self._place(frame, camera)
        if sample is None or (sample < 0 and not self.written):
            # Before the sound began.
            return
        if self.end_sample is not None and sample > self.end_sample:
            self.past_end = True
            self.notify()
            return
        if camera.first is None:
            camera.first = self.written
        sample = max(sample, self.last_sample)
        self._encoder.add(frame.picture, sample / self._rate_hz)
        row = (frame.sensor_time_s, sample, frame.arrived_s)
        self._table.write(frame_line(self.written, *row))
        self._table.flush()
        self._rows.extend(row)
        self.written += 1
        self.last_sample = sample
        self.latest = frame.picture
        if time.monotonic() - self._synced_s > _SYNC_S:
            os.fdatasync(self._table.fileno())
            self._synced_s = time.monotonic()

    def _place(self, frame: CameraFrame, camera: _CameraClock) -> float | None:
        if not camera.paced:
            return frame.sensor_time_s * self._rate_hz
        if not self._sound:
            return None
        taken_s = frame.sensor_time_s
        if camera.line is not None:
            line = camera.line.now()
            taken_s = (
                float(line.monotonic_s(taken_s))
                if abs(line.drift) <= MAX_SLOPE
                else frame.arrived_s
            )
        return float(self._sound.now().own(taken_s)) * self._rate_hz

    def finish(self) -> None:
        """Write what waits, end the video, and put every picture in its final place."""
        import av.error

        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        self.dropped += len(self._waiting)
        self._waiting.clear()
        try:
            self._encoder.close(flush=self.error is None)
            self._table.close()
        except (OSError, av.error.FFmpegError) as error:
            self.error = self.error or error
        if self.written:
            try:
                write_frames(self._folder, self._final())
            except InputError as error:
                # The places of then stay, which are good to some milliseconds.
                self.error = self.error or error

    def _final(self) -> FrameTable:
        """The table by the clocks as they are known in the end."""
        sensor_s, samples, arrived_s = np.array(self._rows).reshape(-1, 3).T
        samples = samples.copy()
        sound = self._sound.fitted() if self._sound else None
        last = self.written
        for camera in reversed(self._clocks):
            if camera.first is None:
                continue
            own = slice(camera.first, last)
            last = camera.first
            if not camera.paced or sound is None:
                continue
            taken_s = sensor_s[own]
            if camera.line is not None:
                line = camera.line.fitted()
                good = abs(line.drift) <= MAX_SLOPE
                taken_s = line.monotonic_s(taken_s) if good else arrived_s[own]
            samples[own] = sound.own(taken_s) * self._rate_hz
        samples = np.maximum.accumulate(np.maximum(samples, 0.0))
        # Pictures that the video has beyond the table are not read.
        end = len(samples)
        if self.end_sample is not None:
            end = int(np.searchsorted(samples, self.end_sample, side="right"))
        return FrameTable(sensor_s[:end], samples[:end], arrived_s[:end])
