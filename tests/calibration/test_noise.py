"""Noise: coherence between microphones against its closed form, spectra, power, seeds."""

import numpy as np
import pytest
from scipy import signal

from soundpost.calibration.noise import Wind, diffuse_noise, self_noise, wind_noise

RATE = 12_288
C = 343.0
SEGMENT = 1_024
MICS = np.array([[0, 0, 0], [0.05, 0, 0], [0, 0.2, 0], [0.1, 0.1, 0.4]])


def coherence(x, y):
    """Complex coherence by Welch's method: frequencies, values, and independent segments."""
    frequencies, cross = signal.csd(x, y, RATE, nperseg=SEGMENT)
    power = [signal.welch(of, RATE, nperseg=SEGMENT)[1] for of in (x, y)]
    return frequencies, cross / np.sqrt(power[0] * power[1]), len(x) / SEGMENT


@pytest.fixture(scope="module")
def field():
    return diffuse_noise(MICS, 40 * RATE, RATE, C, np.random.default_rng(1))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 3)])
def test_a_diffuse_field_has_the_coherence_of_one(field, first, second):
    """sinc(2 f d / c) within what so many segments scatter."""
    d = np.linalg.norm(MICS[first] - MICS[second])
    frequencies, found, segments = coherence(field[:, first], field[:, second])
    error = np.abs(found - np.sinc(2 * frequencies * d / C))[2:-1]
    assert np.sqrt(np.mean(error**2)) < 1.3 / np.sqrt(segments)
    # Where the two share most, they do so exactly.
    assert error[:4].max() < 0.05


def test_a_diffuse_field_is_as_strong_at_each_microphone(field):
    np.testing.assert_allclose(np.std(field, axis=0), 1, rtol=0.02)
    assert np.mean(np.square(field, dtype=float)) == pytest.approx(1, rel=1e-5)


def test_a_slope_falls_by_so_much_per_octave():
    pink = diffuse_noise(
        MICS[:1], 30 * RATE, RATE, C, np.random.default_rng(2), slope_db_per_octave=-3.0
    )
    frequencies, power = signal.welch(pink[:, 0], RATE, nperseg=SEGMENT)
    bands = [
        10 * np.log10(power[(frequencies > low) & (frequencies < 1.2 * low)].mean())
        for low in (250, 1_000, 4_000)
    ]
    np.testing.assert_allclose(np.diff(bands), [-6, -6], atol=0.5)


def test_wind_shares_less_the_faster_it_turns():
    """exp(-decay 2 pi f d / speed), by Corcos."""
    wind = Wind(speed_m_s=8.0, decay=0.5, gust_db=0.0)
    mics = MICS[:3]
    noise = wind_noise(mics, 80 * RATE, RATE, np.random.default_rng(3), wind)
    for other in (1, 2):
        d = np.linalg.norm(mics[other])
        frequencies, found, segments = coherence(noise[:, 0], noise[:, other])
        expected = np.exp(-0.5 * 2 * np.pi * frequencies * d / 8.0)
        # The window spreads the lowest frequencies over each other.
        error = np.abs(found - expected)[3:200]
        assert np.sqrt(np.mean(error**2)) < 2 / np.sqrt(segments)


def test_wind_falls_by_five_thirds():
    noise = wind_noise(
        MICS[:1], 60 * RATE, RATE, np.random.default_rng(4), Wind(corner_hz=10, gust_db=0)
    )
    frequencies, power = signal.welch(noise[:, 0], RATE, nperseg=4 * SEGMENT)
    bands = [power[(frequencies > 0.9 * hz) & (frequencies < 1.1 * hz)].mean() for hz in (100, 400)]
    # 4^(5/3) is 10.03 dB.
    assert 10 * np.log10(bands[0] / bands[1]) == pytest.approx(10.03, abs=0.8)


def test_gusts_raise_all_microphones_together():
    noise = wind_noise(MICS, 40 * RATE, RATE, np.random.default_rng(5), Wind(gust_db=6.0))
    calm = wind_noise(MICS, 40 * RATE, RATE, np.random.default_rng(5), Wind(gust_db=0.0))

    def levels(of):
        return 10 * np.log10(np.square(of.reshape(40, RATE, 4)).mean(axis=1))

    gusty, steady = levels(noise), levels(calm)
    assert np.std(gusty) > 2 * np.std(steady)
    gain = gusty - steady
    assert np.ptp(gain, axis=1).max() < 1.5


def test_self_noise_is_white_and_of_each_microphone_alone():
    noise = self_noise(20 * RATE, 2, np.random.default_rng(6))
    _, found, segments = coherence(noise[:, 0], noise[:, 1])
    assert np.sqrt(np.mean(np.abs(found) ** 2)) < 1.3 / np.sqrt(segments)
    _, power = signal.welch(noise[:, 0], RATE, nperseg=SEGMENT)
    assert 10 * np.log10(power[5:-5].max() / power[5:-5].min()) < 4
    assert np.std(noise) == pytest.approx(1, rel=0.01)


def test_the_same_seed_gives_the_same_bytes_and_another_another_noise():
    def made(seed):
        rng = np.random.default_rng(seed)
        return (
            diffuse_noise(MICS, 3_000, RATE, C, rng),
            wind_noise(MICS, 3_000, RATE, rng, Wind()),
            self_noise(3_000, 4, rng),
        )

    for first, again, other in zip(made(1), made(1), made(2), strict=True):
        assert first.shape == (3_000, 4)
        assert first.dtype == np.float32
        assert first.tobytes() == again.tobytes()
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2
