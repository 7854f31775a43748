"""Backgrounds: a studio, a living room, a garden; each seed another one.

What is drawn once does not change: wall or sky, floor or grass, what hangs and grows there. Light
changes over a recording, and outdoors clouds drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.garden import draw_clouds, draw_garden
from soundpost.calibration.pictures.interiors import draw_room, draw_studio
from soundpost.device.audio import FloatArray

Place = Literal["studio", "room", "garden"]
PLACES: Final[tuple[Place, ...]] = ("studio", "room", "garden")

# Of the width of the frame, per second.
_CLOUD_SPEED = (0.0025, 0.01)
_CLOUD = np.float32(242)


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A background.

    picture : (3, height, width) float32, 0 to 255
    sky : (height, width) float32, 1 where clouds are seen
    clouds : (rows, columns) float32, how dense they are from the top of the frame on; wider than
        the frame, round which they go; None without any
    cloud_px_s : speed of the clouds
    light : depth of the slow changes of the light, the share that the light steps by when a lamp is
        switched, and when that is (0 to 1 of a minute)
    """

    picture: FloatArray
    sky: FloatArray
    clouds: FloatArray | None
    cloud_px_s: float
    light: tuple[float, float, float]
    phases: FloatArray

    def at(self, time_s: float) -> FloatArray:
        """The background at one moment, (3, height, width), a new array."""
        picture = self.picture.copy()
        if self.clouds is not None:
            shift = int(self.cloud_px_s * time_s) % self.clouds.shape[1]
            seen = np.arange(shift, shift + picture.shape[2])
            cover = np.take(self.clouds, seen, axis=1, mode="wrap")
            cover *= self.sky[: len(cover)]
            above = picture[:, : len(cover)]
            above += cover * (_CLOUD - above)
        return picture

    def light_at(self, time_s: float) -> float:
        """Brightness of everything at one moment, about 1."""
        depth, step, when = self.light
        slow = sum(
            math.sin(2 * math.pi * (time_s / period + float(phase)))
            for period, phase in zip((2.7, 7.3, 19.0), self.phases, strict=True)
        )
        switched = (time_s / 60 % 1) > when
        return float((1 + depth * slow / 3) * (1 - step * switched))


def draw_backdrop(place: Place, camera: Camera, seed: int) -> Backdrop:
    """The background of a place; another seed, another room, wall or garden."""
    rng = np.random.default_rng([seed, PLACES.index(place)])
    sky = np.zeros((camera.height_px, camera.width_px), np.float32)
    clouds = None
    if place == "garden":
        picture, sky = draw_garden(camera, rng)
        clouds = draw_clouds(camera, rng)
    else:
        picture = draw_studio(camera, rng) if place == "studio" else draw_room(camera, rng)
    depth = {"studio": 0.01, "room": 0.05, "garden": 0.16}[place] * rng.uniform(0.5, 1.5)
    step = 0.0 if place == "studio" else float(rng.choice([0.0, 0.12, 0.3]))
    return Backdrop(
        np.ascontiguousarray(np.clip(picture, 0, 255).transpose(2, 0, 1), np.float32),
        sky,
        clouds,
        float(camera.width_px * rng.uniform(*_CLOUD_SPEED)),
        (float(depth), step if place == "room" else 0.0, float(rng.uniform(0.01, 0.9))),
        rng.random(3).astype(np.float32),
    )
