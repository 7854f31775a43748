"""Zeros and wrong rates are told in time; quiet, late and interrupted streams are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from soundpost.device.audio import FloatArray
from soundpost.device.errors import DigitalSilenceError, SampleRateError
from soundpost.device.stream_watch import RateWatch, ZeroWatch

RATE_HZ = 48_000
LENGTH = 2_400
ZEROS = np.zeros((LENGTH, 2), np.float32)
# The least that 16 bits can tell from zero, in one sample of one channel.
QUIET = ZEROS.copy()
QUIET[1_000, 1] = 1 / 32_768


def repeat(watch: ZeroWatch, samples: FloatArray, count: int) -> None:
    for _ in range(count):
        watch.check(samples)


def run(watch: RateWatch, n_chunks: int, interval_s: float) -> None:
    """Chunks that come at this interval."""
    for count in range(n_chunks):
        watch.check(LENGTH * count, interval_s * count, False)


@given(st.lists(st.booleans(), max_size=200), st.floats(0.1, 4.0))
def test_zeros_are_a_fault_once_they_have_lasted(quiet: list[bool], limit_s: float) -> None:
    # A limit of whole chunks is met or not by the last bit of a sum.
    assume(abs(limit_s * RATE_HZ / LENGTH - round(limit_s * RATE_HZ / LENGTH)) > 1e-6)
    watch = ZeroWatch("mic", RATE_HZ, limit_s)
    zeros_s = 0.0
    for is_quiet in quiet:
        zeros_s = 0.0 if is_quiet else zeros_s + LENGTH / RATE_HZ
        if zeros_s > limit_s:
            with pytest.raises(DigitalSilenceError, match=r"nothing but zeros.*digital_silence_s"):
                watch.check(ZEROS)
            return
        watch.check(QUIET if is_quiet else ZEROS)


def test_zeros_after_zeros_are_told_and_given_up_only_after_minutes() -> None:
    watch = ZeroWatch("mic", RATE_HZ, 3.0, reopened=True)
    for _ in range(299 * 20):
        watch.check(ZEROS)
        assert watch.fault is not None
    with pytest.raises(DigitalSilenceError, match="for 300 s"):
        repeat(watch, ZEROS, 21)


def test_the_first_sound_ends_the_fault_and_zeros_count_anew() -> None:
    watch = ZeroWatch("mic", RATE_HZ, 3.0, reopened=True)
    watch.check(ZEROS)
    watch.check(QUIET)
    assert watch.fault is None
    with pytest.raises(DigitalSilenceError, match="for 3 s"):
        repeat(watch, ZEROS, 61)


def test_zeros_of_the_channel_that_is_used_are_a_fault_whatever_the_others_hold() -> None:
    """One input of an interface, its microphone unplugged, beside another that is in use."""
    watch = ZeroWatch("mic", RATE_HZ, 3.0)
    watch.channel = 1
    repeat(watch, QUIET, 200)
    assert watch.fault is None
    watch.channel = 0
    with pytest.raises(DigitalSilenceError, match=r"zeros on channel 0 for 3 s.*another channel"):
        repeat(watch, QUIET, 61)


def test_zeros_may_be_allowed() -> None:
    watch = ZeroWatch("mic", RATE_HZ, 0.0)
    for _ in range(10_000):
        watch.check(ZEROS)


@given(st.floats(1.25, 4.0), st.booleans(), st.floats(0, 20.0))
def test_a_clock_that_runs_wild_is_told_within_five_seconds(
    factor: float, slow: bool, sane_s: float
) -> None:
    speed = 1 / factor if slow else factor
    watch = RateWatch("mic", RATE_HZ)
    position, time_s = 0, 100.0
    while time_s < 100.0 + sane_s:
        position += LENGTH
        time_s += LENGTH / RATE_HZ
        watch.check(position, time_s, False)
    wild_s = time_s

    def run_wild() -> None:
        nonlocal position, time_s
        while True:
            position += LENGTH
            time_s += LENGTH / RATE_HZ / speed
            watch.check(position, time_s, False)

    with pytest.raises(SampleRateError, match="samples a second instead of 48000"):
        run_wild()
    assert time_s - wild_s <= 5.0


def test_a_rate_that_is_off_by_some_percent_is_told_too() -> None:
    """48 kHz asked for, 44.1 kHz delivered."""
    watch = RateWatch("mic", RATE_HZ)
    with pytest.raises(SampleRateError, match=r"delivers 44\d\d\d samples"):
        run(watch, 700, LENGTH / 44_100)


@given(
    st.lists(st.tuples(st.integers(60, 400), st.floats(0.0, 3.0)), max_size=10),
    st.floats(-300e-6, 300e-6),
)
def test_a_true_clock_is_never_at_fault_whatever_is_late(
    pauses: list[tuple[int, float]], drift: float
) -> None:
    """Each pause holds up chunks, which then arrive at once."""
    watch = RateWatch("mic", RATE_HZ)
    position, free_s = 0, 0.0
    for n_chunks, pause_s in [*pauses, (800, 0.0)]:
        free_s = max(free_s, position / RATE_HZ * (1 + drift)) + pause_s
        for _ in range(n_chunks):
            position += LENGTH
            watch.check(position, max(free_s, position / RATE_HZ * (1 + drift)), False)


@given(st.floats(0.4, 0.9))
def test_a_machine_that_loses_sound_all_the_time_has_no_wrong_clock(kept: float) -> None:
    watch = RateWatch("mic", RATE_HZ)
    for count in range(1_000):
        watch.check(LENGTH * count, LENGTH / RATE_HZ * count / kept, lost=count % 4 == 0)
