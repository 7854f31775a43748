"""Looks for classes, clutter, and covers that hide as much as asked for."""

import numpy as np
import pytest

from soundpost.calibration.pictures.arrange import draw_clutter, hide, looks_for
from soundpost.calibration.pictures.backdrop import draw_backdrop
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.looks import SOUNDING
from soundpost.calibration.pictures.painting import CAMERA_HEIGHT_M
from soundpost.calibration.pictures.view import SeenObject, View, covered_share
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError

CAMERA = Camera()


def test_classes_look_as_they_are_called_and_others_get_what_is_free():
    looks = looks_for(["chainsaw", "dog", "cat", "rain"])
    assert (looks["dog"], looks["cat"]) == ("dog", "cat")
    assert len(set(looks.values())) == 4
    assert set(looks.values()) <= set(SOUNDING)


def test_look_alikes_share_one_look_and_nobody_else_has_it():
    looks = looks_for(["dog", "cat", "rain", "sheep"], [("dog", "cat"), ("rain", "sheep")])
    assert looks["cat"] == looks["dog"] == "dog"
    assert looks["rain"] == looks["sheep"]
    assert len(set(looks.values())) == 2


def test_looks_that_cannot_be_given_are_refused():
    with pytest.raises(UsageError, match="alike: dog, owl; expected two of dog, cat"):
        looks_for(["dog", "cat"], [("dog", "owl")])
    with pytest.raises(UsageError, match="in two pairs"):
        looks_for(["dog", "cat", "cow"], [("dog", "cat"), ("cat", "cow")])
    with pytest.raises(UsageError, match=f"expected at most {len(SOUNDING)}"):
        looks_for([f"class {number}" for number in range(len(SOUNDING) + 1)])


@pytest.mark.parametrize("look", ["dog", "helicopter", "clock", "car"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_cover_hides_as_much_as_asked_for(look, share):
    target = SeenObject(look, Trajectory.at_rest((0.5, -0.3, 2.4)), 0.6, seed=2)
    cover = hide(target, CAMERA, share, seed=1)
    assert covered_share(CAMERA, target, cover) == pytest.approx(share, abs=0.03)
    assert cover.place.at(0.0)[2] < 2.4


def test_what_is_hidden_is_not_in_the_picture():
    target = SeenObject("frog", Trajectory.at_rest((0.2, -0.4, 2.0)), 0.4)
    cover = hide(target, CAMERA, 1.0)
    view = View(CAMERA, draw_backdrop("room", CAMERA, 1), [target, cover])
    assert view.visible_shares(0.0)[0] < 0.01
    alone = View(CAMERA, draw_backdrop("room", CAMERA, 1), [cover])
    # All that is left of the frog is a shadow on the floor beside the cover.
    top = 300
    changed = view.frame(0.0)[:top].astype(int) - alone.frame(0.0)[:top]
    assert np.abs(changed).max() <= 12


def test_an_object_that_moves_is_hidden_at_the_time_asked_for():
    path = Trajectory.through([[0, -1, 0, 3], [2, 1, 0, 3]])
    target = SeenObject("sheep", path, 0.6)
    cover = hide(target, CAMERA, 0.8, time_s=1.5)
    assert covered_share(CAMERA, target, cover, 1.5) == pytest.approx(0.8, abs=0.03)
    assert covered_share(CAMERA, target, cover, 0.0) == 0


def test_nothing_can_stand_before_what_is_too_near():
    target = SeenObject("dog", Trajectory.at_rest((0, 0, 0.5)), 0.3)
    with pytest.raises(UsageError, match=r"0\.50 m away; expected 0 to 1, and at least 0\.53 m"):
        hide(target, CAMERA, 0.5)


@pytest.mark.parametrize("place", ["room", "garden"])
def test_clutter_stands_on_the_floor_or_hangs_in_the_air(place):
    clutter = [item for seed in range(8) for item in draw_clutter(place, seed, 5)]
    assert len(clutter) == 40
    for item in clutter:
        foot = item.place.at(0.0)[1] - item.height_m / 2
        if item.look == "balloon":
            assert foot > -CAMERA_HEIGHT_M
        else:
            assert foot == pytest.approx(-CAMERA_HEIGHT_M)
    assert {item.look for item in clutter}.isdisjoint(SOUNDING)
    assert any(item.place.moves for item in clutter)
    again = draw_clutter(place, 3, 5)
    assert [item.look for item in again] == [item.look for item in clutter[15:20]]
