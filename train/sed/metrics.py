"""Figures of sound event detection, by the field's libraries: of frame scores and of found events.

| figure | what counts | by |
|---|---|---|
| event F1 | onset within 200 ms, offset within max(200 ms, 20 % of the event) | sed_scores_eval |
| segment F1 | label active or not in each second | sed_scores_eval |
| clip F1, mAP, mAUC | label somewhere in the recording | scikit-learn |
| PSDS 1 and 2 | intersection with the reference, all thresholds | sed_scores_eval |
| false alarms per hour | found events not a tenth of which is on their label | sed_scores_eval |
| onset delay | from an event's onset to when its start was known | here: no library has it |

The tenth is the detection criterion of PSDS 2: an alarm with inexact times is not a false one. A
macro figure is the mean over the labels that have a reference event; false alarms count for all
labels. Reference events of one label that touch or overlap in one recording are joined first: frame
labels cannot tell them apart, and the library refuses them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.train.sed.decisions import Detected, FrameGrid, decide
from soundpost.train.sed.judged import (
    DECIMALS,
    SEGMENT_S,
    EventsOf,
    Float64Array,
    ScoresOf,
    check_all_there,
    check_found,
    check_scenes,
    check_scores,
    join_events,
    library_events,
    library_scores,
    library_seconds,
    library_truth,
    present_labels,
)
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.score_library import score_library

# Mesaros, Heittola and Virtanen, "Metrics for polyphonic sound event detection" (2016), with the
# collars of DCASE task 4, which liang2021 uses.
COLLARS = {"onset_collar": 0.2, "offset_collar": 0.2, "offset_collar_rate": 0.2}
FALSE_ALARM_SHARE = 0.1
_HOUR_S = 3600.0


@dataclass(frozen=True)
class PsdsScenario:
    """Parameters of the polyphonic sound detection score (Bilen et al. 2020).

    detection : share of a found event that must lie on events of its label
    reference : share of an event that found events must cover
    cross_trigger : share on another label's events that makes a false one a cross trigger
    cross_weight, spread_weight : alpha_CT and alpha_ST
    max_rate_per_hour : effective false positives up to which the curve is integrated
    """

    name: str
    detection: float
    reference: float
    cross_trigger: float | None
    cross_weight: float
    spread_weight: float = 1.0
    max_rate_per_hour: float = 100.0


# DCASE task 4 of 2021 to 2023: the first asks for exact times, the second for the right label.
PSDS_1 = PsdsScenario("PSDS 1", 0.7, 0.7, None, 0.0)
PSDS_2 = PsdsScenario("PSDS 2", 0.1, 0.1, 0.3, 0.5)


# ------------------------------------------------------------------------------ found events


@dataclass(frozen=True)
class DelayFigures:
    """Seconds from an event's onset to when the sensor knew of it.

    n_heard : reference events with a found event of their label that begins from 200 ms before
        the onset up to the offset; the earliest one counts, and for one reference event only
    n_missed : the others
    """

    n_heard: int
    n_missed: int
    median_s: float
    p90_s: float


def onset_delays(scenes: Sequence[Scene], found: EventsOf) -> dict[str, list[float]]:
    """Delay of each reference event that was heard, by label; of the others, infinity.

    The delay ends with `decided_s` of a `Detected`, with the onset of a plain Event.
    """
    delays: dict[str, list[float]] = {}
    for scene in scenes:
        left = sorted(found[scene.path], key=lambda event: event.onset_s)
        for event in join_events(scene.events):
            earliest = event.onset_s - COLLARS["onset_collar"]
            answer = next(
                (
                    one
                    for one in left
                    if one.label == event.label
                    and round(one.onset_s - earliest, DECIMALS) >= 0
                    and one.onset_s < event.offset_s
                ),
                None,
            )
            delay = math.inf
            if answer is not None:
                left.remove(answer)
                decided = answer.decided_s if isinstance(answer, Detected) else math.nan
                delay = (answer.onset_s if math.isnan(decided) else decided) - event.onset_s
            delays.setdefault(event.label, []).append(delay)
    return delays


def delay_figures(delays: Sequence[float]) -> DelayFigures:
    """Median and 90th percentile over the events that were heard; nan where none was."""
    heard = [delay for delay in delays if math.isfinite(delay)]
    median, p90 = np.percentile(heard, [50, 90]) if heard else (math.nan, math.nan)
    return DelayFigures(len(heard), len(delays) - len(heard), float(median), float(p90))


@dataclass(frozen=True)
class EventFigures:
    """Figures of found events; shares in 0 to 1; per label, nan where it has no reference event.

    n_reference : after joining
    false_alarms : counts; n_seconds is what they are counted in
    """

    labels: tuple[str, ...]
    n_recordings: int
    n_seconds: float
    n_reference: dict[str, int]
    n_found: dict[str, int]
    precision: dict[str, float]
    recall: dict[str, float]
    event_f1: dict[str, float]
    segment_f1: dict[str, float]
    false_alarms: dict[str, int]
    delay: dict[str, DelayFigures]
    all_delays: DelayFigures

    def macro(self, values: Mapping[str, float]) -> float:
        """Mean over the labels with a reference event."""
        return float(np.mean([values[label] for label in self.labels if self.n_reference[label]]))

    def false_alarms_per_hour(self, label: str | None = None) -> float:
        """Of one label, or of all together."""
        count = sum(self.false_alarms.values()) if label is None else self.false_alarms[label]
        return count * _HOUR_S / self.n_seconds


def event_f1_of(
    scenes: Sequence[Scene], found: EventsOf, labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Event F1, precision and recall of each label that has a reference event."""
    present = present_labels(scenes, labels)
    scores = {str(s.path): library_events(s, found[s.path], present) for s in scenes}
    f1, precision, recall, _ = score_library().collar_based.fscore(
        scores, library_truth(scenes, present), threshold=0.5, **COLLARS
    )
    return tuple({k: float(of[k]) for k in present} for of in (f1, precision, recall))  # type: ignore[return-value]


def false_alarms_of(
    scenes: Sequence[Scene], found: EventsOf, labels: Sequence[str]
) -> dict[str, int]:
    """Number of false alarms of each label."""
    present = present_labels(scenes, labels)
    scores = {str(s.path): library_events(s, found[s.path], present) for s in scenes}
    *_, statistics = score_library().intersection_based.fscore(
        scores,
        library_truth(scenes, present),
        threshold=0.5,
        dtc_threshold=FALSE_ALARM_SHARE,
        gtc_threshold=FALSE_ALARM_SHARE,
    )
    # The library refuses labels without a reference event: whatever is found of them is false.
    n_found = count_events([found[scene.path] for scene in scenes], labels)
    return {k: int(statistics[k]["fps"]) if k in present else n_found[k] for k in labels}


def count_events(lists: Sequence[Sequence[Event]], labels: Sequence[str]) -> dict[str, int]:
    """Events of each label."""
    counts = dict.fromkeys(labels, 0)
    for events in lists:
        for event in events:
            counts[event.label] += 1
    return counts


def event_figures(scenes: Sequence[Scene], found: EventsOf, labels: Sequence[str]) -> EventFigures:
    """Judge found events against the reference.

    Parameters
    ----------
    scenes : strongly labelled
    found : events of every recording, by its path; `Detected` ones give the onset delay

    Raises
    ------
    InputError
        No recordings, no reference events, a recording without a list, labels outside the
        vocabulary, inverted times, found events of one label that overlap.
    """
    check_scenes(scenes, labels)
    check_found(scenes, found, labels)
    present = present_labels(scenes, labels)
    f1, precision, recall = event_f1_of(scenes, found, labels)
    segment_f1, *_ = score_library().segment_based.fscore(
        {str(s.path): library_events(s, found[s.path], present) for s in scenes},
        library_truth(scenes, present),
        library_seconds(scenes),
        threshold=0.5,
        segment_length=SEGMENT_S,
    )
    delays = onset_delays(scenes, found)
    absent = {label: math.nan for label in labels if label not in present}
    return EventFigures(
        labels=tuple(labels),
        n_recordings=len(scenes),
        n_seconds=sum(scene.seconds for scene in scenes),
        n_reference=count_events([join_events(scene.events) for scene in scenes], labels),
        n_found=count_events([found[scene.path] for scene in scenes], labels),
        precision=precision | absent,
        recall=recall | absent,
        event_f1=f1 | absent,
        segment_f1={k: float(segment_f1[k]) for k in present} | absent,
        false_alarms=false_alarms_of(scenes, found, labels),
        delay={label: delay_figures(delays.get(label, [])) for label in labels},
        all_delays=delay_figures([delay for of in delays.values() for delay in of]),
    )


# ------------------------------------------------------------------------------------- clips


@dataclass(frozen=True)
class ClipTagFigures:
    """Figures of what sounds somewhere in a recording, per label that does and that does not in
    at least one each: the others have no curve.
    """

    f1: dict[str, float]
    average_precision: dict[str, float]
    auc: dict[str, float]


def clip_tag_figures(
    tags: Sequence[frozenset[str]],
    clip_scores: NDArray[Any],
    threshold: float,
    labels: Sequence[str],
) -> ClipTagFigures:
    """Judge clip scores.

    Parameters
    ----------
    tags : labels of each recording
    clip_scores : (n_recordings, n_labels) 0 to 1
    threshold : a label is said to sound from this score on
    """
    truth = np.array([[label in known for label in labels] for known in tags])
    said = clip_scores >= threshold
    some = [k for k in range(len(labels)) if truth[:, k].any()]
    mixed = [k for k in some if not truth[:, k].all()]
    return ClipTagFigures(
        {labels[k]: float(f1_score(truth[:, k], said[:, k])) for k in some},
        {labels[k]: float(average_precision_score(truth[:, k], clip_scores[:, k])) for k in some},
        {labels[k]: float(roc_auc_score(truth[:, k], clip_scores[:, k])) for k in mixed},
    )


# ------------------------------------------------------------------------------------- PSDS


@dataclass(frozen=True)
class PsdsFigures:
    """A polyphonic sound detection score and the curve below which it is the area.

    score : of all labels; by_label : of each alone
    rate_per_hour, hit_rate : (n_points,) effective false positives per hour, effective share of
        events detected
    curves : the same pair of arrays for each label alone
    """

    scenario: PsdsScenario
    score: float
    by_label: dict[str, float]
    rate_per_hour: Float64Array
    hit_rate: Float64Array
    curves: dict[str, tuple[Float64Array, Float64Array]] = field(repr=False)


def psds_figures(
    scenes: Sequence[Scene],
    scores: ScoresOf,
    grid: FrameGrid,
    labels: Sequence[str],
    scenario: PsdsScenario,
    *,
    n_jobs: int = 1,
) -> PsdsFigures:
    """PSDS over all thresholds, of the labels that have a reference event."""
    check_scenes(scenes, labels)
    check_scores(scenes, scores, grid, labels)
    present = present_labels(scenes, labels)
    columns = [labels.index(label) for label in present]
    tables = {
        str(scene.path): library_scores(
            scores[scene.path][:, columns], grid.edges_s(len(scores[scene.path])), present
        )
        for scene in scenes
    }
    # A single label has no other to trigger, and the library would take the mean of nothing.
    crosses = scenario.cross_trigger is not None and len(present) > 1
    score, by_label, (hits, rate), curves = score_library().intersection_based.psds(
        tables,
        library_truth(scenes, present),
        library_seconds(scenes),
        dtc_threshold=scenario.detection,
        gtc_threshold=scenario.reference,
        cttc_threshold=scenario.cross_trigger if crosses else None,
        alpha_ct=scenario.cross_weight if crosses else 0.0,
        alpha_st=scenario.spread_weight,
        max_efpr=scenario.max_rate_per_hour,
        num_jobs=n_jobs,
    )
    return PsdsFigures(
        scenario,
        float(score),
        {label: float(by_label[label]) for label in present},
        rate,
        hits,
        {label: (curves[label][1], curves[label][0]) for label in present},
    )


# --------------------------------------------------------------------------------- all of it


@dataclass(frozen=True)
class SedFigures:
    """Everything that is said of a model on strongly labelled recordings."""

    events: EventFigures
    clips: ClipTagFigures
    psds_1: PsdsFigures
    psds_2: PsdsFigures

    def headline(self) -> dict[str, float]:
        """The figures that stand for all labels, by the names that recipes publish under."""
        return {
            "event_f1": self.events.macro(self.events.event_f1),
            "segment_f1": self.events.macro(self.events.segment_f1),
            "clip_f1": _mean(self.clips.f1),
            "map": _mean(self.clips.average_precision),
            "mauc": _mean(self.clips.auc),
            "psds_1": self.psds_1.score,
            "psds_2": self.psds_2.score,
            "false_alarms_per_hour": self.events.false_alarms_per_hour(),
            "onset_delay_median_s": self.events.all_delays.median_s,
            "onset_delay_p90_s": self.events.all_delays.p90_s,
        }

    def by_label(self) -> dict[str, dict[str, float]]:
        """Figures of each label; nan where one has none."""
        events, clips = self.events, self.clips
        return {
            label: {
                "n_reference": events.n_reference[label],
                "n_found": events.n_found[label],
                # The library says 1 of nothing.
                "precision": events.precision[label] if events.n_found[label] else math.nan,
                "recall": events.recall[label],
                "event_f1": events.event_f1[label],
                "segment_f1": events.segment_f1[label],
                "clip_f1": clips.f1.get(label, math.nan),
                "average_precision": clips.average_precision.get(label, math.nan),
                "auc": clips.auc.get(label, math.nan),
                "psds_1": self.psds_1.by_label.get(label, math.nan),
                "psds_2": self.psds_2.by_label.get(label, math.nan),
                "false_alarms_per_hour": events.false_alarms_per_hour(label),
                "onset_delay_median_s": events.delay[label].median_s,
                "onset_delay_p90_s": events.delay[label].p90_s,
            }
            for label in events.labels
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON: null where a figure does not exist."""
        return {
            "n_recordings": self.events.n_recordings,
            "n_seconds": self.events.n_seconds,
            "all": _without_nan(self.headline()),
            "labels": {k: _without_nan(v) for k, v in self.by_label().items()},
        }

    def line(self) -> str:
        """One line for a person."""
        of = self.headline()
        return (
            f"{self.events.n_recordings} recordings: event F1 {of['event_f1']:.1%}, segment F1 "
            f"{of['segment_f1']:.1%}, clip F1 {of['clip_f1']:.1%}, PSDS {of['psds_1']:.3f} and "
            f"{of['psds_2']:.3f}, {of['false_alarms_per_hour']:.1f} false alarms per hour"
        )


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else math.nan


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def sed_figures(
    scenes: Sequence[Scene],
    scores: ScoresOf,
    grid: FrameGrid,
    classes: Sequence[ClassSettings],
    *,
    found: EventsOf | None = None,
    clip_scores: ScoresOf | None = None,
    clip_threshold: float = 0.5,
    n_jobs: int = 1,
) -> SedFigures:
    """Judge frame scores.

    Parameters
    ----------
    scenes : strongly labelled
    scores : (n_frames, n_labels) 0 to 1 for each recording, by its path, smoothed as wished
    classes : onset, release, minimum duration and gap of each label (train/sed/thresholds.py)
    found : events, where something else decided them; by default `decide` does
    clip_scores : (n_labels,) of each recording, such as a tagging branch's; by default the highest
        frame score for mAP and mAUC, and a label sounds where an event of it was found
    clip_threshold : on clip_scores where they are given
    n_jobs : processes for PSDS

    Raises
    ------
    InputError
        See `event_figures` and `check_scores`.
    """
    labels = tuple(settings.label for settings in classes)
    check_scenes(scenes, labels)
    check_scores(scenes, scores, grid, labels)
    if found is None:
        found = {scene.path: decide(scores[scene.path], classes, grid) for scene in scenes}
    tags = [frozenset(event.label for event in scene.events) for scene in scenes]
    if clip_scores is None:
        highest = np.stack([scores[scene.path].max(axis=0) for scene in scenes])
        clips = clip_tag_figures(tags, highest, 0.5, labels)
        # F1 is of the decisions, and those are the events.
        said = [{event.label for event in found[scene.path]} for scene in scenes]
        heard = np.array([[float(label in those) for label in labels] for those in said])
        clips = ClipTagFigures(
            clip_tag_figures(tags, heard, 0.5, labels).f1, clips.average_precision, clips.auc
        )
    else:
        check_all_there(scenes, clip_scores, "clip scores")
        for scene in scenes:
            if clip_scores[scene.path].shape != (len(labels),):
                raise InputError(
                    f"{scene.path}: clip scores of shape {clip_scores[scene.path].shape}; expected "
                    f"({len(labels)},)"
                )
        stacked = np.stack([clip_scores[scene.path] for scene in scenes])
        clips = clip_tag_figures(tags, stacked, clip_threshold, labels)
    return SedFigures(
        event_figures(scenes, found, labels),
        clips,
        psds_figures(scenes, scores, grid, labels, PSDS_1, n_jobs=n_jobs),
        psds_figures(scenes, scores, grid, labels, PSDS_2, n_jobs=n_jobs),
    )
