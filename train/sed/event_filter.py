"""Event-specific post-processing: median filters whose windows follow each class's durations.

Liang et al. 2021, section 2.4: the window of class c is eta times the mean duration of its shortest
segments, up to the inflection point of the cumulative distribution of the sorted durations
(equation 7, eta = 1/3). Choices where the text leaves one:

- The distribution is a staircase, which has no inflection. Its figure marks the point where the
  steep rise ends and the long flat tail begins: we take the segment whose point (duration, rank),
  both scaled to 0..1, lies furthest above the diagonal, the shortest such (the "knee" of Satopää
  et al. 2011). Where none lies above it, there is no tail and all segments count.
- The segments are the events as labelled, overlapping ones too, not their union.
- A window is the odd number of frames nearest to its duration, at least one; a median at an end of
  the clip repeats the outermost frame.
- A class without a strong example gets the median of the other classes' windows, or
  `FIXED_S` where none has one. That is logged, and stands in the record.
- Figure 4 filters posteriors and "one-hot predictions" with the same window: gate by the tags,
  filter, threshold, filter again. The tagging figures gain too in the paper: a tag whose class
  has no frame left is withdrawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.sed.scenes import Event, Scene

_log = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Rule = Literal["esp", "average", "fixed", "none"]
RULES: tuple[Rule, ...] = ("esp", "average", "fixed", "none")

# Of every class under the rule "fixed", and where no class has a strong example: the median window
# of the DCASE 2019 baseline.
FIXED_S = 0.45


@dataclass(frozen=True)
class EventWindows:
    """Median-filter windows.

    window_s : for each class, seconds
    fallbacks : classes without a strong example, whose windows are borrowed
    """

    rule: Rule
    window_s: Mapping[str, float]
    fallbacks: tuple[str, ...] = ()

    def frames(self, labels: Sequence[str], hop_s: float) -> tuple[int, ...]:
        """Odd windows in frames, by class in the order of labels."""
        return tuple(odd_frames(self.window_s[label], hop_s) for label in labels)


@dataclass(frozen=True)
class Detection:
    """Decisions about one clip.

    frames : (n_frames, n_labels) bool
    tags : (n_labels,) bool
    """

    frames: BoolArray
    tags: BoolArray


def odd_frames(window_s: float, hop_s: float) -> int:
    """Odd number of frames nearest to a duration, at least one; the larger of two as near."""
    # A third of 0.3 s is a hair less than ten hops of 10 ms.
    return 2 * int(np.floor(window_s / hop_s / 2 + 1e-6)) + 1


def segments_to_inflection(durations_s: Iterable[float]) -> int:
    """N_c of equation 7: how many of the shortest segments lie up to the inflection point."""
    d = np.sort(np.asarray(list(durations_s), np.float64))
    if d[-1] == d[0]:
        return len(d)
    above = np.linspace(0, 1, len(d)) - (d - d[0]) / (d[-1] - d[0])
    # Rounded, so that equal heights stay equal whatever the unit of the durations.
    above = np.round(above, 9)
    best = int(np.argmax(above))
    return best + 1 if above[best] > 0 else len(d)


def event_specific_window_s(durations_s: Sequence[float], eta: float = 1 / 3) -> float:
    """Equation 7 for one class, seconds; durations_s must not be empty."""
    shortest = np.sort(np.asarray(durations_s, np.float64))[: segments_to_inflection(durations_s)]
    return float(eta * shortest.mean())


def event_windows(
    scenes: Iterable[Scene], labels: Sequence[str], rule: Rule = "esp", eta: float = 1 / 3
) -> EventWindows:
    """Windows of every class from the strongly labelled training scenes.

    rule : "esp" (equation 7), "average" (eta times the mean of all, as in the rows of table 1 above
        the last), "fixed" (the baseline's one window for all), "none" (no filter)
    """
    if rule not in RULES:
        raise ConfigError(f"post-processing rule is {rule!r}; expected {', '.join(RULES)}")
    if rule == "none":
        return EventWindows(rule, dict.fromkeys(labels, 0.0))
    if rule == "fixed":
        return EventWindows(rule, dict.fromkeys(labels, FIXED_S))
    durations: dict[str, list[float]] = {label: [] for label in labels}
    for scene in scenes:
        if scene.labelling == "strong":
            for event in scene.events:
                durations[event.label].append(event.offset_s - event.onset_s)
    windows = {
        label: event_specific_window_s(found, eta) if rule == "esp" else float(eta * np.mean(found))
        for label, found in durations.items()
        if found
    }
    missing = tuple(label for label in labels if label not in windows)
    if missing:
        borrowed = float(np.median(list(windows.values()))) if windows else FIXED_S
        _log.warning(
            "no strongly labelled example of %s: the median filter is %.2f s, %s; label a few "
            "scenes strongly to have windows of their own",
            ", ".join(missing),
            borrowed,
            "the median of the other classes" if windows else "a default, for no class has any",
        )
        windows |= dict.fromkeys(missing, borrowed)
    return EventWindows(rule, {label: windows[label] for label in labels}, missing)


def filter_frames(frames: NDArray[np.generic], windows: Sequence[int]) -> NDArray[np.generic]:
    """Centred running median over time, a window of its own for each class.

    Parameters
    ----------
    frames : (n_frames, n_labels), scores or decisions
    windows : (n_labels,) odd numbers of frames

    Returns
    -------
    Same shape and type. Decisions become their majority.
    """
    columns = [
        frames[:, k] if window == 1 else median_filter(frames[:, k], window, mode="nearest")
        for k, window in enumerate(windows)
    ]
    return np.stack(columns, axis=1)


def gate_and_filter(
    frame_scores: FloatArray,
    clip_scores: FloatArray,
    windows: Sequence[int],
    tag_threshold: float | FloatArray = 0.5,
) -> FloatArray:
    """Frame posteriors of the tagged classes, filtered: scores for metrics that sweep thresholds.

    frame_scores : (n_frames, n_labels); clip_scores : (n_labels,)
    """
    gated = frame_scores * (clip_scores >= tag_threshold)
    return filter_frames(gated, windows).astype(np.float32)


def detect(
    frame_scores: FloatArray,
    clip_scores: FloatArray,
    windows: Sequence[int],
    threshold: float | FloatArray = 0.5,
    tag_threshold: float | FloatArray = 0.5,
    *,
    gate: bool = True,
) -> Detection:
    """Figure 4: gate by the tags, filter, threshold, filter the decisions.

    Parameters
    ----------
    frame_scores : (n_frames, n_labels)
    clip_scores : (n_labels,)
    windows : (n_labels,) odd numbers of frames
    threshold, tag_threshold : one for all classes, or (n_labels,)
    gate : False for what leaves the gate out, such as the mean-teacher baseline: tags and frames
        then say nothing of each other
    """
    filtered = filter_frames(frame_scores, windows).astype(np.float32)
    return decide_filtered(filtered, clip_scores, windows, threshold, tag_threshold, gate=gate)


def decide_filtered(
    filtered: FloatArray,
    clip_scores: FloatArray,
    windows: Sequence[int],
    threshold: float | FloatArray = 0.5,
    tag_threshold: float | FloatArray = 0.5,
    *,
    gate: bool = True,
) -> Detection:
    """`detect` of frame scores that are filtered already, which is most of the work.

    A gate opens or shuts a whole class: it may as well come after the filter.
    """
    tags = np.broadcast_to(clip_scores >= tag_threshold, clip_scores.shape)
    decisions = np.zeros(filtered.shape, bool)
    columns = np.flatnonzero(tags) if gate else np.arange(len(tags))
    if len(columns):
        above = (filtered >= threshold)[:, columns]
        decisions[:, columns] = filter_frames(above, [windows[k] for k in columns])
    return Detection(decisions, tags & decisions.any(axis=0) if gate else np.array(tags))


def events_of(frames: BoolArray, labels: Sequence[str], front_end: FrontEnd) -> tuple[Event, ...]:
    """Runs of detected frames as events, by onset.

    frames : (n_frames, n_labels) of a recording's front end. Frame i is centred on its window and
    covers one hop: an event starts where its first frame's hop does.
    """
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    lead_s = (front_end.window_length / front_end.sample_rate_hz - hop_s) / 2
    found = []
    for k, label in enumerate(labels):
        edges = np.flatnonzero(np.diff(frames[:, k].astype(np.int8), prepend=0, append=0))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            found.append(Event(label, first * hop_s + lead_s, end * hop_s + lead_s))
    return tuple(sorted(found, key=lambda e: (e.onset_s, e.label)))
