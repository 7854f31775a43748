"""The sections of calibration.json about a camera: its map, and its clock beside the sound's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.geometry import Floats
from soundpost.device.array.section_fields import check_within, take_rows, wrong_value
from soundpost.device.records import Fields

# Beyond these a number is no camera's, but a mistake of sign or unit.
_LATEST_VIDEO_S = 60.0
_WIDEST_PX = 65_536


@dataclass(frozen=True, eq=False)
class CameraSection:
    """From directions to pixels of the video: a pinhole camera with one term for its lens.

    A direction (x, y, z) is first made a point of the plane z = 1, a = x/z and b = y/z, then moved
    by the lens, (a, b) (1 + radial (a² + b²)), and then mapped: matrix @ (a, b, 1) is the pixel's
    (column, row, 1) but for a factor.

    matrix : (3, 3), its last element 1
    width_px, height_px : of the video; pixel (0, 0) is the middle of the top left one
    """

    evidence: Evidence
    matrix: Floats
    radial: float
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[2, 2] != 1:
            raise wrong_value(
                "matrix", "3 rows of 3 finite numbers, the last of them 1", matrix.tolist()
            )
        if abs(np.linalg.det(matrix[:2, :2])) < 1e-9 * np.square(matrix[:2, :2]).sum():
            raise wrong_value(
                "matrix", "one that maps directions onto an area, not a line", matrix.tolist()
            )
        check_within(self.radial, -2.0, 2.0, "radial")
        check_within(self.width_px, 1, _WIDEST_PX, "width_px")
        check_within(self.height_px, 1, _WIDEST_PX, "height_px")
        matrix += 0.0
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CameraSection):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.matrix.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return self.evidence.to_dict(
            {
                "matrix": self.matrix.tolist(),
                "radial": self.radial,
                "width_px": self.width_px,
                "height_px": self.height_px,
            }
        )

    @classmethod
    def take(cls, fields: Fields) -> CameraSection:
        """From the parsed section; raises InputError."""
        matrix, radial = take_rows(fields, "matrix", 3), fields.number("radial")
        size = fields.integer("width_px"), fields.integer("height_px")
        return cls(Evidence.take(fields), matrix, radial, *size)


@dataclass(frozen=True)
class SyncSection:
    """Between the audio's and the video's clock.

    audio_late_s : how much later the click stands in the audio than its flash in the video; taken
        away from times of the audio, it gives times of the video
    uncertainty_s : standard uncertainty of that
    """

    evidence: Evidence
    audio_late_s: float
    uncertainty_s: float

    def __post_init__(self) -> None:
        check_within(self.audio_late_s, -_LATEST_VIDEO_S, _LATEST_VIDEO_S, "audio_late_s")
        check_within(self.uncertainty_s, 0.0, _LATEST_VIDEO_S, "uncertainty_s")

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return self.evidence.to_dict(
            {"audio_late_s": self.audio_late_s, "uncertainty_s": self.uncertainty_s}
        )

    @classmethod
    def take(cls, fields: Fields) -> SyncSection:
        """From the parsed section; raises InputError."""
        values = fields.number("audio_late_s"), fields.number("uncertainty_s")
        return cls(Evidence.take(fields), *values)
