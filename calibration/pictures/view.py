"""Frames of objects before a background, seen from the world's origin.

    view = View(Camera(), draw_backdrop("room", Camera(), seed=1), objects, seed=1)
    picture = view.frame(0.5)

An object and the sound that it makes share one `Trajectory`, so that it is seen where it is heard.
Seen and not heard is an object without a source; heard and not seen a source without an object, or
with one that stands behind another (`hide`). Of two classes with one look nobody sees which it is
(`looks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from soundpost.calibration.pictures.backdrop import Backdrop
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.looks import look_of
from soundpost.calibration.pictures.painting import CAMERA_HEIGHT_M
from soundpost.calibration.pictures.parts import Look, Pose, draw, pick_colours
from soundpost.calibration.trajectory import Floats, Trajectory
from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError

Picture = NDArray[np.uint8]

# Nothing is seen any closer; it would fill the frame many times over.
NEAREST_M = 0.4
# An object begins to move, and comes to rest, within this time.
_RAMP_S = 0.15
# Below this speed it looks where it looked.
_STILL_M_S = 0.02
_NOISE_LEVELS = 2.2
_SPARE_PX = 64
_SHADOW, _SHADOW_FADES_M = 0.5, 0.8


@dataclass(frozen=True)
class SeenObject:
    """Something that is seen.

    look : a name of looks.py
    place : of its middle
    height_m : how tall it is
    active_s : spans in which it moves its parts, (from, to); usually when it sounds
    idle : share of that motion at other times: at 1 the motion does not tell whether it sounds
    seed : of its colours and texture
    """

    look: str
    place: Trajectory
    height_m: float
    active_s: tuple[tuple[float, float], ...] = ()
    idle: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        look_of(self.look)
        if not self.height_m > 0 or not 0 <= self.idle <= 1:
            raise UsageError(
                f"object {self.look}: height_m is {self.height_m:g} and idle {self.idle:g}; "
                "expected above 0, and 0 to 1"
            )

    def activity_at(self, time_s: float) -> float:
        """How much of its motion it makes, idle to 1."""
        level = 0.0
        for begin_s, end_s in self.active_s:
            inside = min(time_s - begin_s, end_s - time_s) / _RAMP_S + 1
            level = max(level, min(max(inside, 0.0), 1.0))
        return self.idle + (1 - self.idle) * level

    def active_for_s(self, time_s: float) -> float:
        """Time that it has been moving, from which its parts know where they are."""
        spans = sum(min(max(time_s - begin, 0), end - begin) for begin, end in self.active_s)
        return self.idle * time_s + (1 - self.idle) * spans


@dataclass(frozen=True, eq=False)
class _Dressed:
    """An object with what its seed decides."""

    seen: SeenObject
    look: Look
    pose: Pose
    faces_left: bool
    phase_s: float

    @classmethod
    def of(cls, seen: SeenObject) -> _Dressed:
        look = look_of(seen.look)
        rng = np.random.default_rng([seen.seed])
        pose = Pose(pick_colours(look, rng), rng.random(8).astype(np.float32))
        return cls(seen, look, pose, bool(rng.integers(2)), float(rng.uniform(0, 10)))

    def pose_at(self, time_s: float) -> Pose:
        ahead = self.seen.place.at([time_s - 0.02, time_s + 0.02])[:, 0]
        speed_m_s = (ahead[1] - ahead[0]) / 0.04
        left = self.faces_left if abs(speed_m_s) < _STILL_M_S else speed_m_s < 0
        return replace(
            self.pose,
            active_s=self.phase_s + self.seen.active_for_s(time_s),
            activity=self.seen.activity_at(time_s),
            mirrored=bool(left),
        )


@dataclass(frozen=True, eq=False)
class _Sprite:
    """An object as drawn: colours times coverage, and coverage, from a corner of the frame on."""

    layers: FloatArray
    top: int
    left: int

    @property
    def cover(self) -> FloatArray:
        """Coverage, (n_rows, n_columns)."""
        plane: FloatArray = self.layers[3]
        return plane


class View:
    """Objects before a background.

    Raises UsageError for a look that there is not.
    """

    def __init__(
        self, camera: Camera, backdrop: Backdrop, objects: Sequence[SeenObject], seed: int = 0
    ) -> None:
        self.camera = camera
        self.backdrop = backdrop
        self.objects = tuple(objects)
        self._dressed = [_Dressed.of(seen) for seen in self.objects]
        self._seed = seed
        shape = (3, camera.height_px + _SPARE_PX, camera.width_px + _SPARE_PX)
        rng = np.random.default_rng([seed])
        self._noise = _NOISE_LEVELS * rng.standard_normal(shape, np.float32)

    def frame(self, time_s: float) -> Picture:
        """The picture at one moment, (height, width, 3) uint8, red, green and blue."""
        canvas = self.backdrop.at(time_s)
        far_first = self._far_first(time_s)
        for dressed, place_m in far_first:
            _shade_floor(canvas, self.camera, dressed, place_m)
        for dressed, place_m in far_first:
            sprite = _sprite(self.camera, dressed, place_m, time_s, whole=False)
            if sprite is not None:
                rows, columns = sprite.cover.shape
                under = canvas[
                    :, sprite.top : sprite.top + rows, sprite.left : sprite.left + columns
                ]
                under *= 1 - sprite.cover
                under += sprite.layers[:3]
        canvas *= np.float32(self.backdrop.light_at(time_s))
        # Another part of the noise for every frame, the same for the same time.
        place = np.random.default_rng([self._seed, round(time_s * 1e6) % 2**32])
        top, left = place.integers(_SPARE_PX, size=2)
        canvas += self._noise[:, top : top + canvas.shape[1], left : left + canvas.shape[2]]
        np.clip(canvas, 0, 255, out=canvas)
        return np.ascontiguousarray(canvas.astype(np.uint8).transpose(1, 2, 0))

    def visible_shares(self, time_s: float) -> Floats:
        """Share of each object that is within the frame and not behind another, (n_objects,)."""
        camera = self.camera
        hidden = np.zeros((camera.height_px, camera.width_px), np.float32)
        shares = np.zeros(len(self._dressed))
        for dressed, place_m in reversed(self._far_first(time_s)):
            sprite = _sprite(camera, dressed, place_m, time_s, whole=True)
            if sprite is None:
                continue
            cover = sprite.cover
            rows = slice(max(-sprite.top, 0), max(camera.height_px - sprite.top, 0))
            columns = slice(max(-sprite.left, 0), max(camera.width_px - sprite.left, 0))
            inside = cover[rows, columns]
            top, left = max(sprite.top, 0), max(sprite.left, 0)
            before = hidden[top : top + inside.shape[0], left : left + inside.shape[1]]
            seen = float((inside * (1 - before)).sum(dtype=np.float64))
            shares[self._dressed.index(dressed)] = seen / max(
                float(cover.sum(dtype=np.float64)), 1e-9
            )
            before += (1 - before) * inside
        return shares

    def _far_first(self, time_s: float) -> list[tuple[_Dressed, Floats]]:
        placed = [(dressed, dressed.seen.place.at(time_s)) for dressed in self._dressed]
        placed = [(dressed, place_m) for dressed, place_m in placed if place_m[2] >= NEAREST_M]
        return sorted(placed, key=lambda pair: -float(pair[1][2]))


def covered_share(
    camera: Camera, target: SeenObject, cover: SeenObject, time_s: float = 0.0
) -> float:
    """Share of one object that another, before it, covers; the frame may end where it likes."""
    sprites = []
    for seen in (target, cover):
        place_m = seen.place.at(time_s)
        if place_m[2] < NEAREST_M:
            raise UsageError(
                f"object {seen.look}: {place_m[2]:.2f} m away; expected at least {NEAREST_M:g} m"
            )
        sprites.append(_sprite(camera, _Dressed.of(seen), place_m, time_s, whole=True))
    behind, before = sprites
    if behind is None or before is None:
        return 0.0
    cover_of = np.zeros(behind.cover.shape, np.float32)
    down, across = before.top - behind.top, before.left - behind.left
    rows, columns = before.cover.shape
    target_part = cover_of[
        max(down, 0) : max(down + rows, 0), max(across, 0) : max(across + columns, 0)
    ]
    height, width = target_part.shape
    first_row, first_column = max(-down, 0), max(-across, 0)
    target_part[...] = before.cover[
        first_row : first_row + height, first_column : first_column + width
    ]
    own = behind.cover
    return float((own * cover_of).sum(dtype=np.float64) / max(own.sum(dtype=np.float64), 1e-9))


def _sprite(
    camera: Camera, dressed: _Dressed, place_m: Floats, time_s: float, *, whole: bool
) -> _Sprite | None:
    """An object at one moment; all of it, or the part within the frame."""
    column, row = camera.project(place_m)
    px = camera.focal_px * dressed.seen.height_m / float(place_m[2])
    wide, high = (math.ceil(reach * px) + 1 for reach in dressed.look.reach)
    left, right = math.floor(column - wide), math.ceil(column + wide)
    top, bottom = math.floor(row - high), math.ceil(row + high)
    if not whole:
        left, right = max(left, 0), min(right, camera.width_px)
        top, bottom = max(top, 0), min(bottom, camera.height_px)
    if left >= right or top >= bottom:
        return None
    x = ((np.arange(left, right) + 0.5 - column) / px).astype(np.float32)
    y = ((row - np.arange(top, bottom) - 0.5) / px).astype(np.float32)
    layers = draw(dressed.look, dressed.pose_at(time_s), x, y, px)
    return _Sprite(layers, top, left)


def _shade_floor(canvas: FloatArray, camera: Camera, dressed: _Dressed, place_m: Floats) -> None:
    """Darken the floor below an object, softly and the less the higher it is."""
    x_m, y_m, depth_m = (float(value) for value in place_m)
    clear_m = max(y_m - dressed.seen.height_m / 2 + CAMERA_HEIGHT_M, 0.0)
    column, row = camera.project((x_m, -CAMERA_HEIGHT_M, depth_m))
    half_m = 0.75 * dressed.look.reach[0] * dressed.seen.height_m
    wide = camera.focal_px * half_m / depth_m
    high = max(camera.focal_px * CAMERA_HEIGHT_M / depth_m**2 * 0.5 * half_m, 1.5)
    left, right = (
        max(math.floor(column - 2 * wide), 0),
        min(math.ceil(column + 2 * wide), camera.width_px),
    )
    top, bottom = (
        max(math.floor(row - 2 * high), 0),
        min(math.ceil(row + 2 * high), camera.height_px),
    )
    if left >= right or top >= bottom:
        return
    x = (np.arange(left, right, dtype=np.float32) + 0.5 - np.float32(column)) / np.float32(wide)
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - np.float32(row)) / np.float32(high)
    depth = _SHADOW * math.exp(-clear_m / _SHADOW_FADES_M)
    shade = 1 - depth * np.outer(np.exp(-(y**2)), np.exp(-(x**4)))
    canvas[:, top:bottom, left:right] *= shade
