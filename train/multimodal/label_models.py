"""Trained networks that name what is seen or heard in a clip, for labelling by machine.

They are labellers as runs are (soft_labelling.Labeller): a row for each picture, or each second.
"""

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
from soundpost.train.backbones.vggish_front_end import SAMPLE_RATE_HZ, patch_of_each
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.machine_labels import (
    AUDIO_RATE_HZ,
    LabellingRules,
    whole_seconds,
)
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Said

Activation = Literal["sigmoid", "softmax"]
Scores = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class PictureModel:
    """A network that looks at pictures, and what its scores are of.

    teacher : its name and the SHA-256 of its weights
    labels : of the columns of its scores
    scores : pictures (n, height, width, 3) uint8 to (n, n_labels) scores from 0 to 1
    per_second : pictures that it is shown
    """

    teacher: Teacher
    labels: tuple[str, ...]
    scores: Scores
    per_second: float = LabellingRules.frames_per_s
    needs: tuple[Medium, ...] = ("video",)

    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each picture."""
        period_s = 1 / self.per_second
        return Said(self.scores(media.pictures(clip, self.per_second)), period_s, period_s)


@dataclass(frozen=True)
class SecondModel:
    """A network that hears a second at a time; see PictureModel.

    scores : seconds (n, rate_hz) float32 to (n, n_labels)
    """

    teacher: Teacher
    labels: tuple[str, ...]
    scores: Scores
    rate_hz: int = AUDIO_RATE_HZ
    needs: tuple[Medium, ...] = ("audio",)

    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each second, which do not overlap."""
        seconds = whole_seconds(media.sound(clip, self.rate_hz), self.rate_hz)
        return Said(self.scores(seconds), 1.0, 1.0)


def visual_model(
    teacher: Teacher,
    labels: Sequence[str],
    backbone: FrozenBackbone,
    activation: Activation,
    per_second: float = LabellingRules.frames_per_s,
) -> PictureModel:
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

    return PictureModel(teacher, tuple(labels), scores, per_second)


def audio_model(
    teacher: Teacher, labels: Sequence[str], network: nn.Module, front_end: FrontEnd
) -> SecondModel:
    """An audio network on 1 s log-mel patches of the device's front end.

    network : (n, 1, n_frames, n_mels) patches to scores before the sigmoid, (n, n_labels), alone or
        followed by the embedding
    front_end : its own
    """

    def patches(seconds: FloatArray) -> FloatArray:
        return np.stack([log_mel(second, front_end) for second in seconds])

    scores = _patch_scores(network, patches)
    return SecondModel(teacher, tuple(labels), scores, front_end.sample_rate_hz)


def vggish_model(teacher: Teacher, labels: Sequence[str], network: nn.Module) -> SecondModel:
    """VGGish with weights of the published kind: it hears 0.96 s of each second."""
    return SecondModel(
        teacher, tuple(labels), _patch_scores(network, patch_of_each), SAMPLE_RATE_HZ
    )


def _patch_scores(network: nn.Module, patches: Callable[[FloatArray], FloatArray]) -> Scores:
    network.eval()

    def scores(seconds: FloatArray) -> NDArray[Any]:
        given = torch.from_numpy(patches(seconds))[:, None]
        device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
        with torch.no_grad():
            said: Tensor | tuple[Tensor, Tensor] = network(given.to(device))
        logits = said[0] if isinstance(said, tuple) else said
        found: NDArray[Any] = logits.float().sigmoid().cpu().numpy()
        return found

    return scores
