"""The pinhole: pixels worked out by hand."""

import math

import numpy as np
import pytest

from soundpost.calibration.pictures.camera import Camera
from soundpost.device.errors import UsageError


def test_points_are_seen_where_rays_through_the_hole_say():
    # At 45 degrees the edge is as far to the side as the scene is deep: 320 pixels a unit.
    camera = Camera()
    assert camera.focal_px == pytest.approx(320)
    points = [[0, 0, 1], [1, 0, 1], [-1, 0, 1], [0.5, 0.25, 2], [0, -1.5, 2]]
    expected = [[320, 240], [640, 240], [0, 240], [320 + 80, 240 - 40], [320, 480]]
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)
    assert camera.half_height_deg == pytest.approx(math.degrees(math.atan(0.75)))


def test_a_narrower_field_of_view_enlarges():
    narrow = Camera(half_width_deg=math.degrees(math.atan(0.5)))
    np.testing.assert_allclose(narrow.project([0.25, 0.0, 1.0]), [480, 240])


def test_what_is_behind_the_camera_is_nowhere():
    assert np.isnan(Camera().project([[0, 0, -1], [0, 0, 0]])).all()


def test_cameras_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="half_width_deg is 90; expected 1 to 80"):
        Camera(half_width_deg=90)
    with pytest.raises(UsageError, match="8 x 480 pixels"):
        Camera(width_px=8)
