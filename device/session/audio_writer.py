"""Writes the sound of a session in a thread of its own: a slow disk never holds up a source.

What waits is bounded; what does not fit is lost, counted, and stated as a gap.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

from soundpost.device.audio import FloatArray
from soundpost.device.session.lost_parts import LostPart, LostWriter
from soundpost.device.session.session_tables import GAPS_FILE, GAPS_HEADER, Gap, gap_line
from soundpost.device.session.wav_segments import SegmentWriter

logger = logging.getLogger(__name__)

# An SD card stops for seconds now and then: so much sound may wait.
_WAITING_S = 10.0
_WAITING_BYTES: Final = 1 << 28
TOO_SLOW: Final = "the disk was too slow"


class AudioWriter:
    """Appends blocks and gaps to a session.

    Attributes
    ----------
    position : samples that lie on the timeline and are written
    lost : samples that the disk was too slow for
    gaps : so far; n_lost_parts : how often some channels alone lacked something
    error : what the disk refused, None while it takes all; nothing is written after it
    """

    def __init__(self, folder: Path, rate_hz: int, n_channels: int, segment_samples: int) -> None:
        self._segments = SegmentWriter(folder, rate_hz, n_channels, segment_samples)
        self._gaps = (folder / GAPS_FILE).open("w", encoding="utf-8", newline="")
        self._gaps.write(GAPS_HEADER)
        self._flush_gaps()
        self._lost_parts = LostWriter(folder)
        sample_bytes = 4 * n_channels
        self._most = min(round(_WAITING_S * rate_hz), _WAITING_BYTES // sample_bytes)
        self._changed = threading.Condition()
        self._waiting: deque[FloatArray | tuple[int, str] | LostPart] = deque()
        self._n_waiting = 0
        self._ending = False
        self.lost = 0
        self.gaps: list[Gap] = []
        self.n_lost_parts = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="audio-writer", daemon=True)
        self._thread.start()

    @property
    def position(self) -> int:
        """Samples that are written."""
        return self._segments.position

    @property
    def waiting(self) -> float:
        """How full the queue is, 0 to 1."""
        return self._n_waiting / self._most

    def put(self, samples: FloatArray) -> None:
        """Append (n_samples, n_channels) float32; never waits."""
        with self._changed:
            if self._n_waiting + len(samples) > self._most and self._n_waiting:
                self.lost += len(samples)
                self._put_gap(len(samples), TOO_SLOW)
            else:
                self._waiting.append(samples)
                self._n_waiting += len(samples)
            self._changed.notify_all()

    def wait_for_room(self, share: float) -> None:
        """Wait until the queue is no fuller than such a share of it, or nothing is written."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting <= share or self.error is not None)

    def put_gap(self, n_samples: int, cause: str) -> None:
        """State that so many samples are missing here."""
        with self._changed:
            self._put_gap(n_samples, cause)
            self._changed.notify_all()

    def put_lost(self, part: LostPart) -> None:
        """State what some channels lack of what is written, or will be."""
        with self._changed:
            self.n_lost_parts += 1
            self._waiting.append(part)
            self._changed.notify_all()

    def _put_gap(self, n_samples: int, cause: str) -> None:
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, tuple) and last[1] == cause:
            self._waiting[-1] = (last[0] + n_samples, cause)
        else:
            self._waiting.append((n_samples, cause))

    def finish(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, tuple):
                    self._skip(*item)
                elif isinstance(item, LostPart):
                    self._lost_parts.put(item)
                else:
                    self._segments.write(item)
        except Exception as error:
            # Whatever it is: a recording that is not written must end.
            if not isinstance(error, OSError):
                logger.exception("sound cannot be written")
            with self._changed:
                self.error = error
                self._changed.notify_all()
        for close in (self._segments.close, self._gaps.close, self._lost_parts.close):
            try:
                close()
            except OSError as error:
                self.error = self.error or error

    def _next(self) -> FloatArray | tuple[int, str] | LostPart | None:
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            if not isinstance(item, tuple | LostPart):
                self._n_waiting -= len(item)
                self._changed.notify_all()
            return item

    def _skip(self, n_samples: int, cause: str) -> None:
        # Stated first: zeros that nothing explains would be taken for sound.
        gap = Gap(self.position, n_samples, cause)
        self._gaps.write(gap_line(gap))
        self._flush_gaps()
        self.gaps.append(gap)
        self._segments.skip(n_samples)

    def _flush_gaps(self) -> None:
        self._gaps.flush()
        os.fdatasync(self._gaps.fileno())
