"""The background outdoors: sky and clouds, hills, trees, grass and a path."""

from __future__ import annotations

import numpy as np

from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.painting import (
    cloudiness,
    fill_box,
    pick_colour,
    pixels,
    vignette,
)
from soundpost.device.audio import FloatArray

# Sizes in pixels are of a frame so high, and grow with it.
_HEIGHT_PX = 480


def draw_garden(camera: Camera, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Sky, hills, trees, grass; and where the sky is, (height, width)."""
    height, width = camera.height_px, camera.width_px
    rows, _ = pixels(camera)
    unit = height / _HEIGHT_PX
    high, low = (
        pick_colour(rng, (70, 120, 180), (130, 170, 215)),
        pick_colour(rng, (186, 206, 220), (236, 232, 222)),
    )
    share = np.clip((rows + height / 2) / (height / 2), 0, 1)[..., None]
    picture = np.broadcast_to(high + share * (low - high), (height, width, 3)).astype(np.float32)
    blue = picture.copy()
    rows = rows + height / 2
    for depth in range(3):
        middle = height / 2 - unit * rng.uniform(8, 60) / (depth + 1)
        ridge = middle - 14 * unit * cloudiness((1, width), width / (3 + depth), rng)
        colour = pick_colour(rng, (86, 118, 96), (140, 160, 140))
        hill = colour * (1 - 0.16 * depth) + 18 * (2 - depth)
        cover = np.clip(rows - ridge + 0.5, 0, 1)[..., None]
        texture = 1 + 0.05 * cloudiness((height, width), 24 * unit, rng)[..., None]
        picture += cover * (hill * texture - picture)
    horizon = height / 2 + unit * rng.uniform(4, 18)
    _trees(picture, horizon, rng)
    sky = 1 - np.clip(np.abs(picture - blue).sum(axis=2) / 24, 0, 1)
    grass = pick_colour(rng, (74, 104, 46), (134, 150, 78))
    near = np.clip((rows - horizon) / (height - horizon), 0, 1)
    fine = cloudiness((height, width), 7 * unit, rng) * np.clip(near * 3, 0, 1)
    patches = cloudiness((height, width), 120 * unit, rng)
    blades = (0.92 + 0.16 * near) * (1 + 0.11 * fine + 0.06 * patches)
    cover = np.clip(rows - horizon + 0.5, 0, 1)[..., None]
    picture += cover * (blades[..., None] * grass - picture)
    _path(picture, horizon, rng)
    return (picture * vignette(camera)).astype(np.float32), sky


def _trees(picture: FloatArray, horizon: float, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    unit = height / _HEIGHT_PX
    rows = np.arange(height, dtype=np.float32)[:, None] + 0.5
    columns = np.arange(width, dtype=np.float32)[None] + 0.5
    for _ in range(int(rng.integers(4, 11))):
        x, size = rng.uniform(-0.05, 1.05) * width, unit * rng.uniform(22, 95)
        leaf = pick_colour(rng, (38, 66, 34), (98, 118, 58))
        trunk = pick_colour(rng, (60, 46, 34), (92, 76, 58))
        foot = horizon + 0.06 * size
        fill_box(picture, x - 0.06 * size, foot - 0.7 * size, x + 0.06 * size, foot, trunk)
        for _ in range(int(rng.integers(5, 10))):
            at_x, at_y = (
                x + 0.35 * size * rng.standard_normal(),
                foot - size * rng.uniform(0.6, 1.5),
            )
            r = size * rng.uniform(0.22, 0.42)
            r0, r1 = (int(np.clip(edge, 0, height)) for edge in (at_y - r - 2, at_y + r + 2))
            c0, c1 = (int(np.clip(edge, 0, width)) for edge in (at_x - r - 2, at_x + r + 2))
            if r0 >= r1 or c0 >= c1:
                continue
            dy, dx = rows[r0:r1] - at_y, columns[:, c0:c1] - at_x
            rim = r * (1 + 0.045 * np.sin(9 * np.arctan2(dy, dx) + at_x))
            cover = np.clip(rim - np.hypot(dx, dy), 0, 1)[..., None]
            light = 0.86 - 0.3 * (dy + 0.5 * dx) / r
            target = picture[r0:r1, c0:c1]
            target += cover * (light[..., None] * leaf - target)


def _path(picture: FloatArray, horizon: float, rng: np.random.Generator) -> None:
    """A path of gravel, from the horizon to the camera's feet."""
    height, width = picture.shape[:2]
    unit = height / _HEIGHT_PX
    rows = np.arange(height, dtype=np.float32)[:, None] + 0.5
    columns = np.arange(width, dtype=np.float32)[None] + 0.5
    near = np.clip((rows - horizon) / (height - horizon), 0, 1)
    begin, end = rng.uniform(0.1, 0.9, 2) * width
    bend = 0.1 * width * np.sin(3 * near + rng.uniform(0, 6)) * near * (1 - near)
    middle = begin + (end - begin) * near + bend
    half = unit * (3 + 75 * near * rng.uniform(0.5, 1.2))
    gravel = pick_colour(rng, (120, 108, 90), (180, 172, 156))
    grain = 1 + 0.06 * cloudiness((height, width), 5 * unit, rng) * np.clip(near * 3, 0, 1)
    cover = np.clip(half - np.abs(columns - middle), 0, 1) * (rows > horizon)
    picture += cover[..., None] * (grain[..., None] * gravel - picture)


def draw_clouds(camera: Camera, rng: np.random.Generator) -> FloatArray:
    """Coverage of the sky above the hills, joined at its ends."""
    rows, width = int(0.36 * camera.height_px), int(1.5 * camera.width_px)
    overlap = camera.width_px // 4
    field = cloudiness((rows, width + overlap), 110 * camera.height_px / _HEIGHT_PX, rng)
    fade = np.linspace(0, 1, overlap, dtype=np.float32)
    field[:, :overlap] = fade * field[:, :overlap] + (1 - fade) * field[:, width:]
    density = rng.uniform(-0.6, 0.6)
    down = np.linspace(1, 0, rows, dtype=np.float32)[:, None]
    clouds: FloatArray = (
        0.9 * np.clip(0.8 * (field[:, :width] + density), 0, 1) * np.minimum(1, 2.2 * down)
    )
    return clouds.astype(np.float32)
