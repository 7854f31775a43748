"""What backgrounds are painted with; pictures here are (height, width, 3) float32, 0 to 255."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from soundpost.calibration.pictures.camera import Camera
from soundpost.device.audio import FloatArray

Colour = tuple[int, int, int]

# Of the camera over the floor.
CAMERA_HEIGHT_M = 1.2


def pixels(camera: Camera) -> tuple[FloatArray, FloatArray]:
    """Middles of the pixels from the frame's: rows (height, 1) and columns (1, width)."""
    rows = np.arange(camera.height_px, dtype=np.float32) + 0.5 - camera.height_px / 2
    columns = np.arange(camera.width_px, dtype=np.float32) + 0.5 - camera.width_px / 2
    return rows[:, None], columns[None]


def pick_colour(rng: np.random.Generator, low: Colour, high: Colour) -> FloatArray:
    """A colour, (3,), between two; mostly of their own hues."""
    share = 0.75 * rng.random() + 0.25 * rng.random(3)
    mixed: FloatArray = (np.array(low) + share * (np.array(high) - np.array(low))).astype(
        np.float32
    )
    return mixed


def cloudiness(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise of several sizes, the largest of so many pixels; mean 0, deviation about 1."""
    total: FloatArray = np.zeros(shape, np.float32)
    weight, cell = 1.0, max(cell, 1.0)
    while True:
        grid = [max(math.ceil(n / cell) + 3, 4) for n in shape]
        values = rng.standard_normal(grid).astype(np.float32)
        zoom = [(n + 2 * cell) / g for n, g in zip(shape, grid, strict=True)]
        fine = ndimage.zoom(values, zoom, order=1)[: shape[0], : shape[1]]
        total += weight * fine
        weight *= 0.55
        cell /= 2
        if cell < 2:
            break
    total -= total.mean()
    total /= max(float(total.std()), 1e-6)
    return total


def draw_floor(
    camera: Camera, wall_m: float, colour: FloatArray, seam: str, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Floor up to a wall: its colours (height, width, 3), and where it is (height, 1), 0 to 1."""
    rows, columns = pixels(camera)
    edge = camera.focal_px * CAMERA_HEIGHT_M / wall_m
    depth_m = camera.focal_px * CAMERA_HEIGHT_M / np.maximum(rows, edge)
    x_m = columns * depth_m / camera.focal_px
    # Seams get lost where they are closer than the pixels.
    px_m = camera.focal_px / depth_m
    tone = np.ones((camera.height_px, camera.width_px), np.float32)
    if seam == "planks":
        width_m = 0.22
        plank = np.floor(x_m / width_m)
        tone += 0.09 * np.sin(plank * 12.9 + 4.7 * np.sin(plank * 7.1))
        near = np.abs(x_m / width_m - plank - 0.5)
        tone *= 1 - 0.35 * np.clip((near - 0.46) * width_m * px_m, 0, 1)
    elif seam == "tiles":
        size_m = 0.45
        which = np.floor(x_m / size_m) + np.floor(depth_m / size_m)
        clear = np.clip(size_m * px_m / 6 - 1, 0, 1)
        tone += 0.1 * clear * np.where(which % 2 == 0, 1, -1)
    grain = cloudiness((camera.height_px, camera.width_px), 60, rng)
    tone *= 1 + 0.025 * grain
    tone *= np.clip(1.12 - 0.06 * depth_m, 0.6, 1.1)
    return tone[..., None] * colour, np.clip(rows - edge + 0.5, 0, 1)[..., None]


def fill_box(
    picture: FloatArray, left: float, top: float, right: float, bottom: float, colour: FloatArray
) -> None:
    """Fill a rectangle given in pixels from the upper left, with smooth edges."""
    height, width = picture.shape[:2]
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    down = np.clip(np.minimum(rows - top, bottom - rows) + 0.5, 0, 1)
    across = np.clip(np.minimum(columns - left, right - columns) + 0.5, 0, 1)
    r, c = np.flatnonzero(down), np.flatnonzero(across)
    if not (len(r) and len(c)):
        return
    target = picture[r[0] : r[-1] + 1, c[0] : c[-1] + 1]
    cover = np.outer(down[r], across[c])[..., None]
    target += (cover * (colour - target)).astype(np.float32)


def vignette(camera: Camera) -> FloatArray:
    """What the lens leaves of the light, (height, width, 1)."""
    rows, columns = pixels(camera)
    radius2 = (rows**2 + columns**2) / (camera.width_px / 2) ** 2
    shade: FloatArray = (1 - 0.12 * radius2)[..., None]
    return shade
