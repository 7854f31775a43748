"""Backgrounds: another for every seed, light and clouds that change, the same again."""

import numpy as np
import pytest

from soundpost.calibration.pictures.backdrop import PLACES, draw_backdrop
from soundpost.calibration.pictures.camera import Camera

SMALL = Camera(160, 120)


@pytest.mark.parametrize("place", PLACES)
def test_each_seed_draws_its_own_place_and_the_same_again(place):
    one, again, other = (draw_backdrop(place, SMALL, seed) for seed in (1, 1, 2))
    assert one.picture.shape == (3, 120, 160)
    assert one.picture.tobytes() == again.picture.tobytes()
    assert np.abs(one.picture - other.picture).mean() > 4
    # Something is there to be seen, and nothing is washed out.
    assert 20 < one.picture.mean() < 220
    assert one.picture.std() > 8


def test_the_floor_meets_the_wall_where_it_does():
    """Planks run to the vanishing point: 240 rows down is the camera's height at z = f h / row."""
    camera = Camera()
    edges = []
    for seed in range(6):
        rows = draw_backdrop("room", camera, seed).picture.mean(axis=(0, 2))
        # The skirting board is the darkest line of the lower half.
        edges.append(240 + np.argmin(rows[240:420]))
    # A wall 4 to 7 m away begins 320 * 1.2 / z pixels below the middle.
    assert all(240 + 320 * 1.2 / 7 - 8 < edge < 240 + 320 * 1.2 / 4 + 8 for edge in edges), edges


@pytest.mark.parametrize("place", PLACES)
def test_light_changes_about_one(place):
    backdrop = draw_backdrop(place, SMALL, 3)
    light = np.array([backdrop.light_at(t) for t in np.arange(0, 30, 0.1)])
    assert np.ptp(light) > 0.003
    assert 0.5 < light.min() <= light.max() < 1.4
    assert light[5] == backdrop.light_at(0.5)


def test_clouds_drift_over_the_sky_and_not_over_the_grass():
    garden = draw_backdrop("garden", SMALL, 4)
    change = np.abs(garden.at(0.0) - garden.at(20.0)).max(axis=0)
    assert change[:30].max() > 30
    assert not change[70:].any()
    # Nor over trees, which are greener than the sky is.
    trees = garden.picture[1] > garden.picture[2] + 10
    assert trees[:43].sum() > 20
    assert not change[trees].any()
    # They go round: the same clouds after a whole turn.
    turn_s = garden.clouds.shape[1] / garden.cloud_px_s
    np.testing.assert_array_equal(garden.at(0.0), garden.at(turn_s + 1e-6))


def test_a_moment_leaves_the_background_as_it_was():
    room = draw_backdrop("room", SMALL, 5)
    room.at(1.0)[...] = 0
    assert room.picture.max() > 100
