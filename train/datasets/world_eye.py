"""What a perfect eye could know of a generated world's labels, from its plans alone.

It recognises every object that is in the picture and hears nothing. It cannot tell classes that
look alike, nor a silent object from one that sounds, for both move; and of what is behind a screen
it knows nothing. No visual teacher does better, but for what it learns about which things are seen
together (and chance, where takes are few). So difficulty is set before anything is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.train.datasets.world_plan import TakePlan
from soundpost.train.datasets.world_settings import WorldSettings


@dataclass(frozen=True)
class PerfectEye:
    """Bounds of what is seen.

    seen_share : of all labels of all takes, those whose object is in the picture
    clear_share : those of them whose class has a look of its own
    sounding_share : of the objects in the picture that could sound, those that do
    mean_average_precision : over classes, of all takes
    average_precision : of each class that is heard at all
    accuracy : of the main object, taken at random from those in one picture; who watches for a
        while knows more, for the main object moves throughout
    """

    seen_share: float
    clear_share: float
    sounding_share: float
    mean_average_precision: float
    average_precision: dict[str, float]
    accuracy: float


def perfect_eye(settings: WorldSettings, plans: Sequence[TakePlan]) -> PerfectEye:
    """Bounds for some takes.

    A class scores 1 where its look is in the picture and 0 elsewhere: within a class, that is the
    order of its probabilities.
    """
    from sklearn.metrics import average_precision_score

    looks = [settings.look_of(label) for label in settings.classes]
    heard = np.zeros((len(plans), len(looks)), bool)
    shown = np.zeros((len(plans), len(looks)), bool)
    right, n_seen, n_clear, n_objects, n_silent = 0.0, 0, 0, 0, 0
    for row, plan in enumerate(plans):
        heard[row] = [label in plan.labels() for label in settings.classes]
        seen = [actor for actor in plan.actors if actor.seen]
        shown[row] = [look in {actor.look for actor in seen} for look in looks]
        sounding = [actor for actor in seen if actor.sounds]
        n_objects += len(seen)
        n_silent += len(seen) - len(sounding)
        n_seen += len(sounding)
        n_clear += sum(looks.count(str(actor.look)) == 1 for actor in sounding)
        if plan.actors[0].seen:
            right += 1 / (len(seen) * looks.count(str(plan.actors[0].look)))
    precision = {
        label: float(average_precision_score(heard[:, column], shown[:, column]))
        for column, label in enumerate(settings.classes)
        if heard[:, column].any()
    }
    return PerfectEye(
        n_seen / max(int(heard.sum()), 1),
        n_clear / max(int(heard.sum()), 1),
        1 - n_silent / max(n_objects, 1),
        float(np.mean([*precision.values()])) if precision else 0.0,
        precision,
        right / max(len(plans), 1),
    )
