"""Delay-and-sum of a plane array for plane waves, where rows and columns part: four times faster.

With all microphones in a plane z = const and pixels on a grid of direction cosines, the phase of a
pixel is that of its column times that of its row: exp(-jk(x u + y v)) = exp(-jk x u) exp(-jk y v).
Over a field of view each factor is smooth: its real part is even in u and its imaginary part odd,
and a singular value decomposition on half the grid gives few real functions of u (at most 11 even
and 11 odd ones at 6 kHz and 0.45 m) that hold either to a few millionths:

    cos(k x u) = sum_p a_p(x) b_p(u)

One real product takes the microphones to the coefficients of all pairs of functions, a second to
the rows, a third to the columns.
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
)
from soundpost.device.array.geometry import ArrayGeometry, Floats, ImageGrid
from soundpost.device.errors import InputError

# Singular values below this part of the largest are left out: what is left is within 1e-5 of the
# peak for noise of the microphones too, where that is lowest (1e-5 here would leave 1.4e-5).
_TOLERANCE = 3e-6
# A phase by which a microphone may leave the plane, in radians.
_PLANE_RAD = 1e-6


def separable(
    geometry: ArrayGeometry, grid: ImageGrid, highest_hz: float, sound_m_s: float
) -> bool:
    """Whether rows and columns part for this array and this grid, up to a frequency."""
    if grid.cosines() is None or grid.distance_m is not None:
        return False
    thickness_m = float(np.ptp(geometry.positions_m[:, 2]))
    return 2 * np.pi * highest_hz / sound_m_s * thickness_m <= _PLANE_RAD


class SeparableBeamformer:
    """Beams of plane waves by a plane array, on a grid of direction cosines.

    Parameters
    ----------
    geometry, grid : a pair of which `separable` is true
    mics : (n,) numbers of the microphones that take part
    bin_hz : distance of the bins
    n_bins : bins from 0 Hz on
    sound_m_s : speed of sound

    Raises InputError for any other pair.
    """

    def __init__(
        self,
        geometry: ArrayGeometry,
        grid: ImageGrid,
        mics: NDArray[np.intp],
        bin_hz: float,
        n_bins: int,
        sound_m_s: float,
    ) -> None:
        cosines = grid.cosines()
        if cosines is None or not separable(geometry, grid, bin_hz * n_bins, sound_m_s):
            raise InputError(
                "fast route: expected all microphones in one plane z = const and a grid of "
                "direction cosines ('sphere') without a distance; choose the general route"
            )
        self.n_bins = n_bins
        self.n_mics = len(mics)
        self._shape = (grid.rows, grid.columns)
        numbers = 2 * np.pi * bin_hz / sound_m_s * np.arange(n_bins)
        x, y = (geometry.positions_m - geometry.centre_m)[mics, :2].T
        u, v = cosines
        # By parity (even, odd): of microphones (bins, 2, ranks, n_mics), of pixels (bins, 2, n,
        # ranks), and ranks needed (bins,).
        self._of_x, of_u, self._x_ranks = _bases(x, u, numbers)
        # Rows run down, and v up.
        of_y, of_v, self._y_ranks = _bases(y, v[::-1], numbers)
        of_v = of_v[:, :, ::-1]
        self._of_u = np.ascontiguousarray(of_u.transpose(0, 2, 1, 3))
        # (Cu - j Su) (Cv - j Sv): an even function of u goes with Cv and -j Sv, an odd one with
        # -Sv and -j Cv. The first of each pair is applied to the spectra, the second to -j times
        # the spectra, and all else is real.
        even, odd = 0, 1
        self._of_y = of_y[:, [[even, odd], [odd, even]]]
        signed = of_v * np.array([1, -1], np.float32)[:, None, None]
        to_even = np.stack([of_v[:, even], of_v[:, odd]], axis=2)
        to_odd = np.stack([signed[:, odd], of_v[:, even]], axis=2)
        self._of_v = np.stack([to_even, to_odd], axis=1)

    def power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        """Squared magnitude of the beams: see `Beamformer`."""
        check_spectra(spectra, self.n_mics, self.n_bins)
        n_frames = spectra.shape[2]
        rows, columns = self._shape
        length = bins_per_block(n_frames)
        block = np.empty((length, rows * columns, n_frames), np.float32)
        turned = np.empty((length, 2, self.n_mics, n_frames), np.complex64)
        beams = np.empty((length, rows, columns, 2 * n_frames), np.float32)
        for first in range(bins.start, bins.stop, length):
            some = slice(first, min(first + length, bins.stop))
            n = some.stop - first
            turned[:n, 0] = spectra[some]
            np.multiply(spectra[some], -1j, out=turned[:n, 1])
            self._steer(some, turned[:n].view(np.float32), beams[:n])
            power = block[:n].reshape(n, rows, columns, n_frames)
            squared_magnitude(beams[:n], out=power)
            yield range(first, some.stop), block[:n]

    def _steer(self, some: slice, turned: FloatArray, beams: FloatArray) -> None:
        """Beams of some bins.

        turned : (n, 2, n_mics, 2 n_frames), the spectra and -j times the spectra
        beams : (n, rows, columns, 2 n_frames)
        """
        n, rows, _, values = beams.shape
        p = int(self._x_ranks[some].max())
        q = int(self._y_ranks[some].max())
        of_x = self._of_x[some, :, None, None, :p]
        of_y = self._of_y[some, :, :, :q, None]
        of_v = self._of_v[some, ..., :q]
        of_u = self._of_u[some, ..., :p]
        # Axes: bins, parity in u, the spectra or -j times them, function of v, function of u.
        of_mics = (of_x * of_y).reshape(n, 2, 2, q * p, self.n_mics)
        pairs = np.matmul(of_mics, turned[:, None])
        to_rows = of_v.reshape(n, 2, rows, 2 * q)
        of_rows = np.empty((n, rows, 2, p * values), np.float32)
        np.matmul(
            to_rows, pairs.reshape(n, 2, 2 * q, p * values), out=of_rows.transpose(0, 2, 1, 3)
        )
        to_columns = of_u.reshape(n, 1, -1, 2 * p)
        np.matmul(to_columns, of_rows.reshape(n, rows, 2 * p, values), out=beams)


def _bases(
    places_m: Floats, cosines: Floats, numbers: Floats
) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Few functions that hold cos and sin of k x u.

    Parameters
    ----------
    places_m : (n_mics,)
    cosines : (n,) rising, symmetric about 0
    numbers : (n_bins,) wave numbers k

    Returns
    -------
    of microphones (n_bins, 2, ranks, n_mics), of pixels (n_bins, 2, n, ranks): cos, then sin;
    ranks needed (n_bins,)
    """
    n = len(cosines)
    half = cosines[n // 2 :]
    phases = numbers[:, None, None] * np.multiply.outer(half, places_m)
    both = np.stack([np.cos(phases), np.sin(phases)], axis=1)
    of_pixels, sizes, of_mics = np.linalg.svd(both, full_matrices=False)
    # Of the larger part: at low frequencies the odd one is small.
    needed = (sizes > _TOLERANCE * sizes[:, :1, :1]).sum(axis=2).max(axis=1)
    ranks = max(int(needed.max()), 1)
    of_mics = of_mics[:, :, :ranks] * sizes[:, :, :ranks, None]
    mirrored = of_pixels[:, :, half.shape[0] - n // 2 :][:, :, ::-1, :ranks]
    signs = np.array([1, -1])[:, None, None]
    whole = np.concatenate([mirrored * signs, of_pixels[..., :ranks]], axis=2)
    return (
        of_mics.astype(np.float32),
        np.ascontiguousarray(whole, np.float32),
        np.maximum(needed, 1),
    )
