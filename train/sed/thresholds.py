"""Onset and release thresholds of each label, chosen on validation recordings, and their trade.

Nothing here sees a test recording: who calls it hands over the validation ones. For each release
threshold of a grid, every onset threshold that makes a difference is judged at once (see
train/sed/decisions.py), and the pair with the highest event F1 is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.train.sed.decisions import FrameGrid, decide, event_strength, runs
from soundpost.train.sed.judged import (
    ScoresOf,
    check_scenes,
    check_scores,
    library_scores,
    library_truth,
    present_labels,
)
from soundpost.train.sed.metrics import (
    COLLARS,
    delay_figures,
    event_f1_of,
    false_alarms_of,
    onset_delays,
)
from soundpost.train.sed.scenes import Scene
from soundpost.train.sed.score_library import score_library

RELEASES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
ONSETS = tuple(round(0.05 * k, 2) for k in range(1, 20))
# F1 as good as the best one, in the last digits of a float.
_SAME = 1e-9


@dataclass(frozen=True)
class ChosenThreshold:
    """What was chosen for a label.

    event_f1 : on the validation recordings, so a little flattered
    n_reference : validation events that it rests on; 0: none, and the settings are unchanged
    """

    settings: ClassSettings
    event_f1: float
    precision: float
    recall: float
    n_reference: int


def choose_thresholds(
    scenes: Sequence[Scene],
    scores: ScoresOf,
    grid: FrameGrid,
    classes: Sequence[ClassSettings],
    releases: Sequence[float] = RELEASES,
) -> tuple[ChosenThreshold, ...]:
    """The (onset, release) pair of each label that gives the highest event F1.

    Parameters
    ----------
    scenes : validation recordings, strongly labelled
    scores : (n_frames, n_labels) 0 to 1 for each recording, by its path, smoothed as the detector
        will smooth them
    classes : the other settings, and what a label without a validation event keeps

    Returns
    -------
    tuple of ChosenThreshold
        In the order of the classes. Among equals the release threshold in the middle, and the
        middle of its widest range of onset thresholds: what other recordings upset least.

    Raises
    ------
    InputError
        See `check_scenes` and `check_scores`; an empty validation set is one.
    """
    labels = tuple(settings.label for settings in classes)
    check_scenes(scenes, labels)
    check_scores(scenes, scores, grid, labels)
    if not releases or not all(0 < release < 1 for release in releases):
        raise InputError(f"releases {list(releases)}: expected some, each above 0 and below 1")
    present = present_labels(scenes, labels)
    return tuple(
        _choose(scenes, scores, grid, settings, index, releases)
        if settings.label in present
        else ChosenThreshold(settings, math.nan, math.nan, math.nan, 0)
        for index, settings in enumerate(classes)
    )


def _choose(
    scenes: Sequence[Scene],
    scores: ScoresOf,
    grid: FrameGrid,
    settings: ClassSettings,
    index: int,
    releases: Sequence[float],
) -> ChosenThreshold:
    labels = (settings.label,)
    truth = library_truth(scenes, labels)
    edges_s = {scene.path: grid.edges_s(len(scores[scene.path])) for scene in scenes}
    choices: list[ChosenThreshold] = []
    for release in sorted(releases):
        tables = {
            str(scene.path): library_scores(
                event_strength(
                    scores[scene.path][:, index],
                    release,
                    grid.hop_s,
                    settings.min_duration_s,
                    settings.min_gap_s,
                )[:, None],
                edges_s[scene.path],
                labels,
            )
            for scene in scenes
        }
        curve = score_library().collar_based.fscore_curve(tables, truth, **COLLARS)
        f1, precision, recall, below, statistics = curve[settings.label]
        # Point k holds for onset thresholds above below[k - 1] up to below[k]; strengths under
        # release are zero, and the last point, without an event, is at infinity.
        lowest = np.maximum(np.concatenate([[0.0], below[:-1]]), release)
        usable = (below >= release) & (below <= 1)
        best = f1[usable].max(initial=0.0)
        if best == 0:
            continue
        ranges = runs(usable & (f1 >= best - _SAME))
        first, stop = max(ranges, key=lambda ends: float(below[ends[1] - 1] - lowest[ends[0]]))
        onset = float(lowest[first] + below[stop - 1]) / 2
        choices.append(
            ChosenThreshold(
                dataclasses.replace(settings, onset=onset, release=release),
                float(f1[first]),
                float(precision[first]),
                float(recall[first]),
                int(statistics["n_ref"]),
            )
        )
    if not choices:
        # No pair finds an event: nothing speaks against what was set.
        return ChosenThreshold(settings, 0.0, 0.0, 0.0, sum(map(len, truth.values())))
    highest = max(choice.event_f1 for choice in choices)
    equals = [choice for choice in choices if choice.event_f1 >= highest - _SAME]
    return equals[len(equals) // 2]


@dataclass(frozen=True)
class TradePoint:
    """What an onset threshold costs and brings.

    label : None for all labels at this one threshold; the F1 is then macro, the rest over all
    n_heard, n_missed : reference events that the delay is of, and that it is not of
    """

    label: str | None
    onset: float
    event_f1: float
    false_alarms_per_hour: float
    onset_delay_median_s: float
    onset_delay_p90_s: float
    n_heard: int
    n_missed: int


def trade_off(
    scenes: Sequence[Scene],
    scores: ScoresOf,
    grid: FrameGrid,
    classes: Sequence[ClassSettings],
    onsets: Sequence[float] = ONSETS,
    *,
    look_ahead_frames: int = 0,
    chunk_frames: int = 1,
) -> tuple[TradePoint, ...]:
    """Event F1, false alarms and onset delay over the onset threshold, of all labels and of each.

    The release threshold stays where `classes` has it, or at the onset threshold where that is
    lower. The parameters are those of `choose_thresholds` and of `decide`.
    """
    labels = tuple(settings.label for settings in classes)
    check_scenes(scenes, labels)
    check_scores(scenes, scores, grid, labels)
    hours = sum(scene.seconds for scene in scenes) / 3600
    points: list[TradePoint] = []
    for onset in onsets:
        moved = [
            dataclasses.replace(known, onset=onset, release=min(known.release, onset))
            for known in classes
        ]
        found = {
            scene.path: decide(
                scores[scene.path],
                moved,
                grid,
                look_ahead_frames=look_ahead_frames,
                chunk_frames=chunk_frames,
            )
            for scene in scenes
        }
        f1, *_ = event_f1_of(scenes, found, labels)
        alarms = false_alarms_of(scenes, found, labels)
        delays = onset_delays(scenes, found)
        macro = float(np.mean(list(f1.values())))
        everything = [delay for of in delays.values() for delay in of]
        rows: list[tuple[str | None, float, int, list[float]]] = [
            (None, macro, sum(alarms.values()), everything),
            *((k, f1.get(k, math.nan), alarms[k], delays.get(k, [])) for k in labels),
        ]
        for label, value, n_alarms, of in rows:
            delay = delay_figures(of)
            points.append(
                TradePoint(
                    label,
                    onset,
                    value,
                    n_alarms / hours,
                    delay.median_s,
                    delay.p90_s,
                    delay.n_heard,
                    delay.n_missed,
                )
            )
    return tuple(points)
