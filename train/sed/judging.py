"""Scores of a set to events and figures, decided as published or as the sensor decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.frame_detector import detect_offline, smooth
from soundpost.train.sed.confusion import segment_confusion
from soundpost.train.sed.decisions import Detected, FrameGrid, events_of
from soundpost.train.sed.event_filter import decide_filtered, detect, filter_frames, gate_and_filter
from soundpost.train.sed.event_filter import events_of as events_of_frames
from soundpost.train.sed.judged import EventsOf, ScoresOf
from soundpost.train.sed.metrics import (
    DelayFigures,
    EventFigures,
    SedFigures,
    clip_tag_figures,
    event_f1_of,
    sed_figures,
)
from soundpost.train.sed.recipe import FilterSettings
from soundpost.train.sed.scenes import Scene


def heard_frames(scores: FloatArray, scene: Scene, front_end: FrontEnd) -> FloatArray:
    """The scores that lie within a recording: one that is short was padded for the batch.

    scores : (n_frames, n_labels)
    """
    n_samples = math.ceil(scene.seconds * front_end.sample_rate_hz)
    return scores[: max(1, front_end.frames_of(n_samples))]


@dataclass(frozen=True)
class Judged:
    """A model on strongly labelled recordings.

    scores : what was decided on: filtered, and gated where the method gates
    classes : with the thresholds of the decisions
    """

    scenes: tuple[Scene, ...]
    classes: tuple[ClassSettings, ...]
    scores: ScoresOf
    found: EventsOf
    figures: SedFigures

    def confusion(self) -> NDArray[np.int64]:
        """See `segment_confusion`."""
        labels = [settings.label for settings in self.classes]
        return segment_confusion(self.scenes, self.found, labels)


def judge_published(
    scenes: Sequence[Scene],
    labels: Sequence[str],
    frames: FloatArray,
    clips: FloatArray,
    windows: Sequence[int],
    settings: FilterSettings,
    front_end: FrontEnd,
) -> Judged:
    """Post-processing of liang2021, figure 4: gate by the tags, centred medians, fixed thresholds.

    Parameters
    ----------
    frames : (n_scenes, n_frames, n_labels) 0 to 1; clips : (n_scenes, n_labels)
    windows : of the medians, frames by label

    There is no delay: what hears ten seconds at once knows of nothing before their end. The
    figures' tags are those of the clip branch of which a frame is left; mAP and mAUC are of the
    clip branch's scores.
    """
    limits = settings.threshold, settings.tag_threshold
    scores, found = {}, {}
    for scene, padded, clip_scores in zip(scenes, frames, clips, strict=True):
        frame_scores = heard_frames(padded, scene, front_end)
        # A threshold of zero opens every gate.
        opens = settings.tag_threshold if settings.gate else 0.0
        scores[scene.path] = gate_and_filter(frame_scores, clip_scores, windows, opens)
        decided = detect(frame_scores, clip_scores, windows, *limits, gate=settings.gate)
        found[scene.path] = events_of_frames(decided.frames, labels, front_end)
    classes = tuple(
        ClassSettings(label, settings.threshold, settings.threshold, "none", 1, 0.0, 0.0)
        for label in labels
    )
    figures = sed_figures(scenes, scores, FrameGrid.of(front_end), classes, found=found)
    tags = [frozenset(event.label for event in scene.events) for scene in scenes]
    of_clips = clip_tag_figures(tags, clips, settings.tag_threshold, labels)
    if settings.gate:
        of_clips = replace(of_clips, f1=figures.clips.f1)
    figures = replace(
        figures,
        clips=of_clips,
        events=without_delays(figures.events),
    )
    return Judged(tuple(scenes), classes, scores, found, figures)


# What thresholds of the published decision are chosen from.
THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


def choose_published(
    scenes: Sequence[Scene],
    labels: Sequence[str],
    frames: FloatArray,
    clips: FloatArray,
    windows: Sequence[int],
    settings: FilterSettings,
    front_end: FrontEnd,
    *,
    quiet: bool = False,
) -> FilterSettings:
    """The thresholds of frames and tags, one pair for all labels, with the highest event F1.

    For validation recordings; the parameters are those of `judge_published`. The paper keeps 0.5:
    a short training leaves scores below it. Among equals the pair nearest to what the settings say.
    """
    filtered = [
        filter_frames(heard_frames(padded, scene, front_end), windows).astype(np.float32)
        for scene, padded in zip(scenes, frames, strict=True)
    ]
    # Without a gate the tags' threshold decides nothing of the events.
    of_tags = THRESHOLDS if settings.gate else (settings.tag_threshold,)
    pairs = sorted(
        itertools.product(THRESHOLDS, of_tags),
        key=lambda pair: (
            abs(pair[0] - settings.threshold) + abs(pair[1] - settings.tag_threshold),
            pair,
        ),
    )
    best, chosen = -1.0, settings
    for threshold, tag_threshold in tqdm(pairs, "thresholds", disable=quiet, leave=False):
        found = {}
        for scene, of_scene, of_clip in zip(scenes, filtered, clips, strict=True):
            decided = decide_filtered(
                of_scene, of_clip, windows, threshold, tag_threshold, gate=settings.gate
            )
            found[scene.path] = events_of_frames(decided.frames, labels, front_end)
        f1, *_ = event_f1_of(scenes, found, labels)
        mean = float(np.mean(list(f1.values())))
        if mean > best + 1e-9:
            best = mean
            chosen = replace(settings, threshold=threshold, tag_threshold=tag_threshold)
    return chosen


def without_delays(events: EventFigures) -> EventFigures:
    """The same figures, saying nothing of when an event was known."""

    def unknown(delay: DelayFigures) -> DelayFigures:
        return replace(delay, median_s=math.nan, p90_s=math.nan)

    delays = {label: unknown(delay) for label, delay in events.delay.items()}
    return replace(events, delay=delays, all_delays=unknown(events.all_delays))


def heard_until(detection: Detection, front_end: FrontEnd, chunk_frames: int) -> int:
    """Last sample of the chunk that a detection waits for: what the sensor has heard by then.

    What the sound card and the resampler hold back comes on top, up to 0.1 s.
    """
    last = (detection.window_end_sample - front_end.window_length) // front_end.hop_length
    return front_end.samples_of((last // chunk_frames + 1) * chunk_frames)


def judge_on_device(
    scenes: Sequence[Scene],
    scores: Sequence[FloatArray],
    classes: Sequence[ClassSettings],
    front_end: FrontEnd,
    look_ahead_frames: int,
    chunk_frames: int,
) -> Judged:
    """What the sensor's own detector says of the scores, and when it says it.

    Parameters
    ----------
    scores : (n_frames, n_labels) 0 to 1 of each scene, as the model gives them
    chunk_frames : that the sensor hears at a time
    """
    filtered: dict[Path, FloatArray] = {}
    found: dict[Path, list[Detected]] = {}
    for scene, padded in zip(scenes, scores, strict=True):
        of_scene = heard_frames(padded, scene, front_end)
        detections = detect_offline(of_scene, classes, front_end, look_ahead_frames)
        heard = [
            replace(one, window_end_sample=heard_until(one, front_end, chunk_frames))
            for one in detections
        ]
        found[scene.path] = events_of(heard, front_end.sample_rate_hz)
        filtered[scene.path] = smooth(of_scene, classes, look_ahead_frames)
    figures = sed_figures(scenes, filtered, FrameGrid.of(front_end), classes, found=found)
    return Judged(tuple(scenes), tuple(classes), filtered, found, figures)
