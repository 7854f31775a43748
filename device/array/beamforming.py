"""Delay-and-sum beams in the frequency domain, for any array and any pixels.

The spectrum of microphone m is X_m(f) = S(f) exp(-2j pi f tau_m), with S what would be heard in the
array's centre and tau_m how much later the microphone hears it. The beam of a pixel undoes its
delays and averages, Y(f) = 1/M sum X_m(f) exp(2j pi f tau_m): sound from the pixel keeps its
strength, and noise of the microphones falls by 10 lg M dB. Steering is by phase alone (formulation
I of Sarradj, "Three-dimensional acoustic source mapping with different beamforming steering vector
formulations", 2012): nearby, where one microphone hears a source louder than another, the beam is
the mean of both.

A table of all steering vectors would be 906 MB for 128 microphones, 1,728 pixels and 512 bins, and
reading it costs more than the products. Steering vectors of the next bin are made from the last by
one complex product instead, and every 32 bins taken anew from a table made in float64.

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

# Errors of the recurrence grow by at most 6e-8 a bin; 32 bins leave 1e-6 of the peak.
_ANCHOR_BINS = 32
# Bins whose power is handed on at once: so many that what is made of it costs little for each, and
# so few that it stays in the cache.
_BLOCK_VALUES = 96
_MIN_BLOCK, _MAX_BLOCK = 4, 32


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


def snapshot_spectra(snapshots: FloatArray, window: FloatArray) -> ComplexArray:
    """Spectra of snapshots, ordered as the beamformers read them.

    Parameters
    ----------
    snapshots : (n_frames, n_mics, n_samples) float32, full scale ±1.0
    window : (n_samples,)

    Returns
    -------
    (n_samples / 2, n_mics, n_frames) complex64, from 0 Hz on and without the Nyquist frequency
    """
    n_frames, n_mics, n_samples = snapshots.shape
    spectra = np.empty((n_samples // 2, n_mics, n_frames), np.complex64)
    for mic in range(n_mics):
        # A microphone at a time, whose spectra the cache holds until they are put in order.
        spectrum = scipy.fft.rfft(snapshots[:, mic] * window)
        spectra[:, mic] = spectrum[:, : n_samples // 2].T
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


class SteeredBeamformer:
    """Beams of any pixels by any array, near or far.

    Parameters
    ----------
    delays_s : (n_pixels, n_mics) of `arrival_delays`
    bin_hz : distance of the bins
    n_bins : bins from 0 Hz on

    Memory: 1/32 of the table of all steering vectors.
    """

    def __init__(self, delays_s: Floats, bin_hz: float, n_bins: int) -> None:
        delays_s = np.ascontiguousarray(delays_s)
        anchors_hz = np.arange(0, n_bins, _ANCHOR_BINS) * bin_hz
        self._anchors = np.stack(
            [steering_vectors(delays_s, one)[0].astype(np.complex64) for one in anchors_hz[:, None]]
        )
        self._step = steering_vectors(delays_s, np.array([bin_hz]))[0].astype(np.complex64)
        self.n_bins = n_bins

    def beams(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[int, ComplexArray]]:
        """Spectra of the beams, bin by bin.

        Parameters
        ----------
        spectra : (n_bins, n_mics, n_frames), with gains and 1 / n_mics in it
        bins : those wanted, one after the other

        Yields
        ------
        bin, (n_pixels, n_frames) complex64
            The array is written over for the next one.
        """
        check_spectra(spectra, self._step.shape[1], self.n_bins)
        n_mics, n_frames = spectra.shape[1:]
        steering = np.empty_like(self._step)
        beams = np.empty((len(steering), n_frames), np.complex64)
        # Real products are faster than complex ones: (a + jb) x = a x + b jx, where a and b are
        # neighbours in memory, and so are the real and imaginary parts of x and of the sum.
        turned = np.empty((n_mics, 2, n_frames), np.complex64)
        real_steering = steering.view(np.float32)
        real_beams = beams.view(np.float32)
        real_turned = turned.view(np.float32).reshape(2 * n_mics, 2 * n_frames)
        for index in range(bins.start - bins.start % _ANCHOR_BINS, bins.stop):
            if index % _ANCHOR_BINS == 0:
                np.copyto(steering, self._anchors[index // _ANCHOR_BINS])
            else:
                np.multiply(steering, self._step, out=steering)
            if index < bins.start:
                continue
            if n_frames == 1:
                # Alone, a product by a vector, which reads the steering vectors once.
                np.matmul(steering, spectra[index], out=beams)
            else:
                turned[:, 0] = spectra[index]
                np.multiply(spectra[index], 1j, out=turned[:, 1])
                np.matmul(real_steering, real_turned, out=real_beams)
            yield index, beams

    def power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        """Squared magnitude of the beams: see `Beamformer`."""
        n_frames = spectra.shape[2]
        length = bins_per_block(n_frames)
        block = np.empty((length, len(self._step), n_frames), np.float32)
        first = bins.start
        for index, beams in self.beams(spectra, bins):
            squared_magnitude(beams.view(np.float32), out=block[index - first])
            if index + 1 - first == length or index + 1 == bins.stop:
                yield range(first, index + 1), block[: index + 1 - first]
                first = index + 1


def squared_magnitude(values: FloatArray, out: FloatArray) -> None:
    """Squared magnitude of complex numbers, which are lost.

    values : (..., 2 n) real and imaginary parts in turn
    out : (..., n)
    """
    np.multiply(values, values, out=values)
    np.add(values[..., ::2], values[..., 1::2], out=out)


def check_spectra(spectra: ComplexArray, n_mics: int, n_bins: int) -> None:
    """Raise InputError for spectra that are not those of this beamformer."""
    if spectra.ndim != 3 or spectra.shape[:2] != (n_bins, n_mics) or spectra.dtype != np.complex64:
        raise InputError(
            f"spectra of shape {spectra.shape}, {spectra.dtype}; expected ({n_bins} bins, {n_mics} "
            "microphones, n_frames), complex64"
        )
