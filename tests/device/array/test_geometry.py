"""Arrays that are refused, hashes, the spiral; pixels and the directions they stand for."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.errors import InputError

CORNER = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])


def rotated(positions, seed):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return positions @ rotation


def test_positions_are_a_read_only_copy():
    given_m = CORNER.copy()
    array = ArrayGeometry(given_m)
    given_m[0] = 9
    assert np.array_equal(array.positions_m, CORNER)
    with pytest.raises(ValueError, match="read-only"):
        array.positions_m[0, 0] = 1


def test_two_microphones_at_one_place_are_refused_by_number():
    positions = np.vstack([vogel_spiral(20).positions_m, [[0.0, 0.0, 0.0]]])
    positions[20] = positions[7] + 5e-5
    with pytest.raises(InputError, match="microphones 7 and 20 are at the same place"):
        ArrayGeometry(positions)
    positions[20] = positions[7] + 1e-3
    assert ArrayGeometry(positions).n_mics == 21


@pytest.mark.parametrize("seed", range(4))
def test_a_line_of_microphones_is_refused_with_the_reason(seed):
    line = np.outer(np.arange(8) * 0.03, [1.0, 0.0, 0.0])
    with pytest.raises(InputError, match=r"on one line.*cone around it.*expected.*surface"):
        ArrayGeometry(rotated(line, seed) + 0.3)
    # Soldered askew by a tenth of a millimetre over 21 cm
    askew = line + np.random.default_rng(seed).normal(0, 2e-5, (8, 3))
    with pytest.raises(InputError, match="on one line"):
        ArrayGeometry(rotated(askew, seed))
    line[7] = [0.18, 0.03, 0.0]
    assert ArrayGeometry(rotated(line, seed) + 0.3).n_mics == 8


@pytest.mark.parametrize(
    ("positions", "name", "message"),
    [
        (CORNER[:2], "", "2 microphones; expected 3 to 1024"),
        (CORNER[:, :2], "", r"shape \(3, 2\); expected \(n_mics, 3\)"),
        (CORNER * np.nan, "roof", "array 'roof': microphone 0 is at nan"),
        (CORNER * 1000, "", "microphone 1 is 100 m from the origin.*positions are in metres"),
        (CORNER, "two\nlines", "control characters"),
    ],
)
def test_what_is_no_array_is_refused(positions, name, message):
    with pytest.raises(InputError, match=message):
        ArrayGeometry(positions, name)


def test_the_hash_is_that_of_the_positions_alone():
    expected = hashlib.sha256(struct.pack("<9d", *CORNER.ravel())).hexdigest()
    assert ArrayGeometry(CORNER, "a").hash() == expected
    assert ArrayGeometry(np.where(CORNER == 0, -0.0, CORNER), "b").hash() == expected
    moved = CORNER.copy()
    moved[2, 1] += 1e-6
    assert ArrayGeometry(moved).hash() != expected


def test_arrays_of_the_same_name_and_positions_are_equal():
    assert ArrayGeometry(CORNER, "a") == ArrayGeometry(CORNER.tolist(), "a")
    assert len({ArrayGeometry(CORNER, "a"), ArrayGeometry(CORNER, "a")}) == 1
    assert ArrayGeometry(CORNER, "a") != ArrayGeometry(CORNER, "b")
    assert ArrayGeometry(CORNER, "a") != ArrayGeometry(CORNER * 2, "a")
    assert ArrayGeometry(CORNER) != "an array"


def test_the_spiral_spreads_its_microphones_evenly_over_the_disc():
    positions = vogel_spiral().positions_m
    assert positions.shape == (128, 3)
    assert not positions[:, 2].any()
    radii = np.sort(np.hypot(*positions[:, :2].T))
    # A disc of radius r holds its share of the area, to one microphone.
    assert np.abs(128 * (radii / 0.225) ** 2 - np.arange(128)).max() < 1
    # Hexagons of equal area have their centres sqrt(2 / sqrt(3) * pi / 128) R = 38 mm apart; a
    # spiral comes within 60 % of that everywhere.
    apart = np.linalg.norm(positions[:, None] - positions, axis=2) + np.eye(128)
    assert apart.min() > 0.6 * 0.225 * np.sqrt(2 / np.sqrt(3) * np.pi / 128)
    # 137.5 degrees from each to the next
    x, y = positions[:, :2].T
    turn = np.angle((x + 1j * y)[1:] / (x + 1j * y)[:-1], deg=True)
    assert turn % 360 == pytest.approx(np.full(127, 137.5077640), abs=1e-6)


@pytest.mark.parametrize("wrong", [{"n_mics": 2}, {"diameter_m": 0.0}, {"diameter_m": np.nan}])
def test_an_impossible_spiral_is_refused(wrong):
    with pytest.raises(InputError, match="vogel spiral"):
        vogel_spiral(**wrong)


# ------------------------------------------------------------------------------------- pixels


grids = st.builds(
    ImageGrid,
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    half_width_deg=st.floats(1, 44),
    half_height_deg=st.floats(1, 44),
    surface=st.sampled_from(["sphere", "plane"]),
    distance_m=st.none() | st.floats(0.1, 10),
)


@given(grid=grids)
def test_every_pixel_lies_in_itself(grid):
    places = grid.directions() if grid.points_m() is None else grid.points_m()
    found = [grid.pixel_of(place) for place in places]
    assert found == [divmod(pixel, grid.columns) for pixel in range(grid.n_pixels)]


@given(grid=grids)
def test_points_are_at_the_distance_along_the_directions(grid):
    directions = grid.directions()
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1.0)
    points = grid.points_m()
    if grid.distance_m is None:
        assert points is None
        return
    lengths = points[:, 2] if grid.surface == "plane" else np.linalg.norm(points, axis=1)
    assert lengths == pytest.approx(grid.distance_m)
    assert np.cross(points, directions) == pytest.approx(0.0, abs=1e-12)


def test_the_image_is_the_published_one():
    grid = ImageGrid()
    assert (grid.rows, grid.columns, grid.n_pixels) == (36, 48, 1728)
    assert (grid.half_width_deg, grid.half_height_deg) == (45.0, 32.0)
    u, v = grid.cosines()
    assert np.diff(u) == pytest.approx(2 * np.sin(np.pi / 4) / 48)
    assert np.diff(v) == pytest.approx(-2 * np.sin(np.radians(32)) / 36)
    assert np.array_equal(u, -u[::-1])
    assert np.array_equal(v, -v[::-1])
    assert np.array_equal(grid.directions()[:, 0].reshape(36, 48), np.tile(u, (36, 1)))
    assert np.array_equal(grid.directions()[:, 1].reshape(36, 48), np.tile(v[:, None], (1, 48)))


@pytest.mark.parametrize("surface", ["sphere", "plane"])
def test_rows_run_down_and_columns_to_the_right_up_to_the_field_of_view(surface):
    grid = ImageGrid(surface=surface)

    def along(degrees, axis):
        direction = np.zeros(3)
        direction[[axis, 2]] = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        return grid.pixel_of(direction)

    assert along(44.9, 0) == (18, 47)
    assert along(-44.9, 0) == (18, 0)
    assert along(31.9, 1)[0] == 0
    assert along(-31.9, 1)[0] == 35
    assert along(45.1, 0) is along(-45.1, 0) is along(32.1, 1) is along(-32.1, 1) is None
    assert grid.pixel_of([0.0, 0.1, -1.0]) is None


def test_pixels_on_a_plane_are_those_of_a_camera():
    # A pinhole camera of 48 x 36 pixels: column = 24 + f x / z, row = 18 - f' y / z
    grid = ImageGrid(surface="plane", distance_m=2.0)
    place = np.array([0.63, -0.21, 1.7])
    column = 24 + 24 / np.tan(np.radians(45)) * place[0] / place[2]
    row = 18 - 18 / np.tan(np.radians(32)) * place[1] / place[2]
    assert grid.pixel_of(place) == (int(row), int(column)) == (21, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "0 rows and 48 columns"),
        ({"rows": 30_000}, "at most 1000000 pixels"),
        ({"half_width_deg": 90.0}, "half_width_deg 90; expected more than 0 and less than 90"),
        ({"half_height_deg": float("nan")}, "half_height_deg nan"),
        ({"half_height_deg": 50.0}, "corners lie beyond the horizon.*surface 'plane'"),
        ({"surface": "cone"}, "surface 'cone'"),
        ({"distance_m": 0.0}, "distance_m 0; expected at least 0.05 m, or null"),
        ({"distance_m": float("inf")}, "distance_m inf"),
    ],
)
def test_an_impossible_grid_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ImageGrid(**changes)


def test_a_wide_field_of_view_is_possible_on_a_plane():
    assert ImageGrid(half_height_deg=60.0, surface="plane").directions()[:, 2].min() > 0
