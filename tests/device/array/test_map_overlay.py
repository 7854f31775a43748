"""Maps over pictures: each pixel where its direction is seen, levels as colours say."""

from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.colours import colour_table
from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.map_overlay import (
    MapOverlay,
    OverlayStyle,
    level_db,
    pixel_directions,
)
from soundpost.device.errors import UsageError

SIZE = (320, 240)
PLAIN = OverlayStyle(range_db=10.0, opacity=1.0, legend=False)


def a_camera(matrix, radial=0.0):
    evidence = Evidence(datetime(2026, 11, 20, tzinfo=timezone.utc), "drawn")
    return CameraSection(evidence, np.array(matrix), radial, *SIZE)


def seen_at(place, camera):
    """Column and row of the pixel that shows a place, as CameraSection defines it."""
    a, b = place[0] / place[2], place[1] / place[2]
    stretch = 1 + camera.radial * (a * a + b * b)
    column, row, scale = camera.matrix @ [a * stretch, b * stretch, 1]
    return column / scale, row / scale


@settings(max_examples=15, deadline=None)
@given(
    pixel=st.integers(0, 35 * 48),
    surface=st.sampled_from(["sphere", "plane"]),
)
def test_a_loud_pixel_is_drawn_where_an_uncalibrated_camera_shows_its_direction(pixel, surface):
    grid = ImageGrid(surface=surface)
    x, y, z = grid.directions()[pixel]
    column = (x / z / np.tan(np.radians(45)) + 1) / 2 * SIZE[0] - 0.5
    row = (1 - y / z / np.tan(np.radians(32))) / 2 * SIZE[1] - 0.5
    inside = 0 <= column <= SIZE[0] - 1 and 0 <= row <= SIZE[1] - 1
    drawn = lit(grid, pixel, None)
    if inside:
        middle = drawn.mean(axis=0)
        # A map's pixel is 3 to 12 of the picture's, more at the edges of a sphere.
        assert abs(middle[1] - column) < 4
        assert abs(middle[0] - row) < 4


def lit(grid, pixel, camera):
    """(row, column) of the picture's pixels that a map with one loud pixel lights up most."""
    energy = np.full(grid.n_pixels, 1e-9, np.float32)
    energy[pixel] = 1.0
    overlay = MapOverlay(grid, *SIZE, camera, PLAIN)
    found = overlay.draw(energy.reshape(grid.rows, grid.columns), overlay.blank())
    brightness = found.astype(float).sum(axis=2)
    return np.argwhere(brightness > 0.9 * brightness.max())


@pytest.mark.parametrize("radial", [0.0, -0.15, 0.2])
@pytest.mark.parametrize("pixel", [10 * 48 + 12, 18 * 48 + 24, 25 * 48 + 30])
def test_a_calibrated_camera_decides(radial, pixel):
    # Turned by 5 degrees, off the middle, with a lens
    c, s = np.cos(0.09), np.sin(0.09)
    matrix = [[200 * c, 200 * s, 150.0], [200 * s, -200 * c, 130.0], [0.02, -0.03, 1.0]]
    camera = a_camera(matrix, radial)
    grid = ImageGrid()
    column, row = seen_at(grid.directions()[pixel], camera)
    middle = lit(grid, pixel, camera).mean(axis=0)
    assert middle == pytest.approx([row, column], abs=2.5)


def test_directions_of_pixels_undo_the_camera():
    camera = a_camera([[180.0, 3.0, 160.0], [2.0, -175.0, 118.0], [0.01, 0.02, 1.0]], -0.1)
    rays = pixel_directions(ImageGrid(), *SIZE, camera)
    for row, column in [(0, 0), (100, 37), (239, 319), (120, 160)]:
        assert seen_at(rays[row, column], camera) == pytest.approx((column, row), abs=1e-9)
    # A picture of twice the size has the same in its corner, half a pixel's grid apart
    double = pixel_directions(ImageGrid(), 640, 480, camera)
    four = double[200:202, 74:76].mean(axis=(0, 1))
    assert four == pytest.approx(rays[100, 37], abs=1e-4)
    with pytest.raises(UsageError, match="calibrated with 320 x 240 pixels, picture of 640 x 360"):
        pixel_directions(ImageGrid(), 640, 360, camera)


def test_colours_say_the_level_and_the_lower_end_is_not_seen():
    grid = ImageGrid(1, 3, 30.0, 30.0, surface="plane")
    energy = np.array([[1.0, 10**-0.5, 0.01]], np.float32)
    overlay = MapOverlay(grid, 300, 30, None, PLAIN)
    picture = np.full((30, 300, 3), 90, np.uint8)
    drawn = overlay.draw(energy, picture)
    table = colour_table("inferno").astype(float)
    # The middle of the map's pixel lies between two of the picture's.
    assert drawn[15, 50] == pytest.approx(table[255], abs=5)
    # 5 dB below the top of 10: half way up the table, and sqrt(1/2) of it over the picture
    expected = 90 + np.sqrt(0.5) * (table[128] - 90)
    assert drawn[15, 150] == pytest.approx(expected, abs=2)
    assert drawn[15, 250].tolist() == [90, 90, 90]
    # A top of its own: 10 dB higher, all is at the lower end or below.
    style = OverlayStyle(range_db=10.0, top_db=10.0, legend=False)
    assert (MapOverlay(grid, 300, 30, None, style).draw(energy, picture) == 90).all()


def test_without_sound_there_is_only_the_picture_in_grey():
    grid = ImageGrid(4, 6)
    style = OverlayStyle(saturation=0.0, legend=False)
    overlay = MapOverlay(grid, 60, 40, None, style)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for energy in (np.zeros((4, 6), "f4"), np.full((4, 6), np.nan, "f4"), -np.ones((4, 6), "f4")):
        drawn = overlay.draw(energy, picture)
        grey = picture @ [0.299, 0.587, 0.114]
        assert np.abs(drawn - grey[..., None]).max() < 1
    assert overlay.draw(np.full((4, 6), np.nan, "f4"), picture, -3.0).shape == (40, 60, 3)


def test_the_legend_leaves_the_map_alone_but_at_the_right_and_at_the_cross():
    grid = ImageGrid()
    energy = np.random.default_rng(1).random((36, 48)).astype("f4")
    energy[20, 10] = 3.0
    with_legend, without = (
        MapOverlay(grid, *SIZE, None, OverlayStyle(legend=legend)) for legend in (True, False)
    )
    picture = with_legend.blank()
    changed = (with_legend.draw(energy, picture) != without.draw(energy, picture)).any(axis=2)
    x, y, z = grid.directions()[20 * 48 + 10]
    column = (x / z + 1) / 2 * 320
    row = (1 - y / z / np.tan(np.radians(32))) / 2 * 240
    elsewhere = changed[:, :240].copy()
    assert elsewhere.any()
    elsewhere[int(row) - 12 : int(row) + 12, int(column) - 12 : int(column) + 12] = False
    assert not elsewhere.any()
    assert changed[:, 290:].any()


def test_levels_of_what_is_no_energy():
    found = level_db(np.array([1.0, 0.1, 0.0, -1.0, np.nan], np.float32))
    assert found[:2] == pytest.approx([0.0, -10.0], abs=1e-5)
    assert (found[2:] == -np.inf).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colours": "jet"}, "'jet'"),
        ({"range_db": 0.0}, "range 0 dB"),
        ({"top_db": float("nan")}, "top nan dB"),
        ({"opacity": 1.5}, "opacity 1.5"),
        ({"saturation": -1.0}, "saturation -1"),
        ({"smoothing_s": 61.0}, "smoothing 61 s"),
    ],
)
def test_an_impossible_style_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        OverlayStyle(**changes)


def test_another_size_is_refused():
    overlay = MapOverlay(ImageGrid(4, 6), 60, 40)
    with pytest.raises(UsageError, match=r"map \(4, 6\) on picture \(60, 40, 3\); expected"):
        overlay.draw(np.ones((4, 6), "f4"), np.zeros((60, 40, 3), np.uint8))
