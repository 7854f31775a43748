"""A threshold for each class, tuned in two steps for the micro-averaged F1.

Li et al. 2018, section 3.3: "(1) tune the threshold of each class to maximize the class-wise F1;
(2) repeatedly pick a random class and re-tune its threshold to optimize the micro-average F1, until
no improvements could be made". Where the text leaves a choice:

- A class is predicted where its score is not below its threshold. Every threshold that makes a
  difference is tried: between two scores that follow each other, below all and above all. Of equal
  ones that in the widest gap, and of those the lowest.
- Classes are drawn without replacement, in rounds, so that "no improvement" is known after a round
  without one. The seed decides the order.
- A class without a positive clip has F1 0 at any threshold; step one takes that above all scores.

Step two reaches the best of all combinations. With F the micro-F1 reached, no class can better
2 TP - F (predicted) alone, hence no combination can: the numerator and denominator of
F = 2 TP / (predicted + positive) are sums over the classes (Dinkelbach, "On nonlinear fractional
programming", 1967).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassThresholds:
    """Thresholds and what they reach on the clips they were tuned on.

    thresholds : (n_classes,); that above all scores is half-way to 1, or just above 1
    f1 : (n_classes,) of each class
    micro_f1 : of all
    """

    thresholds: Array
    f1: Array
    micro_f1: float


def predictions(scores: NDArray[Any], thresholds: Array) -> BoolArray:
    """Which classes are predicted: (n_clips, n_classes) bool."""
    predicted: BoolArray = np.asarray(scores, np.float64) >= thresholds
    return predicted


def class_thresholds(scores: NDArray[Any], truth: NDArray[Any]) -> ClassThresholds:
    """Step one: the threshold of each class that is best for its own F1.

    Parameters
    ----------
    scores : (n_clips, n_classes) 0 to 1
    truth : (n_clips, n_classes) 0 or 1

    Raises
    ------
    InputError
        No clip, shapes that differ, a score that is no number from 0 to 1, a truth beyond 0 and 1.
    """
    curves = _curves(scores, truth)
    return _reached(curves, [_best(curve, 0, 0, curve.positive) for curve in curves])


def micro_f1_thresholds(
    scores: NDArray[Any], truth: NDArray[Any], seed: int = 0
) -> ClassThresholds:
    """Both steps: thresholds that are best for the micro-averaged F1.

    scores, truth, errors : as of class_thresholds; seed : of the order in which classes are drawn

    The micro-F1 is never below that of step one.
    """
    curves = _curves(scores, truth)
    places = [_best(curve, 0, 0, curve.positive) for curve in curves]
    positive = sum(curve.positive for curve in curves)
    rng = np.random.default_rng(seed)
    better = True
    while better:
        better = False
        for k in rng.permutation(len(curves)):
            others = [(c, p) for i, (c, p) in enumerate(zip(curves, places, strict=True)) if i != k]
            hits = sum(int(c.hits[p]) for c, p in others)
            predicted = sum(int(c.predicted[p]) for c, p in others)
            place = _best(curves[k], hits, predicted, positive)
            before, after = (
                (hits + int(curves[k].hits[p]), predicted + int(curves[k].predicted[p]) + positive)
                for p in (places[k], place)
            )
            # Compared in whole numbers: equal F1 must never count as an improvement.
            if after[0] * before[1] > before[0] * after[1]:
                places[k], better = place, True
    return _reached(curves, places)


@dataclass(frozen=True, eq=False)
class _Curve:
    """What each threshold of a class does; (n_thresholds,) each, from the lowest on.

    hits, predicted : clips that are predicted rightly, and at all
    gap : width of the gap between scores in which the threshold lies
    positive : clips that have the class
    """

    thresholds: Array
    gap: Array
    hits: IntArray
    predicted: IntArray
    positive: int


def _curves(scores: NDArray[Any], truth: NDArray[Any]) -> list[_Curve]:
    values, labels = np.asarray(scores, np.float64), np.asarray(truth)
    if values.ndim != 2 or values.shape != labels.shape or 0 in values.shape:
        raise InputError(
            f"thresholds: scores {values.shape}, truth {labels.shape}; expected clips by classes, "
            "the same of both, and at least one of each"
        )
    right = np.isfinite(values) & (values >= 0) & (values <= 1)
    if not right.all():
        raise InputError(f"thresholds: a score is {values[~right][0]}; expected 0 to 1")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("thresholds: the truth has other numbers than 0 and 1")
    columns = zip(values.T, labels.T.astype(bool), strict=True)
    return [_curve(column, has) for column, has in columns]


def _curve(scores: Array, has: BoolArray) -> _Curve:
    order = np.argsort(scores, kind="stable")
    ascending, found = scores[order], has[order]
    levels, first = np.unique(ascending, return_index=True)
    low = np.concatenate([[0.0], levels])
    high = np.concatenate([levels, [max(1.0, np.nextafter(levels[-1], 2.0))]])
    middle = low + (high - low) / 2
    # Between neighbouring numbers there is none.
    thresholds = np.where(middle > low, middle, high)
    thresholds[0] = middle[0]
    above = np.concatenate([first, [len(scores)]])
    hits_above = np.concatenate([np.cumsum(found[::-1])[::-1], [0]])
    return _Curve(
        thresholds,
        high - low,
        hits_above[above].astype(np.int64),
        (len(scores) - above).astype(np.int64),
        int(has.sum()),
    )


def _best(curve: _Curve, hits: int, predicted: int, positive: int) -> int:
    """Place of the threshold with the highest F1.

    hits, predicted : of the other classes; positive : of all that count
    """
    f1 = _f1(curve.hits + hits, curve.predicted + predicted, positive)
    if curve.positive == 0 and hits == 0:
        return len(f1) - 1
    # Equal fractions of other whole numbers may differ in the last bit of their quotient.
    same = np.flatnonzero(f1 >= f1.max() - 1e-14)
    return int(same[np.argmax(curve.gap[same])])


def _f1(hits: IntArray, predicted: IntArray, positive: IntArray | int) -> Array:
    total = predicted + positive
    f1: Array = np.divide(2.0 * hits, total, out=np.zeros(len(hits)), where=total > 0)
    return f1


def _reached(curves: list[_Curve], places: list[int]) -> ClassThresholds:
    pairs = list(zip(curves, places, strict=True))
    hits = np.array([curve.hits[place] for curve, place in pairs], np.int64)
    predicted = np.array([curve.predicted[place] for curve, place in pairs], np.int64)
    positive = np.array([curve.positive for curve in curves], np.int64)
    micro = _f1(hits.sum()[None], predicted.sum()[None], int(positive.sum()))
    return ClassThresholds(
        np.array([curve.thresholds[place] for curve, place in pairs]),
        _f1(hits, predicted, positive),
        float(micro[0]),
    )
