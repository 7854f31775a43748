"""So many a minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.rate_limit import TokenBucket


@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=80))
def test_the_rate_is_bounded_over_any_minute(per_minute: int, pauses: list[float]) -> None:
    now_s = 0.0
    bucket = TokenBucket(per_minute, lambda: now_s)
    allowed: list[float] = []
    asked = 0
    for pause_s in pauses:
        now_s += pause_s
        asked += 1
        if bucket.take():
            allowed.append(now_s)
    for begin in allowed:
        within = [when for when in allowed if begin <= when < begin + 60]
        # A full bucket, and what flows in meanwhile.
        assert len(within) <= 2 * per_minute
    assert len(allowed) >= min(asked, per_minute)
    assert len(allowed) <= per_minute * (1 + now_s / 60) + 1e-6
