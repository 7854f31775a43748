"""Views: objects where the projection puts them, silent, hidden, in front, the same again."""

import dataclasses
import math

import numpy as np
import pytest

from soundpost.calibration.pictures.backdrop import draw_backdrop
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.view import SeenObject, View, covered_share
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError

CAMERA = Camera()
STUDIO = draw_backdrop("studio", CAMERA, 1)


def at_rest(look, place, height_m=0.5, **more):
    return SeenObject(look, Trajectory.at_rest(place), height_m, **more)


def difference(objects, time_s=0.0, without=()):
    """How much every pixel changes by what is there."""
    one = View(CAMERA, STUDIO, objects, seed=1).frame(time_s).astype(int)
    other = View(CAMERA, STUDIO, without, seed=1).frame(time_s).astype(int)
    return np.abs(one - other).max(axis=2)


@pytest.mark.parametrize("place", [(0.0, 0.5, 2.0), (0.8, 0.6, 2.5), (-1.1, 0.9, 1.6)])
def test_an_object_is_seen_where_rays_through_the_hole_say(place):
    """The outline of a ball half a metre wide, by hand: 320 + 320 x / z and 240 - 320 y / z."""
    x, y, z = place
    changed = difference([at_rest("ball", place)]) > 12
    rows, columns = np.nonzero(changed[:240])
    expected_column, expected_row = 320 + 320 * x / z, 240 - 320 * y / z
    radius = 320 * 0.25 / z
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(expected_column, abs=1.5)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(expected_row, abs=1.5)
    assert (np.ptp(columns) + 1) / 2 == pytest.approx(radius, abs=1.5)
    assert changed.sum() > 0.8 * math.pi * radius**2


def test_an_object_moves_with_its_trajectory():
    path = Trajectory.through([[0, -1, 0.5, 2], [2, 1, 0.5, 2]])
    for time_s, column in ((0.0, 160), (0.5, 240), (1.25, 360), (5.0, 480)):
        rows, columns = np.nonzero(difference([SeenObject("ball", path, 0.4)], time_s)[:230] > 12)
        assert columns.mean() == pytest.approx(column, abs=3)
        assert rows.mean() == pytest.approx(160, abs=3)


def test_twice_as_far_is_half_as_tall():
    tall = [
        np.ptp(np.nonzero(difference([at_rest("washing_machine", (0, 0.5, z))])[:230] > 20)[0])
        for z in (1.6, 3.2)
    ]
    assert tall[0] / tall[1] == pytest.approx(2, rel=0.06)


def test_an_object_outside_of_the_frame_or_behind_the_camera_is_not_seen():
    outside = at_rest("cow", (6.0, 0.0, 2.0)), at_rest("cow", (0.0, 0.0, -2.0))
    assert not difference(outside).any()
    view = View(CAMERA, STUDIO, [*outside, at_rest("ball", (2.0, 0.0, 2.0))])
    # The last one's middle is on the edge of the frame.
    np.testing.assert_allclose(view.visible_shares(0.0), [0, 0, 0.5], atol=0.02)
    # Half a metre beyond each edge, 320 pixels a metre.
    edges = [(1.5, 0, 1), (-1.5, 0, 1), (0, 1.25, 1), (0, -1.25, 1)]
    beside = View(CAMERA, STUDIO, [at_rest("ball", place, 0.3) for place in edges])
    np.testing.assert_array_equal(beside.visible_shares(0.0), 0)


def test_the_nearer_object_covers_the_farther_in_whatever_order_they_come():
    ball = at_rest("ball", (0, 0.3, 3), 0.5, seed=1)
    crate = at_rest("crate", (0.0, 0.2, 2), 0.9)
    frames = [View(CAMERA, STUDIO, of, seed=1).frame(0.0) for of in ([ball, crate], [crate, ball])]
    np.testing.assert_array_equal(*frames)
    view = View(CAMERA, STUDIO, [ball, crate])
    np.testing.assert_allclose(view.visible_shares(0.0), [0, 1], atol=1e-6)
    behind = dataclasses.replace(crate, place=Trajectory.at_rest((0, 0.2, 4)))
    assert View(CAMERA, STUDIO, [ball, behind]).visible_shares(0.0)[0] == pytest.approx(1)


def test_half_of_a_ball_behind_the_edge_of_a_crate_is_half_visible():
    """The crate's right edge goes through the ball's middle: 320 x / z is the same for both."""
    ball = at_rest("ball", (0.3, 0.0, 3.0), 0.4)
    crate = at_rest("crate", (0.1 * 2 - 0.5, 0.0, 2.0), 1.0)
    assert View(CAMERA, STUDIO, [ball, crate]).visible_shares(0.0)[0] == pytest.approx(
        0.5, abs=0.02
    )
    assert covered_share(CAMERA, ball, crate) == pytest.approx(0.5, abs=0.02)
    assert covered_share(CAMERA, ball, at_rest("crate", (2.0, 0.0, 2.0))) == 0


def test_a_silent_object_looks_as_one_that_sounds_but_for_its_motion():
    """At idle 1 the pictures do not tell which of two objects sounds."""
    place = (0.0, 0.2, 2.0)
    sounding = at_rest("dog", place, active_s=((0.0, 3.0),))
    silent = at_rest("dog", place)
    frames = [View(CAMERA, STUDIO, [of], seed=1).frame(0.9) for of in (sounding, silent)]
    assert (frames[0] != frames[1]).any()
    for_ever = [dataclasses.replace(of, idle=1.0) for of in (sounding, silent)]
    frames = [View(CAMERA, STUDIO, [of], seed=1).frame(0.9) for of in for_ever]
    np.testing.assert_array_equal(*frames)
    # At rest it does not change at all.
    backdrop = dataclasses.replace(STUDIO, light=(0.0, 0.0, 1.0))
    calm = View(CAMERA, backdrop, [silent], seed=1)
    calm._noise[...] = 0
    np.testing.assert_array_equal(calm.frame(0.0), calm.frame(2.0))


def test_activity_follows_the_spans_in_which_it_sounds():
    seen = at_rest("dog", (0, 0, 2), active_s=((1.0, 2.0), (4.0, 4.5)))
    assert [seen.activity_at(t) for t in (0.5, 1.0, 1.5, 2.0, 3.0, 4.2)] == [0, 1, 1, 1, 0, 1]
    # It begins and ends within 0.15 s.
    assert seen.activity_at(0.925) == pytest.approx(0.5)
    assert [seen.active_for_s(t) for t in (0.5, 1.5, 3.0, 9.0)] == pytest.approx([0, 0.5, 1, 1.5])
    restless = dataclasses.replace(seen, idle=0.4)
    assert restless.activity_at(3.0) == pytest.approx(0.4)


def test_what_moves_to_the_left_faces_left():
    right = SeenObject("dog", Trajectory.through([[0, -1, 0, 3], [1, 1, 0, 3]]), 0.6, seed=3)
    left = SeenObject("dog", Trajectory.through([[0, 1, 0, 3], [1, -1, 0, 3]]), 0.6, seed=3)
    # Both are in the middle after half a second.
    one, other = (difference([of], 0.5)[:300] > 12 for of in (right, left))
    mirrored = one[:, ::-1]
    common = (mirrored & other).sum() / (mirrored | other).sum()
    assert common > 0.8
    assert (one & other).sum() / (one | other).sum() < 0.7


def test_two_classes_with_one_look_are_one_picture():
    """Look-alikes: nothing of the label is in a frame, only look, place and seed."""
    first = at_rest("siren", (0.3, 0.1, 2.0), seed=5)
    second = at_rest("siren", (0.3, 0.1, 2.0), seed=5)
    frames = [View(CAMERA, STUDIO, [of], seed=1).frame(0.2) for of in (first, second)]
    np.testing.assert_array_equal(*frames)
    other = dataclasses.replace(first, seed=6)
    assert (View(CAMERA, STUDIO, [other], seed=1).frame(0.2) != frames[0]).any()


@pytest.mark.parametrize("place", ["studio", "room", "garden"])
def test_the_same_seed_gives_the_same_bytes(place):
    camera = Camera(160, 120)

    def frames(seed):
        path = Trajectory.through([[0, -1, 0, 2], [1, 1, 0, 2]])
        objects = [SeenObject("cat", path, 0.5, ((0.0, 1.0),), seed=seed)]
        view = View(camera, draw_backdrop(place, camera, seed), objects, seed)
        return np.stack([view.frame(t / 12) for t in range(3)])

    assert frames(1).tobytes() == frames(1).tobytes()
    assert frames(1).shape == (3, 120, 160, 3)
    assert frames(1).dtype == np.uint8
    assert (frames(1) != frames(2)).mean() > 0.3


def test_sensor_noise_is_another_in_every_frame():
    backdrop = dataclasses.replace(STUDIO, light=(0.0, 0.0, 1.0))
    view = View(CAMERA, backdrop, [])
    one, other = view.frame(0.0).astype(int), view.frame(1 / 12).astype(int)
    # 2.2 levels in each frame.
    assert np.std(one - other) == pytest.approx(2.2 * math.sqrt(2), rel=0.1)


def test_objects_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="no look 'unicorn'"):
        at_rest("unicorn", (0, 0, 2))
    with pytest.raises(UsageError, match="height_m is 0 and idle 0"):
        at_rest("dog", (0, 0, 2), 0.0)
