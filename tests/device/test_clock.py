"""Sample counts on the clock: late blocks do not move the line, a crystal that is off does."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.clock import SampleClock, clock_synchronised

RATE_HZ = 48_000
BLOCK = 960
# What the fit may move later in ten seconds, so that it keeps up with any crystal.
DRIFT = 300e-6


@given(
    late_s=st.lists(st.floats(0.0, 1.9), min_size=1, max_size=400),
    block_s=st.sampled_from([0.005, 0.02, 0.5, 1.0]),
    start_s=st.floats(0.0, 1e6),
)
def test_the_line_is_never_early_and_never_later_than_the_best_block(
    late_s: list[float], block_s: float, start_s: float
) -> None:
    clock = SampleClock(RATE_HZ)
    block = round(block_s * RATE_HZ)
    for count, late in enumerate(late_s, 1):
        truth_s = start_s + count * block / RATE_HZ
        clock.update(count * block, truth_s + late)
        found_s = clock.monotonic_s(count * block)
        assert found_s >= truth_s - 1e-9
        assert found_s <= truth_s + min(late_s[:count]) + DRIFT * count * block_s + 3e-3 + 1e-9


@pytest.mark.parametrize(
    ("parts_per_million", "block_s"),
    [(-50.0, 0.02), (50.0, 0.02), (-50.0, 0.5), (50.0, 0.5), (200.0, 0.5)],
)
def test_a_crystal_that_is_off_is_followed_for_hours(
    parts_per_million: float, block_s: float
) -> None:
    rng = np.random.default_rng(1)
    clock = SampleClock(RATE_HZ)
    true_rate_hz = RATE_HZ * (1.0 - parts_per_million * 1e-6)
    block = round(block_s * RATE_HZ)
    # Every hundredth block of a stretch of load is late by much, the others by a little.
    n_blocks = round(3 * 3_600 / block_s)
    late_s = np.where(rng.random(n_blocks) < 0.01, 0.3, rng.exponential(0.004, n_blocks))
    worst_s = 0.0
    for count in range(1, n_blocks + 1):
        truth_s = count * block / true_rate_hz
        clock.update(count * block, truth_s + late_s[count - 1])
        if count * block_s > 60 and count % 50 == 0:
            worst_s = max(worst_s, abs(clock.monotonic_s(count * block) - truth_s))
    # 3 hours at 50 ppm are 0.54 s. The line is moved later every ten seconds, to where it was ten
    # seconds ago at the earliest; and the best of twenty blocks is a little late too.
    assert worst_s < max(0.0, parts_per_million) * 20e-6 + (0.003 if block_s == 0.5 else 0.0005)


def test_a_busy_minute_moves_the_line_by_no_more_than_a_crystal() -> None:
    clock = SampleClock(RATE_HZ)
    for count in range(1, 3_000):
        clock.update(count * BLOCK, count * BLOCK / RATE_HZ)
    for count in range(3_000, 6_000):
        clock.update(count * BLOCK, count * BLOCK / RATE_HZ + 0.4)
    assert clock.monotonic_s(0) == pytest.approx(60 * DRIFT, abs=0.004)
    clock.update(6_000 * BLOCK, 6_000 * BLOCK / RATE_HZ)
    assert clock.monotonic_s(0) == pytest.approx(0.0, abs=1e-9)


def test_a_stream_that_was_suspended_starts_afresh() -> None:
    clock = SampleClock(RATE_HZ)
    clock.update(BLOCK, 10.0)
    clock.update(2 * BLOCK, 700.0)
    clock.update(3 * BLOCK, 700.0 + BLOCK / RATE_HZ)
    assert clock.monotonic_s(3 * BLOCK) == pytest.approx(700.0 + BLOCK / RATE_HZ)


def test_a_stream_that_was_only_held_up_keeps_its_line() -> None:
    """Blocks of three held-up seconds come in a burst: the last is on time again."""
    clock = SampleClock(RATE_HZ)
    clock.update(BLOCK, 10.0)
    for count in range(2, 152):
        clock.update(count * BLOCK, 13.0)
    assert clock.monotonic_s(BLOCK) == pytest.approx(10.0, abs=1e-9)


def test_lost_samples_that_are_counted_leave_the_line_where_it_is() -> None:
    clock = SampleClock(RATE_HZ)
    clock.update(RATE_HZ, 101.0)
    clock.update(10 * RATE_HZ, 110.0)
    assert clock.monotonic_s(5 * RATE_HZ) == pytest.approx(105.0)


def test_utc_is_the_system_clock_at_that_sample() -> None:
    clock = SampleClock(RATE_HZ)
    before = datetime.now(timezone.utc)
    clock.update(100 * RATE_HZ, time.monotonic())
    found = clock.utc(100 * RATE_HZ)
    after = datetime.now(timezone.utc)
    assert before <= found <= after
    second = (clock.utc(100 * RATE_HZ) - clock.utc(70 * RATE_HZ)).total_seconds()
    assert second == pytest.approx(30.0, abs=0.05)
    assert found.tzinfo is timezone.utc


def test_before_the_first_block_there_is_no_time() -> None:
    with pytest.raises(ValueError, match="no block"):
        SampleClock(RATE_HZ).monotonic_s(0)


def test_whether_the_clock_is_synchronised_is_the_kernels_word() -> None:
    found = clock_synchronised()
    assert isinstance(found, bool)
    if shutil.which("timedatectl") is None:
        return
    # systemd reads the same adjtimex(2); without it running it has no answer.
    told = subprocess.run(
        ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode == 0:
        assert found == (told.stdout.strip() == "yes")
