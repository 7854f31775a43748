"""Temporal ResNet-50: the visual teacher of perez2020 that sees motion.

Perez et al. (2020), section 5.1, after Garcia et al., "Modality distillation with multiple stream
networks for action recognition" (2018): a ResNet-50 on every frame, with convolutions along time
between residual units. The text gives no places and sizes; as in the authors' published code, the
second unit of each stage has one, of three frames, between its 3x3 and its last 1x1 convolution,
with a ReLU and no batch normalisation; it starts as the identity, so that the network starts as the
ResNet-50 that it was copied from; scores are averaged over the frames, of which five are drawn.
"""

from __future__ import annotations

from torch import Tensor, nn

from soundpost.train.backbones.resnet import (
    BLOCKS_50,
    BlockMaker,
    Bottleneck,
    ResNet,
    plain_block,
)
from soundpost.train.backbones.transfer import start_from

TEMPORAL_KERNEL = 3
FRAMES_PER_CLIP = 5
# The unit of each stage that looks along time, from 0.
TEMPORAL_UNIT = 1


class TemporalBottleneck(Bottleneck):
    """A residual unit whose inner maps are filtered over the frames of a clip."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__(c_in, c, stride)
        self.conv_temporal = nn.Conv3d(
            c, c, (TEMPORAL_KERNEL, 1, 1), padding=(TEMPORAL_KERNEL // 2, 0, 0)
        )
        nn.init.dirac_(self.conv_temporal.weight)
        if self.conv_temporal.bias is not None:
            nn.init.zeros_(self.conv_temporal.bias)

    def forward(self, x: Tensor, n_frames: int = 1) -> Tensor:
        """(n_clips * n_frames, c_in, height, width) to (n_clips * n_frames, 4 c, …)."""
        y = self.squeeze(x)
        clips = y.view(-1, n_frames, *y.shape[1:]).transpose(1, 2)
        filtered = self.relu(self.conv_temporal(clips)).transpose(1, 2).flatten(0, 1)
        return self.expand(filtered, x)


def _temporal_block(stage: int, index: int, c_in: int, c: int, stride: int) -> Bottleneck:
    if index == TEMPORAL_UNIT:
        return TemporalBottleneck(c_in, c, stride)
    return plain_block(stage, index, c_in, c, stride)


class TemporalResNet(ResNet):
    """Frames of clips to one score for each class and clip.

    n_classes : 14 actions as published
    blocks, width : see ResNet
    """

    def __init__(
        self,
        n_classes: int = 14,
        blocks: tuple[int, int, int, int] = BLOCKS_50,
        width: int = 64,
    ) -> None:
        make: BlockMaker = _temporal_block
        super().__init__(blocks, n_classes, width=width, make_block=make)

    def embed(self, frames: Tensor) -> Tensor:
        """(n_clips, n_frames, 3, height, width) to (n_clips, n_frames, embedding_size)."""
        n_frames = frames.shape[1]
        maps = self.stem(frames.flatten(0, 1))
        for stage in self.stages():
            for block in stage:
                if isinstance(block, TemporalBottleneck):
                    maps = block(maps, n_frames)
                else:
                    maps = block(maps)
        return maps.mean((2, 3)).view(-1, n_frames, self.embedding_size)

    def forward(self, frames: Tensor) -> Tensor:
        """(n_clips, n_frames, 3, height, width) normalised to (n_clips, n_classes).

        Scores before the softmax, averaged over the frames.
        """
        scores: Tensor = self.fc(self.embed(frames)).mean(1)
        return scores


def temporal_resnet50(n_classes: int = 14, start: ResNet | None = None) -> TemporalResNet:
    """Temporal ResNet-50, from a ResNet-50 trained on single frames where one is given."""
    network = TemporalResNet(n_classes)
    if start is not None:
        start_from(network, start, without=("fc.",))
    return network


def spread_frames(n_frames: int, wanted: int = FRAMES_PER_CLIP) -> list[int]:
    """Numbers of `wanted` (at least two) frames at equal distances, from the first to the last."""
    return [i * (n_frames - 1) // (wanted - 1) for i in range(wanted)]
