"""An energy map laid over the picture of a camera, so that one sees what is loud.

Where calibration has found out which pixel shows which direction, that is used. Without it the
picture is taken for that of a pinhole camera whose edges are those of the acoustic image.

The picture loses most of its colour, so that the map's colours are the only ones; the map fades out
towards the lower end of its range. A bar at the right says what the colours mean, a cross where it
is loudest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.camera_map import camera_rays
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.colours import colour_table
from soundpost.device.array.geometry import Floats, ImageGrid
from soundpost.device.array.pixel_text import put_text
from soundpost.device.errors import UsageError

Picture = NDArray[np.uint8]

_BAR_WIDTH, _BAR_MARGIN = 10, 8
_BAR_LABELS = 4
_BACKGROUND = 24


@dataclass(frozen=True)
class OverlayStyle:
    """How a map is drawn.

    colours : name of a table of colours.py
    range_db : from the top to where the map is no longer seen
    top_db : level of the top, 10 lg of the energy; None: the loudest of what is drawn together
    opacity : of the map at its top
    saturation : of the camera's colours below it, 0 grey to 1
    smoothing_s : time constant with which maps of a video follow the sound, 0 for none
    legend : bar and cross

    Raises UsageError where a value cannot be.
    """

    colours: str = "inferno"
    range_db: float = 12.0
    top_db: float | None = None
    opacity: float = 0.75
    saturation: float = 0.25
    smoothing_s: float = 0.15
    legend: bool = True

    def __post_init__(self) -> None:
        colour_table(self.colours)
        if not 0.1 <= self.range_db <= 120:
            raise UsageError(f"range {self.range_db:g} dB; expected 0.1 to 120")
        if self.top_db is not None and not math.isfinite(self.top_db):
            raise UsageError(f"top {self.top_db:g} dB; expected a finite number")
        for name in ("opacity", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name):g}; expected 0 to 1")
        if not 0 <= self.smoothing_s <= 60:
            raise UsageError(f"smoothing {self.smoothing_s:g} s; expected 0 to 60")


def level_db(energy: FloatArray) -> FloatArray:
    """10 lg of energies of any shape; -inf for silence, and for what is below it or no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        level: FloatArray = (10 * np.log10(np.maximum(energy, 0))).astype(np.float32)
    return np.where(np.isnan(level), np.float32(-np.inf), level)


class MapOverlay:
    """Draws maps of one grid on pictures of one size.

    Parameters
    ----------
    grid : of the maps
    width_px, height_px : of the pictures
    camera : of the calibration
    style : OverlayStyle

    Raises UsageError where the camera was calibrated with pictures of another shape.
    """

    def __init__(
        self,
        grid: ImageGrid,
        width_px: int,
        height_px: int,
        camera: CameraSection | None = None,
        style: OverlayStyle | None = None,
    ) -> None:
        self.style = style if style is not None else OverlayStyle()
        self._grid = grid
        self._shape = (height_px, width_px)
        self._table = colour_table(self.style.colours).astype(np.float32)
        rays = pixel_directions(grid, width_px, height_px, camera)
        row, column, self._inside = _places(grid, rays)
        self._corners, self._shares = _between(row, column, grid.rows, grid.columns)

    def blank(self) -> Picture:
        """A dark picture, for want of a camera's."""
        return np.full((*self._shape, 3), _BACKGROUND, np.uint8)

    def draw(self, energy: FloatArray, picture: Picture, top_db: float | None = None) -> Picture:
        """A copy of a picture with a map over it.

        energy : (rows, columns); NaN where there is none
        picture : (height_px, width_px, 3) uint8 RGB
        top_db : level of the top where the style has none; by default that of this map

        Raises UsageError for arrays of another size.
        """
        if energy.shape != (self._grid.rows, self._grid.columns) or picture.shape != (
            *self._shape,
            3,
        ):
            raise UsageError(
                f"map {energy.shape} on picture {picture.shape}; expected "
                f"({self._grid.rows}, {self._grid.columns}) and {(*self._shape, 3)}"
            )
        style = self.style
        level = level_db(energy)
        if style.top_db is not None:
            top_db = style.top_db
        elif top_db is None:
            top_db = float(level.max())
        drawn = _dulled(picture, style.saturation)
        if math.isfinite(top_db):
            above = np.clip((level - np.float32(top_db)) / style.range_db + 1, 0, 1).astype("f4")
            self._blend(drawn, above)
        out = np.round(drawn).astype(np.uint8)
        if style.legend:
            self._mark(out, level, top_db)
        return out

    def _blend(self, drawn: FloatArray, above: FloatArray) -> None:
        """above : (rows, columns) from 0, the lower end of the range, to 1"""
        flat = above.ravel()
        share = np.zeros(self._inside.sum(), np.float32)
        for corner, weight in zip(self._corners, self._shares, strict=True):
            share += flat[corner[self._inside]] * weight[self._inside]
        colour = self._table[np.round(share * 255).astype(np.intp)]
        alpha = (self.style.opacity * np.sqrt(share))[:, None]
        drawn[self._inside] += alpha * (colour - drawn[self._inside])

    def _mark(self, picture: Picture, level: FloatArray, top_db: float) -> None:
        height, width = self._shape
        style = self.style
        if level.max() > top_db - style.range_db and math.isfinite(top_db):
            self._cross(picture, int(level.argmax()))
        length = height - 2 * _BAR_MARGIN
        left = width - _BAR_MARGIN - _BAR_WIDTH
        if length < 40 or left < 60:
            return
        shades = np.linspace(255, 0, length).round().astype(np.intp)
        bar = slice(_BAR_MARGIN, _BAR_MARGIN + length)
        picture[bar, left : left + _BAR_WIDTH] = self._table[shades][:, None]
        for part in range(_BAR_LABELS + 1):
            value = 0.0 - style.range_db * part / _BAR_LABELS
            text = f"{value:.3g}" + (" dB" if part == 0 else "")
            middle = _BAR_MARGIN + round(part / _BAR_LABELS * (length - 7))
            put_text(picture, text, middle, left - 4 - 6 * len(text))

    def _cross(self, picture: Picture, pixel: int) -> None:
        # The picture's pixel that lies nearest to the middle of the map's
        row, column = divmod(pixel, self._grid.columns)
        nearest = self._corners[0] == row * self._grid.columns + column
        for corner in self._corners[1:]:
            nearest |= corner == pixel
        places = np.argwhere(nearest & self._inside)
        if not len(places):
            return
        y, x = (int(value) for value in np.median(places, axis=0))
        for reach, colour in ((7, 0), (6, 255)):
            thick = 1 if colour == 0 else 0
            picture[max(y - thick, 0) : y + thick + 1, max(x - reach, 0) : x + reach + 1] = colour
            picture[max(y - reach, 0) : y + reach + 1, max(x - thick, 0) : x + thick + 1] = colour


def pixel_directions(
    grid: ImageGrid, width_px: int, height_px: int, camera: CameraSection | None
) -> Floats:
    """What the pixels of a picture show: (height_px, width_px, 3), with z = 1.

    Raises UsageError where the camera was calibrated with pictures of another shape.
    """
    columns, rows = np.arange(width_px) + 0.0, np.arange(height_px) + 0.0
    if camera is None:
        half_width, half_height = (
            math.tan(math.radians(angle)) for angle in (grid.half_width_deg, grid.half_height_deg)
        )
        a = ((columns + 0.5) / width_px * 2 - 1) * half_width
        b = (1 - (rows + 0.5) / height_px * 2) * half_height
        a, b = np.meshgrid(a, b)
        return np.stack([a, b, np.ones_like(a)], axis=2)
    if width_px * camera.height_px != height_px * camera.width_px:
        raise UsageError(
            f"camera calibrated with {camera.width_px} x {camera.height_px} pixels, picture of "
            f"{width_px} x {height_px}; expected the same shape: calibrate the camera again"
        )
    scale = camera.width_px / width_px
    x, y = np.meshgrid((columns + 0.5) * scale - 0.5, (rows + 0.5) * scale - 0.5)
    return camera_rays(camera, np.stack([x, y], axis=2))


def _places(grid: ImageGrid, rays: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Row and column of the map that each ray meets, to parts of one, and whether it does."""
    if grid.surface == "sphere":
        scale = np.linalg.norm(rays, axis=2)
        function = math.sin
    else:
        scale = rays[..., 2]
        function = math.tan
    half_width = function(math.radians(grid.half_width_deg))
    half_height = function(math.radians(grid.half_height_deg))
    column = (rays[..., 0] / scale / half_width + 1) / 2 * grid.columns - 0.5
    row = (1 - rays[..., 1] / scale / half_height) / 2 * grid.rows - 0.5
    inside = (np.abs(column - (grid.columns - 1) / 2) <= grid.columns / 2) & (
        np.abs(row - (grid.rows - 1) / 2) <= grid.rows / 2
    )
    return row, column, inside


def _between(
    row: Floats, column: Floats, rows: int, columns: int
) -> tuple[list[NDArray[np.intp]], list[FloatArray]]:
    """Numbers of the four pixels of a map around each place, and their shares; the nearest first"""
    parts = []
    for place, count in ((row, rows), (column, columns)):
        place = np.clip(np.nan_to_num(place), 0, count - 1)
        near = np.round(place).astype(np.intp)
        other = np.clip(np.where(place >= near, near + 1, near - 1), 0, count - 1)
        parts.append(((near, 1 - np.abs(place - near)), (other, np.abs(place - near))))
    corners, shares = [], []
    for r, of_row in parts[0]:
        for c, of_column in parts[1]:
            corners.append(r * columns + c)
            shares.append((of_row * of_column).astype(np.float32))
    return corners, shares


def _dulled(picture: Picture, saturation: float) -> FloatArray:
    colours: FloatArray = picture.astype(np.float32)
    # ITU-R BT.601 luma
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    drawn: FloatArray = grey[..., None] + np.float32(saturation) * (colours - grey[..., None])
    return drawn
