"""A pinhole camera at the world's origin, looking along z."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from soundpost.calibration.trajectory import Floats
from soundpost.device.errors import UsageError


@dataclass(frozen=True)
class Camera:
    """A camera without distortion, whose pixels are square.

    width_px, height_px : size of a frame
    half_width_deg : from the middle of the frame to its left or right edge
    """

    width_px: int = 640
    height_px: int = 480
    half_width_deg: float = 45.0

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) < 16:
            raise UsageError(
                f"camera: {self.width_px} x {self.height_px} pixels; expected at least 16 x 16"
            )
        if not 1 <= self.half_width_deg <= 80:
            raise UsageError(f"camera: half_width_deg is {self.half_width_deg:g}; expected 1 to 80")

    @property
    def focal_px(self) -> float:
        """Pixels of what is 1 m wide at 1 m."""
        return self.width_px / 2 / math.tan(math.radians(self.half_width_deg))

    @property
    def half_height_deg(self) -> float:
        """From the middle of the frame to its upper or lower edge."""
        return math.degrees(math.atan(self.height_px / 2 / self.focal_px))

    def project(self, points_m: ArrayLike) -> Floats:
        """Where points (..., 3) are seen: (..., 2), column and row in pixels from the upper left.

        Pixel n covers n to n + 1 and its middle is n + 0.5; the middle of the frame is at
        (width_px / 2, height_px / 2). Points that are not in front of the camera give NaN.
        """
        points = np.asarray(points_m, np.float64)
        depth_m = points[..., 2]
        scale = self.focal_px / np.where(depth_m > 0, depth_m, np.nan)
        column = self.width_px / 2 + points[..., 0] * scale
        row = self.height_px / 2 - points[..., 1] * scale
        return np.stack([column, row], axis=-1)
