"""Noise of a field, of wind and of the microphones themselves, each with a mean power of 1.

Diffuse: plane waves from everywhere, so that two microphones d apart share sinc(2 f d / c) of it,
sinc(x) = sin(pi x) / (pi x) (Cook et al., "Measurement of correlation coefficients in reverberant
sound fields", 1955). Every frequency is a sum of waves from directions of its own.

Wind: turbulence at each microphone. Its spectrum falls with f^(-5/3) above a corner, the inertial
range, and what two microphones share of it decays with exp(-decay 2 pi f d / speed) (Corcos,
"Resolution of pressure in turbulence", 1963, who found 0.1 along the flow and 0.7 across; here one
number for all directions, and the drift with the flow is left out). Gusts raise and lower all
microphones together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg

from soundpost.calibration.trajectory import Floats
from soundpost.device.audio import FloatArray

Spectrum = NDArray[np.complex64]

# Waves of one frequency, and frequencies that share their directions, far apart from each other.
_DIRECTIONS = 32
_SHARED = 64
# Below, noise with a slope is flat: microphones hear no less than this.
_LOWEST_HZ = 50.0
# Width of the bands within which wind has the same coherence, as a ratio.
_BAND = 1.06
# Coherence of the nearest two microphones below which wind is taken as independent.
_INCOHERENT = 1e-3


@dataclass(frozen=True)
class Wind:
    """Wind over the microphones.

    speed_m_s : of the eddies over the array
    decay : of the coherence, see above
    corner_hz : flat below, f^(-5/3) above, in power
    gust_db : standard deviation of the level over time
    """

    speed_m_s: float = 4.0
    decay: float = 0.7
    corner_hz: float = 10.0
    gust_db: float = 4.0


def diffuse_noise(
    positions_m: Floats,
    n_samples: int,
    rate_hz: int,
    sound_m_s: float,
    rng: np.random.Generator,
    *,
    slope_db_per_octave: float = 0.0,
) -> FloatArray:
    """Noise from all directions, (n_samples, n_mics) float32.

    slope_db_per_octave : 0 is white, -3 pink
    """
    size = fft.next_fast_len(n_samples, real=True)
    n_bins = size // 2 + 1
    n_sets = -(-n_bins // _SHARED)
    spacing_hz = rate_hz / size
    # About the middle of the array phases grow slowest.
    places = positions_m - positions_m.mean(axis=0)
    shape = _slope(np.arange(n_bins) * spacing_hz, slope_db_per_octave)
    spectrum = np.zeros((n_bins, len(positions_m)), np.complex64)
    for first in range(n_sets):
        directions = rng.standard_normal((3, _DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        turns = places @ directions / sound_m_s * spacing_hz
        waves = np.exp(2j * np.pi * first * turns).astype(np.complex64)
        step = np.exp(2j * np.pi * n_sets * turns).astype(np.complex64)
        bins = range(first, n_bins, n_sets)
        for index, strength in zip(bins, _complex(rng, (len(bins), _DIRECTIONS)), strict=True):
            spectrum[index] = waves @ strength
            waves *= step
    spectrum *= shape[:, None]
    return _unit_power(_to_time(spectrum, size, n_samples))


def wind_noise(
    positions_m: Floats,
    n_samples: int,
    rate_hz: int,
    rng: np.random.Generator,
    wind: Wind,
) -> FloatArray:
    """Noise of turbulence, (n_samples, n_mics) float32."""
    size = fft.next_fast_len(n_samples, real=True)
    frequencies_hz = np.arange(size // 2 + 1) * (rate_hz / size)
    spectrum = _complex(rng, (len(frequencies_hz), len(positions_m)))
    distances_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=2)
    others = distances_m[~np.eye(len(positions_m), dtype=bool)]
    per_m = wind.decay * 2 * np.pi / wind.speed_m_s
    nearest_m = others.min() if len(others) else np.inf
    highest_hz = -np.log(_INCOHERENT) / (per_m * nearest_m)
    first = 0
    while first < len(frequencies_hz) and frequencies_hz[first] < highest_hz:
        last = max(int(first * _BAND), first + 1)
        middle_hz = frequencies_hz[first : last + 1].mean()
        coherence = np.exp(-per_m * middle_hz * distances_m)
        # Two microphones closer than single precision tells apart share all of it.
        mixing = linalg.cholesky(coherence + 1e-9 * np.eye(len(coherence)), lower=True)
        spectrum[first:last] = spectrum[first:last] @ mixing.T.astype(np.float32)
        first = last
    spectrum *= ((1 + (frequencies_hz / wind.corner_hz) ** 2) ** (-5 / 12)).astype(np.float32)[
        :, None
    ]
    noise = _to_time(spectrum, size, n_samples)
    noise *= _gusts(n_samples / rate_hz, n_samples, rng, wind.gust_db)[:, None]
    return _unit_power(noise)


def self_noise(n_samples: int, n_mics: int, rng: np.random.Generator) -> FloatArray:
    """White noise of each microphone alone, (n_samples, n_mics) float32."""
    noise: FloatArray = rng.standard_normal((n_samples, n_mics), np.float32)
    return noise


def _complex(rng: np.random.Generator, shape: tuple[int, int]) -> Spectrum:
    pairs = rng.standard_normal((*shape, 2), np.float32)
    return pairs.view(np.complex64)[..., 0]


def _slope(frequencies_hz: Floats, db_per_octave: float) -> FloatArray:
    octaves = np.log2(np.maximum(frequencies_hz, _LOWEST_HZ) / _LOWEST_HZ)
    shape: FloatArray = (10 ** (db_per_octave * octaves / 20)).astype(np.float32)
    return shape


def _to_time(spectrum: Spectrum, size: int, n_samples: int) -> FloatArray:
    # No constant pressure: nothing hears it.
    spectrum[0] = 0
    noise: FloatArray = fft.irfft(np.ascontiguousarray(spectrum.T), size, axis=1)[:, :n_samples]
    return np.ascontiguousarray(noise.T, np.float32)


def _gusts(seconds: float, n_samples: int, rng: np.random.Generator, gust_db: float) -> FloatArray:
    """Gain over time, one independent level a second, smoothly joined."""
    knots = np.arange(-2, seconds + 3)
    levels = np.convolve(rng.standard_normal(len(knots)), [0.5, 0.7, 0.5], "same")
    times_s = np.arange(n_samples) * (seconds / max(n_samples, 1))
    gain: FloatArray = (10 ** (gust_db * np.interp(times_s, knots, levels) / 20)).astype(np.float32)
    return gain


def _unit_power(noise: FloatArray) -> FloatArray:
    power = float(np.mean(np.square(noise, dtype=np.float64))) if noise.size else 0.0
    if power > 0:
        noise *= np.float32(power**-0.5)
    return noise
