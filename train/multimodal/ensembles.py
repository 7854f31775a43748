"""Several seeds of one method, and the figures that yin2021 reports of them.

"We train each of the models three times with random seeds and take their average as the final
prediction scores." mAP and mAUC are means over classes. Precision, recall and F1 at "a global
confidence threshold of 0.25" are micro-averaged, over all decisions of all classes, as DCASE 2017
task 4 ranks its systems: table 6's 60.8 is 2PR/(P+R) of its 57.7 and 64.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]

# Table 6.
THRESHOLD = 0.25


def average_scores(scores: Sequence[FloatArray]) -> FloatArray:
    """Mean of several networks' scores of the same clips, (n_clips, n_labels) each.

    Raises InputError where there are none or their shapes differ.
    """
    shapes = {array.shape for array in scores}
    if len(shapes) != 1:
        found = ", ".join(str(shape) for shape in sorted(shapes)) or "nothing"
        raise InputError(
            f"ensemble: scores of shapes {found}: expected the same clips and labels of every "
            "network; score them all on one set"
        )
    mean: FloatArray = np.mean(np.stack(scores), axis=0, dtype=np.float64).astype(np.float32)
    return mean


@dataclass(frozen=True)
class TaggingFigures:
    """Figures of clip tags; shares in 0 to 1.

    mean_average_precision, mean_auc : over the classes that some clip has and some has not
    precision, recall, f1 : micro, at `threshold`
    average_precision, auc : by label, of those classes
    """

    n_clips: int
    mean_average_precision: float
    mean_auc: float
    precision: float
    recall: float
    f1: float
    threshold: float
    average_precision: dict[str, float]
    auc: dict[str, float]

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.n_clips} clips: mAP {self.mean_average_precision:.4f}, "
            f"mAUC {self.mean_auc:.4f}, at {self.threshold:g} P {self.precision:.1%} "
            f"R {self.recall:.1%} F1 {self.f1:.1%}"
        )


def tagging_figures(
    scores: FloatArray,
    targets: FloatArray,
    labels: Sequence[str],
    threshold: float = THRESHOLD,
) -> TaggingFigures:
    """Figures of scores (n_clips, n_labels) against targets of the same shape, 0 or 1.

    Raises InputError where no class has clips with it and clips without.
    """
    truth = targets > 0.5
    judged = [k for k in range(len(labels)) if 0 < truth[:, k].sum() < len(truth)]
    if not judged:
        raise InputError(
            f"{len(truth)} clips: no label that some have and some have not; judge on a larger set"
        )
    precision = {
        labels[k]: float(average_precision_score(truth[:, k], scores[:, k])) for k in judged
    }
    auc = {labels[k]: float(roc_auc_score(truth[:, k], scores[:, k])) for k in judged}
    found = scores >= threshold
    hits, n_found, n_true = (int(x.sum()) for x in (found & truth, found, truth))
    return TaggingFigures(
        n_clips=len(truth),
        mean_average_precision=float(np.mean(list(precision.values()))),
        mean_auc=float(np.mean(list(auc.values()))),
        precision=hits / max(1, n_found),
        recall=hits / n_true,
        f1=2 * hits / (n_found + n_true),
        threshold=threshold,
        average_precision=precision,
        auc=auc,
    )


def method_table(rows: Mapping[str, TaggingFigures], against: str) -> str:
    """Markdown: methods in rows, and by how much of it each one's mAP differs from `against`'s."""
    reference = rows[against].mean_average_precision
    lines = ["| method | mAP | mAUC | P | R | F1 | mAP gain |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        gain = row.mean_average_precision / reference - 1
        lines.append(
            f"| {name} | {row.mean_average_precision:.4f} | {row.mean_auc:.4f} | "
            f"{row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {gain:+.1%} |"
        )
    return "\n".join(lines) + "\n"
