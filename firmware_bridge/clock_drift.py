"""How far the array's clock is off, against the clock of the machine that listens.

A packet arrives late by whatever the network and the scheduler add, never early. The earliest of
each second therefore lies on a line whose slope is the drift. A line through all of them that a
few do not bend (H. Theil, "A rank-invariant method of linear and polynomial regression analysis",
1950; P. K. Sen, 1968): the median of the slopes between any two.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Long enough to hold a packet that was not late.
_STRETCH_S = 1.0
# Of a longer time: crystals follow the temperature.
_KEPT = 600
# Fewer points say nothing of their own scatter.
_MIN_POINTS = 8
# Of a normal distribution: its standard deviation over its median absolute deviation.
_DEVIATIONS = 1.4826


@dataclass(frozen=True)
class Drift:
    """An estimate of clock drift.

    ppm : by how many millionths the array's seconds are shorter than this machine's: an array whose
        clock runs fast sends more samples in a second than its rate says, and has a positive drift
    error_ppm : standard error of it, from the scatter of the points and how much of it neighbours
        share
    over_s : time that it was estimated over
    """

    ppm: float
    error_ppm: float
    over_s: float

    def __str__(self) -> str:
        return f"{self.ppm:+.2f} ± {self.error_ppm:.2f} ppm over {self.over_s:.0f} s"


class DriftEstimator:
    """Collects arrivals of a stream, and tells its drift.

    rate_hz : nominal rate of the stream
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        # Of each stretch the arrival that was least late: seconds of this machine, and by how much
        # the array's seconds lead.
        self._points: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._best: tuple[float, float] | None = None
        self._ends_s = -math.inf

    def update(self, position: int, arrived_s: float) -> None:
        """Record that the sample before a position had arrived by then."""
        lead_s = position / self._rate_hz - arrived_s
        if arrived_s >= self._ends_s:
            if self._best is not None:
                self._points.append(self._best)
            self._best = None
            self._ends_s = arrived_s + _STRETCH_S
        if self._best is None or lead_s > self._best[1]:
            self._best = (arrived_s, lead_s)

    def estimate(self) -> Drift | None:
        """The drift so far; None before eight seconds."""
        if len(self._points) < _MIN_POINTS:
            return None
        at_s, lead_s = np.array(self._points).T
        first, second = np.triu_indices(len(at_s), 1)
        slope = float(np.median((lead_s[second] - lead_s[first]) / (at_s[second] - at_s[first])))
        rest = lead_s - slope * at_s
        rest -= np.median(rest)
        scatter = _DEVIATIONS * float(np.median(np.abs(rest)))
        spread = float(np.sqrt(np.sum((at_s - at_s.mean()) ** 2)))
        error = scatter / spread * _correlation_factor(np.clip(rest, -3 * scatter, 3 * scatter))
        return Drift(1e6 * slope, 1e6 * error, float(at_s[-1] - at_s[0]))


def _correlation_factor(rest: NDArray[np.float64]) -> float:
    """By how much the error grows as neighbouring points are late together, on a busy machine.

    For a first-order autoregressive scatter, √((1 + r)/(1 − r)) with the correlation r of
    neighbours.
    """
    power = float(rest @ rest)
    if power == 0.0:
        return 1.0
    correlation = min(max(float(rest[1:] @ rest[:-1]) / power, 0.0), 0.99)
    return math.sqrt((1 + correlation) / (1 - correlation))
