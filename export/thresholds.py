"""Thresholds per class, from the quantised scores of validation clips.

The rule. A clip is heard as a label when its smoothed window scores reach the onset threshold at
any moment: the detector's own criterion. For each label, over the clips of the validation split:

1. candidates are the largest smoothed score of each clip;
2. those at which more than `max_false_share` of the other classes' clips would be heard are out;
   where that is all of them, the onset goes above every clip;
3. of the rest the one with the best F-score wins (the higher one of equals);
4. the onset is put half-way, in logits, between that candidate and the next lower one, so that
   neither lies on the edge, and kept within fixed bounds;
5. the release threshold lies `release_logits` below the onset.

A label with no validation clip has nothing to choose by and gets `fallback_onset`. One whose alarm
a cadence check confirms gets `cadence_onset`: its score only says when to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings
from soundpost.device.features import FloatArray
from soundpost.train.metrics import label_matrix

# What the student of this label hears is one beep; the pattern is confirmed over seconds.
CADENCES: dict[str, Literal["T3", "T4"]] = {"smoke_alarm": "T3", "co_alarm": "T4"}


@dataclass(frozen=True)
class ThresholdRule:
    """How thresholds are chosen, and the detector settings that are the same for every class.

    beta : of the F-score; below 1 favours precision
    max_false_share : of the other classes' clips
    cadence_onset : of a label that a cadence check confirms. The check alone, without any score,
        raised one false alarm in 1.96 h of real sound; the starter's score at 0.05 takes none of
        the smoke alarms and one in a hundred of the CO alarms that it hears at 0 dB over the
        validation clips, 0.3 takes one and four
    release_logits : hysteresis; 1.0 turns an onset of 0.5 into a release of 0.27
    lowest_onset, highest_onset : bounds of every onset
    cadence_gap_s : silence that ends an alarm: longer than the pause of T4 (5 s ± 10 %)
    """

    beta: float = 1.0
    max_false_share: float = 0.02
    cadence_onset: float = 0.05
    release_logits: float = 1.0
    lowest_onset: float = 0.05
    highest_onset: float = 0.95
    fallback_onset: float = 0.5
    smoothing: Literal["median", "mean", "none"] = "mean"
    smoothing_windows: int = 3
    min_duration_s: float = 0.0
    min_gap_s: float = 1.0
    cadence_gap_s: float = 7.0


def smoothed(scores: FloatArray, how: ThresholdRule | ClassSettings) -> FloatArray:
    """Scores of one clip's windows as the detector smooths them.

    Parameters
    ----------
    scores : (n_windows, n_labels)

    Returns
    -------
    (n_windows, n_labels): window i is the mean or median of windows i - k + 1 to i; the first
    windows of a clip of fewer
    """
    if how.smoothing == "none" or how.smoothing_windows == 1:
        return scores
    centre = np.mean if how.smoothing == "mean" else np.median
    rows = [
        centre(scores[max(0, i - how.smoothing_windows + 1) : i + 1], axis=0)
        for i in range(len(scores))
    ]
    return np.asarray(rows, np.float32)


def clip_peaks(
    scores: FloatArray, clips: NDArray[np.int64], how: ThresholdRule | ClassSettings
) -> FloatArray:
    """Largest smoothed score of each clip.

    Parameters
    ----------
    scores : (n_windows, n_labels)
    clips : (n_windows,) clip of each window, ascending from 0

    Returns
    -------
    (n_clips, n_labels)
    """
    starts = np.flatnonzero(np.diff(clips, prepend=-1))
    parts = np.split(scores, starts[1:])
    return np.stack([smoothed(part, how).max(axis=0) for part in parts])


def choose_onset(peaks: FloatArray, positive: NDArray[np.bool_], rule: ThresholdRule) -> float:
    """Onset threshold of one label by the module's rule.

    Parameters
    ----------
    peaks : (n_clips,) largest smoothed score of each clip
    positive : (n_clips,) True where the clip is of this label
    """
    if not positive.any():
        return rule.fallback_onset
    candidates = np.unique(peaks)
    heard = peaks[None, :] >= candidates[:, None]
    hits = (heard & positive).sum(axis=1)
    false = (heard & ~positive).sum(axis=1)
    beta2 = rule.beta**2
    f_score = (1 + beta2) * hits / (beta2 * positive.sum() + hits + false)
    f_score[false > rule.max_false_share * (~positive).sum()] = -1.0
    if f_score.max() < 0:
        above = _logit(candidates[-1]) + rule.release_logits / 2
        return min(max(_probability(above), rule.lowest_onset), rule.highest_onset)
    # Of equals the last, which is the highest.
    chosen = int(np.flatnonzero(f_score == f_score.max())[-1])
    upper = _logit(candidates[chosen])
    lower = _logit(candidates[chosen - 1]) if chosen else upper - rule.release_logits
    return min(max(_probability((lower + upper) / 2), rule.lowest_onset), rule.highest_onset)


def release_of(onset: float, rule: ThresholdRule) -> float:
    """Release threshold of an onset, by the module's rule."""
    return _probability(_logit(onset) - rule.release_logits)


def _logit(score: float) -> float:
    bounded = min(max(float(score), 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def choose_classes(
    scores: FloatArray,
    clips: NDArray[np.int64],
    clip_labels: NDArray[Any],
    labels: Sequence[str],
    rule: ThresholdRule,
) -> tuple[ClassSettings, ...]:
    """Detector settings of every label.

    Parameters
    ----------
    scores : (n_windows, n_labels) of the quantised model on validation windows
    clips : (n_windows,) clip of each window, ascending from 0
    clip_labels : (n_clips,) label of each clip, -1 for none of them; or (n_clips, n_labels) bool
    labels : names
    """
    peaks = clip_peaks(scores, clips, rule)
    truth = label_matrix(clip_labels, len(labels))
    chosen = []
    for index, label in enumerate(labels):
        cadence = CADENCES.get(label)
        onset = rule.cadence_onset
        if cadence is None:
            onset = choose_onset(peaks[:, index], truth[:, index], rule)
        chosen.append(
            ClassSettings(
                label=label,
                onset=round(onset, 6),
                release=round(release_of(onset, rule), 6),
                # A beep of T4 is 0.1 s: the cadence check needs the score as it is.
                smoothing=rule.smoothing if cadence is None else "none",
                smoothing_windows=rule.smoothing_windows if cadence is None else 1,
                min_duration_s=rule.min_duration_s,
                min_gap_s=rule.min_gap_s if cadence is None else rule.cadence_gap_s,
                cadence=cadence,
            )
        )
    return tuple(chosen)
