"""Where the objects of a take are: side by side, so that none hides another by chance.

Seen from the camera, everything covers a span of x/z from left to right, swept over the take where
it moves. What is placed must not share more than a tenth of its span, or of the other's, with what
is there already; what finds no place is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from soundpost.calibration.pictures.looks import look_of
from soundpost.calibration.pictures.painting import CAMERA_HEIGHT_M
from soundpost.calibration.pictures.view import SeenObject
from soundpost.calibration.trajectory import Trajectory
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.datasets.world_settings import ObjectSettings

# Of an object's middle, in x/z; 1 is the edge of the frame.
WIDEST = 0.8
_SHARED = 0.1
_TRIES = 100
# Nobody sees a step of less.
_SHORTEST_WALK_M = 0.1
# A screen stands so far along the way to what it hides, and seems so much larger.
_SCREEN = "screen"
_SCREEN_AT, _MARGIN = 0.75, 1.15


@dataclass(frozen=True, eq=False)
class Placed:
    """An object that found its place, and the screen before it if it is hidden."""

    place: Trajectory
    height_m: float
    screen: SeenObject | None


class _Span(NamedTuple):
    """What something covers in a take: x/z from left to right, and how far away it is."""

    low: float
    high: float
    nearest_m: float
    farthest_m: float


class Stage:
    """The space before the camera in one take.

    seconds : of the take, in which objects go their ways
    """

    def __init__(self, settings: ObjectSettings, seconds: float, rng: np.random.Generator) -> None:
        self._settings, self._seconds, self._rng = settings, seconds, rng
        self._taken: list[_Span] = []

    def place(self, look: str, *, hidden: bool = False) -> Placed | None:
        """Put an object somewhere; None where there is no room for it."""
        body, rng = BODIES[look], self._rng
        height_m = float(rng.uniform(*body.height_m))
        walks = body.walks and not hidden and rng.random() < self._settings.moving_share
        wide = look_of(look).reach[0] * height_m
        if hidden:
            wide = look_of(_SCREEN).reach[0] * _screen_size(look) * height_m
        for _ in range(_TRIES):
            place = self._somewhere(look, height_m, walks)
            span = _span(place, wide, self._seconds)
            if self._free(span):
                self._taken.append(span)
                screen = self._screen(look, place, height_m) if hidden else None
                return Placed(place, height_m, screen)
        return None

    def fits(self, seen: SeenObject) -> bool:
        """Whether something that is there besides hides nothing of what is placed."""
        wide = look_of(seen.look).reach[0] * seen.height_m
        span = _span(seen.place, wide, self._seconds)
        return all(
            _shared(span, other) <= _SHARED or span.nearest_m > other.farthest_m
            for other in self._taken
        )

    def anywhere(self) -> Trajectory:
        """A place at rest for what is heard alone: at any height, and before or behind others."""
        x_m, z_m = self._on_floor()
        top_m = 0.8
        y_m = float(self._rng.uniform(-CAMERA_HEIGHT_M + 0.1, top_m))
        return Trajectory.at_rest((x_m, y_m, z_m))

    def _somewhere(self, look: str, height_m: float, walks: bool) -> Trajectory:
        rng, settings = self._rng, self._settings
        above_m = float(rng.uniform(*BODIES[look].above_m))
        y_m = above_m + height_m / 2 - CAMERA_HEIGHT_M
        x_m, z_m = self._on_floor()
        start = np.array([x_m, y_m, z_m])
        if not walks:
            return Trajectory.at_rest(start)
        x_m, z_m = self._on_floor()
        way = np.array([x_m, y_m, z_m]) - start
        length_m = float(np.linalg.norm(way))
        wanted_m = float(rng.uniform(*settings.speed_m_s)) * self._seconds
        if min(length_m, wanted_m) < _SHORTEST_WALK_M:
            return Trajectory.at_rest(start)
        # The floor that is seen is convex: all of the way lies on it.
        end = start + way * min(wanted_m / length_m, 1.0)
        return Trajectory(np.array([0.0, self._seconds]), np.stack([start, end]))

    def _on_floor(self) -> tuple[float, float]:
        z_m = float(self._rng.uniform(*self._settings.depth_m))
        return z_m * float(self._rng.uniform(-WIDEST, WIDEST)), z_m

    def _screen(self, look: str, place: Trajectory, height_m: float) -> SeenObject:
        before = Trajectory.at_rest(_SCREEN_AT * place.positions_m[0])
        height_m *= _SCREEN_AT * _screen_size(look)
        return SeenObject(_SCREEN, before, height_m, seed=int(self._rng.integers(2**31)))

    def _free(self, span: _Span) -> bool:
        return all(_shared(span, other) <= _SHARED for other in self._taken)


def _screen_size(look: str) -> float:
    """How many times as tall as an object a screen must seem that covers all of it."""
    (wide, high), (screen_wide, screen_high) = look_of(look).reach, look_of(_SCREEN).reach
    return _MARGIN * max(wide / screen_wide, high / screen_high)


def _span(place: Trajectory, half_m: float, seconds: float) -> _Span:
    """What something covers over a take; on a straight way the ends are extreme."""
    ends = place.at([0.0, seconds])
    depth_m = ends[:, 2]
    low, high = (ends[:, 0] - half_m) / depth_m, (ends[:, 0] + half_m) / depth_m
    return _Span(float(low.min()), float(high.max()), float(depth_m.min()), float(depth_m.max()))


def _shared(one: _Span, other: _Span) -> float:
    """Share that two have in common, of the smaller."""
    common = min(one.high, other.high) - max(one.low, other.low)
    return max(common, 0.0) / min(one.high - one.low, other.high - other.low)
