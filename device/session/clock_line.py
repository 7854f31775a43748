"""One timeline for clocks that go by themselves: a sound card's and a camera's.

What a clock stamped reaches the machine late by whatever lies between, never early. On the
machine's monotonic clock, the line under all arrivals is the clock itself: its slope is how far
the crystal is off, and what lies above it was late. A delay that is always the same, as of an
exposure, is no part of that: calibration measures it with flash and click.

clock.py fits the same line for events as they come, and holds back until it is sure. Here
everything is known once the recording ends, so that positions are good to a fraction of a
millisecond from the first frame on.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# The earliest arrival of each stretch is kept.
_STRETCH_S = 1.0
# One line serves for so long; a crystal follows the temperature of the room.
_WINDOW_S = 600.0
# Over less the jitter tells more of the slope than the crystal does: 100 ppm are 0.5 ms then.
_SLOPE_AFTER_S = 5.0
# No crystal, a fault: stamps that go by another pace than time.
MAX_SLOPE = 0.02


class Line(NamedTuple):
    """A clock against the machine's monotonic one; linear between knots, and beyond them.

    own_s, late_s : knots, seconds by the clock and what the monotonic clock is ahead by
    """

    own_s: Floats
    late_s: Floats

    def monotonic_s(self, own_s: ArrayLike) -> Floats:
        """Monotonic time of a time by the clock."""
        return _through(self.own_s, self.own_s + self.late_s, own_s)

    def own(self, monotonic_s: ArrayLike) -> Floats:
        """Time by the clock of a monotonic time."""
        return _through(self.own_s + self.late_s, self.own_s, monotonic_s)

    @property
    def drift(self) -> float:
        """Mean seconds per second by which the clock's seconds are longer than the machine's."""
        span = float(self.own_s[-1] - self.own_s[0])
        return float(self.late_s[-1] - self.late_s[0]) / span


def _through(x: Floats, y: Floats, at: ArrayLike) -> Floats:
    points = np.asarray(at, np.float64)
    piece = np.clip(np.searchsorted(x, points) - 1, 0, len(x) - 2)
    slope = (y[piece + 1] - y[piece]) / (x[piece + 1] - x[piece])
    found: Floats = y[piece] + slope * (points - x[piece])
    return found


class ClockLine:
    """Gathers arrivals of one clock and fits its line; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own_s: list[float] = []
        self._late_s: list[float] = []
        self._end_s = -np.inf
        self._line: Line | None = None

    def add(self, own_s: float, arrived_s: float) -> None:
        """What the clock stamped own_s had arrived by arrived_s."""
        late_s = arrived_s - own_s
        with self._lock:
            if own_s >= self._end_s:
                self._own_s.append(own_s)
                self._late_s.append(late_s)
                self._end_s = own_s + _STRETCH_S
                self._line = None
            elif late_s < self._late_s[-1]:
                self._own_s[-1], self._late_s[-1] = own_s, late_s
                self._line = None

    def __bool__(self) -> bool:
        return bool(self._own_s)

    def now(self) -> Line:
        """The line by the last ten minutes; ValueError before the first arrival."""
        with self._lock:
            if self._line is None:
                first = bisect_left(self._own_s, self._own_s[-1] - _WINDOW_S) if self else 0
                self._line = _line(np.array(self._own_s[first:]), np.array(self._late_s[first:]))
            return self._line

    def fitted(self) -> Line:
        """The line by all arrivals; ValueError without one."""
        with self._lock:
            own_s, late_s = np.array(self._own_s), np.array(self._late_s)
        if not len(own_s) or own_s[-1] - own_s[0] <= _WINDOW_S:
            return _line(own_s, late_s)
        # Lines over windows that overlap by half: their middles are the knots.
        count = max(2, round((own_s[-1] - own_s[0]) / (_WINDOW_S / 2)))
        middles = np.linspace(own_s[0] + _WINDOW_S / 4, own_s[-1] - _WINDOW_S / 4, count)
        knots = []
        for middle in middles:
            near = np.abs(own_s - middle) <= _WINDOW_S / 2
            part = _line(own_s[near], late_s[near])
            knots.append(float(part.monotonic_s(middle)) - middle)
        return Line(middles, np.array(knots))


def _line(own_s: Floats, late_s: Floats) -> Line:
    """The line below all points that lies closest to them.

    An edge of their lower convex hull (S. B. Moon, P. Skelly, D. Towsley, "Estimation and removal
    of clock skew from network delay measurements", INFOCOM 1999).
    """
    if not len(own_s):
        raise ValueError("nothing has arrived yet")
    slope, anchor = 0.0, int(late_s.argmin())
    if own_s[-1] - own_s[0] >= _SLOPE_AFTER_S:
        hull: list[int] = []
        for point in range(len(own_s)):
            while len(hull) > 1 and _turn(own_s, late_s, hull[-2], hull[-1], point) <= 0:
                hull.pop()
            hull.append(point)
        middle = own_s.mean()
        edge = next(number for number in range(1, len(hull)) if own_s[hull[number]] >= middle)
        anchor, end = hull[edge - 1], hull[edge]
        slope = (late_s[end] - late_s[anchor]) / (own_s[end] - own_s[anchor])
    ends = np.array([own_s[0], max(own_s[-1], own_s[0] + 1.0)])
    return Line(ends, late_s[anchor] + slope * (ends - own_s[anchor]))


def _turn(x: Floats, y: Floats, first: int, second: int, third: int) -> float:
    """Positive where the way from the first through the second to the third turns left."""
    return float(
        (x[second] - x[first]) * (y[third] - y[first])
        - (y[second] - y[first]) * (x[third] - x[first])
    )
