"""The four figures of jia2019: top-1, top-5, mAP and AUC, of scores that are known.

"Top-n accuracy is the fraction of test samples that contain at least one of the ground truth labels
in the top-n predictions"; clips without a label do not count there. mAP and AUC are means over the
labels that some clip has and some has not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from soundpost.device.features import FloatArray
from soundpost.train.multimodal.ensembles import TaggingFigures, tagging_figures

# By which recipes publish them, and how they are called in tables.
FIGURES: Final = {"top1": "top-1", "top5": "top-5", "map": "mAP", "auc": "AUC"}
# Labels beyond these are too many for a page.
_MOST_LABELS = 40


@dataclass(frozen=True)
class Recognition:
    """Scores of one network, and their figures.

    clip_ids : of the rows of scores and truth, (n_clips, n_labels)
    top1, top5 : shares of the clips with a label
    tagging : mAP and AUC, also by label
    """

    clip_ids: tuple[str, ...]
    labels: tuple[str, ...]
    scores: FloatArray
    truth: FloatArray
    top1: float
    top5: float
    tagging: TaggingFigures

    def figures(self) -> dict[str, float]:
        """By the names of FIGURES."""
        return {
            "top1": self.top1,
            "top5": self.top5,
            "map": self.tagging.mean_average_precision,
            "auc": self.tagging.mean_auc,
        }

    def to_dict(self) -> dict[str, Any]:
        """Figures as JSON, with those of each label."""
        return {
            "n_clips": len(self.clip_ids),
            **self.figures(),
            "average_precision": self.tagging.average_precision,
            "auc_of_label": self.tagging.auc,
        }

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{len(self.clip_ids)} clips: top-1 {self.top1:.1%}, top-5 {self.top5:.1%}, "
            f"mAP {self.tagging.mean_average_precision:.4f}, AUC {self.tagging.mean_auc:.4f}"
        )

    def shares(self) -> dict[str, float]:
        """Share of the clips that have each label: the average precision of a guess."""
        return dict(zip(self.labels, self.truth.mean(0).tolist(), strict=True))

    def for_a_page(self) -> Recognition:
        """The same with as many labels as a page takes: those that most clips have."""
        if len(self.labels) <= _MOST_LABELS:
            return self
        kept = np.sort(np.argsort(-self.truth.sum(0), kind="stable")[:_MOST_LABELS])
        names = tuple(self.labels[k] for k in kept)
        tagging = dataclasses.replace(
            self.tagging,
            average_precision={
                name: self.tagging.average_precision[name]
                for name in names
                if name in self.tagging.average_precision
            },
            auc={name: self.tagging.auc[name] for name in names if name in self.tagging.auc},
        )
        return dataclasses.replace(
            self,
            labels=names,
            scores=self.scores[:, kept],
            truth=self.truth[:, kept],
            tagging=tagging,
        )


def recognise(
    clip_ids: Sequence[str], labels: Sequence[str], scores: FloatArray, truth: FloatArray
) -> Recognition:
    """Figures of scores (n_clips, n_labels) against truth of the same shape, 0 or 1.

    Raises InputError where no label has clips with it and clips without.
    """
    tagging = tagging_figures(scores, truth, labels)
    labelled = truth.any(1)
    # Of equal scores the first label counts.
    order = np.argsort(-scores[labelled], axis=1, kind="stable")
    hits = np.take_along_axis(truth[labelled], order, axis=1) > 0.5
    top1, top5 = (float(hits[:, :n].any(1).mean()) for n in (1, 5))
    return Recognition(tuple(clip_ids), tuple(labels), scores, truth, top1, top5, tagging)
