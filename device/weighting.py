"""Frequency weightings A and C of IEC 61672-1:2013, as closed forms and as filters for any rate.

The filters are finite impulse responses. A bilinear design of the analogue poles bends towards
Nyquist and leaves class 1 below 8 kHz at 32 kHz; here the low poles, which decide how long the
filter rings, are mapped one by one, and what is then missing from the weighting (its poles at
12.2 kHz, the microphone's own response) is made up for by a minimum-phase filter of exactly that
magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weighting = Literal["A", "C"]

REFERENCE_HZ = 1000.0
# The tail that is cut off here is 90 dB down (a double pole at 20.6 Hz, t/tau = 13): 0.001 dB at
# 20 Hz, and a constant offset of the converter comes 79 dB (C) or 123 dB (A) weaker.
FILTER_S = 0.1
# Below this rate a converter's filter ends within the range of 20 Hz to 20 kHz.
FULL_RANGE_RATE_HZ = 44_100
# Where the filters in front of and behind a converter begin, as a share of the rate.
_PASS_BAND = 0.45


def _poles_hz() -> tuple[float, float, float, float]:
    """Pole frequencies f1 to f4 of IEC 61672-1:2013, annex E: 20.6, 107.7, 737.9, 12194 Hz."""
    low, high, a = 10.0**1.5, 10.0**3.9, 10.0**2.45
    d = math.sqrt(0.5)
    c = low**2 * high**2
    b = (REFERENCE_HZ**2 + c / REFERENCE_HZ**2 - d * (low**2 + high**2)) / (1.0 - d)
    root = math.sqrt(b**2 - 4.0 * c)
    f1, f4 = math.sqrt((-b - root) / 2.0), math.sqrt((-b + root) / 2.0)
    return f1, (3.0 - math.sqrt(5.0)) / 2.0 * a, (3.0 + math.sqrt(5.0)) / 2.0 * a, f4


POLES_HZ = _poles_hz()


def _high_pass_poles_hz(weighting: Weighting) -> tuple[float, ...]:
    f1, f2, f3, _ = POLES_HZ
    return (f1, f1, f2, f3) if weighting == "A" else (f1, f1)


def _absolute_db(frequency_hz: Array, weighting: Weighting) -> Array:
    squared = np.square(frequency_hz)
    gain_db: Array = -20.0 * np.log10(1.0 + squared / POLES_HZ[3] ** 2)
    for pole_hz in _high_pass_poles_hz(weighting):
        gain_db += 10.0 * np.log10(squared / (squared + pole_hz**2))
    return gain_db


def weighting_db(frequency_hz: Array, weighting: Weighting) -> Array:
    """Weighting in dB, 0 at 1 kHz (IEC 61672-1:2013, annex E); frequencies above 0 Hz."""
    reference_db = _absolute_db(np.array([REFERENCE_HZ]), weighting)
    gain_db: Array = _absolute_db(np.asarray(frequency_hz, np.float64), weighting) - reference_db
    return gain_db


def upper_limit_hz(rate_hz: int) -> float | None:
    """Highest frequency that a stream of this rate measures; None from 44.1 kHz on.

    0.45 of the rate: the filters weigh rightly almost up to Nyquist, but the converter's own
    filter begins there, and what lies above is missing from the level.
    """
    return None if rate_hz >= FULL_RANGE_RATE_HZ else _PASS_BAND * rate_hz


def weighting_filter(
    weighting: Weighting,
    rate_hz: int,
    correction_db: Callable[[Array], Array] | None = None,
) -> Array:
    """Impulse response of a weighting.

    Parameters
    ----------
    rate_hz : of the samples it will filter
    correction_db : gain in dB on top of the weighting, at frequencies in Hz: the inverse of a
        microphone's response

    Returns
    -------
    (n_taps,) float64
        FILTER_S long, minimum phase as the analogue weighting.
    """
    n_taps = round(FILTER_S * rate_hz)
    # Four times as long as the filter, so that what wraps around is lost in rounding.
    n_fft = 1 << math.ceil(math.log2(4 * n_taps))
    frequency_hz = np.fft.rfftfreq(n_fft, 1.0 / rate_hz)
    delay = np.exp(-2j * np.pi * frequency_hz / rate_hz)
    high_pass = np.ones(len(frequency_hz), np.complex128)
    gain_db = -20.0 * np.log10(1.0 + (frequency_hz / POLES_HZ[3]) ** 2)
    for pole_hz in _high_pass_poles_hz(weighting):
        pole = math.exp(-2.0 * math.pi * pole_hz / rate_hz)
        high_pass *= (1.0 - delay) / (1.0 - pole * delay)
        # Analogue over digital high-pass, with the zero that both have at 0 Hz cancelled.
        zeros_ratio = rate_hz / (2.0 * math.pi) / np.sinc(frequency_hz / rate_hz)
        gain_db += 20.0 * np.log10(
            zeros_ratio * np.abs(1.0 - pole * delay) / np.hypot(frequency_hz, pole_hz)
        )
    gain_db -= _absolute_db(np.array([REFERENCE_HZ]), weighting)
    if correction_db is not None:
        gain_db += correction_db(frequency_hz)
    response = np.fft.irfft(high_pass * _minimum_phase(gain_db), n_fft)
    taps: Array = response[:n_taps].copy()
    # The end is faded: a step there would be a ripple at 20 Hz.
    fade = n_taps // 5
    taps[-fade:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))
    return taps


def _minimum_phase(gain_db: Array) -> NDArray[np.complex128]:
    """Spectrum of that magnitude with the least delay: its cepstrum folded to positive times.

    Oppenheim and Schafer, "Discrete-Time Signal Processing", on the Hilbert transform relations of
    log magnitude and phase.
    """
    cepstrum = np.fft.irfft(gain_db * (math.log(10.0) / 20.0))
    half = len(cepstrum) // 2
    cepstrum[1:half] *= 2.0
    cepstrum[half + 1 :] = 0.0
    spectrum: NDArray[np.complex128] = np.exp(np.fft.rfft(cepstrum))
    return spectrum
