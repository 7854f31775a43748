"""Delay-and-sum beams in the frequency domain, for any array and any pixels.

The spectrum of microphone m is X_m(f) = S(f) exp(-2j pi f tau_m), with S what would be heard in the
array's centre and tau_m how much later the microphone hears it. The beam of a pixel undoes its
delays and averages, Y(f) = 1/M sum X_m(f) exp(2j pi f tau_m): sound from the pixel keeps its
strength, and noise of the microphones falls by 10 lg M dB. Steering is by phase alone (formulation
I of Sarradj, "Three-dimensional acoustic source mapping with different beamforming steering vector
formulations", 2012): nearby, where one microphone hears a source louder than another, the beam is
the mean of both.

Two beamformers make them, one for any array and grid (`general_path`), one for a plane array and
plane waves (`fast_path`).

Spectra lie as [bins, microphones, frames] complex64. Run with one BLAS thread, and several batches
or ranges of bins in threads of your own where cores are free: nothing here keeps state between
calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from soundpost.device.array.geometry import ArrayGeometry, Floats, ImageGrid
from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]

# Bins whose power is handed on at once: so many that what is made of it costs little for each, and
# so few that it stays in the cache.
_BLOCK_VALUES = 96
_MIN_BLOCK, _MAX_BLOCK = 4, 32
# 0.5 MB of 1,024 samples
_SPECTRA_AT_ONCE = 128


def speed_of_sound_m_s(temperature_c: float) -> float:
    """In dry air at 101.325 kPa, ISO 9613-1:1993: 343.2 m/s at 20 degrees Celsius."""
    return 343.2 * math.sqrt((temperature_c + 273.15) / 293.15)


def plane_wave_delays(positions_m: Floats, directions: Floats, sound_m_s: float) -> Floats:
    """How much later than at the origin microphones hear a plane wave, in seconds.

    Parameters
    ----------
    positions_m : (n_mics, 3)
    directions : (n, 3) unit vectors towards the sources

    Returns
    -------
    (n, n_mics) float64
    """
    delays: Floats = -(directions @ positions_m.T) / sound_m_s
    return delays


def point_delays(positions_m: Floats, points_m: Floats, sound_m_s: float) -> Floats:
    """How much later than at the origin microphones hear sources at points, in seconds.

    Parameters
    ----------
    positions_m : (n_mics, 3)
    points_m : (n, 3)

    Returns
    -------
    (n, n_mics) float64
    """
    from_mics = np.linalg.norm(points_m[:, None] - positions_m, axis=2)
    from_origin = np.linalg.norm(points_m, axis=1, keepdims=True)
    delays: Floats = (from_mics - from_origin) / sound_m_s
    return delays


def arrival_delays(geometry: ArrayGeometry, grid: ImageGrid, sound_m_s: float) -> Floats:
    """How much later than in the array's centre each microphone hears each pixel, in seconds.

    Returns (n_pixels, n_mics) float64, pixels row by row.
    """
    centre_m = geometry.centre_m
    points_m = grid.points_m()
    if points_m is None:
        return plane_wave_delays(geometry.positions_m - centre_m, grid.directions(), sound_m_s)
    return point_delays(geometry.positions_m - centre_m, points_m - centre_m, sound_m_s)


def steering_vectors(delays_s: Floats, frequencies_hz: Floats) -> NDArray[np.complex128]:
    """exp(2j pi f tau) in float64: what spectra are multiplied by before they are averaged.

    Parameters
    ----------
    delays_s : (n_pixels, n_mics)
    frequencies_hz : (n_bins,)

    Returns
    -------
    (n_bins, n_pixels, n_mics) complex128: 906 MB twice for a whole image
    """
    turns = np.multiply.outer(np.asarray(frequencies_hz, np.float64), delays_s)
    vectors: NDArray[np.complex128] = np.exp(2j * np.pi * turns)
    return vectors


def snapshot_spectra(
    snapshots: FloatArray, window: FloatArray, weights: ComplexArray | None = None
) -> ComplexArray:
    """Spectra of snapshots, ordered as the beamformers read them.

    Parameters
    ----------
    snapshots : (n_frames, n_mics, n_samples) float32, full scale ±1.0
    window : (n_samples,)
    weights : (n_samples / 2, n_mics) what they are multiplied by; None: nothing

    Returns
    -------
    (n_samples / 2, n_mics, n_frames) complex64, from 0 Hz on and without the Nyquist frequency
    """
    n_frames, n_mics, n_samples = snapshots.shape
    spectra = np.empty((n_samples // 2, n_mics, n_frames), np.complex64)
    # Some microphones at a time, whose spectra the cache holds until they are put in order.
    step = max(_SPECTRA_AT_ONCE // max(n_frames, 1), 1)
    for first in range(0, n_mics, step):
        some = slice(first, first + step)
        spectrum = scipy.fft.rfft(snapshots[:, some] * window)
        ordered = spectrum[..., : n_samples // 2].transpose(2, 1, 0)
        if weights is None:
            spectra[:, some] = ordered
        else:
            np.multiply(ordered, weights[:, some, None], out=spectra[:, some])
    return spectra


def bins_per_block(n_frames: int) -> int:
    """Bins whose power a beamformer hands on at once, for batches of so many frames."""
    return min(max(_BLOCK_VALUES // max(n_frames, 1), _MIN_BLOCK), _MAX_BLOCK)


class Beamformer(Protocol):
    """Power of the beams, a few bins at a time."""

    def power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        """Squared magnitude of the beams.

        Parameters
        ----------
        spectra : (n_bins, n_mics, n_frames), with gains and 1 / n_mics in it
        bins : those wanted, one after the other

        Yields
        ------
        bins, (len(bins), n_pixels, n_frames) float32
            The array is written over for the next ones.
        """
        ...


def squared_magnitude(values: ComplexArray, out: FloatArray) -> None:
    """Squared magnitude of complex numbers, of the same shape."""
    # NumPy takes magnitudes apart by vector instructions, and strided parts one by one: half the
    # time of the sum of two squares.
    np.abs(values, out=out)
    np.square(out, out=out)


def check_spectra(spectra: ComplexArray, n_mics: int, n_bins: int) -> None:
    """Raise InputError for spectra that are not those of this beamformer."""
    if spectra.ndim != 3 or spectra.shape[:2] != (n_bins, n_mics) or spectra.dtype != np.complex64:
        raise InputError(
            f"spectra of shape {spectra.shape}, {spectra.dtype}; expected ({n_bins} bins, {n_mics} "
            "microphones, n_frames), complex64"
        )
