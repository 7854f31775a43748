"""Levels: closed forms, the standard's tone bursts, scipy.signal as oracle, any cut of a stream."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.audio import MAX_RATE_HZ, MIN_RATE_HZ
from soundpost.device.errors import InputError
from soundpost.device.levels import FLOOR_DBFS, LevelMeter, Levels, step_samples
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.weighting import weighting_db, weighting_filter

FloatArray = NDArray[np.float32]
RATE_HZ = 48_000


def tone(
    frequency_hz: float, seconds: float, rate_hz: int = RATE_HZ, amplitude: float = 0.1
) -> FloatArray:
    n = np.arange(round(seconds * rate_hz))
    return (amplitude * np.sin(2 * np.pi * frequency_hz * n / rate_hz)).astype(np.float32)


def noise(seconds: float, rate_hz: int = RATE_HZ, seed: int = 3) -> FloatArray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * rate_hz))).astype(np.float32)


def measure(meter: LevelMeter, samples: FloatArray, first_sample: int = 0) -> list[Levels]:
    return [*meter.push(samples, first_sample), *meter.finish()]


# --- levels of what is known


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_at_1_kilohertz_has_its_level_in_every_weighting(rate_hz: int) -> None:
    (levels,) = measure(LevelMeter(rate_hz), tone(1_000, 10, rate_hz))
    # Amplitude 0.1 of full scale: -20 dBFS, for a full-scale sine is 0.
    for level_db in (levels.laeq_db, levels.lceq_db, levels.rms_dbfs, levels.peak_dbfs):
        assert level_db == pytest.approx(-20.0, abs=0.01)
    for level_db in (levels.lafmax_db, levels.l10_db, levels.l50_db):
        assert level_db == pytest.approx(-20.0, abs=0.05)
    assert levels.lasmax_db == pytest.approx(-20.0, abs=0.05)


@pytest.mark.parametrize("frequency_hz", [20.0, 31.62, 125.9, 3_981.0, 7_943.0])
def test_a_tone_elsewhere_is_weighted(frequency_hz: float) -> None:
    (levels,) = measure(LevelMeter(RATE_HZ), tone(frequency_hz, 10))
    at = np.array([frequency_hz])
    assert levels.laeq_db == pytest.approx(-20 + weighting_db(at, "A")[0], abs=0.05)
    assert levels.lceq_db == pytest.approx(-20 + weighting_db(at, "C")[0], abs=0.05)
    assert levels.rms_dbfs == pytest.approx(-20, abs=0.05)


def test_a_quiet_tone_is_heard_under_a_loud_low_one() -> None:
    """Filters in single precision lose nothing: full scale at 5 Hz, the tone 90 dB below."""
    sound = tone(5, 10, amplitude=1.0) + tone(1_000, 10, amplitude=10 ** (-90 / 20))
    (levels,) = measure(LevelMeter(RATE_HZ), sound)
    low = weighting_db(np.array([5.0]), "A")[0]
    expected = 10 * math.log10(10 ** (low / 10) + 10 ** (-90 / 10))
    assert levels.laeq_db == pytest.approx(expected, abs=0.1)


def test_a_constant_offset_is_in_the_samples_and_in_no_level() -> None:
    (levels,) = measure(LevelMeter(RATE_HZ), tone(1_000, 10, amplitude=0.01) + np.float32(0.1))
    assert levels.laeq_db == pytest.approx(-40, abs=0.02)
    assert levels.lceq_db == pytest.approx(-40, abs=0.02)
    assert levels.rms_dbfs == pytest.approx(10 * math.log10(2 * 0.1**2 + 0.01**2), abs=0.01)


def test_digital_silence_is_the_floor() -> None:
    (levels,) = measure(LevelMeter(RATE_HZ), np.zeros(3 * RATE_HZ, np.float32))
    assert {levels.laeq_db, levels.lafmax_db, levels.l90_db, levels.rms_dbfs} == {FLOOR_DBFS}


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_noise_agrees_with_scipy(rate_hz: int) -> None:
    """Everything but the percentiles: those by another way, from every sample."""
    sound = noise(6, rate_hz) * np.linspace(0.1, 1, 6 * rate_hz, dtype=np.float32)
    (levels,) = measure(LevelMeter(rate_hz), sound)
    settling = len(weighting_filter("A", rate_hz)) - 1
    step = step_samples(rate_hz)
    settling = -(-settling // step) * step
    end = len(sound) // step * step
    for weighting, found in (("A", levels.laeq_db), ("C", levels.lceq_db)):
        taps = weighting_filter(weighting, rate_hz)  # type: ignore[arg-type]
        filtered = scipy.signal.lfilter(taps, [1.0], sound.astype(np.float64))[settling:end]
        assert found == pytest.approx(10 * math.log10(2 * np.mean(filtered**2)), abs=1e-3)
        if weighting == "A":
            squares = filtered**2
    for time_s, found in ((0.125, levels.lafmax_db), (1.0, levels.lasmax_db)):
        decay = math.exp(-1 / (time_s * rate_hz))
        average = scipy.signal.lfilter([1 - decay], [1, -decay], squares)
        # Read once a millisecond.
        assert found == pytest.approx(10 * math.log10(2 * average.max()), abs=0.036)
        if time_s == 0.125:
            fast = average[round(0.625 * rate_hz) :]
    expected = 10 * np.log10(2 * np.percentile(fast, [90, 50, 10]))
    assert [levels.l10_db, levels.l50_db, levels.l90_db] == pytest.approx(expected, abs=0.1)


# --- time weighting


# IEC 61672-1:2013, table 4: duration in s, response to a burst at 4 kHz re the steady tone, and
# class 1 limits in dB.
FAST_BURSTS = [
    (1.0, 0.0, 0.5, -0.5),
    (0.5, -0.1, 0.5, -0.5),
    (0.2, -1.0, 0.5, -0.5),
    (0.1, -2.6, 1.0, -1.0),
    (0.05, -4.8, 1.0, -1.0),
    (0.02, -8.3, 1.0, -1.0),
    (0.01, -11.1, 1.0, -1.0),
    (0.005, -14.1, 1.0, -1.0),
    (0.002, -18.0, 1.0, -1.5),
    (0.001, -21.0, 1.0, -2.0),
    (0.0005, -24.0, 1.0, -2.5),
    (0.00025, -27.0, 1.0, -3.0),
]
SLOW_BURSTS = [
    (1.0, -2.0, 0.5, -0.5),
    (0.5, -4.1, 0.5, -0.5),
    (0.2, -7.4, 0.5, -0.5),
    (0.1, -10.2, 1.0, -1.0),
    (0.05, -13.1, 1.0, -1.0),
    (0.02, -17.0, 1.0, -1.5),
    (0.01, -20.0, 1.0, -2.0),
    (0.005, -23.0, 1.0, -2.5),
    (0.002, -27.0, 1.0, -3.0),
]


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize(("name", "table"), [("fast", FAST_BURSTS), ("slow", SLOW_BURSTS)])
def test_tone_bursts_are_class_1(
    rate_hz: int, name: str, table: list[tuple[float, float, float, float]]
) -> None:
    weight_db = float(weighting_db(np.array([4_000.0]), "A")[0])
    for duration_s, response_db, above, below in table:
        burst = tone(4_000, duration_s, rate_hz)
        # At an odd place, so that the millisecond of a step does not begin with it.
        before = round(0.5 * rate_hz) + 17
        after = round(0.5 * rate_hz)
        sound = np.concatenate([np.zeros(before), burst, np.zeros(after)]).astype(np.float32)
        (levels,) = measure(LevelMeter(rate_hz), sound)
        found = levels.lafmax_db if name == "fast" else levels.lasmax_db
        error_db = found - (-20.0 + weight_db) - response_db
        assert below <= error_db <= above, (duration_s, error_db)
        # The equivalent level holds the burst's energy whatever its length (5.9: class 1 as fast).
        energy_db = -20.0 + weight_db + 10 * math.log10(duration_s / levels.measured_s)
        assert below <= levels.laeq_db - energy_db <= above, duration_s


def test_levels_fall_with_their_time_constants() -> None:
    """By 10 lg(e) / 125 ms = 34.7 dB/s and 10 lg(e) / 1 s = 4.34 dB/s."""
    sound = np.concatenate([tone(4_000, 10), np.zeros(4 * RATE_HZ, np.float32)])
    levels = measure(LevelMeter(RATE_HZ, 1.0), sound)
    # The median of a straight fall is its middle, and intervals are a second apart.
    fast_db = [found.l50_db for found in levels[10:13] if found.l50_db is not None]
    assert -np.diff(fast_db) == pytest.approx([34.74, 34.74], abs=0.05)
    slow_db = [found.lasmax_db for found in levels[10:14]]
    assert -np.diff(slow_db)[1:] == pytest.approx([4.343] * 2, abs=0.02)


# --- percentiles and intervals


def test_percentiles_are_exceeded_for_their_share_of_the_time() -> None:
    """Loud for 20 % of the time and soft for 80 %: both longer than a fast level needs."""
    soft, loud = tone(1_000, 160, amplitude=0.001), tone(1_000, 40)
    (levels,) = measure(LevelMeter(RATE_HZ, 300), np.concatenate([soft, loud]))
    assert levels.l10_db == pytest.approx(-20, abs=0.05)
    assert levels.l50_db == pytest.approx(-60, abs=0.05)
    assert levels.l90_db == pytest.approx(-60, abs=0.05)


def test_intervals_follow_one_another_from_the_first_sample() -> None:
    sound = np.concatenate([tone(1_000, 2.0), tone(1_000, 2.0, amplitude=0.01), tone(1_000, 0.5)])
    levels = measure(LevelMeter(RATE_HZ, 2.0), sound, 1_000)
    assert [found.first_sample for found in levels] == [1_000, 97_000, 193_000]
    assert [found.n_samples for found in levels] == [96_000, 96_000, 24_000]
    assert [found.measured_s for found in levels] == [1.9, 2.0, 0.5]
    assert [found.laeq_db for found in levels] == pytest.approx([-20, -40, -20], abs=0.05)


@pytest.mark.parametrize("rate_hz", [11_025, 16_000, 22_050, 44_100, 48_000, 88_200])
def test_a_minute_of_a_usual_rate_is_a_minute(rate_hz: int) -> None:
    meter = LevelMeter(rate_hz, 1.0)
    levels = measure(meter, tone(1_000, 3.0, rate_hz))
    assert [found.measured_s for found in levels] == pytest.approx([0.9, 1.0, 1.0], abs=0.002)
    assert levels[1].measured_s == 1.0


@given(st.integers(MIN_RATE_HZ, MAX_RATE_HZ))
def test_steps_are_about_a_millisecond_at_any_rate(rate_hz: int) -> None:
    assert 0.79e-3 <= step_samples(rate_hz) / rate_hz <= 1.26e-3


# --- streams


def chunks(samples: FloatArray, cuts: list[int]) -> list[tuple[int, FloatArray]]:
    edges = [0, *sorted(cuts), len(samples)]
    return [(a, samples[a:b]) for a, b in pairwise(edges)]


CUT_RATE_HZ = 8_000
CUT = noise(5.3, CUT_RATE_HZ)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, len(CUT)), max_size=40))
def test_any_cut_gives_the_same_values_bit_for_bit(cuts: list[int]) -> None:
    whole = measure(LevelMeter(CUT_RATE_HZ, 1.0, bands=True), CUT)
    meter = LevelMeter(CUT_RATE_HZ, 1.0, bands=True)
    found = [
        levels
        for first_sample, part in chunks(CUT, cuts)
        for levels in meter.push(part, first_sample)
    ]
    assert [*found, *meter.finish()] == whole
    assert len(whole) == 6


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 20_000), max_size=20))
def test_any_cut_around_a_gap_gives_the_same_values(cuts: list[int]) -> None:
    parts = [(0, CUT[:20_000]), (30_000, CUT[20_000:])]

    def run(cuts: list[int]) -> list[Levels]:
        meter = LevelMeter(CUT_RATE_HZ, 1.0)
        found: list[Levels] = []
        for start, part in parts:
            for first, chunk in chunks(part, cuts):
                found += meter.push(chunk, start + first)
        return [*found, *meter.finish()]

    assert run(cuts) == run([])


def test_a_gap_is_counted_and_not_averaged() -> None:
    """Three seconds of a tone, two lost, three of a tone: no interval holds silence or a click."""
    meter = LevelMeter(RATE_HZ, 2.0)
    sound = tone(1_000, 3.0)
    levels = [*meter.push(sound, 0), *meter.push(sound, 5 * RATE_HZ), *meter.finish()]
    assert meter.gaps == 1
    assert [found.first_sample // RATE_HZ for found in levels] == [0, 2, 4, 6]
    assert [found.gaps for found in levels] == [0, 0, 1, 0]
    assert [found.measured_s for found in levels] == pytest.approx([1.9, 1.0, 0.9, 2.0])
    assert [found.laeq_db for found in levels] == pytest.approx([-20] * 4, abs=0.01)
    assert [found.lafmax_db for found in levels] == pytest.approx([-20] * 4, abs=0.05)


def test_a_gap_after_a_constant_offset_is_no_click() -> None:
    meter = LevelMeter(RATE_HZ, 60.0)
    sound = tone(1_000, 3.0, amplitude=0.001) + np.float32(0.5)
    meter_levels = [*meter.push(sound, 0), *meter.push(sound, 4 * RATE_HZ), *meter.finish()]
    assert [found.lafmax_db for found in meter_levels] == pytest.approx([-60], abs=0.1)


def test_intervals_that_a_gap_swallowed_are_left_out_and_its_count_is_kept() -> None:
    meter = LevelMeter(RATE_HZ, 1.0)
    sound = tone(1_000, 1.5)
    found = [*meter.push(sound, 0), *meter.push(sound[:100], 5 * RATE_HZ)]
    found += [*meter.push(sound, 9 * RATE_HZ), *meter.finish()]
    assert [levels.first_sample // RATE_HZ for levels in found] == [0, 1, 9, 10]
    assert [levels.gaps for levels in found] == [0, 0, 2, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_no_number_is_a_gap(bad: float) -> None:
    meter = LevelMeter(RATE_HZ, 60.0, bands=True)
    sound = tone(1_000, 5.0)
    sound[100_000] = bad
    found: list[Levels] = []
    for first_sample, part in chunks(sound, list(range(0, len(sound), 960))):
        found += meter.push(part, first_sample)
        loudest_db = meter.fast_max_db(0)
        assert loudest_db is None or -40 < loudest_db < -19.9
    (levels,) = [*found, *meter.finish()]
    assert (meter.gaps, levels.gaps) == (1, 1)
    assert 4.0 < levels.measured_s < 4.8
    assert levels.laeq_db == pytest.approx(-20, abs=0.01)
    assert levels.lafmax_db == pytest.approx(-20, abs=0.05)


def test_before_levels_have_settled_there_are_no_percentiles() -> None:
    (levels,) = measure(LevelMeter(RATE_HZ), tone(1_000, 0.6))
    assert (levels.l10_db, levels.l50_db, levels.l90_db) == (None, None, None)
    assert levels.laeq_db == pytest.approx(-20, abs=0.01)
    assert measure(LevelMeter(RATE_HZ), tone(1_000, 0.09)) == []
    assert measure(LevelMeter(RATE_HZ), tone(1_000, 0.0)) == []


# --- events


def test_the_loudest_moment_of_an_event_is_found() -> None:
    meter = LevelMeter(RATE_HZ)
    sound = np.concatenate([tone(1_000, 2.0, amplitude=a) for a in (0.001, 0.1, 0.01)])
    for first_sample, part in chunks(sound, list(range(0, len(sound), 960))):
        assert list(meter.push(part, first_sample)) == []
    list(meter.finish())
    assert meter.fast_max_db(0) == pytest.approx(-20, abs=0.05)
    assert meter.fast_max_db(0, 2 * RATE_HZ) == pytest.approx(-60, abs=0.1)
    assert meter.fast_max_db(round(5.5 * RATE_HZ)) == pytest.approx(-40, abs=0.1)
    assert meter.fast_max_db(10 * RATE_HZ) is None


def test_what_was_just_heard_is_known_and_asking_changes_nothing() -> None:
    asked, left_alone = LevelMeter(RATE_HZ, 1.0), LevelMeter(RATE_HZ, 1.0)
    sound = np.concatenate([tone(1_000, 1.0, amplitude=0.001), tone(1_000, 2.0)])
    assert asked.fast_max_db(0) is None
    found: list[list[Levels]] = [[], []]
    for first_sample, part in chunks(sound, list(range(0, len(sound), 960))):
        for meter, into in zip((asked, left_alone), found, strict=True):
            into += meter.push(part, first_sample)
        heard_s = (first_sample + len(part)) / RATE_HZ - 1.0
        loudest_db = asked.fast_max_db(0)
        if heard_s > 0.02:
            expected_db = -20 + 10 * math.log10(1 - math.exp(-heard_s / 0.125))
            assert loudest_db == pytest.approx(expected_db, abs=0.15)
    assert [*found[0], *asked.finish()] == [*found[1], *left_alone.finish()]


def test_a_minute_is_remembered_and_no_more() -> None:
    meter = LevelMeter(8_000)
    loud, soft = tone(1_000, 5.0, 8_000), tone(1_000, 70.0, 8_000, amplitude=0.001)
    list(meter.push(np.concatenate([loud, soft]), 0))
    assert meter.fast_max_db(0) == pytest.approx(-60, abs=0.1)
    assert meter.fast_max_db(0) == meter.fast_max_db(16 * 8_000)


# --- microphones


def test_a_sensitivity_turns_full_scale_into_sound_pressure() -> None:
    profile = MicrophoneProfile("m", -26.0)
    # A calibrator: 94 dB SPL at 1 kHz reads -26 dBFS.
    sound = tone(1_000, 10, amplitude=10 ** (-26 / 20))
    (levels,) = measure(LevelMeter(RATE_HZ, profile=profile), sound)
    assert levels.laeq_db == pytest.approx(94.0, abs=0.01)
    assert levels.l50_db == pytest.approx(94.0, abs=0.05)
    assert levels.rms_dbfs == pytest.approx(-26.0, abs=0.01)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_a_response_is_taken_away(rate_hz: int) -> None:
    response = ((20.0, -6.0), (100.0, -1.0), (1_000.0, 0.0), (5_000.0, 3.0), (20_000.0, 9.0))
    profile = MicrophoneProfile("m", response=response)
    for frequency_hz in (31.6, 100.0, 1_000.0, 2_512.0, 5_012.0, 6_310.0):
        at = np.array([frequency_hz])
        gain = 10 ** (profile.response_db(at)[0] / 20)
        heard = tone(frequency_hz, 5, rate_hz) * np.float32(gain)
        (levels,) = measure(LevelMeter(rate_hz, profile=profile, bands=True), heard)
        assert levels.laeq_db == pytest.approx(-20 + weighting_db(at, "A")[0], abs=0.1)
        assert levels.lceq_db == pytest.approx(-20 + weighting_db(at, "C")[0], abs=0.1)
        assert levels.bands_db is not None
        assert max(levels.bands_db.values()) == pytest.approx(-20, abs=0.1)


# --- what it must not do


def test_a_rate_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="levels: sample rate 4000 Hz"):
        LevelMeter(4_000)


def test_the_sensor_loads_neither_scipy_signal_nor_a_framework() -> None:
    code = (
        "import sys, numpy; import soundpost.device.commands.run; "
        "from soundpost.device.levels import LevelMeter; "
        "m = LevelMeter(48_000, 1.0, bands=True); "
        "x = numpy.zeros(200_000, numpy.float32); assert list(m.push(x, 0)); "
        "print(*(n for n in ('scipy.signal', 'torch', 'tensorflow') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
