"""Frequency weightings: the standard's table at every rate, measured on the impulse response."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from soundpost.device.weighting import (
    POLES_HZ,
    Weighting,
    upper_limit_hz,
    weighting_db,
    weighting_filter,
)

Array = NDArray[np.float64]
RATES_HZ = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000]

# IEC 61672-1:2013, table 3: nominal frequency in Hz; A, C and class 1 acceptance limits in dB.
NONE = -math.inf
TABLE_3 = [
    (10, -70.4, -14.3, 3.0, NONE),
    (12.5, -63.4, -11.2, 2.5, NONE),
    (16, -56.7, -8.5, 2.0, -4.0),
    (20, -50.5, -6.2, 2.0, -2.0),
    (25, -44.7, -4.4, 2.0, -1.5),
    (31.5, -39.4, -3.0, 1.5, -1.5),
    (40, -34.6, -2.0, 1.0, -1.0),
    (50, -30.2, -1.3, 1.0, -1.0),
    (63, -26.2, -0.8, 1.0, -1.0),
    (80, -22.5, -0.5, 1.0, -1.0),
    (100, -19.1, -0.3, 1.0, -1.0),
    (125, -16.1, -0.2, 1.0, -1.0),
    (160, -13.4, -0.1, 1.0, -1.0),
    (200, -10.9, 0.0, 1.0, -1.0),
    (250, -8.6, 0.0, 1.0, -1.0),
    (315, -6.6, 0.0, 1.0, -1.0),
    (400, -4.8, 0.0, 1.0, -1.0),
    (500, -3.2, 0.0, 1.0, -1.0),
    (630, -1.9, 0.0, 1.0, -1.0),
    (800, -0.8, 0.0, 1.0, -1.0),
    (1_000, 0.0, 0.0, 0.7, -0.7),
    (1_250, 0.6, 0.0, 1.0, -1.0),
    (1_600, 1.0, -0.1, 1.0, -1.0),
    (2_000, 1.2, -0.2, 1.0, -1.0),
    (2_500, 1.3, -0.3, 1.0, -1.0),
    (3_150, 1.2, -0.5, 1.0, -1.0),
    (4_000, 1.0, -0.8, 1.0, -1.0),
    (5_000, 0.5, -1.3, 1.5, -1.5),
    (6_300, -0.1, -2.0, 1.5, -2.0),
    (8_000, -1.1, -3.0, 1.5, -2.5),
    (10_000, -2.5, -4.4, 2.0, -3.0),
    (12_500, -4.3, -6.2, 2.0, -5.0),
    (16_000, -6.6, -8.5, 2.5, -16.0),
    (20_000, -9.3, -11.2, 3.0, NONE),
]
# Exact frequencies of the nominal ones, 1000 * 10^(n / 10) Hz.
EXACT_HZ = 1_000 * 10 ** (np.arange(-20, 14) / 10)


def gain_db(taps: Array, frequency_hz: Array, rate_hz: int) -> Array:
    _, response = scipy.signal.freqz(taps, worN=2 * np.pi * frequency_hz / rate_hz)
    return np.asarray(20 * np.log10(np.abs(response)))


def test_poles_are_those_of_the_standard() -> None:
    assert [round(pole, 1) for pole in POLES_HZ] == [20.6, 107.7, 737.9, 12194.2]


@pytest.mark.parametrize(("weighting", "column"), [("A", 1), ("C", 2)])
def test_closed_form_is_the_table(weighting: Weighting, column: int) -> None:
    """Both come from the standard: neither was mistyped here."""
    table = np.array([row[column] for row in TABLE_3])
    assert [float(f"{f:.3g}") for f in EXACT_HZ] == pytest.approx(
        [row[0] for row in TABLE_3], rel=0.015
    )
    # The table is rounded to 0.1 dB.
    assert np.abs(weighting_db(EXACT_HZ, weighting) - table).max() < 0.051


@pytest.mark.parametrize("weighting", ["A", "C"])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_filters_meet_class_1_up_to_the_upper_limit(weighting: Weighting, rate_hz: int) -> None:
    """From 10 Hz to 20 kHz where the rate allows it; claimed from 20 Hz to 8 kHz."""
    taps = weighting_filter(weighting, rate_hz)
    limit_hz = upper_limit_hz(rate_hz) or 20_000.0
    checked = limit_hz >= EXACT_HZ
    found = gain_db(taps, EXACT_HZ[checked], rate_hz)
    column = 1 if weighting == "A" else 2
    for measured, row in zip(found, np.array(TABLE_3)[checked], strict=True):
        assert row[4] <= measured - row[column] <= row[3], (row[0], measured)
    assert checked.sum() >= 25


@pytest.mark.parametrize("weighting", ["A", "C"])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_filters_follow_the_closed_form_between_the_table_too(
    weighting: Weighting, rate_hz: int
) -> None:
    taps = weighting_filter(weighting, rate_hz)
    frequency_hz = np.geomspace(20, min(20_000, 0.49 * rate_hz), 500)
    error_db = gain_db(taps, frequency_hz, rate_hz) - weighting_db(frequency_hz, weighting)
    assert np.abs(error_db).max() < 0.01


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_a_constant_offset_is_not_heard(rate_hz: int) -> None:
    assert abs(weighting_filter("A", rate_hz).sum()) < 1e-6
    assert abs(weighting_filter("C", rate_hz).sum()) < 2e-4


def test_filters_answer_as_soon_as_the_analogue_ones() -> None:
    """Against the bilinear transform at a rate at which it is as good as analogue."""
    rate_hz = 192_000
    f1, f2, f3, f4 = (2 * np.pi * pole for pole in POLES_HZ)
    zeros, poles = [0.0] * 4, [-f1, -f1, -f2, -f3, -f4, -f4]
    sections = scipy.signal.zpk2sos(*scipy.signal.bilinear_zpk(zeros, poles, f4**2, rate_hz))
    impulse = np.zeros(rate_hz // 10)
    impulse[0] = 1.0
    bilinear = scipy.signal.sosfilt(sections, impulse) * 10 ** (2.0 / 20)
    # Where nothing is above 12 kHz they agree: a tone burst at 1 kHz comes at the same time.
    burst = np.sin(2 * np.pi * 1_000 * np.arange(rate_hz // 100) / rate_hz)
    ours = scipy.signal.fftconvolve(burst, weighting_filter("A", rate_hz))[: rate_hz // 50]
    theirs = scipy.signal.fftconvolve(burst, bilinear)[: rate_hz // 50]
    # 0.05 of a tone at 1 kHz is 8 microseconds.
    assert np.abs(ours - theirs).max() < 0.05


def test_a_correction_is_added() -> None:
    def correction_db(frequency_hz: Array) -> Array:
        return 6.0 * np.tanh(np.log(np.maximum(frequency_hz, 1.0) / 2_000))

    frequency_hz = np.geomspace(20, 20_000, 200)
    found = gain_db(weighting_filter("A", 48_000, correction_db), frequency_hz, 48_000)
    wanted = weighting_db(frequency_hz, "A") + correction_db(frequency_hz)
    assert np.abs(found - wanted).max() < 0.05


def test_the_limit_is_told_below_44_kilohertz() -> None:
    assert upper_limit_hz(48_000) is None
    assert upper_limit_hz(44_100) is None
    assert upper_limit_hz(32_000) == 14_400.0
    assert upper_limit_hz(16_000) == 7_200.0
