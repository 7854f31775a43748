"""What li2018 decides on validation clips, and how its branches are judged.

Weights and thresholds are chosen once, on the validation clips' scores, and then hold: for the
clips to be judged, for `soundpost evaluate` and for soft labels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.device.files import write_atomically
from soundpost.train.checkpoint import save_arrays
from soundpost.train.multimodal.class_thresholds import micro_f1_thresholds, predictions
from soundpost.train.multimodal.fusion import choose_video_weights, fuse
from soundpost.train.multimodal.fusion_recipe import BRANCHES
from soundpost.train.multimodal.word_vectors import ObjectEvents
from soundpost.train.run import SCORES

DECISION = "fusion.json"
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decision:
    """How scores become tags.

    weights : (n_labels,) of the video branch; the audio branch has the rest to 1
    thresholds : by branch (n_labels,)
    objects : that are recognised, and the label that each speaks for
    top_objects : of a clip
    """

    weights: Array
    thresholds: Mapping[str, Array]
    objects: ObjectEvents
    top_objects: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        return self.objects.events

    def fused(self, audio: FloatArray, video: FloatArray) -> FloatArray:
        """Scores of both branches together, (..., n_labels)."""
        return fuse(audio, video, self.weights).astype(np.float32)

    def branches(self, audio: FloatArray, video: FloatArray) -> dict[str, FloatArray]:
        """Scores by branch."""
        return {"audio": audio, "video": video, "fused": self.fused(audio, video)}

    def write(self, run: Path) -> None:
        """fusion.json of a run."""
        table = {
            "labels": self.labels,
            "video_weights": self.weights.tolist(),
            "thresholds": {branch: values.tolist() for branch, values in self.thresholds.items()},
            "objects": self.objects.objects,
            "events": self.objects.event.tolist(),
            "top_objects": self.top_objects,
        }
        write_atomically(run / DECISION, (json.dumps(table) + "\n").encode())

    @classmethod
    def read(cls, run: Path) -> Decision:
        """Of a finished run; InputError where it cannot be read."""
        path = run / DECISION
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            events = np.array(table["events"], np.int64)
            return cls(
                np.array(table["video_weights"], np.float64),
                {one: np.array(table["thresholds"][one], np.float64) for one in BRANCHES},
                ObjectEvents(tuple(table["objects"]), tuple(table["labels"]), events),
                int(table["top_objects"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); train again") from error


def choose(
    audio: FloatArray, video: FloatArray, truth: FloatArray, better_weight: float, seed: int
) -> tuple[Array, dict[str, Array]]:
    """Weights and thresholds from validation clips; see Decision.

    audio, video : (n_clips, n_labels) 0 to 1; truth : 0 or 1
    """
    weights = choose_video_weights(audio, video, truth, better_weight)
    scores = {
        "audio": audio,
        "video": video,
        "fused": fuse(audio, video, weights).astype(np.float32),
    }
    return weights, {
        branch: micro_f1_thresholds(scores[branch], truth, seed).thresholds for branch in BRANCHES
    }


@dataclass(frozen=True)
class BranchFigures:
    """Figures of one branch on some clips; shares in 0 to 1.

    f1, precision, recall : micro-averaged, at the thresholds of the classes
    mean_average_precision : over the classes that some clip has and some has not
    label_f1 : of the classes that some clip has; average_precision : of those of the mean
    """

    n_clips: int
    f1: float
    precision: float
    recall: float
    mean_average_precision: float
    label_f1: dict[str, float]
    average_precision: dict[str, float]

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.n_clips} clips: F1 {self.f1:.1%} P {self.precision:.1%} R {self.recall:.1%}, "
            f"mAP {self.mean_average_precision:.4f}"
        )


def branch_figures(
    scores: FloatArray, truth: FloatArray, labels: Sequence[str], thresholds: Array
) -> BranchFigures:
    """Figures of scores (n_clips, n_labels) against a truth of the same shape, 0 or 1.

    Raises InputError where no class has clips with it and clips without.
    """
    true = truth > 0.5
    found = predictions(scores, thresholds)
    precision = {
        label: float(average_precision_score(true[:, k], scores[:, k]))
        for k, label in enumerate(labels)
        if 0 < true[:, k].sum() < len(true)
    }
    if not precision:
        raise InputError(
            f"{len(true)} clips: no label that some have and some have not; judge on a larger set"
        )
    hits, n_found, n_true = ((found & true).sum(0), found.sum(0), true.sum(0))
    total = int(hits.sum()), int(n_found.sum()), int(n_true.sum())
    return BranchFigures(
        len(true),
        2 * total[0] / (total[1] + total[2]),
        total[0] / max(1, total[1]),
        total[0] / total[2],
        float(np.mean(list(precision.values()))),
        {
            label: 2 * int(hits[k]) / int(n_found[k] + n_true[k])
            for k, label in enumerate(labels)
            if n_true[k]
        },
        precision,
    )


@dataclass(frozen=True)
class JudgedPart:
    """Clips of one split, their scores and figures by branch.

    truth and each of scores : (n_clips, n_labels)
    """

    clip_ids: tuple[str, ...]
    labels: tuple[str, ...]
    truth: FloatArray
    scores: Mapping[str, FloatArray]
    figures: Mapping[str, BranchFigures]


def judge_part(
    clip_ids: tuple[str, ...],
    truth: FloatArray,
    audio: FloatArray,
    video: FloatArray,
    decision: Decision,
) -> JudgedPart:
    """All branches on clips of one split; InputError as branch_figures raises it."""
    scores = decision.branches(audio, video)
    figures = {
        branch: branch_figures(scores[branch], truth, decision.labels, decision.thresholds[branch])
        for branch in BRANCHES
    }
    return JudgedPart(clip_ids, decision.labels, truth, scores, figures)


# By name of split.
JudgedParts = Mapping[str, JudgedPart]


def figures_to_dict(judged: JudgedParts) -> dict[str, Any]:
    """Figures as JSON, by split and branch."""
    return {
        split: {branch: dataclasses.asdict(one) for branch, one in part.figures.items()}
        for split, part in judged.items()
    }


def write_scores(run: Path, judged: JudgedParts) -> None:
    """scores.npz: `testing_audio_scores` (n_clips, n_labels), `testing_truth`, `testing_clips`."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, part in judged.items():
        for branch, scores in part.scores.items():
            arrays[f"{split}_{branch}_scores"] = scores
        arrays[f"{split}_truth"] = part.truth
        arrays[f"{split}_clips"] = np.array(part.clip_ids, str)
    save_arrays(run / SCORES, arrays)
