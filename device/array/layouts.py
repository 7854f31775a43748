"""Where to put microphones: on a regular grid, on a spiral, or where side lobes are lowest.

A beam that looks at one direction also hears others. For microphones in the plane z = 0 how much of
them depends on the difference q of the two directions' cosines alone: P(q) = 1/M sum exp(j k q·x),
with k = 2 pi f / c. The largest |P| outside of the main lobe is what a loud source can fake
elsewhere in an image. At a lower frequency P is the same, seen over a smaller range of q: the
highest frequency is the worst.

The main lobe is taken to be as wide as that of a disc filled evenly, whose first zero lies at
1.22 wavelengths over the diameter, and a tenth wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.geometry import (
    MAX_MICROPHONES,
    ArrayGeometry,
    Floats,
    ImageGrid,
    vogel_spiral,
)
from soundpost.device.errors import InputError

Complexes = NDArray[np.complex128]
Sources = Literal["image", "front"]

# At 20 degrees Celsius; colder air is as a higher frequency.
SOUND_M_S: Final = 343.2
_MAIN_LOBE: Final = 1.1 * 1.22
# Points of q to the width of a lobe, where lobes are minimised and where they are measured.
_STEPS_TO_OPTIMISE = 6
_STEPS_TO_MEASURE = 20
_MAX_POINTS = 4_000_000
# The norm's exponent (of |P|), and iterations with it: a soft maximum that becomes harder.
_NORMS = ((8, 100), (16, 200), (32, 300), (64, 400))
# A microphone with its port and its parts takes so much of a board.
_SPACING_M = 0.012

N_ITERATIONS: Final = sum(iterations for _, iterations in _NORMS)


@dataclass(frozen=True)
class Hearing:
    """What an array is laid out for.

    image : beams look at the directions of its pixels
    max_hz : highest frequency
    sources : where sound that is not looked at comes from: anywhere in front of the array, or only
        the directions of the image, which is seldom true: a layout for the image alone shows a
        source beside it as a ghost
    """

    image: ImageGrid
    max_hz: float = 6_400.0
    sources: Sources = "front"

    def __post_init__(self) -> None:
        if not 20 <= self.max_hz <= 100_000:
            raise InputError(f"highest frequency {self.max_hz:g} Hz: expected 20 to 100000 Hz")

    @property
    def wave_number(self) -> float:
        """2 pi f / c at the highest frequency, in radians a metre."""
        return 2 * math.pi * self.max_hz / SOUND_M_S

    def _half_cosines(self) -> tuple[float, float]:
        return (
            math.sin(math.radians(self.image.half_width_deg)),
            math.sin(math.radians(self.image.half_height_deg)),
        )

    def axes(self, step: float) -> tuple[Floats, Floats]:
        """Differences of cosines to look at, u (n,) and v (m,): P(-q) is the conjugate of P(q), so
        that v from 0 up is enough.

        Raises InputError where there are more than can be worked on.
        """
        u, v = (half + (half if self.sources == "image" else 1.0) for half in self._half_cosines())
        n_u, n_v = math.ceil(u / step), math.ceil(v / step)
        if (2 * n_u + 1) * (n_v + 1) > _MAX_POINTS:
            raise InputError(
                f"an array so wide at {self.max_hz:g} Hz has too many lobes to look at; take a "
                "lower frequency or a smaller array"
            )
        return np.linspace(-u, u, 2 * n_u + 1), np.linspace(0, v, n_v + 1)

    def counts(
        self, u: Floats, v: Floats, main_lobe: float, margin: float = 0.0
    ) -> NDArray[np.bool_]:
        """Which differences occur, give or take a margin, outside of the main lobe, (n, m)."""
        outside: NDArray[np.bool_] = np.hypot(u[:, None], v) >= main_lobe
        if self.sources == "front":
            # A pixel's cosines less those of a source, which are of length 1 at most.
            half_u, half_v = self._half_cosines()
            beyond_u = np.maximum(np.abs(u) - half_u, 0)
            beyond_v = np.maximum(v - half_v, 0)
            outside &= np.hypot(beyond_u[:, None], beyond_v) <= 1 + margin
        return outside


def main_lobe(hearing: Hearing, diameter_m: float) -> float:
    """Radius of the main lobe, as a difference of cosines."""
    return _MAIN_LOBE * SOUND_M_S / hearing.max_hz / diameter_m


def regular_grid(n_mics: int = 128, diameter_m: float = 0.45) -> ArrayGeometry:
    """Microphones on a square lattice, cut out by a disc in the plane z = 0: the plain choice.

    Its side lobes are as loud as the main lobe as soon as the spacing exceeds half a wavelength and
    a beam looks far enough to the side.
    """
    _check(n_mics, diameter_m, "regular grid")
    half = math.ceil(math.sqrt(n_mics)) + 1
    steps = np.arange(-half, half) + 0.5
    x, y = (part.ravel() for part in np.meshgrid(steps, steps))
    # Of those at one distance, opposite ones come one after the other: the middle stays the middle.
    axis = np.round(np.arctan2(y, x) % math.pi, 9)
    nearest = np.lexsort((axis, np.round(np.hypot(x, y), 9)))[:n_mics]
    scale = diameter_m / 2 / np.hypot(x[nearest], y[nearest]).max()
    return _flat(x[nearest] * scale, y[nearest] * scale, f"grid-{n_mics}")


def _check(n_mics: int, diameter_m: float, what: str) -> None:
    if not 3 <= n_mics <= MAX_MICROPHONES:
        raise InputError(f"{what}: {n_mics} microphones; expected 3 to {MAX_MICROPHONES}")
    if not 0 < diameter_m < math.inf:
        raise InputError(f"{what}: diameter {diameter_m:g} m; expected more than 0")


def _flat(x: Floats, y: Floats, name: str) -> ArrayGeometry:
    return ArrayGeometry(np.stack([x, y, np.zeros_like(x)], axis=1), name)


def smallest_spacing_m(geometry: ArrayGeometry) -> float:
    """Distance of the two microphones that are nearest to each other."""
    apart = np.linalg.norm(geometry.positions_m[:, None] - geometry.positions_m, axis=2)
    np.fill_diagonal(apart, math.inf)
    return float(apart.min())


def responses(geometry: ArrayGeometry, hearing: Hearing, step: float) -> tuple[Floats, Any]:
    """|P| over u and v at the highest frequency, (n, m), and these axes.

    Raises InputError where the microphones do not lie in a plane z = constant.
    """
    x, y, z = geometry.positions_m.T
    if np.ptp(z) > 1e-6:
        raise InputError(
            f"array {geometry.name!r}: its microphones lie at different z; expected a flat one"
        )
    u, v = hearing.axes(step)
    along_u, along_v = _phases(x, y, u, v, hearing.wave_number)
    return np.abs(along_u @ along_v) / geometry.n_mics, (u, v)


def _phases(x: Floats, y: Floats, u: Floats, v: Floats, k: float) -> tuple[Complexes, Complexes]:
    """exp(j k u x) and exp(j k v y): their product over the microphones is M P(q)."""
    return np.exp(1j * k * np.outer(u, x)), np.exp(1j * k * np.outer(y, v))


def largest_side_lobe_db(
    geometry: ArrayGeometry, hearing: Hearing, diameter_m: float | None = None
) -> float:
    """Level of the loudest side lobe below the main lobe, up to the highest frequency.

    diameter_m : that of the disc whose main lobe is left out; by default the array's own

    Raises InputError for an array that is not flat.
    """
    if diameter_m is None:
        from_centre = np.linalg.norm(geometry.positions_m - geometry.centre_m, axis=1)
        diameter_m = 2 * float(from_centre.max())
    radius = main_lobe(hearing, diameter_m)
    found, (u, v) = responses(geometry, hearing, radius / _STEPS_TO_MEASURE)
    counted = found[hearing.counts(u, v, radius)]
    if not counted.size:
        raise InputError(
            f"array {geometry.name!r}: its main lobe is wider than the image; expected a larger "
            "array or a higher frequency"
        )
    return 20 * math.log10(float(counted.max()))


def optimised_layout(
    hearing: Hearing,
    n_mics: int = 128,
    diameter_m: float = 0.45,
    progress: Callable[[], object] | None = None,
) -> ArrayGeometry:
    """Microphones on a disc in the plane z = 0 such that the largest side lobe is low.

    Minimises the L_p norm of P over the side lobes, from Vogel's spiral on, with L-BFGS-B and an
    exact gradient; p grows from 8 to 64, for a norm of high p alone gets stuck at once. What comes
    out is a good layout, not the best there is. The same on every run, but not to the last bit on
    another processor: keep the file.

    progress : told of each of at most N_ITERATIONS iterations
    """
    from scipy.optimize import minimize

    _check(n_mics, diameter_m, "optimised layout")
    start = vogel_spiral(n_mics, diameter_m).positions_m
    k = hearing.wave_number
    radius = main_lobe(hearing, diameter_m)
    u, v = hearing.axes(radius / _MAIN_LOBE / _STEPS_TO_OPTIMISE)
    # Between the points at the rim lobes would rise unseen.
    weights = hearing.counts(u, v, radius, margin=u[1] - u[0]).astype(np.float64)
    if not weights.any():
        raise InputError(
            f"optimised layout: a disc of {diameter_m:g} m has no side lobes within the image up "
            f"to {hearing.max_hz:g} Hz; expected a larger one or a higher frequency"
        )
    # Radius in radians, so that it and the angle count alike.
    place = np.concatenate([np.hypot(*start[:, :2].T) * k, np.arctan2(start[:, 1], start[:, 0])])
    bounds = [(0.0, diameter_m / 2 * k)] * n_mics + [(None, None)] * n_mics
    spacing_m = min(_SPACING_M, 0.5 * diameter_m / math.sqrt(n_mics))
    for exponent, iterations in _NORMS:
        norm = _Norm(u, v, weights, k, exponent, spacing_m)
        place = minimize(
            norm,
            place,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": iterations, "maxcor": 20},
            callback=None if progress is None else lambda _place: progress(),
        ).x
    from_centre_m, angle = place[:n_mics] / k, place[n_mics:]
    return _flat(
        from_centre_m * np.cos(angle), from_centre_m * np.sin(angle), f"optimised-{n_mics}"
    )


@dataclass(frozen=True)
class _Norm:
    """Logarithm of the L_p norm of |P|, and what microphones that lie too close cost, over places.

    A place has the radii (in radians: times k) of all microphones, then their angles.
    """

    u: Floats
    v: Floats
    weights: Floats
    k: float
    exponent: int
    spacing_m: float

    def __call__(self, place: Floats) -> tuple[float, Floats]:
        """Value, and its gradient (2 n_mics,)."""
        n_mics = len(place) // 2
        radius, angle = place[:n_mics] / self.k, place[n_mics:]
        cosine, sine = np.cos(angle), np.sin(angle)
        x, y = radius * cosine, radius * sine
        value, by_x, by_y = self._side_lobes(x, y)
        near, near_by_x, near_by_y = self._closeness(x, y)
        by_x += near_by_x
        by_y += near_by_y
        by_radius = (by_x * cosine + by_y * sine) / self.k
        by_angle = radius * (by_y * cosine - by_x * sine)
        return value + near, np.concatenate([by_radius, by_angle])

    def _side_lobes(self, x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
        along_u, along_v = _phases(x, y, self.u, self.v, self.k)
        found = along_u @ along_v / len(x)
        power = (found.real**2 + found.imag**2) * self.weights
        half = self.exponent / 2
        # Against the largest, or powers of small numbers would vanish.
        largest = float(power.max())
        shares = (power / largest) ** (half - 1)
        total = float((shares * power).sum()) / largest
        value = math.log(largest) + math.log(total) / half
        # d|P|^2/dx_m = -2/M Im(conj(P) k u exp(j k q·x_m)), summed over q as matrix products.
        slope = found.conj() * (shares * self.weights * (2 / len(x) / (largest * total)))
        by_x = -(along_u * (slope @ along_v.T) * (self.k * self.u)[:, None]).imag.sum(axis=0)
        by_y = -(along_v * (along_u.T @ slope) * (self.k * self.v)).imag.sum(axis=1)
        return value, by_x, by_y

    def _closeness(self, x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
        apart_x, apart_y = x[:, None] - x, y[:, None] - y
        apart = np.hypot(apart_x, apart_y)
        np.fill_diagonal(apart, math.inf)
        lack = np.maximum(self.spacing_m - apart, 0) / self.spacing_m
        slope = -2 * lack / self.spacing_m / np.maximum(apart, 1e-9)
        value = 0.5 * float((lack**2).sum())
        return value, (slope * apart_x).sum(axis=1), (slope * apart_y).sum(axis=1)
