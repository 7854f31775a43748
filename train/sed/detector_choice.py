"""The sensor's detector for a model: median windows from event-specific post-processing, thresholds
and gaps from validation recordings.

What is published looks into the future: a gate by the clip's tags, medians around each frame. On
the sensor there is no gate, and a median holds at most `look_ahead_frames` of what follows.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tqdm import tqdm

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.files import write_atomically
from soundpost.device.frame_detector import smooth
from soundpost.train.sed.decisions import FrameGrid
from soundpost.train.sed.event_filter import EventWindows, Rule, event_windows, odd_frames
from soundpost.train.sed.judging import heard_frames
from soundpost.train.sed.scenes import Scene, SceneSet
from soundpost.train.sed.streaming_recipe import DetectorChoice
from soundpost.train.sed.thresholds import choose_thresholds

logger = logging.getLogger(__name__)

DETECTOR = "detector.json"
# Silence that ends an event, and by which its end is told late: which of these a label gets.
GAPS_S = (0.05, 0.2, 0.5)


@dataclasses.dataclass(frozen=True)
class ChosenDetector:
    """How a model's scores become events on the sensor."""

    classes: tuple[ClassSettings, ...]
    look_ahead_frames: int
    chunk_frames: int


def windows_for(scenes: SceneSet, choice: DetectorChoice) -> EventWindows:
    """Windows of the published rule, seconds; of a class without a strong example, borrowed."""
    return event_windows(scenes.scenes, scenes.labels, cast(Rule, choice.rule), choice.eta)


def frames_of_median(seconds: float, front_end: FrontEnd, look_ahead_frames: int) -> int:
    """Frames of a median window on the sensor for a published one of this length.

    Odd, and no longer than a centred window that looks so many frames ahead: a longer one would
    only look further back, and begin and end events late.
    """
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    return min(odd_frames(seconds, hop_s), 2 * look_ahead_frames + 1)


def choose_detector(
    scenes: Sequence[Scene],
    scores: Sequence[FloatArray],
    labels: Sequence[str],
    windows: EventWindows,
    front_end: FrontEnd,
    choice: DetectorChoice,
    *,
    quiet: bool = False,
) -> ChosenDetector:
    """Thresholds and gap of each label with the highest event F1 on validation recordings.

    Parameters
    ----------
    scores : (n_frames, n_labels) 0 to 1 of each scene, as the model gives them

    Raises InputError where there is no scene to choose by; see `choose_thresholds`.
    """
    best: dict[str, tuple[float, ClassSettings]] = {}
    for gap_s in tqdm(GAPS_S, "thresholds", unit="gap", disable=quiet, leave=False):
        classes = []
        for label in labels:
            seconds = windows.window_s[label]
            n_frames = frames_of_median(seconds, front_end, choice.look_ahead_frames)
            classes.append(ClassSettings(label, 0.5, 0.3, "median", n_frames, 0.0, gap_s))
        filtered = {
            scene.path: smooth(
                heard_frames(padded, scene, front_end), classes, choice.look_ahead_frames
            )
            for scene, padded in zip(scenes, scores, strict=True)
        }
        for found in choose_thresholds(scenes, filtered, FrameGrid.of(front_end), classes):
            before = best.get(found.settings.label)
            # Not a number: nothing to choose by; the first gap stays.
            if before is None or found.event_f1 > before[0]:
                best[found.settings.label] = found.event_f1, found.settings
    unheard = [label for label in labels if math.isnan(best[label][0])]
    if unheard:
        logger.warning(
            "no validation recording has an event of %s: the thresholds are not chosen, but 0.5 "
            "and 0.3; add recordings that have",
            ", ".join(unheard),
        )
    never = [label for label in labels if best[label][0] == 0]
    if never:
        logger.warning(
            "no threshold finds a validation event of %s: the model has not learnt it; train "
            "longer, or with more strongly labelled recordings of it",
            ", ".join(never),
        )
    chosen = tuple(best[label][1] for label in labels)
    return ChosenDetector(chosen, choice.look_ahead_frames, choice.chunk_frames)


def save_detector(detector: ChosenDetector, folder: Path) -> None:
    """Write detector.json."""
    text = json.dumps(dataclasses.asdict(detector), indent=1)
    write_atomically(folder / DETECTOR, f"{text}\n".encode())


def load_detector(folder: Path) -> ChosenDetector:
    """Read what save_detector wrote; raises InputError on anything else."""
    path = folder / DETECTOR
    try:
        table = json.loads(path.read_bytes())
        classes = tuple(ClassSettings(**known) for known in table["classes"])
        return ChosenDetector(classes, int(table["look_ahead_frames"]), int(table["chunk_frames"]))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: training is not finished ({DETECTOR} is missing); run the same training "
            "again: it resumes"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train again") from error
