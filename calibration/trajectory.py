"""Places in the world, at rest or moving: what is heard and what is seen share them.

World coordinates, everywhere in this project: x to the right, y up, z towards the scene, the origin
at the camera; metres and seconds of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soundpost.device.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Points that are passed at given times, on straight lines at constant speed between them.

    Before the first and after the last it rests there. A curve is as many points as it takes: at
    each the speed changes at once, and so does the pitch of what sounds there.

    times_s : (n_points,) rising
    positions_m : (n_points, 3)
    """

    times_s: Floats
    positions_m: Floats

    def __post_init__(self) -> None:
        times, positions = (np.array(of, np.float64) for of in (self.times_s, self.positions_m))
        if times.ndim != 1 or not len(times) or positions.shape != (len(times), 3):
            raise UsageError(
                f"trajectory: times of shape {times.shape} and positions of shape "
                f"{positions.shape}; expected (n,) and (n, 3) with n of at least 1"
            )
        if not (np.isfinite(times).all() and np.isfinite(positions).all()):
            raise UsageError("trajectory: a time or position is not a finite number")
        if (np.diff(times) <= 0).any():
            late = int(np.argmax(np.diff(times) <= 0)) + 1
            raise UsageError(
                f"trajectory: point {late} is at {times[late]:g} s, not after "
                f"{times[late - 1]:g} s; expected rising times"
            )
        times.setflags(write=False)
        positions.setflags(write=False)
        object.__setattr__(self, "times_s", times)
        object.__setattr__(self, "positions_m", positions)

    @classmethod
    def at_rest(cls, position_m: ArrayLike) -> Trajectory:
        """One place, (3,), at all times."""
        place = np.asarray(position_m, np.float64)
        if place.shape != (3,):
            raise UsageError(f"position of shape {place.shape}; expected x, y and z in metres")
        return cls(np.zeros(1), place[None])

    @classmethod
    def through(cls, points: Sequence[Sequence[float]]) -> Trajectory:
        """Points given as (time in seconds, x, y, z in metres)."""
        table = np.asarray(points, np.float64)
        if table.ndim != 2 or table.shape[1] != 4:
            raise UsageError("path: expected points of [time, x, y, z]")
        return cls(table[:, 0], table[:, 1:])

    @property
    def moves(self) -> bool:
        """Whether it is ever at another place than at first."""
        return bool((self.positions_m != self.positions_m[0]).any())

    @property
    def highest_speed_m_s(self) -> float:
        """Of the fastest of its lines."""
        if len(self.times_s) == 1:
            return 0.0
        lengths = np.linalg.norm(np.diff(self.positions_m, axis=0), axis=1)
        return float((lengths / np.diff(self.times_s)).max())

    def at(self, times_s: ArrayLike) -> Floats:
        """Positions, (..., 3), at times of any shape."""
        when = np.asarray(times_s, np.float64)
        axes = [np.interp(when, self.times_s, axis) for axis in self.positions_m.T]
        return np.stack(axes, axis=-1)

    def points(self) -> list[list[float]]:
        """The points as `through` takes them."""
        both: Any = np.column_stack([self.times_s, self.positions_m])
        return [[float(value) for value in point] for point in both]
