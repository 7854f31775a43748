"""Energy maps of what is heard now, made in a thread of its own: who brings the sound never waits.

What comes while it is busy for too long is left out, and so is everything while nobody looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Final

from soundpost.device.array.live_images import LiveImages, LiveMap
from soundpost.device.audio import AudioBlock
from soundpost.device.session.calibrated_array import CalibratedArray

logger = logging.getLogger(__name__)

# So much sound may wait: a map is late by no more.
_WAITING_S: Final = 0.5
# A viewer that asks less often has gone.
_WATCHED_S: Final = 2.0
# Maps a second are counted over so many of them.
_COUNTED: Final = 24


class LiveMapper:
    """Takes a stream's blocks and has its latest map.

    array : with an imager for live maps (live_settings)
    skip : maps left out after each that is made (LiveImages)

    Attributes
    ----------
    count : maps so far
    error : what ended it, None while it goes on
    """

    def __init__(self, array: CalibratedArray, *, skip: int = 0) -> None:
        self._images = LiveImages(array.imager, array.channels, skip=skip)
        self._changed = threading.Condition()
        self._blocks: deque[AudioBlock] = deque()
        self._waiting_s = 0.0
        self._watched_s = float("-inf")
        self._latest: LiveMap | None = None
        self._times_s: deque[float] = deque(maxlen=_COUNTED)
        self._closed = False
        self.count = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="live-maps", daemon=True)
        self._thread.start()

    def offer(self, block: AudioBlock) -> None:
        """The next block; never waits."""
        with self._changed:
            if self._closed or time.monotonic() - self._watched_s > _WATCHED_S:
                return
            if self._waiting_s > _WAITING_S:
                # The numbering jumps: maps begin anew.
                self._blocks.clear()
                self._waiting_s = 0.0
            self._blocks.append(block)
            self._waiting_s += len(block.samples) / block.rate_hz
            self._changed.notify_all()

    def latest(self) -> LiveMap | None:
        """The last map, None before the first; to ask for it is to look."""
        with self._changed:
            self._watched_s = time.monotonic()
            return self._latest

    @property
    def maps_per_second(self) -> float:
        """How many there were a second of late; 0 before there are some."""
        with self._changed:
            times_s = list(self._times_s)
        if len(times_s) < 2 or time.monotonic() - times_s[-1] > _WATCHED_S:
            return 0.0
        return (len(times_s) - 1) / max(1e-9, times_s[-1] - times_s[0])

    def _run(self) -> None:
        try:
            while (block := self._next()) is not None:
                for found in self._images.push(block):
                    with self._changed:
                        self._latest = found
                        self.count += 1
                        self._times_s.append(time.monotonic())
        except Exception as error:
            # A map that cannot be made must not end what it is made beside.
            logger.exception("no more live maps")
            self.error = error
            self.close()

    def _next(self) -> AudioBlock | None:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._closed)
            if self._closed:
                return None
            block = self._blocks.popleft()
            self._waiting_s -= len(block.samples) / block.rate_hz
            return block

    def close(self) -> None:
        """Make no more."""
        with self._changed:
            self._closed = True
            self._blocks.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
