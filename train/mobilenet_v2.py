"""MobileNet_v2 student on 1 s log-mel patches.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, as adapted to
audio by Jia et al., "Cross-modal supervised learning for better acoustic representations" (2019):
a 128-unit embedding before the classifier, and strides chosen so that the last map is 6 x 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Table 2 of the MobileNetV2 paper: expansion, channels, repeats, stride. The paper halves five
# times; a 100 x 64 patch may be halved only four times if the last map is to be 6 x 4, so the stage
# of 160 channels keeps its resolution.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280

# The int8 output scale follows from this range, and a sigmoid saturates well inside it.
LOGIT_LIMIT = 8.0


@dataclass(frozen=True)
class MobileNetV2Settings:
    """Shape of the student.

    width : multiplier on every channel count (1.0 as published)
    embedding_size : units of the bottleneck before the classifier (128 in jia2019)
    dropout : probability on the embedding while training
    """

    width: float = 1.0
    embedding_size: int = 128
    dropout: float = 0.3


def scaled_channels(channels: float, divisor: int = 8) -> int:
    """Channel count rounded to a multiple of ``divisor``, never more than 10 % below ``channels``.

    The rounding rule of the MobileNetV2 authors' reference code.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class StridedDepthwise(nn.Conv2d):
    """Depthwise convolution that halves the map, in float32 where a CPU would be slow in bfloat16.

    oneDNN's backward pass of this one shape takes 5 times as long in bfloat16 as in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Conv2d."""
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def _conv_bn(
    c_in: int,
    c_out: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    conv = StridedDepthwise if stride > 1 and groups > 1 else nn.Conv2d
    layers: list[nn.Module] = [
        conv(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    if activation:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter per channel (3x3), project linearly (1x1); add the input if it fits."""

    def __init__(
        self, c_in: int, c_out: int, expansion: int, stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn(c_in, hidden, 1))
        layers.append(_conv_bn(hidden, hidden, 3, stride=stride, padding=padding, groups=hidden))
        layers.append(_conv_bn(hidden, c_out, 1, activation=False))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n_batch, c_in, height, width) to (n_batch, c_out, …)."""
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Patch to class logits and embedding.

    Parameters
    ----------
    n_labels : number of independent (sigmoid) classes
    settings : MobileNetV2Settings
    """

    def __init__(self, n_labels: int, settings: MobileNetV2Settings | None = None) -> None:
        super().__init__()
        settings = settings or MobileNetV2Settings()
        self.settings = settings
        self.embedding_size = settings.embedding_size
        width = settings.width
        channels = scaled_channels(STEM_CHANNELS * width)
        layers: list[nn.Module] = [_conv_bn(1, channels, 3, stride=2, padding=(1, 1))]
        for expansion, c, repeats, stage_stride in STAGES:
            c_out = scaled_channels(c * width)
            for i in range(repeats):
                stride = stage_stride if i == 0 else 1
                # 25 frames must become 12, not 13, for the last map to be 6 x 4: no time padding.
                padding = (0, 1) if stride == 2 and c == 64 // 2 else (1, 1)
                layers.append(InvertedResidual(channels, c_out, expansion, stride, padding))
                channels = c_out
        # As in the paper, widths below 1 do not narrow the last convolution.
        head = scaled_channels(HEAD_CHANNELS * max(1.0, width))
        layers.append(_conv_bn(channels, head, 1))
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(head, settings.embedding_size)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(settings.embedding_size, n_labels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embedding.weight)

    def embed(self, patch: Tensor) -> Tensor:
        """(n_batch, 1, n_frames, n_mels) to (n_batch, embedding_size)."""
        x = self.features(patch)
        embedding: Tensor = self.embedding(x.mean((2, 3)))
        return embedding

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid.

        Parameters
        ----------
        patch : (n_batch, 1, n_frames, n_mels) log-mel, n_frames = 100 and n_mels = 64 as published

        Returns
        -------
        logits : (n_batch, n_labels), not yet clamped (export clamps to ±LOGIT_LIMIT)
        embedding : (n_batch, embedding_size)
        """
        embedding = self.embed(patch)
        logits: Tensor = self.classifier(self.dropout(embedding))
        return logits, embedding
