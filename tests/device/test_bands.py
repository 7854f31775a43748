"""Third-octave bands: the standard's frequencies and limits, and the energy of the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.device.bands import NOMINAL_HZ, BandMeter, band_edges_hz, mid_band_hz
from soundpost.device.microphone import MicrophoneProfile

FloatArray = NDArray[np.float32]

# IEC 61260-1:2014, table 1, class 1: octave ratio as a power of G = 10^0.3, and the least and
# greatest relative attenuation in dB there and, by straight lines over log frequency, in between.
G = 10**0.3
INF = math.inf
MASK = [
    (0.0, -0.4, 0.4),
    (1 / 8, -0.4, 0.5),
    (1 / 4, -0.4, 0.7),
    (3 / 8, -0.4, 1.4),
    (0.4999, -0.4, 5.3),
    (0.5001, 1.6, INF),
    (1.0, 16.6, INF),
    (2.0, 40.5, INF),
    (3.0, 60.0, INF),
    (4.0, 70.0, INF),
]


def third_octave(ratio: float) -> float:
    """An octave filter's frequency ratio, above 1, for a third-octave filter (5.10, formula 9)."""
    return 1 + (G ** (1 / 6) - 1) / (G ** (1 / 2) - 1) * (ratio - 1)


def tone(frequency_hz: float, rate_hz: int, seconds: float) -> FloatArray:
    n = np.arange(round(seconds * rate_hz))
    return np.sin(2 * np.pi * frequency_hz * n / rate_hz).astype(np.float32)


def band_db(rate_hz: int, frequency_hz: float, name: str) -> float:
    meter = BandMeter(rate_hz, MicrophoneProfile())
    # One window and no more: the answer to a steady tone is the same in each.
    meter.push(tone(frequency_hz, rate_hz, 2.1))
    found = meter.take()
    assert found is not None
    return 10 * math.log10(max(found[name], 1e-30))


def test_nominal_frequencies_are_near_the_exact_ones_and_bands_touch() -> None:
    for x, name in NOMINAL_HZ.items():
        assert float(name) == pytest.approx(mid_band_hz(x), rel=0.015)
        assert band_edges_hz(x)[1] == pytest.approx(band_edges_hz(x + 1)[0])
    assert mid_band_hz(0) == 1_000.0


@pytest.mark.parametrize("x", [-17, -16, -10, 0, 8])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_relative_attenuation_is_class_1(rate_hz: int, x: int) -> None:
    middle_hz, name = mid_band_hz(x), NOMINAL_HZ[x]
    reference_db = band_db(rate_hz, middle_hz, name)
    assert reference_db == pytest.approx(10 * math.log10(0.5), abs=0.1)
    for power, least, greatest in MASK:
        ratio = third_octave(G**power)
        for frequency_hz in {middle_hz * ratio, middle_hz / ratio}:
            if frequency_hz < rate_hz / 2:
                attenuation_db = reference_db - band_db(rate_hz, frequency_hz, name)
                assert least <= attenuation_db <= greatest, (power, frequency_hz)


def test_bands_of_noise_sum_to_its_energy() -> None:
    rng = np.random.default_rng(1)
    sound = rng.standard_normal(20 * 48_000).astype(np.float32)
    meter = BandMeter(48_000, MicrophoneProfile())
    meter.push(sound)
    found = meter.take()
    assert found is not None
    # White noise: each band as wide as its share.
    for x, name in NOMINAL_HZ.items():
        low_hz, high_hz = band_edges_hz(x)
        if low_hz > 500:
            assert found[name] == pytest.approx((high_hz - low_hz) / 24_000, rel=0.05)
    low_hz, high_hz = band_edges_hz(-17)[0], band_edges_hz(13)[1]
    assert sum(found.values()) == pytest.approx((high_hz - low_hz) / 24_000, rel=0.01)


def test_a_click_counts_the_same_wherever_it_falls() -> None:
    sums = []
    for place in (30_000, 30_777, 33_333, 41_000):
        sound = np.zeros(100_000, np.float32)
        sound[place] = 1.0
        meter = BandMeter(16_000, MicrophoneProfile())
        meter.push(sound)
        found = meter.take()
        assert found is not None
        sums.append(sum(found.values()))
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-4)


def test_bands_end_where_the_rate_does() -> None:
    def last(rate_hz: int) -> str:
        meter = BandMeter(rate_hz, MicrophoneProfile())
        meter.push(np.zeros(2 * rate_hz + 1, np.float32))
        return list(meter.take() or {})[-1]

    assert [last(rate) for rate in (8_000, 16_000, 44_100, 48_000)] == [
        *("3150", "6300", "16000", "20000")
    ]


def test_before_a_window_is_full_there_is_nothing() -> None:
    meter = BandMeter(16_000, MicrophoneProfile())
    meter.push(np.ones(16_000, np.float32))
    meter.restart()
    meter.push(np.ones(16_000, np.float32))
    assert meter.take() is None
    meter.push(np.ones(384, np.float32))
    assert meter.take() is not None
    assert meter.take() is None
