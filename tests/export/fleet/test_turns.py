"""When each sensor of a wave is asked."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from soundpost.export.fleet.turns import turns_s


@given(st.integers(1, 200), st.floats(1.0, 3_600.0), st.text(max_size=5))
def test_a_wave_is_spread_evenly(n_sensors: int, spread_s: float, salt: str) -> None:
    """No window, wherever it lies, has two more than its share of the wave; none is empty."""
    devices = [f"sensor-{number}" for number in range(n_sensors)]
    turns = turns_s(devices, spread_s, salt)
    assert list(turns) == devices
    times = sorted(turns.values())
    assert times == list(turns.values())
    assert times[0] >= 0.0
    assert times[-1] <= spread_s
    window_s = spread_s / 10
    share = n_sensors / 10
    for begin_s in times:
        inside = sum(begin_s <= one < begin_s + window_s for one in times)
        assert inside <= math.ceil(share) + 1


def test_another_roll_out_has_other_times() -> None:
    assert turns_s(["hall"], 60.0, "a") != turns_s(["hall"], 60.0, "b")
    assert turns_s(["hall"], 60.0, "a") == turns_s(["hall"], 60.0, "a")
    assert turns_s([], 60.0, "a") == {}
