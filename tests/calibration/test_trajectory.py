"""Trajectories: straight lines at constant speed, rest at both ends."""

import numpy as np
import pytest

from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError


def test_moves_on_straight_lines_and_rests_at_both_ends():
    path = Trajectory.through([[1.0, 0, 0, 2], [3.0, 4, 0, 2], [4.0, 4, -2, 2]])
    found = path.at([0.0, 1.0, 1.5, 3.0, 3.25, 9.0])
    expected = [[0, 0, 2], [0, 0, 2], [1, 0, 2], [4, 0, 2], [4, -0.5, 2], [4, -2, 2]]
    np.testing.assert_allclose(found, expected)
    # 4 m in 2 s and 2 m in 1 s.
    assert path.highest_speed_m_s == pytest.approx(2.0)
    assert path.moves


def test_one_place_is_at_rest_at_all_times():
    place = Trajectory.at_rest([0.5, -1, 2])
    assert not place.moves
    assert place.highest_speed_m_s == 0.0
    np.testing.assert_array_equal(place.at(np.zeros((2, 3))), np.full((2, 3, 3), [0.5, -1, 2]))


def test_points_lead_back_to_the_same_trajectory():
    path = Trajectory.through([[0, 1, 2, 3], [1.5, 2, 3, 4]])
    again = Trajectory.through(path.points())
    np.testing.assert_array_equal(again.times_s, path.times_s)
    np.testing.assert_array_equal(again.positions_m, path.positions_m)


@pytest.mark.parametrize(
    ("times", "positions", "message"),
    [
        ([0, 0], [[0, 0, 1], [1, 0, 1]], "point 1 is at 0 s, not after 0 s"),
        ([0, 1], [[0, 0, 1]], r"expected \(n,\) and \(n, 3\)"),
        ([], np.zeros((0, 3)), "at least 1"),
        ([0], [[0, np.nan, 1]], "not a finite number"),
    ],
)
def test_what_is_no_trajectory_is_refused(times, positions, message):
    with pytest.raises(UsageError, match=message):
        Trajectory(np.array(times, float), np.array(positions, float))
