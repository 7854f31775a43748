"""Trained networks that name what is seen or heard in a clip, for labelling by machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.backbones.frozen import FrozenBackbone
from soundpost.train.multimodal.soft_label_format import Teacher

Activation = Literal["sigmoid", "softmax"]


@dataclass(frozen=True)
class LabelModel:
    """A network, and what its scores are of.

    teacher : its name and the SHA-256 of its weights
    labels : of the columns of its scores
    scores : pictures (n, height, width, 3) uint8, or seconds (n, n_samples) float32, to
        (n, n_labels) scores from 0 to 1
    """

    teacher: Teacher
    labels: tuple[str, ...]
    scores: Callable[[NDArray[Any]], NDArray[Any]]


def visual_model(
    teacher: Teacher, labels: Sequence[str], backbone: FrozenBackbone, activation: Activation
) -> LabelModel:
    """A visual backbone: the ResNet-101 of jia2019, or any other.

    activation : of its scores: "sigmoid" where a picture has several labels (ML-Images, 11,166 in
        jia2019), "softmax" where it has one (ImageNet)
    """

    def scores(frames: NDArray[Any]) -> NDArray[Any]:
        logits = backbone.scores(frames)
        found: NDArray[Any] = (
            logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)
        ).numpy()
        return found

    return LabelModel(teacher, tuple(labels), scores)


def audio_model(
    teacher: Teacher, labels: Sequence[str], network: nn.Module, front_end: FrontEnd
) -> LabelModel:
    """An audio network on 1 s log-mel patches, such as train/backbones/vggish.py, or a student.

    network : (n, 1, n_frames, n_mels) patches to scores before the sigmoid, (n, n_labels), alone or
        followed by the embedding
    front_end : its own, at the rate of the seconds it is given
    """
    network.eval()

    def scores(seconds: FloatArray) -> NDArray[Any]:
        patches = np.stack([log_mel(second, front_end) for second in seconds])
        device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
        with torch.no_grad():
            said: Tensor | tuple[Tensor, Tensor] = network(
                torch.from_numpy(patches)[:, None].to(device)
            )
        logits = said[0] if isinstance(said, tuple) else said
        found: NDArray[Any] = logits.float().sigmoid().cpu().numpy()
        return found

    return LabelModel(teacher, tuple(labels), scores)
