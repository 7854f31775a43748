"""Delay-and-sum of any array for any pixels, near or far.

A table of all steering vectors would be 906 MB for 128 microphones, 1,728 pixels and 512 bins, and
reading it costs more than the products. Two ways are taken instead:

- At low frequencies neighbouring pixels hear nearly the same, and far fewer functions of the pixels
  than there are microphones hold all steering vectors of some bins (a singular value decomposition
  finds them: at most 20 below 190 Hz, 100 at 2.4 kHz for 128 microphones and a field of view of 90
  degrees). Products take the microphones to the coefficients of these functions, and those to the
  pixels, with the same functions for all of the bins.
- Above, steering vectors of the next bin are made from the last by one complex product, and every
  32 bins taken anew from a table made in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.beamforming import (
    ComplexArray,
    FloatArray,
    bins_per_block,
    check_spectra,
    squared_magnitude,
    steering_vectors,
)
from soundpost.device.array.geometry import Floats

# Errors of the recurrence grow by at most 6e-8 a bin; 32 bins leave 1e-6 of the peak.
_ANCHOR_BINS = 32
# Bins that share their functions: half as many would save hardly one function in ten, and twice as
# many would need more of them. Two such groups lie between two anchors.
_GROUP_BINS = 16
# Singular values below this part of the largest are left out: beams of the microphones' own noise,
# the weakest, are then within 9e-6 of their peak.
_TOLERANCE = 3e-7
# Functions are worth their while if products with them take at most this part of those without,
# for which steering vectors have to be made as well.
_WORTH = 0.97


class SteeredBeamformer:
    """Beams of any pixels by any array, near or far.

    Parameters
    ----------
    delays_s : (n_pixels, n_mics) of `arrival_delays`
    bin_hz : distance of the bins
    n_bins : bins from 0 Hz on

    Memory: some 70 MB for 128 microphones, 1,728 pixels and 512 bins.
    """

    def __init__(self, delays_s: Floats, bin_hz: float, n_bins: int) -> None:
        delays_s = np.ascontiguousarray(delays_s)
        self._groups = _groups(delays_s, bin_hz, n_bins)
        anchors_hz = np.arange(0, n_bins, _ANCHOR_BINS) * bin_hz
        self._anchors = np.stack(
            [steering_vectors(delays_s, one)[0].astype(np.complex64) for one in anchors_hz[:, None]]
        )
        self._step = steering_vectors(delays_s, np.array([bin_hz]))[0].astype(np.complex64)
        self.n_bins = n_bins

    @property
    def n_functions(self) -> list[int]:
        """Functions of the pixels that hold each group of bins, from 0 Hz on, where they do."""
        return [group.functions.shape[1] for group in self._groups]

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
        beams = np.empty((len(self._step), spectra.shape[2]), np.complex64)
        grouped = range(min(bins.start, self._n_grouped), min(bins.stop, self._n_grouped))
        for index in grouped:
            group = self._groups[index // _GROUP_BINS]
            coefficients = group.coefficients[index % _GROUP_BINS] @ spectra[index]
            _product(group.functions, coefficients, out=beams)
            yield index, beams
        steering = np.empty_like(self._step)
        rest = range(max(bins.start, self._n_grouped), bins.stop)
        for index in range(rest.start - rest.start % _ANCHOR_BINS, rest.stop):
            if index % _ANCHOR_BINS == 0:
                np.copyto(steering, self._anchors[index // _ANCHOR_BINS])
            else:
                np.multiply(steering, self._step, out=steering)
            if index in rest:
                _product(steering, spectra[index], out=beams)
                yield index, beams

    @property
    def _n_grouped(self) -> int:
        return min(len(self._groups) * _GROUP_BINS, self.n_bins)

    def power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        """Squared magnitude of the beams: see `Beamformer`."""
        n_frames = spectra.shape[2]
        length = bins_per_block(n_frames)
        block = np.empty((length, len(self._step), n_frames), np.float32)
        first = bins.start
        for index, beams in self.beams(spectra, bins):
            squared_magnitude(beams, out=block[index - first])
            if index + 1 - first == length or index + 1 == bins.stop:
                yield range(first, index + 1), block[: index + 1 - first]
                first = index + 1


def _product(matrix: ComplexArray, values: ComplexArray, out: ComplexArray) -> None:
    """Product of (n, k) by (k, n_frames)."""
    k, n_frames = values.shape
    if n_frames == 1:
        # Alone, a product by a vector, which reads the matrix once.
        np.matmul(matrix, values, out=out)
        return
    # Real products are faster than complex ones: (a + jb) x = a x + b jx, where a and b are
    # neighbours in memory, and so are the real and imaginary parts of x and of the sum.
    turned = np.empty((k, 2, n_frames), np.complex64)
    turned[:, 0] = values
    np.multiply(values, 1j, out=turned[:, 1])
    real = turned.view(np.float32).reshape(2 * k, 2 * n_frames)
    np.matmul(matrix.view(np.float32), real, out=out.view(np.float32))


class _Group:
    """Some neighbouring bins: functions that they share, and coefficients of each.

    functions : (n_pixels, n) complex64, orthonormal
    coefficients : (n_bins, n, n_mics) complex64: functions @ coefficients are steering vectors
    """

    def __init__(self, functions: NDArray[np.complex128], steering: list[ComplexArray]) -> None:
        self.functions = np.ascontiguousarray(functions, np.complex64)
        adjoint = np.ascontiguousarray(self.functions.conj().T)
        self.coefficients = np.stack([adjoint @ vectors for vectors in steering])


def _groups(delays_s: Floats, bin_hz: float, n_bins: int) -> list[_Group]:
    """Groups of bins from 0 Hz on, as far as their functions are worth their while."""
    n_pixels, n_mics = delays_s.shape
    step = steering_vectors(delays_s, np.array([bin_hz]))[0]
    found: list[_Group] = []
    for first in range(0, n_bins, _GROUP_BINS):
        bins = range(first, min(first + _GROUP_BINS, n_bins))
        places = np.array([bins[0], bins[-1], bins[len(bins) // 2]])
        low, high, middle = steering_vectors(delays_s, places * bin_hz)
        functions = _common_functions(np.hstack([low, high]))
        spent = functions.shape[1] * (n_pixels + n_mics)
        # What both ends have in common holds all between, where phases turn little from end to end.
        if spent > _WORTH * n_pixels * n_mics or not _hold(functions, middle):
            break
        vectors, steering = low, []
        for _ in bins:
            steering.append(vectors.astype(np.complex64))
            vectors = vectors * step
        found.append(_Group(functions, steering))
    return found


def _common_functions(vectors: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Orthonormal columns (n_pixels, n) that hold these (n_pixels, m) within the tolerance."""
    # By eigenvectors of their products: squares of 3e-7 are far above the 1e-16 of float64.
    squares, turns = np.linalg.eigh(vectors.conj().T @ vectors)
    kept = squares > _TOLERANCE**2 * squares[-1]
    functions: NDArray[np.complex128] = (vectors @ turns[:, kept]) / np.sqrt(squares[kept])
    return functions


def _hold(functions: NDArray[np.complex128], vectors: NDArray[np.complex128]) -> bool:
    """Whether the functions hold these vectors (n_pixels, m) about as well as those they are of."""
    rest = vectors - functions @ (functions.conj().T @ vectors)
    return bool(np.linalg.norm(rest) <= 4 * _TOLERANCE * np.linalg.norm(vectors))
