"""Where in the video a direction of the array lies, from a target that buzzes and shines.

The target is held at many places in view. In the acoustic image it is a peak, in the frame a spot
of light; each pair of them is a point of the map, which is that of a pinhole camera with one term
for its lens (device/array/calibration_sections.py), fitted by least squares. Peaks may be wrong
where it echoes: what does not fit is left out by its residual, and named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.camera_map import to_pixels
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.geometry import Floats, ImageGrid
from soundpost.device.errors import InputError

LEAST_PAIRS = 8
# Of the video's width: coarser than an acoustic pixel, and a map is of no use.
_MOST_ERROR = 0.03
_OUTLIER = 4.0
_LEAST_AREA = 0.05
_RADIAL_SPREAD = 0.3
# Light of a spot over the rest of the frame, in steps of 255, and its largest share of the frame.
_LEAST_CONTRAST = 40.0
_MOST_SPOT = 0.02


@dataclass(frozen=True, eq=False)
class CameraFit:
    """A map and how well it fits.

    section : what calibration.json holds
    residuals_px : (n_pairs, 2) spot minus map
    used : (n_pairs,) pairs that agree with the map
    """

    section: CameraSection
    residuals_px: Floats
    used: NDArray[np.bool_]

    @property
    def rms_px(self) -> float:
        """Root mean square distance of the spots from where the map has them."""
        left = self.residuals_px[self.used]
        return float(np.sqrt(np.mean(np.square(left).sum(axis=1))))


def fit_camera(
    directions: Floats, pixels: Floats, size_px: tuple[int, int], evidence: Evidence
) -> CameraFit:
    """The map that takes directions to pixels.

    Parameters
    ----------
    directions : (n_pairs, 3) of any length, z > 0
    pixels : (n_pairs, 2) columns and rows of the light
    size_px : width and height of the video
    evidence : when, how; the residuals are added

    Raises InputError with too few pairs, with pairs that lie on a line or in a corner, and where
    they do not fit a camera.
    """
    if len(directions) < LEAST_PAIRS:
        raise InputError(
            f"{len(directions)} places of the target are both heard and seen; expected at least "
            f"{LEAST_PAIRS}, all over the picture"
        )
    points = directions[:, :2] / directions[:, 2:]
    spans = np.ptp(pixels, axis=0) / np.array(size_px)
    lengths = np.linalg.svd(pixels - pixels.mean(axis=0), compute_uv=False)
    if spans.prod() < _LEAST_AREA or lengths[1] < 0.05 * lengths[0]:
        raise InputError(
            f"the target covers {spans[0]:.0%} of the picture's width and {spans[1]:.0%} of its "
            "height, or one line: move it all over the picture, into the corners too"
        )
    used = np.ones(len(points), bool)
    for _ in range(5):
        matrix, radial = _solve(points[used], pixels[used])
        residuals = pixels - to_pixels(matrix, radial, directions)
        distance = np.linalg.norm(residuals, axis=1)
        typical = 1.48 * float(np.median(distance[used]))
        kept = distance <= max(_OUTLIER * typical, 0.5)
        if kept.sum() < LEAST_PAIRS or np.array_equal(kept, used):
            break
        used = kept
    rms_px = float(np.sqrt(np.mean(np.square(distance[used]))))
    if rms_px > _MOST_ERROR * size_px[0]:
        raise InputError(
            f"no camera fits: {rms_px:.0f} pixels are left of {size_px[0]}, expected "
            f"{_MOST_ERROR * size_px[0]:.0f} at most; is the video of this array's camera, is "
            "nothing else bright or loud, and has sync been calibrated?"
        )
    noted = Evidence(
        evidence.date,
        evidence.method,
        evidence.temperature_c,
        {
            **evidence.residuals,
            "rms_px": rms_px,
            "largest_px": float(distance[used].max()),
            "pairs": float(used.sum()),
            "left_out": float((~used).sum()),
        },
    )
    section = CameraSection(noted, matrix, radial, *size_px)
    return CameraFit(section, residuals, used)


def _solve(points: Floats, pixels: Floats) -> tuple[Floats, float]:
    matrix = _linear(points, pixels)

    def left(x: Floats) -> Floats:
        mapped = to_pixels(
            np.append(x[:8] * scale, 1.0).reshape(3, 3), float(x[8]), _directions(points)
        )
        # The lens is held near none as if that had been measured: few pairs do not tell it.
        return np.append((mapped - pixels).ravel(), x[8] / _RADIAL_SPREAD)

    scale = np.where(np.abs(matrix.ravel()[:8]) > 1e-6, np.abs(matrix.ravel()[:8]), 1e-3)
    start = np.append(matrix.ravel()[:8] / scale, 0.0)
    found = least_squares(left, start, loss="soft_l1", f_scale=3.0).x
    return np.append(found[:8] * scale, 1.0).reshape(3, 3), float(found[8])


def _linear(points: Floats, pixels: Floats) -> Floats:
    """Homography by the direct linear transform (Hartley and Zisserman, 2004, 4.1), scaled."""
    middle, size = pixels.mean(axis=0), max(float(pixels.std()), 1e-9)
    rows = []
    for (a, b), (column, row) in zip(points, (pixels - middle) / size, strict=True):
        rows.append([a, b, 1, 0, 0, 0, -column * a, -column * b, -column])
        rows.append([0, 0, 0, a, b, 1, -row * a, -row * b, -row])
    scaled = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    matrix = np.array([[size, 0, middle[0]], [0, size, middle[1]], [0, 0, 1]]) @ scaled
    linear: Floats = matrix / matrix[2, 2]
    return linear


def _directions(points: Floats) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def find_spot(frame: NDArray[np.uint8], dark: Floats | None = None) -> tuple[float, float] | None:
    """Column and row of a spot of light in a frame, or None where there is no single one.

    frame : (height, width) of 0 to 255
    dark : (height, width), the picture without the spot, such as the median of all frames
    """
    light = frame.astype(np.float64)
    if dark is not None:
        light = light - dark
    peak = float(light.max())
    usual = float(np.median(light))
    if peak - usual < _LEAST_CONTRAST:
        return None
    bright = light > (usual + peak) / 2
    if bright.mean() > _MOST_SPOT:
        return None
    rows, columns = np.nonzero(bright)
    weights = light[rows, columns] - usual
    row, column = np.average(rows, weights=weights), np.average(columns, weights=weights)
    scatter = np.hypot(rows - row, columns - column)
    # Two lamps, or a lamp and its mirror image, have their middle where no light is.
    reach = max(np.sqrt(bright.sum() / np.pi) * 3, 3.0)
    if np.average(scatter > reach, weights=weights) > 0.05:
        return None
    return float(column), float(row)


def find_peak(energy: Floats, grid: ImageGrid) -> tuple[Floats, float]:
    """Direction, (3,), of the peak of an acoustic image and its level over the median in dB.

    energy : (rows, columns); between pixels the peak is that of a parabola through its neighbours
    """
    rows, columns = energy.shape
    row, column = np.unravel_index(int(energy.argmax()), energy.shape)
    level = 10 * np.log10(np.maximum(energy, energy.max() * 1e-12))
    at = np.array([_between(level[:, column], int(row)), _between(level[row], int(column))])
    contrast_db = float(level.max() - np.median(level))
    half_v, half_u = grid.half_height_deg, grid.half_width_deg
    function = np.sin if grid.surface == "sphere" else np.tan
    v = -((2 * at[0] + 1) / rows - 1) * function(np.radians(half_v))
    u = ((2 * at[1] + 1) / columns - 1) * function(np.radians(half_u))
    if grid.surface == "sphere":
        direction = np.array([u, v, np.sqrt(max(1 - u**2 - v**2, 1e-9))])
    else:
        direction = np.array([u, v, 1.0])
    return direction / np.linalg.norm(direction), contrast_db


def _between(level: Floats, index: int) -> float:
    if not 0 < index < len(level) - 1:
        return float(index)
    before, here, after = level[index - 1 : index + 2]
    bend = before - 2 * here + after
    return index + float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else index
