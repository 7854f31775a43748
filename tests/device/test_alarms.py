"""Synthesised alarms keep the standards' lengths, pitches and held-out bands."""

from __future__ import annotations

import time

import numpy as np
import pytest

from soundpost.device.alarms import (
    BEEPER_FAMILIES,
    PATTERN_OF_ALARM,
    TEMPORAL_PATTERNS,
    AlarmKind,
    AlarmSettings,
    Range,
    synthesise_alarm,
    synthesise_beeper,
)

KINDS: tuple[AlarmKind, ...] = ("smoke_alarm", "co_alarm")
# On, off and long off as ISO 8201 (T3) and UL 2034 (T4) print them, beside pulses per group.
STANDARD = {"smoke_alarm": (3, 0.5, 0.5, 1.5), "co_alarm": (4, 0.1, 0.1, 5.0)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_pulses_and_gaps_are_within_ten_per_cent_of_the_standard(
    kind: AlarmKind, seed: int
) -> None:
    pulses, on_s, off_s, long_off_s = STANDARD[kind]
    alarm = synthesise_alarm(kind, np.random.default_rng(seed), 20.0, 16_000)
    whole = alarm.beeps[(alarm.beeps[:, 0] > 0) & (alarm.beeps[:, 1] < 20.0)]
    lengths = whole[:, 1] - whole[:, 0]
    assert np.all(np.abs(lengths / on_s - 1) <= 0.1 + 1e-9)
    gaps = whole[1:, 0] - whole[:-1, 1]
    long = gaps > (off_s + long_off_s) / 2
    assert np.all(np.abs(gaps[long] / long_off_s - 1) <= 0.1 + 1e-9)
    assert np.all(np.abs(gaps[~long] / off_s - 1) <= 0.1 + 1e-9)
    assert np.all(np.diff(np.flatnonzero(long)) == pulses)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_is_where_the_beeps_are(kind: AlarmKind) -> None:
    dry = AlarmSettings(dry_share=1.0)
    for seed in range(10):
        alarm = synthesise_alarm(kind, np.random.default_rng(seed), 12.0, 16_000, dry, phase_s=0)
        time_s = np.arange(len(alarm.samples)) / 16_000
        inside = np.zeros(len(time_s), bool)
        for start, end in alarm.beeps:
            # 0.2 s of ringing: eight of the longest time constant.
            inside |= (time_s >= start) & (time_s < end + 0.2)
        energy = alarm.samples.astype(np.float64) ** 2
        assert alarm.beeps[0, 0] == 0.0
        assert energy[~inside].sum() <= 1e-4 * energy.sum()


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("seed", range(12))
def test_strongest_line_is_a_partial_of_the_pitch(seed: int, rate_hz: int) -> None:
    alarm = synthesise_alarm("smoke_alarm", np.random.default_rng(seed), 8.0, rate_hz)
    spectrum = np.abs(np.fft.rfft(alarm.samples * np.hanning(len(alarm.samples))))
    line_hz = np.argmax(spectrum) * rate_hz / len(alarm.samples)
    ratio = line_hz / alarm.fundamental_hz
    # A device glides by at most 2 % in a pulse and wobbles by less.
    assert abs(ratio - round(ratio)) <= 0.02 * round(ratio)


def test_training_never_draws_what_tests_hold_out() -> None:
    rng = np.random.default_rng(0)
    training, held_out = AlarmSettings.for_training(), AlarmSettings.held_out()
    for name in ("piezo_hz", "square_hz", "tempo", "rt60_s"):
        band, reserved = getattr(training, name), getattr(held_out, name)
        drawn = np.array([band.draw(rng) for _ in range(2_000)])
        tested = np.array([reserved.draw(rng) for _ in range(200)])
        assert np.all((drawn >= band.low) & (drawn <= band.high))
        assert not np.any((drawn > reserved.low) & (drawn < reserved.high))
        assert np.all((tested >= reserved.low) & (tested <= reserved.high))
        # Both sides of the band that is left out are drawn.
        assert np.any(drawn <= reserved.low)
        assert np.any(drawn >= reserved.high)


def test_a_range_is_drawn_evenly_around_its_hole() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([Range(0.0, 4.0, without=(1.0, 2.0)).draw(rng) for _ in range(6_000)])
    assert abs(np.mean(drawn < 1.0) - 1 / 3) < 0.03
    assert abs(np.mean(drawn > 3.0) - 1 / 3) < 0.03


def test_phase_is_uniform_over_the_pattern() -> None:
    starts = []
    for seed in range(300):
        alarm = synthesise_alarm("smoke_alarm", np.random.default_rng(seed), 0.02, 8_000)
        starts.append(len(alarm.beeps) > 0)
    # A T3 sounds 1.5 s of its 4 s.
    assert abs(np.mean(starts) - 1.5 / 4.0) < 0.1


@pytest.mark.parametrize("family", BEEPER_FAMILIES)
def test_a_beeper_is_audible_finite_and_reproducible(family: str) -> None:
    for seed in range(5):
        one = synthesise_beeper(np.random.default_rng(seed), 12.0, 16_000, family)
        two = synthesise_beeper(np.random.default_rng(seed), 12.0, 16_000, family)
        assert one.shape == (192_000,)
        assert one.dtype == np.float32
        assert np.array_equal(one, two)
        assert np.all(np.isfinite(one))
        assert 0.005 < np.max(np.abs(one)) <= 1.0


def test_every_alarm_has_a_pattern() -> None:
    for kind, name in PATTERN_OF_ALARM.items():
        pulses, on_s, off_s, long_off_s = STANDARD[kind]
        pattern = TEMPORAL_PATTERNS[name]
        assert (pattern.pulses, pattern.on_s, pattern.off_s, pattern.long_off_s) == (
            pulses,
            on_s,
            off_s,
            long_off_s,
        )


def test_synthesis_is_fast_enough_to_train_with() -> None:
    rng = np.random.default_rng(0)
    times = []
    for _ in range(8):
        begin = time.process_time()
        synthesise_alarm("smoke_alarm", rng, 10.0, 16_000)
        times.append(time.process_time() - begin)
    # 5 ms per second of audio; the best of several, because the machine may be busy.
    assert min(times) <= 0.05
