"""ResNet-50 and ResNet-101: visual teacher of perez2020, visual labeller of jia2019.

He et al., "Deep residual learning for image recognition" (2016), with the stride on the 3x3
convolution of a block, as in the weights that torchvision publishes; tensors are named as there.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

# Blocks in each of the four stages.
BLOCKS_50 = (3, 4, 6, 3)
BLOCKS_101 = (3, 4, 23, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 to c channels, 3x3, 1x1 to 4 c; the input is added before the last ReLU."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        c_out = EXPANSION * c
        self.conv1 = nn.Conv2d(c_in, c, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.conv3 = nn.Conv2d(c, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def squeeze(self, x: Tensor) -> Tensor:
        """The first two convolutions: (n, c_in, height, width) to (n, c, …)."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return y

    def shortcut(self, x: Tensor) -> Tensor:
        """What is added: the input, or its projection where the shape changes."""
        if self.downsample is None:
            return x
        projected: Tensor = self.downsample(x)
        return projected

    def expand(self, y: Tensor, x: Tensor) -> Tensor:
        """The last convolution of y, plus the shortcut of the block's input x."""
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, height, width) to (n, 4 c, …)."""
        return self.expand(self.squeeze(x), x)


# Stage (1 to 4) and number of the block within it, from 0; then what Bottleneck takes.
BlockMaker = Callable[[int, int, int, int, int], Bottleneck]


def plain_block(stage: int, index: int, c_in: int, c: int, stride: int) -> Bottleneck:
    """The same kind everywhere."""
    return Bottleneck(c_in, c, stride)


class ResNet(nn.Module):
    """Frames to ImageNet scores, or to the mean of the last map.

    blocks : in each stage
    n_classes : of the last layer; None for a trunk without one, whose forward is `embed`
    in_channels : planes of the input
    strides : of the first block of each stage
    width : channels of the first stage, 64 as published
    make_block : a block, by its place
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        n_classes: int | None = 1000,
        *,
        in_channels: int = 3,
        strides: tuple[int, int, int, int] = (1, 2, 2, 2),
        width: int = 64,
        make_block: BlockMaker = plain_block,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        stages: list[nn.Sequential] = []
        for number, (n_blocks, stride) in enumerate(zip(blocks, strides, strict=True)):
            c = width * 2**number
            stage: list[nn.Module] = []
            for index in range(n_blocks):
                first = stride if index == 0 else 1
                stage.append(make_block(number + 1, index, channels, c, first))
                channels = EXPANSION * c
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.embedding_size = channels
        self.fc = nn.Identity() if n_classes is None else nn.Linear(channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages in their order."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def stem(self, frames: Tensor) -> Tensor:
        """Everything before the first stage: a quarter of the height and width."""
        maps: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        return maps

    def features(self, frames: Tensor) -> Tensor:
        """The last map: (n, in_channels, height, width) to (n, 2048, height / 32, width / 32).

        Any size from 32 x 32 on, for a crop or a smaller frame; 224 x 224 as published.
        """
        maps = self.stem(frames)
        for stage in self.stages():
            maps = stage(maps)
        return maps

    def embed(self, frames: Tensor) -> Tensor:
        """Mean of the last map, (n, embedding_size)."""
        return self.features(frames).mean((2, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """(n, in_channels, height, width) to scores before the softmax, (n, n_classes)."""
        scores: Tensor = self.fc(self.embed(frames))
        return scores


def resnet50(n_classes: int = 1000) -> ResNet:
    """ResNet-50, embedding of 2,048."""
    return ResNet(BLOCKS_50, n_classes)


def resnet101(n_classes: int = 1000) -> ResNet:
    """ResNet-101, embedding of 2,048; 11,166 classes in jia2019 (ML-Images)."""
    return ResNet(BLOCKS_101, n_classes)
