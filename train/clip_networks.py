"""Networks on 1 s log-mel patches that a recipe of clips may name, the sensor's own among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from torch import nn

from soundpost.train.backbones.audio_cnn import AudioCNN, AudioCNNSettings
from soundpost.train.backbones.audio_resnet import AudioResNet, AudioResNetSettings
from soundpost.train.backbones.vggish import VGGish, VGGishSettings
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings
from soundpost.train.recipe import ModelSettings


def _mobilenet_v2(n_labels: int, model: ModelSettings) -> nn.Module:
    return MobileNetV2(
        n_labels, MobileNetV2Settings(model.width, model.embedding_size, model.dropout)
    )


def _audio_cnn(n_labels: int, model: ModelSettings) -> nn.Module:
    return AudioCNN(n_labels, AudioCNNSettings(model.width, model.embedding_size, model.dropout))


def _audio_resnet(n_labels: int, model: ModelSettings) -> nn.Module:
    settings = AudioResNetSettings(
        model.embedding_size, model.dropout, width=max(8, round(64 * model.width))
    )
    return AudioResNet(n_labels, settings)


def _vggish(n_labels: int, model: ModelSettings) -> nn.Module:
    settings = VGGishSettings(
        "fully_convolutional", model.embedding_size, max(8, round(4096 * model.width))
    )
    return VGGish(n_labels, settings)


# By model.kind. Each takes (n_batch, 1, n_frames, n_mels) and gives logits and an embedding.
_NETWORKS: Final[dict[str, Callable[[int, ModelSettings], nn.Module]]] = {
    "mobilenet_v2": _mobilenet_v2,
    "audio_cnn": _audio_cnn,
    "audio_resnet": _audio_resnet,
    "vggish": _vggish,
}


def build_network(labels: Sequence[str], model: ModelSettings) -> nn.Module:
    """A network with random weights."""
    return _NETWORKS[model.kind](len(labels), model)
