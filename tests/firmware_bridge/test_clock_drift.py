"""Drift of a clock that is known, through late arrivals: within its own standard error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from soundpost.firmware_bridge.clock_drift import DriftEstimator

RATE_HZ = 48_000


def estimate(
    drift_ppm: float, seconds: float, seed: int, outliers: bool = False
) -> tuple[float, float]:
    """Of packets of 5 ms that are late by up to some milliseconds, as a busy network has it."""
    rng = np.random.default_rng(seed)
    estimator = DriftEstimator(RATE_HZ)
    n_packets = round(seconds * 200)
    late_s = rng.exponential(0.001, n_packets)
    if outliers:
        # For a tenth of the time nothing is on time.
        late_s += 0.05 * ((np.arange(n_packets) // 1_000) % 10 == 7)
    for number in range(1, n_packets + 1):
        position = number * RATE_HZ // 200
        sent_s = position / RATE_HZ / (1 + 1e-6 * drift_ppm)
        estimator.update(position, 1_000.0 + sent_s + late_s[number - 1])
    drift = estimator.estimate()
    assert drift is not None
    assert drift.over_s == pytest.approx(seconds, abs=2.5)
    return drift.ppm, drift.error_ppm


@pytest.mark.parametrize("drift_ppm", [-200.0, 0.0, 3.0, 100.0])
def test_the_drift_is_found(drift_ppm: float) -> None:
    ppm, error_ppm = estimate(drift_ppm, 60, seed=1)
    assert abs(ppm - drift_ppm) < 4 * error_ppm
    assert error_ppm < 0.5


def test_the_standard_error_is_one() -> None:
    """Over many arrays, the mean square of estimate over error is near 1."""
    scores = []
    for seed in range(40):
        ppm, error_ppm = estimate(50.0, 20, seed)
        scores.append((ppm - 50.0) / error_ppm)
    rms = math.sqrt(np.mean(np.square(scores)))
    # Exponential scatter has heavier tails than a normal one, and 20 points tell little of it.
    assert 0.5 < rms < 2.0


def test_busy_stretches_do_not_bend_it() -> None:
    ppm, _ = estimate(20.0, 100, seed=2, outliers=True)
    assert abs(ppm - 20.0) < 1.0


def test_seconds_tell_nothing() -> None:
    estimator = DriftEstimator(RATE_HZ)
    assert estimator.estimate() is None
    for number in range(8):
        estimator.update(number * RATE_HZ, float(number))
    assert estimator.estimate() is None
    estimator.update(8 * RATE_HZ, 8.0)
    drift = estimator.estimate()
    assert drift is not None
    assert str(drift) == "+0.00 ± 0.00 ppm over 7 s"
