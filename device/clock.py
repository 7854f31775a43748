"""When a sample was heard: sample counts to UTC, without asking the clock for every block.

Blocks arrive late by whatever the driver and the scheduler add, never early. The line through the
earliest arrivals is therefore the stream's own clock; it is followed slowly, so that a crystal's
drift (50 ppm is 4.3 s a day) is kept up with and jitter is not.
"""

from __future__ import annotations

import ctypes
import sys
import time
from datetime import datetime, timedelta, timezone

# Share of a late arrival's distance that moves the fit: about 0.1 % per second at 50 blocks a
# second, which follows a crystal that is 200 ppm slow and ignores a block that is late once.
_LATE_GAIN = 2e-5
# A stream this much behind its fit has lost samples unseen or was suspended: start afresh.
_RESTART_S = 2.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class SampleClock:
    """Fit of a stream's sample count to the monotonic clock and through it to UTC."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._origin_s: float | None = None

    def update(self, end_sample: int, monotonic_s: float) -> None:
        """Record that the sample before end_sample had arrived by monotonic_s."""
        origin = monotonic_s - end_sample / self.rate_hz
        late = 0.0 if self._origin_s is None else origin - self._origin_s
        if self._origin_s is None or late < 0 or late > _RESTART_S:
            self._origin_s = origin
        else:
            self._origin_s += _LATE_GAIN * late

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
