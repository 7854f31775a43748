"""Clip-level figures from window scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix

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


@dataclass(frozen=True)
class ClipFigures:
    """Figures over clips with one label each; shares in 0 to 1.

    mean_average_precision : macro mean over the labels present
    recall, average_precision : per label present
    confusion : (n_labels, n_labels) counts, truth by row
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
    scores: NDArray[np.float64], truth: NDArray[np.int64], labels: Sequence[str]
) -> ClipFigures:
    """Accuracy and average precision of clip scores.

    Parameters
    ----------
    scores : (n_clips, n_labels)
    truth : (n_clips,) index of each clip's label
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    hit = order == truth[:, None]
    present = np.unique(truth)
    precision = {
        labels[k]: float(average_precision_score(truth == k, scores[:, k])) for k in present
    }
    return ClipFigures(
        n_clips=len(truth),
        top1=float(hit[:, 0].mean()),
        top5=float(hit[:, :5].any(axis=1).mean()),
        mean_average_precision=float(np.mean(list(precision.values()))),
        recall={labels[k]: float(hit[truth == k, 0].mean()) for k in present},
        average_precision=precision,
        confusion=confusion_matrix(truth, order[:, 0], labels=np.arange(len(labels))),
    )
