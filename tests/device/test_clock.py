"""Sample counts on the clock: late blocks do not move the line, a crystal that is off does."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soundpost.device.clock import Moment, SampleClock, clock_synchronised, suspended_s

BOOT_ID = "/proc/sys/kernel/random/boot_id"
RATE_HZ = 48_000
BLOCK = 960
# What the line may move later before its first fit, which needs five minutes.
DRIFT = 200e-6
UNFITTED_S = 290.0


@given(
    late_s=st.lists(st.floats(0.0, 1.9), min_size=1, max_size=400),
    block_s=st.sampled_from([0.005, 0.02, 0.5, 1.0]),
    start_s=st.floats(0.0, 1e6),
)
def test_before_the_fit_the_line_is_never_early_and_never_later_than_the_best_block(
    late_s: list[float], block_s: float, start_s: float
) -> None:
    clock = SampleClock(RATE_HZ)
    block = round(block_s * RATE_HZ)
    for count, late in enumerate(late_s[: int(UNFITTED_S / block_s)], 1):
        truth_s = start_s + count * block / RATE_HZ
        clock.update(count * block, truth_s + late)
        found_s = clock.monotonic_s(count * block)
        assert found_s >= truth_s - 1e-9
        assert found_s <= truth_s + min(late_s[:count]) + DRIFT * (count * block_s + 10.0) + 1e-9


class Stream:
    """Blocks of a crystal that is off, each late by what was drawn; notes how wrong the clock is.

    truth_s, at_s : true time now, and the stream's own, in its seconds
    """

    def __init__(self, parts_per_million: float, block_s: float, seed: int) -> None:
        self.clock = SampleClock(RATE_HZ, lambda: 0.0)
        self.errors_s: list[float] = []
        self.block = round(block_s * RATE_HZ)
        self.block_s = block_s * (1.0 + parts_per_million * 1e-6)
        self.rng = np.random.default_rng(seed)
        self.truth_s = 1_000.0
        self.count = 0

    def play(self, seconds: float, late_s: float = 0.0, held_s: float = 0.0) -> None:
        """Blocks with 50 ms of jitter, all late_s late or more; first none come for held_s."""
        n_blocks = max(1, round(seconds / self.block_s))
        truth_s = self.truth_s + self.block_s * np.arange(1, n_blocks + 1)
        arrived_s = truth_s + late_s + self.rng.uniform(0.0, 0.05, n_blocks)
        arrived_s = np.maximum(np.maximum.accumulate(arrived_s), self.truth_s + held_s)
        for true_s, arrival_s in zip(truth_s.tolist(), arrived_s.tolist(), strict=True):
            self.count += 1
            self.clock.update(self.count * self.block, arrival_s)
            # An event that is reported now began some seconds ago.
            age = min(self.count, round(3.0 / self.block_s))
            found_s = self.clock.monotonic_s((self.count - age) * self.block)
            self.errors_s.append(found_s - (true_s - age * self.block_s))
        self.truth_s = float(truth_s[-1])

    def lose(self, seconds: float, *, counted: bool) -> None:
        """Sound that never comes; where it is not counted, the next block takes its numbers."""
        n_blocks = round(seconds / self.block_s)
        self.truth_s += n_blocks * self.block_s
        self.count += n_blocks if counted else 0


# A rate is fitted to five minutes of a stream. Before that, a busy minute that nothing on time
# interrupts moves events by up to 25 ms.
@pytest.mark.parametrize(("heard_s", "limit_s"), [(20.0, 0.030), (320.0, 0.020)])
@settings(derandomize=True, max_examples=60, deadline=None)
@example(parts_per_million=-83.0, block_s=0.25, seed=0, episodes=[(60.0, "busy", 1.0)])
@given(
    parts_per_million=st.floats(-100.0, 100.0),
    block_s=st.sampled_from([0.25, 0.5]),
    seed=st.integers(0, 2**32 - 1),
    episodes=st.lists(
        st.tuples(
            st.floats(60.0, 400.0),
            st.sampled_from(["busy", "held", "gap", "calm"]),
            st.floats(0.0, 1.0),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_jitter_bursts_busy_minutes_and_gaps_move_no_event_by_more(
    heard_s: float,
    limit_s: float,
    parts_per_million: float,
    block_s: float,
    seed: int,
    episodes: list[tuple[float, str, float]],
) -> None:
    stream = Stream(parts_per_million, block_s, seed)
    stream.play(heard_s)
    # The best of the first blocks is yet to come.
    stream.errors_s.clear()
    for calm_s, what, strength in episodes:
        stream.play(calm_s)
        if what == "busy":
            stream.play(60.0, late_s=1.5 * strength)
        elif what == "held":
            stream.play(5.0 * strength, held_s=5.0 * strength)
        elif what == "gap":
            stream.lose(100.0 * strength, counted=True)
    stream.play(60.0)
    assert max(map(abs, stream.errors_s)) < limit_s


@pytest.mark.parametrize("gap_s", [15.0, 700.0, 86_400.0])
def test_a_gap_of_any_length_at_any_instant_moves_no_event(gap_s: float) -> None:
    for instant in range(20):
        stream = Stream(0.0, 0.5, instant)
        stream.play(100.0 + 0.5 * instant)
        stream.lose(gap_s, counted=True)
        stream.errors_s.clear()
        stream.play(30.0)
        assert max(map(abs, stream.errors_s)) < 0.020


@pytest.mark.parametrize("parts_per_million", [-100.0, 0.0, 100.0])
def test_sound_that_was_lost_unseen_is_made_up_for_within_ten_minutes(
    parts_per_million: float,
) -> None:
    stream = Stream(parts_per_million, 0.1, 3)
    stream.play(1_200.0)
    stream.lose(0.5, counted=False)
    stream.play(620.0)
    assert stream.errors_s[-6_000] == pytest.approx(-0.5, abs=0.02)
    stream.errors_s.clear()
    stream.play(600.0)
    assert max(map(abs, stream.errors_s)) < 0.020


def test_an_event_from_before_the_machine_was_suspended_is_as_old_as_it_is() -> None:
    """Neither the monotonic clock nor the samples go on while it sleeps; UTC does."""
    asleep_s = 40.0
    clock = SampleClock(RATE_HZ, lambda: asleep_s)
    now_s = time.monotonic()
    clock.update(10 * RATE_HZ, now_s)
    asleep_s += 3_600.0
    clock.update(11 * RATE_HZ, now_s + 1.0)
    passed_s = time.monotonic() - now_s
    assert clock.age_s(10 * RATE_HZ - 1) == pytest.approx(3_600.0 + passed_s, abs=1.0)
    assert clock.age_s(10 * RATE_HZ + 1) == pytest.approx(passed_s, abs=1.0)
    slept = clock.utc(11 * RATE_HZ) - clock.utc(9 * RATE_HZ)
    assert slept.total_seconds() == pytest.approx(3_602.0, abs=0.05)


@pytest.mark.parametrize("reading", [1, 2, 3])
def test_a_thread_that_is_held_up_between_two_clocks_was_not_suspended(
    reading: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the first readings it is held up before."""
    asleep_s, readings, read = suspended_s(), 0, time.clock_gettime

    def held_up(clock: int) -> float:
        nonlocal readings
        readings += 1
        if readings == reading:
            time.sleep(0.3)
        return read(clock)

    monkeypatch.setattr(time, "clock_gettime", held_up)
    assert suspended_s() == pytest.approx(asleep_s, abs=0.1)
    assert readings >= reading


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


@pytest.mark.parametrize("parts_per_million", [400.0, 1_000.0, 5_000.0])
@pytest.mark.parametrize("sane_s", [0.0, 1_800.0])
def test_a_stream_that_comes_too_slowly_for_a_crystal_is_followed_after_a_minute(
    parts_per_million: float, sane_s: float
) -> None:
    """As that of a resampler at a wrong rate: by less than is told as a fault."""
    stream = Stream(50.0, 0.1, 7)
    stream.play(sane_s)
    stream.block_s *= 1.0 + parts_per_million * 1e-6
    stream.play(90.0)
    stream.errors_s.clear()
    for _ in range(10):
        stream.play(120.0)
        stream.play(60.0, late_s=0.5)
        stream.lose(5.0, counted=True)
    assert max(map(abs, stream.errors_s)) < 0.030


def test_a_busy_minute_moves_the_line_by_no_more_than_a_crystal() -> None:
    clock = SampleClock(RATE_HZ)
    for count in range(1, 3_000):
        clock.update(count * BLOCK, count * BLOCK / RATE_HZ)
    for count in range(3_000, 6_000):
        clock.update(count * BLOCK, count * BLOCK / RATE_HZ + 0.4)
    assert clock.monotonic_s(0) == pytest.approx(60 * DRIFT, abs=0.004)
    clock.update(6_000 * BLOCK, 6_000 * BLOCK / RATE_HZ)
    assert clock.monotonic_s(0) == pytest.approx(0.0, abs=1e-9)


def test_a_stream_that_lost_much_unseen_starts_afresh() -> None:
    clock = SampleClock(RATE_HZ)
    for second in range(1, 40):
        clock.update(second * RATE_HZ, second + (690.0 if second > 10 else 0.0))
    assert clock.monotonic_s(40 * RATE_HZ) == pytest.approx(730.0)


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


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 1e7),  # seconds until then
            st.booleans(),  # whether the machine was restarted meanwhile
            st.floats(-2e9, 2e9),  # how far off the system clock is, if it is
            st.booleans(),  # whether it is right
        ),
        min_size=2,
        max_size=8,
    )
)
def test_the_time_between_two_moments_is_never_too_long_and_exact_where_it_can_be(
    steps: list[tuple[float, bool, float, bool]],
) -> None:
    true_s, booted_s, boots = 1.7e9, 1.7e9 - 100.0, 0
    moments: list[tuple[float, Moment]] = []
    for passed_s, restarted, off_s, synced in steps:
        if restarted:
            boots += 1
            # Half of the time it was off.
            booted_s = true_s + passed_s / 2
        true_s += passed_s
        utc_s = true_s if synced else true_s + off_s
        moments.append((true_s, Moment(f"boot {boots}", true_s - booted_s, utc_s, synced)))
    for index, (before_s, before) in enumerate(moments):
        for after_s, after in moments[index:]:
            found_s = after.since(before)
            assert 0.0 <= found_s <= after_s - before_s + 1e-3
            if before.boot_id == after.boot_id or (before.synced and after.synced):
                assert found_s >= after_s - before_s - 1e-3


def test_moments_of_this_machine() -> None:
    first, then_s = Moment.now(), time.clock_gettime(time.CLOCK_BOOTTIME)
    second = Moment.now()
    assert second.boot_id == first.boot_id == Path(BOOT_ID).read_text().strip()
    assert first.uptime_s <= then_s <= second.uptime_s
    assert 0.0 <= second.since(first) < 60.0
    assert abs(second.utc_s - time.time()) < 60.0
