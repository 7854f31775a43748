"""Frame scores to events for a whole recording: the detector's hysteresis, all onsets at once.

The detector (device/detector.py, device/frame_detector.py) begins an event where a score reaches
the onset threshold, lets it reach back to where the score rose above release, bridges gaps shorter
than the minimum gap and drops what is shorter than the minimum duration. For one release threshold
all of this can be put into a second score, the *strength*: the frames where strength reaches an
onset threshold are the events of that onset threshold. A library that knows only plain thresholds
then judges every onset threshold of the real detector in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.features import FrontEnd
from soundpost.train.sed.scenes import Event

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]

# Times are sums of hops: what differs by less than a nanosecond is the same.
_EPSILON_S = 1e-9


@dataclass(frozen=True)
class FrameGrid:
    """Where frames lie in time.

    Frame i covers [first_s + i hop_s, first_s + (i + 1) hop_s): a hop around the middle of its
    window of window_s.
    """

    hop_s: float = 0.01
    window_s: float = 0.025

    @classmethod
    def of(cls, front_end: FrontEnd) -> FrameGrid:
        """Frames of a front end."""
        rate_hz = front_end.sample_rate_hz
        return cls(front_end.hop_length / rate_hz, front_end.window_length / rate_hz)

    @property
    def first_s(self) -> float:
        """Where frame 0 begins."""
        return (self.window_s - self.hop_s) / 2

    def edges_s(self, n_frames: int) -> Float64Array:
        """Beginnings of the frames and the end of the last one, (n_frames + 1,)."""
        edges: Float64Array = self.first_s + self.hop_s * np.arange(n_frames + 1)
        return edges


@dataclass(frozen=True)
class Detected(Event):
    """An event that a detector found.

    score : the highest one of the event
    decided_s : when its start was known: the end of the last sample that the decision needed
    """

    score: float = float("nan")
    decided_s: float = float("nan")


def runs(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First frame, and the frame after the last, of each run of True; (n_runs, 2)."""
    steps = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    pairs: NDArray[np.int64] = np.stack(
        [np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)], 1
    )
    return pairs


def event_strength(
    scores: NDArray[Any], release: float, hop_s: float, min_duration_s: float, min_gap_s: float
) -> Float64Array:
    """Score whose plain threshold at `onset` gives the detector's events of (onset, release).

    Parameters
    ----------
    scores : (n_frames,) of one label, 0 to 1, smoothed

    Returns
    -------
    (n_frames,) float64
        Of a run of frames at release or above: its highest score, or that of the run before if
        that is higher and the gap to it is bridged. Of a bridged gap: that of the run before it.
        Zero elsewhere, and from where an event that begins there would be too short.
    """
    values = scores.astype(np.float64)
    strength = np.zeros(len(values))
    found = runs(values >= release)
    first = 0
    while first < len(found):
        # A chain of runs with bridged gaps; an event lasts to the end of its chain.
        last = first
        while last + 1 < len(found) and _is_bridged(
            found[last, 1], found[last + 1, 0], hop_s, min_gap_s
        ):
            last += 1
        chain_end = found[last, 1]
        height = 0.0
        for run in range(first, last + 1):
            start, stop = found[run]
            if run > first:
                strength[found[run - 1, 1] : start] = height
            if (chain_end - start) * hop_s >= min_duration_s - _EPSILON_S:
                height = max(height, values[start:stop].max())
            strength[start:stop] = height
        first = last + 1
    return strength


def _is_bridged(stop: int, start: int, hop_s: float, min_gap_s: float) -> bool:
    return bool((start - stop) * hop_s < min_gap_s - _EPSILON_S)


def decide(
    scores: FloatArray,
    classes: Sequence[ClassSettings],
    grid: FrameGrid,
    *,
    look_ahead_frames: int = 0,
    chunk_frames: int = 1,
) -> list[Detected]:
    """Events of one recording, in the order of their onsets.

    Parameters
    ----------
    scores : (n_frames, n_labels) 0 to 1, smoothed already: the smoothing that the settings name is
        not done here, its look-ahead is counted into decided_s
    classes : one per label
    look_ahead_frames : cap on the frames of the future in a median window
    chunk_frames : frames that come at a time; decisions fall at the end of a chunk
    """
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        raise ValueError(f"scores {scores.shape}: expected (n_frames, {len(classes)})")
    edges_s = grid.edges_s(len(scores))
    found: list[Detected] = []
    for index, settings in enumerate(classes):
        values = scores[:, index].astype(np.float64)
        strength = event_strength(
            values, settings.release, grid.hop_s, settings.min_duration_s, settings.min_gap_s
        )
        ahead = (
            0
            if settings.smoothing == "none"
            else min((settings.smoothing_windows - 1) // 2, look_ahead_frames)
        )
        for start, stop in runs((strength > 0) & (strength >= settings.onset)):
            inside = values[start:stop]
            long_enough = (
                np.arange(1, stop - start + 1) * grid.hop_s >= settings.min_duration_s - _EPSILON_S
            )
            reached = np.maximum.accumulate(inside) >= settings.onset
            decided = start + int(np.argmax(reached & long_enough & (inside >= settings.release)))
            heard = min(decided + ahead, len(scores) - 1)
            heard = min((heard // chunk_frames + 1) * chunk_frames, len(scores)) - 1
            found.append(
                Detected(
                    settings.label,
                    float(edges_s[start]),
                    float(edges_s[stop]),
                    float(inside.max()),
                    heard * grid.hop_s + grid.window_s,
                )
            )
    return sorted(found, key=lambda event: (event.onset_s, event.label))


def events_of(detections: Iterable[Detection], rate_hz: int) -> list[Detected]:
    """Events of a detector's messages, each from its start and its end, by onset.

    An event without an end (the stream was not flushed) is left out.
    """
    decided: dict[str, int] = {}
    found: list[Detected] = []
    for detection in detections:
        if detection.phase == "start":
            decided[detection.label] = detection.window_end_sample
        elif detection.phase == "end" and detection.offset_sample is not None:
            found.append(
                Detected(
                    detection.label,
                    detection.onset_sample / rate_hz,
                    detection.offset_sample / rate_hz,
                    detection.score,
                    decided.pop(detection.label) / rate_hz,
                )
            )
    return sorted(found, key=lambda event: (event.onset_s, event.label))
