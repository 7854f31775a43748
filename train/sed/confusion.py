"""Which labels are taken for which, where several may sound at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.train.sed.judged import (
    DECIMALS,
    SEGMENT_S,
    EventsOf,
    check_found,
    check_scenes,
)
from soundpost.train.sed.scenes import Event, Scene


def segment_confusion(
    scenes: Sequence[Scene], found: EventsOf, labels: Sequence[str]
) -> NDArray[np.int64]:
    """Confusion of labels that may sound at once, counted over segments of one second.

    Returns
    -------
    (n_labels + 1, n_labels + 1) int64, the reference by row; the last row and column are "nothing"
        (t, t): segments in which t sounds and is detected. (t, p): t sounds and is missed while p
        is detected and does not sound. (t, nothing): t is missed, and nothing false is detected.
        (nothing, p): p is detected falsely, and nothing is missed. A segment counts in every cell
        whose sentence is true of it, so a row may add up to more than its segments.
    """
    check_scenes(scenes, labels)
    check_found(scenes, found, labels)
    n = len(labels)
    counts: NDArray[np.int64] = np.zeros((n + 1, n + 1), np.int64)
    for scene in scenes:
        n_segments = math.ceil(round(scene.seconds / SEGMENT_S, DECIMALS))
        truth = active_segments(scene.events, n_segments, labels)
        said = active_segments(found[scene.path], n_segments, labels)
        for there, heard in zip(truth, said, strict=True):
            counts[np.flatnonzero(there & heard), np.flatnonzero(there & heard)] += 1
            missed, wrong = np.flatnonzero(there & ~heard), np.flatnonzero(heard & ~there)
            # Without any, index n: "nothing".
            rows = missed if len(missed) else np.array([n])
            columns = wrong if len(wrong) else np.array([n])
            if len(missed) or len(wrong):
                counts[np.ix_(rows, columns)] += 1
    return counts


def active_segments(
    events: Sequence[Event], n_segments: int, labels: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether each label sounds in each segment of one second, (n_segments, n_labels)."""
    active = np.zeros((n_segments, len(labels)), bool)
    for event in events:
        first = math.floor(round(event.onset_s / SEGMENT_S, DECIMALS))
        last = math.ceil(round(event.offset_s / SEGMENT_S, DECIMALS))
        active[first:last, labels.index(event.label)] = True
    return active
