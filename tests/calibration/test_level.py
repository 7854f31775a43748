"""Pascals per unit from tones whose level is known, and refusal of what is no calibrator's tone."""

import numpy as np
import pytest

from soundpost.calibration.level import find_channel, measure_level, profile_text
from soundpost.device.errors import InputError
from soundpost.device.levels import LevelMeter
from soundpost.device.microphone import load_profile

RATE_HZ = 48_000


def tone(amplitude=0.1, frequency_hz=1000.0, seconds=3.0, snr_db=50.0, seed=0):
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sine = amplitude * np.sin(2 * np.pi * frequency_hz * times_s + 0.7)
    noise = np.random.default_rng(seed).standard_normal(len(sine))
    return (sine + amplitude / np.sqrt(2) * 10 ** (-snr_db / 20) * noise).astype(np.float32)


@pytest.mark.parametrize(("level_db", "pascals"), [(94.0, 1.0024), (114.0, 10.024)])
@pytest.mark.parametrize("frequency_hz", [1000.0, 993.7, 1015.2])
def test_pascals_per_unit_are_pressure_over_samples(level_db, pascals, frequency_hz):
    """94 dB re 20 µPa are 1.0024 Pa RMS; a sine of amplitude 0.1 is 0.0707 RMS."""
    found = measure_level(tone(frequency_hz=frequency_hz), RATE_HZ, level_db)
    assert found.pa_per_unit == pytest.approx(pascals / (0.1 / np.sqrt(2)), rel=2e-4)
    assert found.frequency_hz == pytest.approx(frequency_hz, abs=0.01)
    assert found.snr_db == pytest.approx(50, abs=0.3)
    assert found.uncertainty_db == pytest.approx(0.3, abs=0.01)
    assert found.tone_dbfs == pytest.approx(-20, abs=0.01)


def test_the_profile_reads_94_db_on_the_level_meter(tmp_path):
    """What is written is what device/levels.py needs to tell the calibrator's level."""
    samples = tone(0.05)
    found = measure_level(samples, RATE_HZ, 114.0)
    path = tmp_path / "porch.toml"
    path.write_text(profile_text('porch "1"', found, ((100.0, -1.0), (1000.0, 0.0), (8e3, 2.0))))
    profile = load_profile(path)
    assert profile.name == 'porch "1"'
    assert profile.response == ((100.0, -1.0), (1000.0, 0.0), (8000.0, 2.0))
    meter = LevelMeter(RATE_HZ, 1.0, profile)
    told = [*meter.push(samples, 0), *meter.finish()]
    assert told[1].laeq_db == pytest.approx(114.0, abs=0.05)


def test_an_unsteady_tone_is_less_sure():
    """16 pieces of a quarter of a second, half of them 0.2 dB higher, half lower."""
    steps_db = np.repeat(np.tile([0.2, -0.2], 8), RATE_HZ // 4)
    samples = tone(seconds=4.0) * (10 ** (steps_db / 20)).astype("f4")
    found = measure_level(samples, RATE_HZ, 94.0, calibrator_db=0.05)
    spread_db = 0.2 * np.sqrt(16 / 15)
    assert found.unsteady_db == pytest.approx(spread_db, abs=2e-3)
    assert found.uncertainty_db == pytest.approx(np.hypot(0.05, spread_db / 4), abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (tone(frequency_hz=440), "strongest tone is at 440 Hz, expected 1000"),
        (tone(seconds=0.5), r"0\.50 s of tone; expected at least 1 s"),
        (tone(snr_db=12), "12 dB above what is beside it, expected 20"),
        (np.clip(tone(0.5), -0.4, 0.4), r"clipped at -8\.0 dBFS"),
        (np.clip(tone(1.2), -1, 1), r"clipped at 0\.0 dBFS"),
        (tone() * np.linspace(1, 1.2, 144_000, dtype=np.float32), "wanders by 0.* dB"),
        (np.zeros(48_000, np.float32), "silent to the last bit"),
        (np.full(48_000, np.nan, np.float32), "not numbers"),
    ],
)
def test_what_is_no_calibrators_tone_is_refused(samples, message):
    with pytest.raises(InputError, match=message):
        measure_level(samples, RATE_HZ, 94.0)


def test_the_channel_with_the_calibrator_is_the_loudest_at_1_khz():
    hum = tone(0.9, 100.0, seed=1)
    channels = np.stack([hum, tone(0.01, seed=2), tone(0.2), tone(0.02, seed=3)], axis=1)
    assert find_channel(channels, RATE_HZ) == 2
    with pytest.raises(InputError, match=r"channels . and . hear the tone about as loud"):
        find_channel(channels[:, [2, 2, 0]], RATE_HZ)
    # Four times the power at least: a neighbour's channel may hear it too.
    for times, clear in ((1.9, False), (2.1, True)):
        pair = np.stack([tone(0.1), tone(0.1 * times)], axis=1)
        if clear:
            assert find_channel(pair, RATE_HZ) == 1
        else:
            with pytest.raises(InputError, match="about as loud"):
                find_channel(pair, RATE_HZ)
