"""Where the microphones are, and which directions an acoustic image shows.

World coordinates, everywhere in this project: x to the right, y up, z towards the scene, the origin
at the camera; metres. A direction is a unit vector from the origin, and its direction cosines u and
v are its x and y.

Rows of an image run from the top down and columns from left to right, as a camera's do, so that one
lies on the other. Field of view and size are settings: the published sensor has 36 x 48 pixels, and
its field of view is not published (±45° x ±32° is an assumption).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soundpost.device.errors import InputError

Floats = NDArray[np.float64]
Surface = Literal["sphere", "plane"]

# Eight times the published sensor; beyond it a file is no array's.
MAX_MICROPHONES = 1_024
MAX_PIXELS = 1_000_000
# Ports of the smallest microphones lie ten times as far apart.
_SAME_PLACE_M = 1e-4
# Of the length: a line array whose microphones are soldered askew is still a line.
_LINE_WIDTH = 1e-3
# Positions in centimetres or millimetres lie beyond this.
_FARTHEST_M = 20.0
_NEAREST_M = 0.05
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True, eq=False)
class ArrayGeometry:
    """Positions of the microphones; equal where name and positions are.

    positions_m : (n_mics, 3) in world coordinates, kept as a read-only copy
    name : for people, without control characters

    Raises InputError for positions that are no array: fewer than three, two at one place, all on
    one line, or farther than 20 m away.
    """

    positions_m: Floats
    name: str = ""

    def __post_init__(self) -> None:
        positions = np.array(self.positions_m, np.float64)
        what = f"array {self.name[:60]!r}" if self.name else "array"
        if not self.name.isprintable():
            raise InputError(f"{what}: its name has control characters; expected text on one line")
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise InputError(
                f"{what}: positions of shape {positions.shape}; expected (n_mics, 3): x, y and z "
                "in metres"
            )
        if not 3 <= len(positions) <= MAX_MICROPHONES:
            raise InputError(
                f"{what}: {len(positions)} microphones; expected 3 to {MAX_MICROPHONES}, for fewer "
                "than three tell no direction"
            )
        _check_distances(positions, what)
        _check_line(positions, what)
        # No -0.0, whose bytes differ from those of 0.0.
        positions += 0.0
        positions.setflags(write=False)
        object.__setattr__(self, "positions_m", positions)

    @property
    def n_mics(self) -> int:
        """Number of microphones."""
        return len(self.positions_m)

    @property
    def centre_m(self) -> Floats:
        """Mean position, (3,): beams are what would be heard there."""
        centre: Floats = self.positions_m.mean(axis=0)
        return centre

    def hash(self) -> str:
        """SHA-256 (hex) of the positions, to the bit; the name is not in it."""
        return hashlib.sha256(self.positions_m.astype("<f8").tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ArrayGeometry):
            return NotImplemented
        return self.name == other.name and np.array_equal(self.positions_m, other.positions_m)

    def __hash__(self) -> int:
        return hash((self.name, self.positions_m.tobytes()))


def _check_distances(positions: Floats, what: str) -> None:
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise InputError(
            f"{what}: microphone {index} is at {_place(positions[index])}; expected finite numbers"
        )
    far = np.linalg.norm(positions, axis=1)
    if far.max() > _FARTHEST_M:
        index = int(far.argmax())
        raise InputError(
            f"{what}: microphone {index} is {far[index]:.0f} m from the origin; expected at most "
            f"{_FARTHEST_M:g} m: positions are in metres"
        )
    for index, position in enumerate(positions[1:], 1):
        apart = np.linalg.norm(positions[:index] - position, axis=1)
        if apart.min() < _SAME_PLACE_M:
            raise InputError(
                f"{what}: microphones {int(apart.argmin())} and {index} are at the same place "
                f"({_place(position)}); leave one out, or correct its position"
            )


def _check_line(positions: Floats, what: str) -> None:
    lengths = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    if lengths[1] < _LINE_WIDTH * lengths[0]:
        raise InputError(
            f"{what}: the {len(positions)} microphones are on one line, which hears no difference "
            "between the directions of a cone around it; expected them spread over a surface"
        )


def _place(position: Floats) -> str:
    return ", ".join(f"{value:.4g}" for value in position) + " m"


@dataclass(frozen=True)
class ImageGrid:
    """Pixels of an acoustic image: directions, or points at a distance.

    rows, columns : pixels; each is a cell of equal size, and its direction is the cell's middle
    half_width_deg, half_height_deg : from the middle to the edges of the image, along its axes
    surface : "sphere": pixels are equal steps of the direction cosines, so that the beam is as wide
        in each; "plane": equal steps of x/z and y/z, as the pixels of a camera are
    distance_m : None: far away, where waves are plane. Else the pixels are points so far from the
        origin, on a sphere around it or on the plane z = distance_m: by their surface

    Raises InputError where a field of view or a distance cannot be.
    """

    rows: int = 36
    columns: int = 48
    half_width_deg: float = 45.0
    half_height_deg: float = 32.0
    surface: Surface = "sphere"
    distance_m: float | None = None

    def __post_init__(self) -> None:
        if not (self.rows >= 1 and self.columns >= 1 and self.n_pixels <= MAX_PIXELS):
            raise InputError(
                f"image grid: {self.rows} rows and {self.columns} columns; expected at least one "
                f"of each and at most {MAX_PIXELS} pixels"
            )
        if self.surface not in ("sphere", "plane"):
            raise InputError(f"image grid: surface {self.surface!r}; expected 'sphere' or 'plane'")
        for name in ("half_width_deg", "half_height_deg"):
            if not 0 < getattr(self, name) < 90:
                raise InputError(
                    f"image grid: {name} {getattr(self, name):g}; expected more than 0 and less "
                    "than 90 degrees"
                )
        if self.distance_m is not None and not _NEAREST_M <= self.distance_m < math.inf:
            raise InputError(
                f"image grid: distance_m {self.distance_m:g}; expected at least {_NEAREST_M:g} m, "
                "or null for plane waves"
            )
        if self.surface == "sphere" and self._u()[-1] ** 2 + self._v()[0] ** 2 >= 1:
            raise InputError(
                f"image grid: half_width_deg {self.half_width_deg:g} and half_height_deg "
                f"{self.half_height_deg:g}: the corners lie beyond the horizon; expected smaller "
                "ones, or surface 'plane'"
            )

    @property
    def n_pixels(self) -> int:
        """rows * columns; a pixel's number is row * columns + column."""
        return self.rows * self.columns

    def _edges(self) -> tuple[float, float]:
        function = math.sin if self.surface == "sphere" else math.tan
        return (
            function(math.radians(self.half_width_deg)),
            function(math.radians(self.half_height_deg)),
        )

    def _u(self) -> Floats:
        return _cells(self.columns) * self._edges()[0]

    def _v(self) -> Floats:
        return -_cells(self.rows) * self._edges()[1]

    def cosines(self) -> tuple[Floats, Floats] | None:
        """Direction cosines u of the columns (columns,) and v of the rows (rows,).

        None on a plane, where each pixel has its own.
        """
        return (self._u(), self._v()) if self.surface == "sphere" else None

    def directions(self) -> Floats:
        """Unit vectors of the pixels, (n_pixels, 3), row by row."""
        u, v = (part.ravel() for part in np.meshgrid(self._u(), self._v()))
        if self.surface == "sphere":
            return np.stack([u, v, np.sqrt(1 - u**2 - v**2)], axis=1)
        rays = np.stack([u, v, np.ones_like(u)], axis=1)
        unit: Floats = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        return unit

    def points_m(self) -> Floats | None:
        """Points of the pixels, (n_pixels, 3), row by row; None for plane waves."""
        if self.distance_m is None:
            return None
        points = self.directions() * self.distance_m
        if self.surface == "plane":
            points *= self.distance_m / points[:, 2:]
        return points

    def pixel_of(self, place: ArrayLike) -> tuple[int, int] | None:
        """Row and column of the pixel in which a direction or a point lies.

        place : (3,) of any length, from the origin

        Returns None outside the image.
        """
        x, y, z = np.asarray(place, np.float64)
        if not z > 0:
            return None
        scale = math.hypot(x, y, z) if self.surface == "sphere" else z
        half_width, half_height = self._edges()
        column = math.floor((x / scale / half_width + 1) / 2 * self.columns)
        row = math.floor((1 - y / scale / half_height) / 2 * self.rows)
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        return (row, column) if inside else None


def direction_in_words(direction: Floats, decimals: int = 0) -> str:
    """A direction (x, y, z) as a person says it: "20° left, 4° up"."""
    x, y, z = direction
    right, up = np.degrees(np.arctan2([x, y], z))
    across, along = "right" if right >= 0 else "left", "up" if up >= 0 else "down"
    return f"{abs(right):.{decimals}f}° {across}, {abs(up):.{decimals}f}° {along}"


def _cells(count: int) -> Floats:
    """Middles of so many equal cells from -1 to 1, exactly symmetric."""
    return (np.arange(count) * 2 + 1 - count) / count


def vogel_spiral(n_mics: int = 128, diameter_m: float = 0.45) -> ArrayGeometry:
    """Microphones spread evenly over a disc in the plane z = 0, no two on one radius.

    Vogel, "A better way to construct the sunflower head" (1979): radius proportional to the square
    root of the number, angle the golden angle times the number. The default has the published
    sensor's 128 microphones and 0.45 m; its own positions are not public.
    """
    if not 0 < diameter_m < math.inf:
        raise InputError(f"vogel spiral: diameter {diameter_m:g} m; expected more than 0")
    if n_mics < 3:
        raise InputError(f"vogel spiral: {n_mics} microphones; expected at least 3")
    number = np.arange(n_mics)
    # Half a step, so that each has the same share of the disc.
    radius_m = diameter_m / 2 * np.sqrt((number + 0.5) / n_mics)
    angle = number * _GOLDEN_ANGLE
    positions_m = np.stack(
        [radius_m * np.cos(angle), radius_m * np.sin(angle), np.zeros(n_mics)], axis=1
    )
    return ArrayGeometry(positions_m, f"vogel-{n_mics}")
