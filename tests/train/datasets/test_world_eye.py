"""What a perfect eye could know, against counts and precisions by hand."""

from dataclasses import replace

import pytest

from soundpost.train.datasets.world_eye import perfect_eye
from soundpost.train.datasets.world_plan import plan_take


def plans(settings, cast, n_takes=3):
    return [
        plan_take(settings, cast, 1, 1, action, take)
        for action in range(1, 5)
        for take in range(n_takes)
    ]


def only_main(found, **changes):
    return [replace(plan, actors=(replace(plan.actors[0], **changes),)) for plan in found]


def test_who_sees_all_that_sounds_alone_knows_all_but_the_look_alikes(world):
    """Of two classes with one look, as frequent, half of what is seen is right."""
    settings, cast = world()
    found = only_main(plans(settings, cast), hidden=False)
    eye = perfect_eye(settings, found)
    assert eye.average_precision == pytest.approx(
        {"car_horn": 0.5, "cat": 1.0, "dog": 1.0, "engine": 0.5}
    )
    assert eye.mean_average_precision == pytest.approx(0.75)
    assert (eye.seen_share, eye.clear_share, eye.sounding_share) == (1.0, 0.5, 1.0)
    assert eye.accuracy == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)


def test_who_sees_nothing_guesses(world):
    settings, cast = world()
    eye = perfect_eye(settings, only_main(plans(settings, cast), hidden=True))
    assert eye.mean_average_precision == pytest.approx(0.25)
    assert (eye.seen_share, eye.accuracy) == (0.0, 0.0)


def test_one_of_three_hidden_and_a_silent_one_elsewhere(world):
    """Dogs: two of three takes seen, one seen in vain in a take of a cat.

    Recall 2/3 at precision 2/3, the rest at 3 of 12: (2/3)(2/3) + (1/3)(3/12) = 19/36.
    """
    settings, cast = world()
    found = only_main(plans(settings, cast), hidden=False)
    dogs = [index for index, plan in enumerate(found) if plan.labels() == ("dog",)]
    cats = [index for index, plan in enumerate(found) if plan.labels() == ("cat",)]
    dog = found[dogs[0]].actors[0]
    found[dogs[0]] = replace(found[dogs[0]], actors=(replace(dog, hidden=True),))
    cat = found[cats[0]].actors[0]
    found[cats[0]] = replace(found[cats[0]], actors=(cat, replace(dog, role="silent")))
    eye = perfect_eye(settings, found)
    assert eye.average_precision["dog"] == pytest.approx(19 / 36)
    assert eye.average_precision["cat"] == 1.0
    assert eye.sounding_share == pytest.approx(11 / 12)
    # Of six takes with a car half are right, of the dogs two of three, of the cats two and a half.
    assert eye.accuracy == pytest.approx((3 + 2 + 2.5) / 12)
