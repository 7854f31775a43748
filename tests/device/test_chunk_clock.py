"""What a driver lost shows as a jump in the numbers, and nothing else moves them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.chunk_clock import ChunkClock

JITTER_S = 5e-4
DRIFT = 1e-4


class Driver:
    """A crystal 100 ppm fast, capture times with 0.5 ms of jitter, and sound lost now and then."""

    def __init__(self, rate_hz: int, seed: int) -> None:
        self.clock = ChunkClock(rate_hz)
        self.true_position = 0
        self._rate_hz = rate_hz
        self._length = rate_hz // 20
        self._generator = np.random.default_rng(seed)
        self._position = 0

    def lose(self, seconds: float) -> None:
        self.true_position += round(seconds * self._rate_hz)

    def _now_s(self) -> float:
        return 1_000 + self.true_position / (self._rate_hz * (1 + DRIFT))

    def deliver(self, n_chunks: int, overflow: bool) -> Iterator[int]:
        """Number of the sample after each chunk; the overflow is reported with the first."""
        for count in range(n_chunks):
            captured_s = self._now_s() + self._generator.uniform(-JITTER_S, JITTER_S)
            self.true_position += self._length
            yield self._place(captured_s, self._now_s() + 0.05, overflow and count == 0)

    def deliver_at_once(self, n_chunks: int, error_s: float) -> Iterator[int]:
        """The same for chunks that were held up and arrive with the last of them."""
        captured_s = [self._now_s() + count * 0.05 for count in range(n_chunks)]
        self.true_position += n_chunks * self._length
        for begin_s in captured_s:
            arrived_s = self._now_s() + 0.05
            yield self._place(min(begin_s + error_s, arrived_s), arrived_s, False)

    def _place(self, captured_s: float, arrived_s: float, overflow: bool) -> int:
        first = self.clock.place(self._position, self._length, captured_s, arrived_s, overflow)
        self._position += self._length
        return first + self._length


gaps = st.lists(st.floats(0.02, 3.0), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)
rates = st.sampled_from([8_000, 48_000])


@given(gaps, seeds, rates)
def test_a_reported_loss_is_a_jump_within_the_jitter_of_the_clock(
    gaps_s: list[float], seed: int, rate_hz: int
) -> None:
    driver = Driver(rate_hz, seed)
    ends: list[int] = []
    for gap_s in [0.0, *gaps_s]:
        driver.lose(gap_s)
        found = list(driver.deliver(100, overflow=gap_s > 0))
        assert set(np.diff(found)) == {rate_hz // 20}  # no jump without a loss
        assert abs(found[-1] - driver.true_position) <= 2e-3 * rate_hz * (1 + len(gaps_s))
        ends += found
    assert driver.clock.overflows == len(gaps_s)


@given(st.lists(st.floats(0.12, 3.0), min_size=1, max_size=4), seeds, rates)
def test_a_loss_that_no_driver_reports_is_found_within_two_seconds(
    gaps_s: list[float], seed: int, rate_hz: int
) -> None:
    driver = Driver(rate_hz, seed)
    for gap_s in [0.0, *gaps_s]:
        driver.lose(gap_s)
        found = list(driver.deliver(100, overflow=False))
        assert abs(found[40] - (driver.true_position - 59 * (rate_hz // 20))) <= 4e-3 * rate_hz * (
            1 + len(gaps_s)
        )
        assert len(set(np.diff(found))) == (2 if gap_s else 1)
    assert driver.clock.overflows == len(gaps_s)


@given(seeds, st.floats(0.06, 3.0), st.floats(0, 1.0))
def test_a_burst_after_a_delay_lost_nothing_whatever_the_driver_says(
    seed: int, pause_s: float, error_s: float
) -> None:
    """Chunks that arrive at once, their age given with an error that lasts as long as the burst."""
    driver = Driver(48_000, seed)
    ends = list(driver.deliver(100, overflow=False))
    ends += driver.deliver_at_once(round(pause_s / 0.05), error_s)
    ends += driver.deliver(100, overflow=False)
    assert set(np.diff(ends)) == {2_400}
    assert driver.clock.overflows == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.floats(allow_nan=True), st.booleans()), max_size=60
    )
)
def test_no_capture_time_however_wild_moves_numbers_back_or_a_chunk_into_the_future(
    chunks: list[tuple[int, float, bool]],
) -> None:
    clock = ChunkClock(48_000)
    position, before, arrived_s = 0, 0, 1_000.0
    for dropped, captured_s, overflow in chunks:
        position += dropped
        arrived_s += (dropped + 2_400) / 48_000
        first = clock.place(position, 2_400, captured_s, arrived_s, overflow)
        assert first >= before + dropped
        before = first + 2_400
        position += 2_400
        assert math.isfinite(clock.time_s(first))
        assert clock.time_s(first + 2_400) <= arrived_s + 1e-6
