"""Features of a trained network's layers, judged by k-NN and SVM (perez2020, table 4).

The network is not trained on the set that it is judged on; only the two classifiers are. "The
number of nearest neighbours is validated on the validation set." What the text leaves open:

- A layer's output is what the next one gets, but for pooling: HearNet's after its ReLU. It is
  averaged over everything but its channels, so that layers of any length compare.
- Features are standardised by the training set. Distances are Euclidean.
- The SVM is linear, one class against the rest, as in the work whose SoundNet is compared with
  (Aytar et al. 2016); its C is chosen on the validation set too.
- What was chosen is judged as it was trained, on the training set alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from soundpost.train.datasets.action_splits import Split

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

NEIGHBOURS = (1, 3, 5, 7, 9, 11, 15, 21, 31)
COSTS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class LayeredNetwork(Protocol):
    """A network that shows what its layers make of a waveform."""

    def layers(self, waveform: Tensor) -> dict[str, Tensor]:
        """Output of each layer by its name in table 4, (n_clips, n_channels, ...)."""
        ...


@torch.no_grad()
def frozen_features(network: LayeredNetwork, waveforms: Tensor) -> dict[str, FloatArray]:
    """What each layer of a network in evaluation mode makes of some waveforms.

    waveforms : (n_clips, n_samples), as the network takes them

    Returns by layer (n_clips, n_channels), the mean over the axes after the channels.
    """
    return {
        name: output.float().flatten(2).mean(2).cpu().numpy()
        for name, output in network.layers(waveforms).items()
    }


@dataclass(frozen=True)
class LayerAccuracy:
    """Test accuracies of one layer's features, 0 to 1.

    size : elements of a feature
    neighbours, cost : as chosen on the validation set
    """

    layer: str
    size: int
    knn: float
    svm: float
    neighbours: int
    cost: float


def judge_layer(
    layer: str, features: FloatArray, classes: IntArray, parts: Split[IntArray]
) -> LayerAccuracy:
    """k-NN and SVM on the features of one layer.

    features : (n_clips, size); classes : (n_clips,); parts : numbers of clips
    """
    x, y = features[parts.train], classes[parts.train]
    # On equal accuracy the first: fewer neighbours, a wider margin.
    knns = [
        (n, make_pipeline(StandardScaler(), KNeighborsClassifier(n)).fit(x, y))
        for n in NEIGHBOURS
        if n <= len(x)
    ]
    with warnings.catch_warnings():
        # With a large C it may stop short of the optimum; validation judges what came of it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        svms = [(c, make_pipeline(StandardScaler(), _svm(c)).fit(x, y)) for c in COSTS]
    held, truth = features[parts.validation], classes[parts.validation]
    neighbours, knn = max(knns, key=lambda pair: float(pair[1].score(held, truth)))
    cost, svm = max(svms, key=lambda pair: float(pair[1].score(held, truth)))
    tested, truth = features[parts.test], classes[parts.test]
    return LayerAccuracy(
        layer,
        features.shape[1],
        float(knn.score(tested, truth)),
        float(svm.score(tested, truth)),
        neighbours,
        cost,
    )


def _svm(cost: float) -> LinearSVC:
    return LinearSVC(C=cost, dual="auto", max_iter=5_000, random_state=0)


def judge_layers(
    features: Mapping[str, FloatArray], classes: IntArray, parts: Split[IntArray]
) -> tuple[LayerAccuracy, ...]:
    """judge_layer of each."""
    return tuple(judge_layer(layer, rows, classes, parts) for layer, rows in features.items())


def layer_table(
    rows: Sequence[LayerAccuracy], published: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """Markdown in the form of table 4.

    published : of k-NN and SVM, by layer
    """
    more = " published k-NN | published SVM |" if published else ""
    lines = [
        f"| features | size | k-NN | SVM | k | C |{more}",
        "|---" * (8 if published else 6) + "|",
    ]
    for row in rows:
        line = (
            f"| {row.layer} | {row.size} | {row.knn:.4f} | {row.svm:.4f} | {row.neighbours} | "
            f"{row.cost:g} |"
        )
        if published:
            theirs = published.get(row.layer)
            line += "".join(f" {v:.4f} |" for v in theirs) if theirs else " – | – |"
        lines.append(line)
    return "\n".join(lines) + "\n"
