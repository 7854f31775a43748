"""Backgrounds indoors: an anechoic studio, a living room."""

from __future__ import annotations

import numpy as np

from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.painting import (
    CAMERA_HEIGHT_M,
    cloudiness,
    draw_floor,
    fill_box,
    pick_colour,
    pixels,
    vignette,
)
from soundpost.device.audio import FloatArray

# Distance of the wall, height of the ceiling over the camera.
_WALL_M = (4.0, 7.0)
_CEILING_M = 1.4


def draw_studio(camera: Camera, rng: np.random.Generator) -> FloatArray:
    """An anechoic room: wedges of foam, a grid to walk on."""
    rows, columns = pixels(camera)
    wall_m = rng.uniform(*_WALL_M)
    colour = pick_colour(rng, (58, 60, 66), (126, 122, 112))
    cell = camera.focal_px * 0.5 / wall_m
    u, v = columns / cell + rng.random(), rows / cell + rng.random()
    # Wedges stand upright in one square and lie in the next.
    upright = (np.floor(u) + np.floor(v)) % 2 == 0
    along = np.where(upright, u, v) * 3
    ridge = np.abs((along % 1) - 0.5) * 2
    slope = np.where((along % 1) < 0.5, 1.0, 0.82)
    tone = (0.5 + 0.5 * ridge) * slope
    inside = np.minimum(np.minimum(u % 1, 1 - u % 1), np.minimum(v % 1, 1 - v % 1)) * cell
    tone *= 0.6 + 0.4 * np.clip(inside / 2.5, 0, 1)
    picture: FloatArray = tone[..., None] * colour
    floor, where = draw_floor(camera, wall_m, colour * 0.75, "tiles", rng)
    picture += where * (floor - picture)
    # Above the frame, at some place across it.
    side, above = columns / camera.width_px - rng.uniform(-0.3, 0.3), rows / camera.width_px + 0.3
    lamp = np.exp(-(side**2 + above**2) / 0.73)
    picture *= (0.8 + 0.5 * lamp[..., None]) * vignette(camera)
    return picture.astype(np.float32)


def draw_room(camera: Camera, rng: np.random.Generator) -> FloatArray:
    """A living room: wallpaper, a window, pictures, shelves."""
    rows, columns = pixels(camera)
    wall_m = rng.uniform(*_WALL_M)
    px_m = camera.focal_px / wall_m
    floor_row = camera.height_px / 2 + px_m * CAMERA_HEIGHT_M
    wall = pick_colour(rng, (150, 140, 120), (226, 220, 206))
    tone = 1 + 0.04 * cloudiness((camera.height_px, camera.width_px), 240, rng)
    pattern = rng.integers(3)
    stripe_px = px_m * rng.uniform(0.15, 0.4)
    if pattern == 1:
        tone = tone * (1 + 0.04 * np.clip(4 * np.sin(2 * np.pi * columns / stripe_px), -1, 1))
    elif pattern == 2:
        dots = np.sin(2 * np.pi * columns / stripe_px) * np.sin(2 * np.pi * rows / stripe_px)
        tone = tone * (1 - 0.08 * np.clip(6 * (dots - 0.6), 0, 1))
    picture: FloatArray = (tone[..., None] * wall).astype(np.float32)
    middle = camera.width_px / 2
    # From left to right, one thing in each slot of the wall.
    slots = rng.permutation(4)
    for slot, thing in zip(slots, ("window", "shelf", "pictures", "pictures"), strict=True):
        centre = middle + (slot - 1.5) * 0.26 * camera.width_px
        centre += 0.025 * camera.width_px * rng.uniform(-1, 1)
        if thing == "window":
            _window(picture, centre, floor_row, px_m, rng)
        elif thing == "shelf":
            _shelf(picture, centre, floor_row, px_m, rng)
        else:
            _pictures(picture, centre, floor_row, px_m, rng)
    skirting = wall * 0.55
    fill_box(picture, 0, floor_row - 0.1 * px_m, camera.width_px, floor_row + 1, skirting)
    seam = str(rng.choice(["planks", "tiles", "carpet"]))
    wood = pick_colour(rng, (92, 62, 40), (178, 140, 104))
    floor, where = draw_floor(camera, wall_m, wood, seam, rng)
    picture += where * (floor - picture)
    _ceiling(picture, camera, wall_m, rng)
    side = rng.choice([-1.0, 1.0])
    light = 1 + 0.16 * side * columns / camera.width_px
    picture *= light[..., None] * vignette(camera)
    return picture


def _ceiling(picture: FloatArray, camera: Camera, wall_m: float, rng: np.random.Generator) -> None:
    rows, columns = pixels(camera)
    edge = -camera.focal_px * _CEILING_M / wall_m
    depth_m = camera.focal_px * _CEILING_M / np.maximum(-rows, -edge)
    x_m = columns * depth_m / camera.focal_px
    lamp = np.exp(-(((x_m - rng.uniform(-1, 1)) ** 2 + (depth_m - rng.uniform(2, 4)) ** 2) / 1.4))
    tone = (0.74 + 0.04 * depth_m / wall_m + 0.3 * lamp)[..., None]
    where = np.clip(edge - rows + 0.5, 0, 1)[..., None]
    picture += where * (tone * pick_colour(rng, (214, 208, 196), (240, 238, 232)) - picture)
    moulding = np.clip(3 - np.abs(rows - edge), 0, 1)[..., None]
    picture *= 1 - 0.25 * moulding


def _window(
    picture: FloatArray, centre: float, floor_row: float, px_m: float, rng: np.random.Generator
) -> None:
    half, low, high = 0.55 * px_m, 0.9 * px_m, 2.1 * px_m
    frame = pick_colour(rng, (190, 186, 176), (245, 243, 236))
    fill_box(
        picture,
        centre - half - 0.07 * px_m,
        floor_row - high - 0.07 * px_m,
        centre + half + 0.07 * px_m,
        floor_row - low + 0.07 * px_m,
        frame,
    )
    sky, ground = (
        pick_colour(rng, (150, 185, 215), (214, 230, 240)),
        pick_colour(rng, (90, 120, 70), (150, 160, 110)),
    )
    bands = 24
    step = (high - low) / bands
    for band in range(bands):
        share = band / bands
        colour = sky * (1 - 0.25 * share) if share < 0.68 else ground * (1.2 - 0.3 * share)
        top = floor_row - high + band * step
        fill_box(picture, centre - half, top, centre + half, top + step + 0.5, colour)
    fill_box(picture, centre - 2, floor_row - high, centre + 2, floor_row - low, frame)
    middle = floor_row - (low + high) / 2
    fill_box(picture, centre - half, middle - 2, centre + half, middle + 2, frame * 0.95)


def _shelf(
    picture: FloatArray, centre: float, floor_row: float, px_m: float, rng: np.random.Generator
) -> None:
    half = 0.5 * px_m
    wood = pick_colour(rng, (86, 58, 36), (190, 160, 120))
    top = floor_row - 1.9 * px_m
    fill_box(picture, centre - half, top, centre + half, floor_row, wood * 0.45)
    boards = 5
    step = (floor_row - top) / boards
    for board in range(boards + 1):
        y = top + board * step
        if board:
            x = centre - half + 0.03 * px_m
            while x < centre + half - 0.06 * px_m:
                width = rng.uniform(0.03, 0.09) * px_m
                high = rng.uniform(0.5, 0.85) * step
                if rng.random() < 0.85:
                    spine = pick_colour(rng, (40, 36, 44), (210, 190, 170))
                    hue = rng.integers(3)
                    spine[hue] = min(spine[hue] * 1.35, 250)
                    fill_box(
                        picture, x, y - high, min(x + width, centre + half - 0.03 * px_m), y, spine
                    )
                x += width + 1
        fill_box(picture, centre - half, y - 0.02 * px_m, centre + half, y + 0.02 * px_m, wood)
    for x in (centre - half, centre + half):
        fill_box(picture, x - 0.025 * px_m, top, x + 0.025 * px_m, floor_row, wood)


def _pictures(
    picture: FloatArray, centre: float, floor_row: float, px_m: float, rng: np.random.Generator
) -> None:
    for _ in range(int(rng.integers(1, 4))):
        half_x, half_y = rng.uniform(0.12, 0.34, 2) * px_m
        x = centre + rng.uniform(-0.3, 0.3) * px_m
        y = floor_row - rng.uniform(1.2, 1.9) * px_m
        frame = pick_colour(rng, (40, 32, 26), (210, 186, 130))
        border = 0.04 * px_m
        fill_box(
            picture,
            x - half_x - border,
            y - half_y - border,
            x + half_x + border,
            y + half_y + border,
            frame,
        )
        rows, columns = max(int(2 * half_y), 2), max(int(2 * half_x), 2)
        paint = cloudiness((rows, columns), max(rows / 3, 4), rng)
        a, b = (
            pick_colour(rng, (30, 50, 70), (220, 200, 170)),
            pick_colour(rng, (60, 30, 30), (240, 230, 120)),
        )
        share = np.clip(0.5 + 0.5 * paint, 0, 1)[..., None]
        top, left = int(y - half_y), int(x - half_x)
        r0, c0 = max(top, 0), max(left, 0)
        target = picture[r0 : top + rows, c0 : left + columns]
        if target.size:
            part = (a + share * (b - a))[r0 - top :, c0 - left :]
            target[...] = part[: target.shape[0], : target.shape[1]]
