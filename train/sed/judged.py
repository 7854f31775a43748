"""What is judged: checked recordings, scores and events, in the form that sed_scores_eval takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.train.sed.decisions import FrameGrid
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.score_library import score_library

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
ScoresOf = Mapping[Path, FloatArray]
EventsOf = Mapping[Path, Sequence[Event]]

SEGMENT_S = 1.0
# The library compares times to this many decimals of a second.
DECIMALS = 6


def join_events(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events with those of one label that touch or overlap joined, by onset."""
    joined: list[Event] = []
    last: dict[str, int] = {}
    for event in sorted(events, key=lambda event: (event.onset_s, event.label)):
        place = last.get(event.label)
        if place is not None and round(event.onset_s - joined[place].offset_s, DECIMALS) <= 0:
            before = joined[place]
            end = max(before.offset_s, event.offset_s)
            joined[place] = Event(event.label, before.onset_s, end)
        else:
            last[event.label] = len(joined)
            joined.append(event)
    return tuple(joined)


def check_scenes(scenes: Sequence[Scene], labels: Sequence[str]) -> None:
    """InputError where recordings cannot be judged: none, without event times, a strange label."""
    if not scenes:
        raise InputError(
            "no recordings to judge: the validation set is empty; give it strongly labelled "
            "recordings, or leave a fold for it"
        )
    seen: set[Path] = set()
    for scene in scenes:
        if scene.path in seen:
            raise InputError(f"{scene.path}: stands twice among the recordings; take one out")
        seen.add(scene.path)
        if scene.labelling != "strong":
            raise InputError(
                f"{scene.path}: has {scene.labelling} labels; events are judged on recordings with "
                "onset and offset"
            )
        for event in scene.events:
            if event.label not in labels:
                known = ", ".join(labels[:5])
                raise InputError(
                    f"{scene.path}: an event of label {event.label}, which the model does not know "
                    f"({known}{' ...' if len(labels) > 5 else ''}); map or drop it"
                )
            if not 0 <= event.onset_s < event.offset_s:
                raise InputError(
                    f"{scene.path}: event {event.label} from {event.onset_s:g} to "
                    f"{event.offset_s:g} s; expected 0 <= onset < offset"
                )
    if not any(scene.events for scene in scenes):
        raise InputError(
            f"none of the {len(scenes)} recordings to judge has an event; add some that have"
        )


def check_scores(
    scenes: Sequence[Scene], scores: ScoresOf, grid: FrameGrid, labels: Sequence[str]
) -> None:
    """InputError where a recording has no scores, or scores that do not fit it."""
    check_all_there(scenes, scores, "scores")
    for scene in scenes:
        found = scores[scene.path]
        if found.ndim != 2 or found.shape[1] != len(labels) or not len(found):
            raise InputError(
                f"{scene.path}: scores of shape {found.shape}; expected (n_frames, {len(labels)})"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{scene.path}: scores that are not numbers; training has diverged?")
        end_s = float(grid.edges_s(len(found))[-1])
        if abs(end_s - scene.seconds) > SEGMENT_S:
            raise InputError(
                f"{scene.path}: {len(found)} frames of {1000 * grid.hop_s:g} ms end at {end_s:.2f} "
                f"s, the recording at {scene.seconds:.2f} s; is the hop right?"
            )


def check_all_there(scenes: Sequence[Scene], given: Mapping[Path, Any], what: str) -> None:
    """InputError where a recording has none of what is judged."""
    missing = [scene.path for scene in scenes if scene.path not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}{more}: no {what}; run the model on every recording that is judged"
        )


def check_found(scenes: Sequence[Scene], found: EventsOf, labels: Sequence[str]) -> None:
    """InputError where found events are missing, of unknown labels, inverted or overlapping."""
    check_all_there(scenes, found, "found events (an empty list where there are none)")
    for scene in scenes:
        events = sorted(found[scene.path], key=lambda event: (event.label, event.onset_s))
        for event in events:
            if event.label not in labels:
                raise InputError(f"{scene.path}: found an event of an unknown label {event.label}")
            if not 0 <= event.onset_s < event.offset_s:
                raise InputError(
                    f"{scene.path}: found {event.label} from {event.onset_s:g} to "
                    f"{event.offset_s:g} s; expected 0 <= onset < offset"
                )
        for one, next_one in itertools.pairwise(events):
            if one.label == next_one.label and (
                round(next_one.onset_s - one.offset_s, DECIMALS) <= 0
            ):
                raise InputError(
                    f"{scene.path}: found events of {one.label} touch or overlap at "
                    f"{next_one.onset_s:g} s; join them"
                )


def present_labels(scenes: Sequence[Scene], labels: Sequence[str]) -> tuple[str, ...]:
    """Labels that have a reference event, in their order."""
    there = {event.label for scene in scenes for event in scene.events}
    return tuple(label for label in labels if label in there)


def library_truth(
    scenes: Sequence[Scene], labels: Sequence[str]
) -> dict[str, list[tuple[float, float, str]]]:
    """Reference events of these labels as sed_scores_eval takes them."""
    return {
        str(scene.path): [
            (event.onset_s, event.offset_s, event.label)
            for event in join_events(scene.events)
            if event.label in labels
        ]
        for scene in scenes
    }


def library_seconds(scenes: Sequence[Scene]) -> dict[str, float]:
    """Lengths of the recordings as sed_scores_eval takes them."""
    return {str(scene.path): scene.seconds for scene in scenes}


def library_scores(scores: NDArray[Any], edges_s: Float64Array, labels: Sequence[str]) -> Any:
    """Scores (n_frames, n_labels) of one recording as sed_scores_eval takes them."""
    score_library()
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    return create_score_dataframe(np.asarray(scores, np.float64), edges_s, list(labels))


def library_events(scene: Scene, events: Sequence[Event], labels: Sequence[str]) -> Any:
    """Found events as scores of 0 and 1 on the stretches between their ends."""
    kept = [event for event in events if event.label in labels]
    ends = [0.0, scene.seconds] + [t for event in kept for t in (event.onset_s, event.offset_s)]
    edges = np.unique(np.round(ends, DECIMALS))
    active = np.zeros((len(edges) - 1, len(labels)))
    for event in kept:
        start, stop = np.searchsorted(edges, np.round([event.onset_s, event.offset_s], DECIMALS))
        active[start:stop, labels.index(event.label)] = 1.0
    return library_scores(active, edges, labels)
