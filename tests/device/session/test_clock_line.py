"""The line under arrivals: it is the clock, whatever the lateness, the crystal and the weather."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.session.clock_line import ClockLine


@settings(max_examples=40)
@given(
    parts_per_million=st.floats(-200.0, 200.0),
    seconds=st.sampled_from([2.0, 8.0, 60.0, 590.0, 2_000.0]),
    rate_hz=st.sampled_from([15.0, 30.0, 50.0]),
    jitter_s=st.floats(0.0, 0.02),
    seed=st.integers(0, 999),
)
def test_times_are_good_to_a_millisecond_from_the_first_to_the_last(
    parts_per_million: float, seconds: float, rate_hz: float, jitter_s: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own_s = 17.0 + np.arange(round(seconds * rate_hz)) / rate_hz
    truth_s = 5_000.0 + (own_s - 17.0) * (1 + 1e-6 * parts_per_million)
    arrived_s = truth_s + rng.uniform(0.0, jitter_s, len(own_s))
    clock = ClockLine()
    for own, arrived in zip(own_s.tolist(), arrived_s.tolist(), strict=True):
        clock.add(own, arrived)
    line = clock.fitted()
    # The earliest of a second of 15 arrivals is late by a fifteenth of the jitter on average.
    bound_s = 0.0005 + 0.15 * jitter_s
    if seconds < 5.0:
        bound_s = seconds * 1e-6 * abs(parts_per_million) + 0.3 * jitter_s + 1e-9
    assert np.abs(line.monotonic_s(own_s) - truth_s).max() <= bound_s
    # The other way round it is the same line.
    np.testing.assert_allclose(line.own(line.monotonic_s(own_s)), own_s, rtol=0, atol=1e-7)


def test_a_crystal_that_follows_the_room_is_followed() -> None:
    """20 ppm more or less over an hour: one line would be wrong by 11 ms."""
    rng = np.random.default_rng(3)
    own_s = np.arange(3_600 * 20) / 20
    drift = 1e-6 * (50 + 20 * np.sin(2 * np.pi * own_s / 3_600))
    truth_s = own_s + np.cumsum(drift) / 20
    clock = ClockLine()
    arrivals_s = truth_s + rng.uniform(0.0, 0.01, len(own_s))
    for own, arrived in zip(own_s.tolist(), arrivals_s.tolist(), strict=True):
        clock.add(own, arrived)
    assert np.abs(clock.fitted().monotonic_s(own_s) - truth_s).max() < 0.002
    # While it is recorded, the last ten minutes count.
    assert abs(float(clock.now().monotonic_s(own_s[-1])) - truth_s[-1]) < 0.002


def test_a_burst_after_a_hold_up_is_no_clock() -> None:
    """Nothing for two seconds, then all at once: lateness, and none of the line's business."""
    clock = ClockLine()
    for number in range(1_000):
        own_s = number / 20
        clock.add(own_s, own_s + (max(0.0, 22.0 - own_s) if own_s > 20.0 else 0.0))
    assert abs(clock.fitted().drift) < 1e-9


def test_without_an_arrival_there_is_no_line() -> None:
    clock = ClockLine()
    assert not clock
    with pytest.raises(ValueError, match="nothing has arrived yet"):
        clock.fitted()
    with pytest.raises(ValueError, match="nothing has arrived yet"):
        clock.now()
