"""Delay-and-sum of a plane array for plane waves, where rows and columns part: four times faster.

With all microphones in a plane z = const and pixels on a grid of direction cosines, the phase of a
pixel is that of its column times that of its row: exp(-jk(x u + y v)) = exp(-jk x u) exp(-jk y v).
Over a field of view each factor is smooth: its real part is even in u and its imaginary part odd,
and a singular value decomposition on half the grid gives few real functions of u (at most 11 even
and 11 odd ones at 6 kHz and 0.45 m) that hold either to a few millionths:

    cos(k x u) = sum_p a_p(k x) b_p(u)

The functions of the highest of 32 bins hold the others too, with hardly one more. Real products
take the microphones to the coefficients of all pairs of functions, those to the rows, and the rows
to the columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

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
# Of fewer microphones than these it may all be in the beam of one, and less is left out.
_MANY_MICS = 16
# Bins that share their functions of u and v: twice as many would need one more, and half as many
# would not save one.
_GROUP_BINS = 32
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
        self._groups = [
            _Group(x, y, u, v, numbers[first : first + _GROUP_BINS])
            for first in range(0, n_bins, _GROUP_BINS)
        ]

    def power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        """Squared magnitude of the beams: see `Beamformer`."""
        check_spectra(spectra, self.n_mics, self.n_bins)
        n_frames = spectra.shape[2]
        length = min(bins_per_block(n_frames), _GROUP_BINS)
        block = np.empty((length, self._shape[0] * self._shape[1], n_frames), np.float32)
        some = _one_frame if n_frames == 1 else _many_frames
        make = some(length, *self._shape, spectra)
        first = bins.start
        while first < bins.stop:
            group = first // _GROUP_BINS
            stop = min(first + length, bins.stop, (group + 1) * _GROUP_BINS)
            make(self._groups[group], first, stop, block[: stop - first])
            yield range(first, stop), block[: stop - first]
            first = stop


_Make = Callable[["_Group", int, int, FloatArray], None]


class _Group:
    """What some neighbouring bins need: functions that they share, and coefficients of their own.

    Of microphones: of_x (n_bins, 2, p, n_mics), of_y (n_bins, 2, q, n_mics); even ones first, then
    odd. Of pixels: to_columns (2 p, columns), and to_rows in the two ways below.

    (Cu - j Su) (Cv - j Sv): an even function of u goes with Cv and -j Sv, an odd one with -Sv and
    -j Cv. The first of each pair is applied to the spectra, the second to -j times the spectra, and
    all else is real.
    """

    def __init__(self, x: Floats, y: Floats, u: Floats, v: Floats, numbers: Floats) -> None:
        self.of_x, of_u = _bases(x, u, numbers)
        # Rows run down, and v up.
        self.of_y, of_v = _bases(y, v[::-1], numbers)
        cosines, sines = of_v[:, ::-1]
        self.to_columns = np.ascontiguousarray(of_u.transpose(0, 2, 1)).reshape(-1, len(u))
        # By parity in u: (rows, of the spectra and of -j times the spectra)
        self.to_rows = np.stack([np.hstack([cosines, sines]), np.hstack([-sines, cosines])])
        # By parity in u: (real and imaginary rows, of v even and odd, of real and imaginary parts)
        rows, q = cosines.shape
        parts = np.zeros((2, 2, rows, 2, 2, q), np.float32)
        even, odd, real, imaginary = 0, 1, 0, 1
        parts[even, real, :, even, real] = cosines
        parts[even, real, :, odd, imaginary] = sines
        parts[even, imaginary, :, even, imaginary] = cosines
        parts[even, imaginary, :, odd, real] = -sines
        parts[odd, real, :, odd, real] = -sines
        parts[odd, real, :, even, imaginary] = cosines
        parts[odd, imaginary, :, odd, imaginary] = -sines
        parts[odd, imaginary, :, even, real] = -cosines
        self.to_parts = parts.reshape(2, 2 * rows, 4 * q)

    @property
    def ranks(self) -> tuple[int, int]:
        """Functions of u and of v, of either parity."""
        return self.of_x.shape[2], self.of_y.shape[2]


def _many_frames(length: int, rows: int, columns: int, spectra: ComplexArray) -> _Make:
    """A function that puts the power of some bins of a group into a block.

    The products of the functions of x and y are made once for all frames.
    """
    _, n_mics, n_frames = spectra.shape
    values = 2 * n_frames
    turned = np.empty((length, 2, n_mics, n_frames), np.complex64)
    beams = np.empty((length, rows, columns, n_frames), np.complex64)
    real_beams = beams.view(np.float32)

    def make(group: _Group, first: int, stop: int, block: FloatArray) -> None:
        n, (p, q) = stop - first, group.ranks
        within = slice(first % _GROUP_BINS, first % _GROUP_BINS + n)
        turned[:n, 0] = spectra[first:stop]
        np.multiply(spectra[first:stop], -1j, out=turned[:n, 1])
        # Axes: bins, parity in u, the spectra or -j times them, function of v, function of u.
        of_x = group.of_x[within, :, None, None]
        of_y = group.of_y[within][:, [[0, 1], [1, 0]], :, None]
        of_mics = (of_x * of_y).reshape(n, 2, 2, q * p, n_mics)
        pairs = np.matmul(of_mics, turned[:n, None].view(np.float32))
        of_rows = np.empty((n, rows, 2, p * values), np.float32)
        np.matmul(
            group.to_rows,
            pairs.reshape(n, 2, 2 * q, p * values),
            out=of_rows.transpose(0, 2, 1, 3),
        )
        np.matmul(group.to_columns.T, of_rows.reshape(n, rows, 2 * p, values), out=real_beams[:n])
        squared_magnitude(beams[:n], out=block.reshape(n, rows, columns, n_frames))

    return make


def _one_frame(length: int, rows: int, columns: int, spectra: ComplexArray) -> _Make:
    """The same for one frame, of which the products with the functions of y are fewer."""
    n_bins, n_mics, _ = spectra.shape
    # (n_bins, 1, real and imaginary, 1, n_mics)
    parts = np.ascontiguousarray(spectra[:, :, 0]).view(np.float32).reshape(n_bins, n_mics, 2)
    parts = np.ascontiguousarray(parts.transpose(0, 2, 1))[:, None, :, None]

    def make(group: _Group, first: int, stop: int, block: FloatArray) -> None:
        n, (p, q) = stop - first, group.ranks
        within = slice(first % _GROUP_BINS, first % _GROUP_BINS + n)
        # Axes: bins, parity in v, real or imaginary part, function of v, microphones.
        of_mics = group.of_y[within, :, None] * parts[first:stop]
        of_x = group.of_x[within].reshape(n, 2 * p, n_mics)
        pairs = np.matmul(of_mics.reshape(n, 4 * q, n_mics), of_x.transpose(0, 2, 1))
        of_rows = np.empty((n, 2 * rows, 2 * p), np.float32)
        np.matmul(group.to_parts[0], pairs[..., :p], out=of_rows[..., :p])
        np.matmul(group.to_parts[1], pairs[..., p:], out=of_rows[..., p:])
        # All bins at once: (real and imaginary rows, columns) of each
        beams = of_rows.reshape(-1, 2 * p) @ group.to_columns
        np.multiply(beams, beams, out=beams)
        real, imaginary = beams.reshape(n, 2, rows * columns).transpose(1, 0, 2)
        np.add(real, imaginary, out=block[..., 0])

    return make


def _bases(places_m: Floats, cosines: Floats, numbers: Floats) -> tuple[FloatArray, FloatArray]:
    """Few functions that hold cos and sin of k x u, for some wave numbers.

    Parameters
    ----------
    places_m : (n_mics,)
    cosines : (n,) rising, symmetric about 0
    numbers : (n_bins,) wave numbers k

    Returns
    -------
    of microphones (n_bins, 2, rank, n_mics), of pixels (2, n, rank): cos, then sin
    """
    n, n_mics = len(cosines), len(places_m)
    half = cosines[n // 2 :]
    phases = np.multiply.outer(half, np.multiply.outer(numbers, places_m).ravel())
    both = np.stack([np.cos(phases), np.sin(phases)])
    # Far more columns than rows: their triangle has the same singular values.
    triangle: Floats = np.asarray(np.linalg.qr(both.transpose(0, 2, 1), mode="r"))
    of_pixels, sizes, _ = np.linalg.svd(triangle.transpose(0, 2, 1))
    # Of the larger part: at low frequencies the odd one is small.
    tolerance = _TOLERANCE * min(1.0, math.sqrt(n_mics / _MANY_MICS))
    rank = max(int((sizes > tolerance * sizes.max()).sum(axis=1).max()), 1)
    of_pixels = of_pixels[:, :, :rank]
    of_mics = of_pixels.transpose(0, 2, 1) @ both
    mirrored = of_pixels[:, half.shape[0] - n // 2 :][:, ::-1]
    whole = np.concatenate([mirrored * np.array([1, -1])[:, None, None], of_pixels], axis=1)
    shaped = of_mics.reshape(2, rank, len(numbers), n_mics).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(shaped, np.float32), whole.astype(np.float32)
