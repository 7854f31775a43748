"""The five networks of jia2019 by name, at any width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from torch import Tensor, nn

from soundpost.train.backbones.audio_resnet import AudioResNet, AudioResNetSettings
from soundpost.train.backbones.vggish import Kind, VGGish, VGGishSettings
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings, scaled_channels

_RESNET_WIDTH: Final = 64


@dataclass(frozen=True)
class AudioModel:
    """One of the networks.

    network : one of NETWORKS
    width : multiplier on its channels (1.0 as published)
    embedding_size : units of the bottleneck
    dropout : on the embedding while it is pre-trained, where the network has one; the paper has it
        in the transfer only
    """

    network: str = "mobilenet_v2"
    width: float = 1.0
    embedding_size: int = 128
    dropout: float = 0.0


class Encoder(Protocol):
    """What each of them offers beside being an nn.Module."""

    embedding_size: int

    def embed(self, patch: Tensor) -> Tensor:
        """(n, 1, n_frames, n_mels) log-mel to (n, embedding_size)."""


def _vggish(kind: Kind) -> Callable[[int, AudioModel], nn.Module]:
    def build(n_labels: int, model: AudioModel) -> nn.Module:
        settings = VGGishSettings(kind, model.embedding_size, width=model.width)
        return VGGish(n_labels, settings)

    return build


def _resnet50(n_labels: int, model: AudioModel) -> nn.Module:
    width = scaled_channels(_RESNET_WIDTH * model.width)
    settings = AudioResNetSettings(model.embedding_size, model.dropout, width=width)
    return AudioResNet(n_labels, settings)


def _mobilenet_v2(n_labels: int, model: AudioModel) -> nn.Module:
    return MobileNetV2(
        n_labels, MobileNetV2Settings(model.width, model.embedding_size, model.dropout)
    )


# In the order of the paper's tables.
NETWORKS: Final[dict[str, Callable[[int, AudioModel], nn.Module]]] = {
    "vggish": _vggish("plain"),
    "vggish_bn": _vggish("batch_norm"),
    "vggish_fc": _vggish("fully_convolutional"),
    "mobilenet_v2": _mobilenet_v2,
    "resnet50": _resnet50,
}


def audio_network(model: AudioModel, n_labels: int) -> nn.Module:
    """A network with random weights: patches to (logits, embedding)."""
    return NETWORKS[model.network](n_labels, model)


def without_classifier(network: nn.Module) -> nn.Module:
    """The network up to its embedding, in place: its classifier's weights are gone."""
    network.add_module("classifier", nn.Identity())
    return network


def as_encoder(network: nn.Module) -> Encoder:
    """The same network, typed by what it offers."""
    return cast(Encoder, network)
