"""Where in a stream a chunk of samples belongs, and when it was heard.

PortAudio counts what it delivers. What a driver lost before is no part of that count: it is
measured on the clock and shows as a jump in the numbers, so that no loss ever moves the time of
what follows.
"""

from __future__ import annotations

import math

# Gain of the fit of sample count to clock, per chunk of some 50 ms: 50 ms of jitter (PulseAudio)
# move it by 1 ms, and a crystal that is 200 ppm off is followed within 1 ms.
_CLOCK_GAIN = 0.02
# Capture times of the first chunks are up to 0.1 s early through PulseAudio: for this long the time
# of arrival stands in, which is late by the driver's buffer and never early.
_SETTLING_S = 1.0
# A reported overflow is a gap in the numbering where the clock shows at least this much missing:
# ALSA's capture times are good to about a millisecond.
_MEASURABLE_GAP_S = 0.01
# Without a report, sound is lost where every chunk for a second comes this much too late: far more
# than a sound server's jitter, and longer than a burst lasts that follows a delay.
_UNREPORTED_GAP_S = 0.1
_UNREPORTED_AFTER_S = 1.0
# Capture times further from the arrival than this are a driver's fault; the arrival stands in.
_PLAUSIBLE_AGE_S = 60.0


class ChunkClock:
    """Puts chunks in their place in the stream and on the monotonic clock.

    A chunk that was dropped after PortAudio counted it is a jump of known length. What a driver
    lost is measured: how far a chunk lies behind the line of samples against capture times, at once
    where the driver reports an overflow, and where it does not, once all that follows lies there.
    The line follows capture times slowly, and no chunk ends after it arrived.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._lost = 0
        self._origin_s = math.inf
        self._settled_at = round(_SETTLING_S * rate_hz)
        self._expected = 0
        self._compared = 0
        # Of the chunks that came too late in a row: arrival of the first, and the least lateness.
        self._late_since_s = self._least_late_s = math.inf
        self.overflows = 0

    def place(
        self, position: int, length: int, captured_s: float, arrived_s: float, overflow: bool
    ) -> int:
        """Number in the stream of a chunk's first sample.

        position : the same by PortAudio's count
        length : in samples
        captured_s, arrived_s : monotonic clock at its first sample by the driver, and when it was
            handed over
        overflow : the driver reported a loss before it
        """
        self.overflows += position != self._expected or overflow
        self._expected = position + length
        if not abs(arrived_s - captured_s) <= _PLAUSIBLE_AGE_S:
            captured_s = arrived_s - length / self._rate_hz
        if position >= self._settled_at:
            late_s = captured_s - self.time_s(position + self._lost)
            self._compare(late_s, arrived_s, overflow)
        first = position + self._lost
        # PulseAudio's plugin leaves a chunk out of the age of its sound, which would put its end
        # into the future.
        self._origin_s = min(self._origin_s, arrived_s - (first + length) / self._rate_hz)
        return first

    def _compare(self, late_s: float, arrived_s: float, overflow: bool) -> None:
        if overflow and late_s >= _MEASURABLE_GAP_S:
            self._lose(late_s)
        elif late_s < _UNREPORTED_GAP_S:
            self._late_since_s = self._least_late_s = math.inf
            # The mean at first: arrivals, which stood in until now, are late by a buffer.
            self._compared += 1
            self._origin_s += max(_CLOCK_GAIN, 1 / self._compared) * late_s
        else:
            self._late_since_s = min(self._late_since_s, arrived_s)
            self._least_late_s = min(self._least_late_s, late_s)
            if arrived_s - self._late_since_s >= _UNREPORTED_AFTER_S:
                self.overflows += 1
                self._lose(self._least_late_s)

    def _lose(self, lost_s: float) -> None:
        self._lost += round(lost_s * self._rate_hz)
        self._late_since_s = self._least_late_s = math.inf

    def time_s(self, sample: int) -> float:
        """Monotonic clock at the start of a sample, by the fit; infinite before the first chunk."""
        return self._origin_s + sample / self._rate_hz
