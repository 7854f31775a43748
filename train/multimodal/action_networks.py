"""The networks of perez2020 by name, with what each of them takes of a clip.

Where the text leaves a choice:

- ResNet-50 is not trained, as in the authors' code; a linear layer on the mean of its last map
  gives each frame's scores, which are averaged over the clip.
- Temporal ResNet-50 has layers that no published weights have: its convolutions along time and its
  last layer. They learn and the rest stays as it is ("new"), as ResNet-50 does. The authors' code
  trains the last layer alone, of both, and its convolutions along time stay where they began; with
  "all" everything learns, which needs more data or, from nothing, a narrower network. Of the twelve
  frames of a second the code draws five at random; we take five at equal distances.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from soundpost.train.backbones.avnet import VISUAL_EMBEDDING, AVNet
from soundpost.train.backbones.dualcamnet import DualCamNet
from soundpost.train.backbones.frame_input import IMAGENET, FrameInput, normalise
from soundpost.train.backbones.hearnet import HearNet, SpectrogramRange, spectrogram
from soundpost.train.backbones.resnet import BLOCKS_50, ResNet
from soundpost.train.backbones.scaling import scaled
from soundpost.train.backbones.soundnet5 import SoundNet5, SoundNetStudent
from soundpost.train.backbones.temporal_resnet import TemporalResNet
from soundpost.train.backbones.transfer import start_from

# Rows of a clip: acoustic images, embeddings of its pictures, some of its pictures, waveform of one
# microphone.
InputKind = Literal["images", "pictures", "frames", "sound"]
INPUTS: Final[dict[str, tuple[InputKind, ...]]] = {
    "dualcamnet": ("images",),
    "resnet50": ("pictures",),
    "temporal_resnet50": ("frames",),
    "avnet": ("pictures", "images"),
    "hearnet": ("sound",),
    "soundnet5": ("sound",),
}
TEACHERS: Final = ("dualcamnet", "resnet50", "temporal_resnet50", "avnet")
STUDENTS: Final = ("hearnet", "soundnet5")
# Networks that published weights leave free to be made narrower.
SCALABLE: Final = ("dualcamnet", "temporal_resnet50", "avnet", "hearnet")
# What a teacher is shown at a time.
TEACHER_CLIP_S: Final = 1.0
_RESNET_CHANNELS = 64


@dataclass(frozen=True)
class NetworkSettings:
    """What decides a network's shape.

    name : of INPUTS
    picture_size : elements of a picture's embedding, for those that take some
    width : factor on the channels of those in SCALABLE; 1 as published
    learns : of temporal_resnet50, "new" or "all" of it
    """

    name: str
    n_classes: int
    picture_size: int = VISUAL_EMBEDDING
    width: float = 1.0
    learns: str = "new"


class SeenActions(nn.Module):
    """Embeddings of a clip's pictures to one score for each class and clip.

    embedding_size : of ResNet-50, 2,048
    """

    def __init__(self, n_classes: int, embedding_size: int = VISUAL_EMBEDDING) -> None:
        super().__init__()
        self.fc = nn.Linear(embedding_size, n_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n_clips, n_frames, embedding_size) to (n_clips, n_classes), before the softmax."""
        scores: Tensor = self.fc(pictures)
        return scores.mean(1)


class WatchedActions(nn.Module):
    """Some of a clip's pictures to one score for each class and clip: Temporal ResNet-50.

    width : factor on all channels; 1 where it starts from a trained network
    learn_all : all of it, and not what a ResNet-50 lacks alone
    start : trained on single frames
    blocks : in each stage
    """

    def __init__(
        self,
        n_classes: int,
        *,
        width: float = 1.0,
        learn_all: bool = False,
        start: ResNet | None = None,
        blocks: tuple[int, int, int, int] = BLOCKS_50,
    ) -> None:
        super().__init__()
        self.network = TemporalResNet(n_classes, blocks, scaled(_RESNET_CHANNELS, width))
        if start is not None:
            start_from(self.network, start, without=("fc.",))
        self.learn_all = learn_all
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(learn_all or "conv_temporal" in name or name.startswith("fc."))

    def train(self, mode: bool = True) -> WatchedActions:
        """Training mode; batch statistics stay those it came with where the rest does."""
        super().train(mode)
        if not self.learn_all:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """(n_clips, n_frames, 3, side, side) uint8 to (n_clips, n_classes), before the softmax."""
        scores: Tensor = self.network(normalise(frames, IMAGENET))
        return scores


def frame_input(side_px: int) -> FrameInput:
    """How WatchedActions is shown frames: cropped as published, at any size."""
    return FrameInput(round(side_px * IMAGENET.resize_px / IMAGENET.crop_px), side_px)


class HeardActions(nn.Module):
    """HearNet with its front end: waveforms to one score for each class and clip.

    width : of HearNet
    """

    def __init__(self, n_classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.range = SpectrogramRange()
        self.network = HearNet(n_classes, width)

    def fit_range(self, waveforms: Iterable[Tensor]) -> None:
        """Learn the range of each bin: of the training clips, each (n_clips, n_samples)."""
        self.range.fit(spectrogram(waveform) for waveform in waveforms)

    def layers(self, waveform: Tensor) -> dict[str, Tensor]:
        """Output of each of HearNet's layers; waveform as in forward."""
        return self.network.layers(self.range(spectrogram(waveform)))

    def forward(self, waveform: Tensor) -> Tensor:
        """(n_clips, n_samples) of `student_waveform` to (n_clips, n_classes)."""
        scores: Tensor = self.network(self.range(spectrogram(waveform)))
        return scores


def action_network(settings: NetworkSettings, start: SoundNet5 | ResNet | None = None) -> nn.Module:
    """A network with weights from torch's generator, from its inputs to logits.

    start : trained network that "soundnet5" (SoundNet5) or "temporal_resnet50" (ResNet) begins with
    """
    name, n_classes, width = settings.name, settings.n_classes, settings.width
    if name == "dualcamnet":
        return DualCamNet(n_classes, width=width)
    if name == "resnet50":
        return SeenActions(n_classes, settings.picture_size)
    if name == "temporal_resnet50":
        assert not isinstance(start, SoundNet5)
        learn_all = settings.learns == "all"
        return WatchedActions(n_classes, width=width, learn_all=learn_all, start=start)
    if name == "avnet":
        return AVNet(n_classes, picture_size=settings.picture_size, width=width)
    if name == "hearnet":
        return HeardActions(n_classes, width)
    assert not isinstance(start, ResNet)
    return SoundNetStudent(n_classes, start)


def as_input(rows: Tensor) -> Tensor:
    """Rows as a network takes them: bytes stay bytes, other numbers become float32."""
    return rows if rows.dtype == torch.uint8 else rows.float()
