"""Clip-level figures from window scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

FloatArray = NDArray[np.float32]


def clip_means(values: FloatArray, clip: NDArray[np.int64], n_clips: int) -> NDArray[np.float64]:
    """Mean over the windows of each clip.

    Parameters
    ----------
    values : (n_windows, n_labels)
    clip : (n_windows,) clip of each window; every clip has at least one

    Returns
    -------
    (n_clips, n_labels) float64
    """
    total = np.zeros((n_clips, values.shape[1]))
    np.add.at(total, clip, values)
    return total / np.bincount(clip, minlength=n_clips)[:, None]


def label_matrix(truth: NDArray[Any], n_labels: int) -> NDArray[np.bool_]:
    """Which clip has which label, (n_clips, n_labels).

    truth : (n_clips,) index of each clip's label, below 0 for none; or that matrix itself, where a
        clip may have several
    """
    if truth.ndim == 2:
        return truth.astype(bool)
    matrix: NDArray[np.bool_] = truth[:, None] == np.arange(n_labels)
    return matrix


@dataclass(frozen=True)
class ClipFigures:
    """Figures over clips with a label or more; shares in 0 to 1.

    top1, top5 : of the clips whose best label, or one of the best five, is one of theirs
    mean_average_precision : macro mean over the labels present
    recall : of the clips with a label, those whose best label is one of theirs
    recall, average_precision : per label present
    confusion : (n_labels, n_labels) counts of clips with the row's label by their best label
    """

    n_clips: int
    top1: float
    top5: float
    mean_average_precision: float
    recall: dict[str, float]
    average_precision: dict[str, float]
    confusion: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the confusion matrix."""
        table = asdict(self)
        del table["confusion"]
        return table

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.n_clips} clips: top-1 {self.top1:.1%}, top-5 {self.top5:.1%}, "
            f"mAP {self.mean_average_precision:.3f}"
        )


def clip_figures(
    scores: NDArray[np.float64], truth: NDArray[Any], labels: Sequence[str]
) -> ClipFigures:
    """Accuracy and average precision of clip scores.

    Parameters
    ----------
    scores : (n_clips, n_labels)
    truth : (n_clips,) index of each clip's label, or (n_clips, n_labels) which labels it has; every
        clip has one
    """
    has = label_matrix(truth, len(labels))
    order = np.argsort(-scores, axis=1, kind="stable")
    hit = np.take_along_axis(has, order, axis=1)
    present = np.flatnonzero(has.any(axis=0))
    precision = {
        labels[k]: float(average_precision_score(has[:, k], scores[:, k])) for k in present
    }
    best = order[:, :1] == np.arange(len(labels))
    return ClipFigures(
        n_clips=len(has),
        top1=float(hit[:, 0].mean()),
        top5=float(hit[:, :5].any(axis=1).mean()),
        mean_average_precision=float(np.mean(list(precision.values()))),
        recall={labels[k]: float(hit[has[:, k], 0].mean()) for k in present},
        average_precision=precision,
        confusion=has.astype(np.int64).T @ best,
    )
