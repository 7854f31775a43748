"""Third-octave band levels of a stream: 20 Hz to 20 kHz, base ten (IEC 61260-1:2014).

Powers of overlapping Hann windows of one to two seconds are averaged and summed over the bins of
each band. For steady sound the relative attenuation lies within class 1 limits of IEC 61260-1; how
filters of the standard answer in time is not imitated, for only equivalent levels are told.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.weighting import REFERENCE_HZ, upper_limit_hz

FloatArray = NDArray[np.float32]
Array = NDArray[np.float64]

# By index x of IEC 61260-1:2014, 5.2: exact mid-band frequency 1000 * 10^(x / 10) Hz.
_NAMES = (
    *("20", "25", "31.5", "40", "50", "63", "80", "100", "125", "160"),
    *("200", "250", "315", "400", "500", "630", "800", "1000", "1250", "1600"),
    *("2000", "2500", "3150", "4000", "5000", "6300", "8000", "10000", "12500", "16000"),
    "20000",
)
NOMINAL_HZ = dict(enumerate(_NAMES, start=-17))
# With Hann windows a quarter apart, each sample counts the same wherever it falls.
_OVERLAP = 4


def mid_band_hz(x: int) -> float:
    """Exact mid-band frequency of a third-octave band."""
    return float(REFERENCE_HZ * 10.0 ** (x / 10))


def band_edges_hz(x: int) -> tuple[float, float]:
    """Band-edge frequencies: mid-band times 10^(-1/20) and 10^(1/20)."""
    return float(mid_band_hz(x) * 10.0**-0.05), float(mid_band_hz(x) * 10.0**0.05)


class BandMeter:
    """Mean squares by third-octave band, of what was pushed since they were last taken.

    Parameters
    ----------
    rate_hz : of the samples
    profile : of the microphone, whose response is taken away

    Bands that reach beyond Nyquist, or below 44.1 kHz beyond the rate's upper limit, are left out.
    """

    def __init__(self, rate_hz: int, profile: MicrophoneProfile) -> None:
        self._n_fft = 1 << math.ceil(math.log2(rate_hz))
        self._hop = self._n_fft // _OVERLAP
        n = np.arange(self._n_fft)
        window = 0.5 - 0.5 * np.cos(2.0 * np.pi * n / self._n_fft)
        # One-sided spectrum to mean square.
        scale = 2.0 / (self._n_fft * float(np.sum(window**2)))
        self._window = window.astype(np.float32)
        bin_hz = rate_hz / self._n_fft
        limit_hz = upper_limit_hz(rate_hz) or rate_hz / 2
        self._names: list[str] = []
        self._weights: list[tuple[slice, Array]] = []
        for x, name in NOMINAL_HZ.items():
            low, high = (edge / bin_hz for edge in band_edges_hz(x))
            if high * bin_hz > limit_hz:
                break
            bins = np.arange(math.floor(low + 0.5), math.ceil(high - 0.5) + 1)
            # A bin belongs to a band as far as its width of one does.
            share = np.minimum(bins + 0.5, high) - np.maximum(bins - 0.5, low)
            gain = 10.0 ** (profile.correction_db(bins * bin_hz) / 10.0)
            self._names.append(name)
            self._weights.append((slice(bins[0], bins[-1] + 1), scale * share * gain))
        self._power = np.zeros(self._n_fft // 2 + 1)
        self._windows = 0
        self._buffer = np.zeros(self._n_fft, np.float32)
        self._filled = 0

    def restart(self) -> None:
        """Forget the samples that wait for the rest of their window (after a gap)."""
        self._filled = 0

    def push(self, samples: FloatArray) -> None:
        """Add (n_samples,) float32 samples."""
        taken = 0
        while taken < len(samples):
            count = min(self._n_fft - self._filled, len(samples) - taken)
            self._buffer[self._filled : self._filled + count] = samples[taken : taken + count]
            self._filled += count
            taken += count
            if self._filled == self._n_fft:
                spectrum = scipy.fft.rfft(self._buffer * self._window)
                self._power += np.square(spectrum.real) + np.square(spectrum.imag)
                self._windows += 1
                self._buffer[: -self._hop] = self._buffer[self._hop :].copy()
                self._filled -= self._hop

    def take(self) -> dict[str, float] | None:
        """Mean square by nominal mid-band frequency, and begin anew; None before a first window."""
        if self._windows == 0:
            return None
        found = {
            name: float(self._power[bins] @ weights) / self._windows
            for name, (bins, weights) in zip(self._names, self._weights, strict=True)
        }
        self._power[:] = 0.0
        self._windows = 0
        return found
