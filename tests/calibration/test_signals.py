"""Test signals: level, frequency, soft ends."""

import numpy as np
import pytest

from soundpost.calibration.signals import at_level, chirp, tone, white_noise

RATE = 48_000


def test_a_tone_has_its_frequency_and_level():
    made = at_level(tone(1_000, 2.0, RATE), -20.0)
    assert 20 * np.log10(np.sqrt(np.mean(np.square(made, dtype=float)))) == pytest.approx(-20.0)
    spectrum = np.abs(np.fft.rfft(made))
    assert np.argmax(spectrum) / 2.0 == 1_000
    assert abs(made[0]) < 1e-6


def test_a_chirp_passes_the_geometric_mean_half_way():
    made = chirp(200, 3_200, 1.0, RATE)
    part = made[RATE // 2 - 1_200 : RATE // 2 + 1_200] * np.hanning(2_400)
    assert np.argmax(np.abs(np.fft.rfft(part))) * RATE / 2_400 == pytest.approx(800, abs=20)
    assert abs(made[0]) < 1e-6


def test_silence_stays_silent_and_noise_is_white():
    assert not at_level(np.zeros(10, np.float32), 0.0).any()
    made = white_noise(1.0, RATE, np.random.default_rng(0))
    bands = np.abs(np.fft.rfft(made))[1:24_001].reshape(4, -1) ** 2
    np.testing.assert_allclose(bands.mean(axis=1) / bands.mean(), 1, atol=0.05)
