"""Features of a trained network's layers, judged by k-NN and SVM (perez2020, table 4).

The network is not trained on the set that it is judged on; only the two classifiers are. "The
number of nearest neighbours is validated on the validation set." What the text leaves open:

- A layer's map is averaged over everything but its channels, so that layers of any length compare.
- Features are standardised by the training set. Distances are Euclidean.
- The SVM is linear, one class against the rest, as in the work whose SoundNet is compared with
  (Aytar et al. 2016); its C is chosen on the validation set too.
- What was chosen is judged as it was trained, on the training set alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from tqdm import tqdm

from soundpost.device.errors import InputError, UsageError
from soundpost.device.settings import nearest
from soundpost.train.multimodal.cross_scenario import Parts

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

NEIGHBOURS = (1, 3, 5, 7, 9, 11, 15, 21, 31)
COSTS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@torch.no_grad()
def frozen_features(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    layers: Sequence[str],
    *,
    quiet: bool = False,
) -> dict[str, FloatArray]:
    """Outputs of some layers for every clip, in evaluation mode.

    Parameters
    ----------
    batches : what the network takes, clip by clip in the order of the set
    layers : names of its modules, whose outputs are (n_clips, n_channels, ...)

    Returns
    -------
    by layer (n_clips, n_channels), the mean over the axes after the channels

    Raises UsageError where the network has no such layer, InputError where there is no clip.
    """
    modules = dict(network.named_modules())
    for layer in layers:
        if layer not in modules:
            raise UsageError(f"layer {layer!r}: unknown{nearest(layer, [n for n in modules if n])}")
    kept: dict[str, list[FloatArray]] = {layer: [] for layer in layers}

    def keeping(layer: str) -> object:
        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            kept[layer].append(
                output.float().flatten(2).mean(2).cpu().numpy()
                if output.ndim > 2
                else output.float().cpu().numpy()
            )

        return modules[layer].register_forward_hook(keep)

    hooks = [keeping(layer) for layer in layers]
    training = network.training
    network.eval()
    try:
        for batch in tqdm(batches, "features", unit="batch", disable=quiet, leave=False):
            network(*batch)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]
    if not all(kept.values()):
        raise InputError("there are no clips to make features of; give a set with some")
    return {layer: np.concatenate(rows) for layer, rows in kept.items()}


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


def judge_layer(layer: str, features: FloatArray, classes: IntArray, parts: Parts) -> LayerAccuracy:
    """k-NN and SVM on the features of one layer.

    features : (n_clips, size); classes : (n_clips,)
    """
    x, y = features[parts.train], classes[parts.train]
    # On equal accuracy the first: fewer neighbours, a wider margin.
    knns = [
        (n, make_pipeline(StandardScaler(), KNeighborsClassifier(n)).fit(x, y))
        for n in NEIGHBOURS
        if n <= len(x)
    ]
    svms = [
        (c, make_pipeline(StandardScaler(), LinearSVC(C=c, random_state=0)).fit(x, y))
        for c in COSTS
    ]
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


def judge_layers(
    features: Mapping[str, FloatArray], classes: IntArray, parts: Parts
) -> tuple[LayerAccuracy, ...]:
    """judge_layer of each."""
    return tuple(judge_layer(layer, rows, classes, parts) for layer, rows in features.items())


def layer_table(rows: Sequence[LayerAccuracy]) -> str:
    """Markdown in the form of table 4."""
    lines = ["| features | size | k-NN | SVM | k | C |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.layer} | {row.size} | {row.knn:.4f} | {row.svm:.4f} | {row.neighbours} | "
        f"{row.cost:g} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
