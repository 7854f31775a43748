"""When a sample was heard: sample counts to UTC, without asking the clock for every block.

Blocks arrive late by whatever the driver and the scheduler add, never early. The line through the
earliest arrivals is therefore the stream's own clock. It is moved later only every ten seconds, to
the earliest arrival among them and by no more than a crystal drifts (50 ppm is 4.3 s a day): drift
is kept up with, and jitter and a busy minute are not.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from datetime import datetime, timedelta, timezone

# Long enough to hold a block that was not late; a crystal of 50 ppm moves 0.5 ms meanwhile.
_STRETCH_S = 10.0
# Three times what a cheap crystal in the cold is off.
_MAX_DRIFT = 300e-6
# A stream this much behind its fit has lost samples unseen or was suspended: start afresh. If it
# was only held up, the blocks that follow in a burst put the line back.
_RESTART_S = 2.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class SampleClock:
    """Fit of a stream's sample count to the monotonic clock and through it to UTC."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        # Monotonic time of sample 0 by the fit.
        self._origin_s: float | None = None
        self._earliest_s = math.inf
        self._stretch_end = 0

    def update(self, end_sample: int, monotonic_s: float) -> None:
        """Record that the sample before end_sample had arrived by monotonic_s."""
        arrival_s = monotonic_s - end_sample / self.rate_hz
        origin_s = self._origin_s
        if origin_s is None or arrival_s - origin_s > _RESTART_S:
            self._origin_s = arrival_s
            self._begin_stretch(end_sample)
            return
        self._earliest_s = min(self._earliest_s, arrival_s)
        if end_sample >= self._stretch_end:
            self._origin_s = min(self._earliest_s, origin_s + _MAX_DRIFT * _STRETCH_S)
            self._begin_stretch(end_sample)
        else:
            self._origin_s = min(arrival_s, origin_s)

    def _begin_stretch(self, sample: int) -> None:
        self._earliest_s = math.inf
        self._stretch_end = sample + round(_STRETCH_S * self.rate_hz)

    def monotonic_s(self, sample: int) -> float:
        """Monotonic time of a sample, in seconds; update must have been called."""
        if self._origin_s is None:
            raise ValueError("no block has arrived yet")
        return self._origin_s + sample / self.rate_hz

    def utc(self, sample: int) -> datetime:
        """UTC of a sample by the system clock as it stands now."""
        age_s = time.monotonic() - self.monotonic_s(sample)
        return datetime.now(timezone.utc) - timedelta(seconds=age_s)


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) is 208 bytes on 64-bit Linux; modes = 0 only reads.
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 252))


def clock_synchronised() -> bool:
    """Whether the kernel says that the system clock follows a reference (False where unknown)."""
    if not sys.platform.startswith("linux"):
        return False
    state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex()))
    return 0 <= state < _TIME_ERROR
