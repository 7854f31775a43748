"""From directions to pixels of the video and back, as a calibrated camera sees them.

The model is that of `CameraSection`: a pinhole camera with one term for its lens.
"""

from __future__ import annotations

import numpy as np

from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.geometry import Floats

# Newton's steps of the lens: enough for 1e-12 wherever the lens folds nothing over.
_STEPS, _CLOSE = 30, 1e-13


def to_pixels(matrix: Floats, radial: float, directions: Floats) -> Floats:
    """Columns and rows, (n, 2), of directions.

    matrix, radial : of the camera, see `CameraSection`
    directions : (n, 3) of any length; behind the camera (z <= 0) there is no pixel: not a number
    """
    ahead = directions[:, 2:] > 0
    points = directions[:, :2] / np.where(ahead, directions[:, 2:], np.nan)
    bent = points * (1 + radial * np.square(points).sum(axis=1, keepdims=True))
    mapped = np.concatenate([bent, np.ones((len(bent), 1))], axis=1) @ matrix.T
    pixels: Floats = mapped[:, :2] / mapped[:, 2:]
    return pixels


def camera_pixels(camera: CameraSection, directions: Floats) -> Floats:
    """Columns and rows, (n, 2), of directions (n, 3) in a calibrated camera's video."""
    return to_pixels(camera.matrix, camera.radial, directions)


def camera_rays(camera: CameraSection, pixels: Floats) -> Floats:
    """What pixels (..., 2), given as column and row, show: (..., 3) with z = 1."""
    ones = np.ones((*pixels.shape[:-1], 1))
    flat = np.concatenate([pixels, ones], axis=-1) @ np.linalg.inv(camera.matrix).T
    bent = flat[..., :2] / flat[..., 2:]
    # Radius before the lens, from that after it: r (1 + radial r²).
    after = np.linalg.norm(bent, axis=-1, keepdims=True)
    before = after.copy()
    for _ in range(_STEPS):
        slope = 1 + 3 * camera.radial * before**2
        slope = np.where(np.abs(slope) < 0.05, 0.05, slope)
        step = (before * (1 + camera.radial * before**2) - after) / slope
        before = before - step
        if np.abs(step).max(initial=0.0) < _CLOSE:
            break
    points = bent * np.where(after > 0, before / np.maximum(after, 1e-300), 1.0)
    rays: Floats = np.concatenate([points, ones], axis=-1)
    return rays
