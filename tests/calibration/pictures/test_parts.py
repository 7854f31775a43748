"""Looks: drawn within their reach, smooth at the edges, each unlike the others."""

import dataclasses
import math

import numpy as np
import pytest

from soundpost.calibration.pictures.looks import LOOKS, SOUNDING, look_of
from soundpost.calibration.pictures.parts import Look, Part, Pose, draw, pick_colours
from soundpost.device.errors import UsageError

PALETTE = {"body": ("#808080",)}


def pose(look, seed=0, **moment):
    rng = np.random.default_rng(seed)
    return Pose(pick_colours(look, rng), rng.random(8).astype(np.float32), **moment)


def sprite(look, of=None, px=60.0, half=1.4):
    n = int(2 * half * px)
    grid = ((np.arange(n) + 0.5 - n / 2) / px).astype(np.float32)
    return draw(look, of or pose(look), grid, -grid, px)


@pytest.mark.parametrize(
    ("part", "area"),
    [
        (Part("ellipse", (0.1, -0.2), (0.4, 0.2), "body"), math.pi * 0.4 * 0.2),
        (Part("ellipse", (0.1, -0.2), (0.4, 0.2), "body", turn_deg=31), math.pi * 0.4 * 0.2),
        (Part("box", (0.0, 0.0), (0.4, 0.2), "body", turn_deg=17), 0.8 * 0.4),
        # A corner of radius r lacks r^2 (1 - pi / 4).
        (
            Part("box", (0.0, 0.0), (0.4, 0.2), "body", corner=0.1),
            0.32 - 4 * 0.01 * (1 - math.pi / 4),
        ),
        (Part("wedge", (0.0, 0.1), (0.3, 0.4), "body", turn_deg=-70), 0.5 * 0.6 * 0.8),
        (Part("ring", (0.0, 0.0), (0.4, 0.4), "body", corner=0.05), math.pi * (0.4**2 - 0.3**2)),
    ],
)
@pytest.mark.parametrize("px", [20.0, 90.0])
def test_a_part_covers_the_area_of_its_shape(part, area, px):
    """Coverage adds up to the area at any size, which is what smooth edges mean."""
    look = Look((part,), PALETTE)
    found = sprite(look, px=px)[3].sum() / px**2
    assert found == pytest.approx(area, rel=0.03)


def test_a_later_part_is_before_an_earlier_one():
    palette = {"white": ("#ffffff",), "black": ("#000000",)}
    back = Part("box", (0.0, 0.0), (0.5, 0.5), "white", shade="flat")
    front = Part("box", (0.0, 0.0), (0.2, 0.2), "black", shade="flat")
    look = Look((back, front), palette)
    layers = sprite(look)
    middle = layers.shape[1] // 2
    assert layers[:3, middle, middle].max() < 40
    assert layers[:3, middle, middle + 22].min() > 180
    assert layers[3].max() == pytest.approx(1)


def test_light_comes_from_the_upper_left_whatever_way_it_faces():
    ball = look_of("ball")
    plain = dataclasses.replace(ball, parts=(Part("ellipse", (0, 0), (0.5, 0.5), "body"),))
    for mirrored in (False, True):
        layers = sprite(plain, pose(plain, mirrored=mirrored))
        middle = layers.shape[1] // 2
        assert layers[0, middle - 15, middle - 15] > 1.3 * layers[0, middle + 15, middle + 15]


@pytest.mark.parametrize("name", [*LOOKS])
def test_a_look_stays_within_its_reach_whatever_it_does(name):
    look = look_of(name)
    half = 1.5
    px = 60.0
    n = int(2 * half * px)
    grid = (np.arange(n) + 0.5 - n / 2) / px
    for active_s in np.linspace(0, 3, 12):
        cover = sprite(look, pose(look, active_s=float(active_s), activity=1.0), px, half)[3]
        rows, columns = np.nonzero(cover > 0.5)
        assert np.abs(grid[columns]).max() <= look.reach[0] + 1 / px
        assert np.abs(grid[rows]).max() <= look.reach[1] + 1 / px
    # At rest it is as tall as it says.
    rows = np.nonzero(sprite(look, px=px, half=half)[3] > 0.1)[0]
    assert 0.7 < np.ptp(grid[rows]) < 1.25


@pytest.mark.parametrize("name", SOUNDING)
def test_a_look_moves_while_it_is_active_and_rests_otherwise(name):
    look = look_of(name)
    still = [sprite(look, pose(look, active_s=0.0, activity=0.0)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    moving = [sprite(look, pose(look, active_s=t, activity=1.0)) for t in (0.1, 0.23, 0.4)]
    differences = [np.abs(of - moving[0]).sum() for of in moving[1:]]
    assert max(differences) > 0.01 * moving[0].sum()


def test_objects_of_a_look_differ_and_looks_differ_more():
    """By the share of one's pixels that changes: shapes, not colours, tell looks apart."""
    outlines = {name: sprite(look_of(name), half=1.3)[3] > 0.5 for name in SOUNDING}
    for name in SOUNDING:
        look = look_of(name)
        one, other = sprite(look, pose(look, 1)), sprite(look, pose(look, 2))
        assert np.abs(one[:3] - other[:3]).mean() > 0
        for second in SOUNDING:
            if second != name:
                common = (outlines[name] & outlines[second]).sum()
                either = (outlines[name] | outlines[second]).sum()
                assert common / either < 0.85, (name, second)


def test_a_look_that_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"no look 'dogs'; did you mean dog\?"):
        look_of("dogs")
