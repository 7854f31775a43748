"""When a sample was heard: sample counts to UTC, without asking the clock for every block; and how
long ago something was that an earlier process wrote down.

Blocks arrive late by whatever the driver and the scheduler add, never early. The line under all
arrivals is therefore the stream's own clock: its slope is how far the crystal is off (50 ppm is
4.3 s a day), and what lies above it was late. The slope is fitted anew every ten seconds to ten
minutes of arrivals, so that jitter and a busy minute move the line by next to nothing.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

# The earliest arrival of each stretch is kept: long enough to hold a block that was not late.
_STRETCH_S = 10.0
# The arrivals that the fit looks back on. Sound that was lost unseen moves the line when those from
# before it have left; fewer minutes would take a busy one for the crystal.
_WINDOW_S = 600.0
# Three times what a cheap crystal in the cold is off; and what is allowed for before the first fit,
# as a busy minute moves the line by no less.
_MAX_DRIFT = 300e-6
_UNFITTED_DRIFT = 200e-6
# A stream can also come too slowly, by more than any crystal, and by less than is a fault of its
# rate (stream_watch.py). A minute on one line tells: neither a busy one nor a loss looks like that.
_SLOWEST = 0.02
_SLOW_STRETCHES = 7
# How wrong a fitted slope may be: `_ON_TIME_S` over half of the window, and the weather. And the
# same over a minute.
_DRIFT_ERROR = 30e-6
_SLOW_ERROR = 200e-6
# A slope is believed where half of the stretches had an arrival so close to the line; one that
# only the last minute shows, where all had.
_ON_TIME_S = 0.005
# A stretch that lies this much behind the line has lost samples unseen: start afresh. No single
# block tells: where the stream was only held up, those that follow in a burst are on time again.
_RESTART_S = 2.0
# Two clocks are read at the same instant if reading both took less than this.
_AT_ONCE_S = 0.0005
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised

Point = tuple[float, float]


def _read_with(other: Callable[[], float], clock: int) -> tuple[float, float]:
    """Seconds by a clock of clock_gettime(2), and by another at the same instant.

    A thread may be held up between two readings: they are repeated, and the closest pair counts.
    """
    best = (math.inf, 0.0, 0.0)
    for _ in range(5):
        before_s = time.clock_gettime(clock)
        other_s = other()
        after_s = time.clock_gettime(clock)
        best = min(best, (after_s - before_s, (before_s + after_s) / 2, other_s))
        if best[0] < _AT_ONCE_S:
            break
    return best[1], best[2]


def suspended_s() -> float:
    """Seconds that the machine was suspended since it was started."""
    monotonic_s, boottime_s = _read_with(
        lambda: time.clock_gettime(time.CLOCK_BOOTTIME), time.CLOCK_MONOTONIC
    )
    return boottime_s - monotonic_s


class SampleClock:
    """Fit of a stream's sample count to the monotonic clock and through it to UTC.

    suspended : tells the time that the monotonic clock leaves out, which the samples leave out too

    Attributes
    ----------
    drift : seconds per second by which the stream's seconds are longer than the monotonic clock's
    """

    def __init__(self, rate_hz: int, suspended: Callable[[], float] = suspended_s) -> None:
        self.rate_hz = rate_hz
        self.drift = 0.0
        # By how much more than `drift` an old arrival may underestimate the present.
        self._slack = _UNFITTED_DRIFT
        # The line: lateness that is none, in seconds, at a point of the stream, in its seconds.
        self._anchor: Point | None = None
        # Earliest arrival of each stretch, and of the present one with its distance to the line.
        self._points: deque[Point] = deque()
        self._earliest: tuple[float, Point] | None = None
        self._stretch_end_s = 0.0
        self._suspended = suspended
        # Of the time before the last suspension, the samples up to here; and the one since.
        self._last_sample = self._woke_sample = 0
        self._asleep_before_s = self._asleep_s = suspended()

    def update(self, end_sample: int, monotonic_s: float) -> None:
        """Record that the sample before end_sample had arrived by monotonic_s."""
        asleep_s = self._suspended()
        if asleep_s - self._asleep_s > 0.1:
            self._woke_sample, self._asleep_before_s = self._last_sample, self._asleep_s
        at_s = end_sample / self.rate_hz
        if at_s - self._last_sample / self.rate_hz > _STRETCH_S:
            # After a long gap one block alone would end the stretch, however late it is, and the
            # earliest from before the gap may be older than all that the fit looks back on.
            self._stretch_end_s = at_s + _STRETCH_S
            self._earliest = None
        self._asleep_s, self._last_sample = asleep_s, end_sample
        point = (at_s, monotonic_s - at_s)
        if self._anchor is None:
            self._anchor = point
            self._stretch_end_s = at_s + _STRETCH_S
        late_s = point[1] - self._line(at_s)
        if self._earliest is None or late_s < self._earliest[0]:
            self._earliest = (late_s, point)
        if at_s >= self._stretch_end_s:
            self._fit(at_s)
        elif late_s < 0.0:
            self._anchor = point
            self._earliest = (0.0, point)

    def _fit(self, at_s: float) -> None:
        """End a stretch: fit the slope, and put the line where the arrivals allow it."""
        assert self._earliest is not None
        late_s, earliest = self._earliest
        points = self._points
        if late_s > _RESTART_S:
            points.clear()
        points.append(earliest)
        while points[0][0] < at_s - _WINDOW_S:
            points.popleft()
        slope = None
        if points[-1][0] - points[0][0] >= _WINDOW_S / 2:
            slope = _slope_below(points, 0.5)
            if slope is not None and -_MAX_DRIFT <= slope <= _SLOWEST:
                self.drift, self._slack = slope, _DRIFT_ERROR
        if len(points) >= _SLOW_STRETCHES and (slope is None or slope <= _MAX_DRIFT):
            slope = _slope_below(list(points)[-_SLOW_STRETCHES:], 1.0)
            if slope is not None and _MAX_DRIFT < slope <= _SLOWEST:
                self.drift, self._slack = slope, _SLOW_ERROR
                # Those before it came at another rate.
                while len(points) > _SLOW_STRETCHES:
                    points.popleft()
        steepest = self.drift + self._slack
        self._anchor = (at_s, min(late + steepest * (at_s - then_s) for then_s, late in points))
        self._earliest = None
        self._stretch_end_s = at_s + _STRETCH_S

    def _line(self, at_s: float) -> float:
        assert self._anchor is not None
        return self._anchor[1] + self.drift * (at_s - self._anchor[0])

    def monotonic_s(self, sample: int) -> float:
        """Monotonic time of a sample, in seconds; update must have been called."""
        if self._anchor is None:
            raise ValueError("no block has arrived yet")
        at_s = sample / self.rate_hz
        return self._line(at_s) + at_s

    def age_s(self, sample: int) -> float:
        """Seconds since a sample was heard, suspended time included."""
        return self._age_s(sample, time.monotonic())

    def _age_s(self, sample: int, monotonic_s: float) -> float:
        asleep_s = self._asleep_before_s if sample < self._woke_sample else self._asleep_s
        slept_s = self._suspended() - asleep_s
        # Two clocks that cannot be read at once differ by less.
        return monotonic_s - self.monotonic_s(sample) + (slept_s if slept_s > 0.1 else 0.0)

    def utc(self, sample: int) -> datetime:
        """UTC of a sample by the system clock as it stands now."""
        monotonic_s, utc_s = _read_with(time.time, time.CLOCK_MONOTONIC)
        now = datetime.fromtimestamp(utc_s, timezone.utc)
        return now - timedelta(seconds=self._age_s(sample, monotonic_s))


def _slope_below(points: Sequence[Point], on_time: float) -> float | None:
    """Slope of the line below all points that lies closest to them.

    None where less than the part on_time of them lies close to it.

    It is the edge of their lower convex hull over their middle (S. B. Moon, P. Skelly, D. Towsley,
    "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999).
    """
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    middle = sum(at_s for at_s, _ in points) / len(points)
    edge = next(number for number in range(1, len(hull)) if hull[number][0] >= middle)
    (first_s, first), (last_s, last) = hull[edge - 1], hull[edge]
    slope = (last - first) / (last_s - first_s)
    late = sorted(late_s - first - slope * (at_s - first_s) for at_s, late_s in points)
    return slope if late[round(on_time * (len(late) - 1))] <= _ON_TIME_S else None


def _turn(first: Point, second: Point, third: Point) -> float:
    """Positive where the way from the first point through the second to the third turns left."""
    return (second[0] - first[0]) * (third[1] - first[1]) - (second[1] - first[1]) * (
        third[0] - first[0]
    )


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) is 208 bytes on 64-bit Linux; modes = 0 only reads.
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 252))


def clock_synchronised() -> bool:
    """Whether the kernel says that the system clock follows a reference (False where unknown)."""
    if not sys.platform.startswith("linux"):
        return False
    state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex()))
    return 0 <= state < _TIME_ERROR


@cache
def _boot_id() -> str:
    try:
        path = Path("/proc/sys/kernel/random/boot_id")
        return path.read_text(encoding="ascii").strip()
    except OSError:
        # Unlike every other process's, so that no two uptimes are compared that cannot be.
        return f"unknown, process began {time.time_ns()}"


@dataclass(frozen=True)
class Moment:
    """An instant by the clocks that outlive a process, for what is written down.

    boot_id : the kernel's name for this run of the machine
    uptime_s : since the machine was started, suspended time included; steps of the system clock
        do not move it
    utc_s : Unix time by the system clock
    synced : whether utc_s was known to be right
    """

    boot_id: str
    uptime_s: float
    utc_s: float
    synced: bool

    @classmethod
    def now(cls) -> Moment:
        """The present one."""
        uptime_s, utc_s = _read_with(time.time, time.CLOCK_BOOTTIME)
        return cls(_boot_id(), uptime_s, utc_s, clock_synchronised())

    def since(self, earlier: Moment) -> float:
        """Seconds from an earlier moment to this one, 0 or more.

        Exact within one run of the machine. Across a restart it is the difference of the system
        clock where that was right at both ends; elsewhere what is certain, the time since the
        machine was started.
        """
        if self.boot_id == earlier.boot_id:
            return max(0.0, self.uptime_s - earlier.uptime_s)
        if self.synced and earlier.synced:
            return max(self.uptime_s, self.utc_s - earlier.utc_s)
        return self.uptime_s
