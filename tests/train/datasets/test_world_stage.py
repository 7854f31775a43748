"""Places of objects: side by side, within the frame, or wholly behind a screen."""

import numpy as np
import pytest

from soundpost.calibration.pictures.arrange import draw_clutter
from soundpost.calibration.pictures.backdrop import draw_backdrop
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.view import SeenObject, View
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.datasets.world_settings import ObjectSettings
from soundpost.train.datasets.world_stage import Stage

CAMERA = Camera(160, 120)
SECONDS = 5.0


@pytest.fixture(scope="module")
def backdrop():
    return draw_backdrop("studio", CAMERA, 0)


def stage(seed, **changes):
    return Stage(ObjectSettings(**changes), SECONDS, np.random.default_rng(seed))


def shares(backdrop, objects, time_s):
    return View(CAMERA, backdrop, objects).visible_shares(time_s)


def seen(look, placed):
    return SeenObject(look, placed.place, placed.height_m, idle=1.0)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_is_placed_hides_another_or_leaves_the_frame(backdrop, seed):
    """By the pictures' own account of what is visible, at both ends and in the middle."""
    looks = [str(look) for look in np.random.default_rng(seed).permutation([*BODIES])[:4]]
    space = stage(seed, moving_share=1.0)
    placed = [(look, space.place(look)) for look in looks]
    objects = [seen(look, found) for look, found in placed if found is not None]
    assert objects
    clutter = [thing for thing in draw_clutter("room", seed, 6) if space.fits(thing)]
    for time_s in (0.0, SECONDS / 2, SECONDS):
        visible = shares(backdrop, [*objects, *clutter], time_s)
        assert visible[: len(objects)].min() > 0.8


@pytest.mark.parametrize("look", sorted(BODIES))
def test_a_screen_hides_all_of_what_stands_behind_it(backdrop, look):
    placed = stage(3).place(look, hidden=True)
    hidden = seen(look, placed)
    for time_s in (0.0, 0.4, 2.2):
        assert shares(backdrop, [hidden], time_s)[0] > 0.99
        assert shares(backdrop, [hidden, placed.screen], time_s)[0] < 0.002


def test_who_moves_goes_at_a_speed_that_was_asked_for():
    speeds = []
    for seed in range(60):
        place = stage(seed, moving_share=1.0, speed_m_s=(0.2, 0.4)).place("dog").place
        assert place.highest_speed_m_s <= 0.4
        speeds.append(place.highest_speed_m_s)
        # On the floor: half of its height over it.
        assert (place.positions_m[:, 1] < -0.8).all()
    # Some ways are shorter than that speed would take, for the floor ends.
    assert np.quantile(speeds, 0.4) >= 0.2


def test_what_cannot_walk_and_what_hides_stay_where_they_are():
    for seed in range(20):
        assert not stage(seed, moving_share=1.0).place("tap").place.moves
        assert not stage(seed, moving_share=1.0).place("dog", hidden=True).place.moves
        assert not stage(seed, moving_share=0.0).place("dog").place.moves


def test_a_full_stage_takes_no_more():
    space = stage(1)
    found = [space.place("cow") for _ in range(12)]
    assert None in found
    first = found.index(None)
    assert 2 <= first <= 6


def test_clutter_may_stand_behind_but_not_before():
    space = stage(2, depth_m=(3.0, 3.0), moving_share=0.0)
    place = space.place("cow").place
    behind = SeenObject("crate", type(place).at_rest(1.3 * place.positions_m[0]), 0.4)
    before = SeenObject("crate", type(place).at_rest(0.7 * place.positions_m[0]), 0.4)
    assert space.fits(behind)
    assert not space.fits(before)
