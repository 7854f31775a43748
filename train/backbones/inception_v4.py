"""Inception-v4: the object recogniser of li2018.

Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual connections on learning"
(2017), figures 3 to 9. Tensors are named as in the two published conversions of the authors'
weights (`pretrainedmodels` and `timm`). The first has a class "background" before the thousand,
which `without_background` drops.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMBEDDING_SIZE = 1536
N_CLASSES = 1000

# A kernel (height, width); "valid" convolutions take no padding, the others keep the map's size.
Kernel = tuple[int, int]
# Output channels, kernel, stride, keeps the map's size.
Step = tuple[int, Kernel, int, bool]

_POINT, _SQUARE = (1, 1), (3, 3)
_ROW7, _COLUMN7, _ROW3, _COLUMN3 = (1, 7), (7, 1), (1, 3), (3, 1)


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, c_in: int, step: Step) -> None:
        super().__init__()
        c_out, (height, width), stride, same = step
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = nn.Conv2d(c_in, c_out, (height, width), stride, padding, bias=False)
        # The epsilon that the authors trained with.
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, height, width) to (n, c_out, …)."""
        y: Tensor = self.bn(self.conv(x))
        return y.relu_()


def _same(c_out: int, kernel: Kernel = _SQUARE) -> Step:
    return c_out, kernel, 1, True


def _valid(c_out: int, stride: int = 1) -> Step:
    return c_out, _SQUARE, stride, False


def _point(c_out: int) -> Step:
    return c_out, _POINT, 1, True


def _chain(c_in: int, *steps: Step) -> nn.Sequential:
    units = []
    for step in steps:
        units.append(ConvUnit(c_in, step))
        c_in = step[0]
    return nn.Sequential(*units)


def _pooled(c_in: int, c_out: int) -> nn.Sequential:
    mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Sequential(mean, ConvUnit(c_in, _point(c_out)))


class Branches(nn.Module):
    """Networks side by side on one map; their maps are stacked in the order of the names."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, height, width) to (n, sum of the branches' channels, …)."""
        return torch.cat([branch(x) for branch in self.children()], 1)


def _halved() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2)


def _inception_a() -> Branches:
    return Branches(
        branch0=ConvUnit(384, _point(96)),
        branch1=_chain(384, _point(64), _same(96)),
        branch2=_chain(384, _point(64), _same(96), _same(96)),
        branch3=_pooled(384, 96),
    )


def _reduction_a() -> Branches:
    return Branches(
        branch0=ConvUnit(384, _valid(384, 2)),
        branch1=_chain(384, _point(192), _same(224), _valid(256, 2)),
        branch2=_halved(),
    )


def _inception_b() -> Branches:
    return Branches(
        branch0=ConvUnit(1024, _point(384)),
        branch1=_chain(1024, _point(192), _same(224, _ROW7), _same(256, _COLUMN7)),
        branch2=_chain(
            1024,
            _point(192),
            _same(192, _COLUMN7),
            _same(224, _ROW7),
            _same(224, _COLUMN7),
            _same(256, _ROW7),
        ),
        branch3=_pooled(1024, 128),
    )


def _reduction_b() -> Branches:
    return Branches(
        branch0=_chain(1024, _point(192), _valid(192, 2)),
        branch1=_chain(1024, _point(256), _same(256, _ROW7), _same(320, _COLUMN7), _valid(320, 2)),
        branch2=_halved(),
    )


class InceptionC(nn.Module):
    """Figure 6: two of the four branches fork at their end into a row and a column."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvUnit(1536, _point(256))
        self.branch1_0 = ConvUnit(1536, _point(384))
        self.branch1_1a = ConvUnit(384, _same(256, _ROW3))
        self.branch1_1b = ConvUnit(384, _same(256, _COLUMN3))
        self.branch2_0 = ConvUnit(1536, _point(384))
        self.branch2_1 = ConvUnit(384, _same(448, _COLUMN3))
        self.branch2_2 = ConvUnit(448, _same(512, _ROW3))
        self.branch2_3a = ConvUnit(512, _same(256, _ROW3))
        self.branch2_3b = ConvUnit(512, _same(256, _COLUMN3))
        self.branch3 = _pooled(1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1536, height, width) to the same shape."""
        fork1 = self.branch1_0(x)
        fork2 = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        maps = [
            self.branch0(x),
            self.branch1_1a(fork1),
            self.branch1_1b(fork1),
            self.branch2_3a(fork2),
            self.branch2_3b(fork2),
            self.branch3(x),
        ]
        return torch.cat(maps, 1)


class InceptionV4(nn.Module):
    """Frames to ImageNet scores, or to the mean of the last map.

    n_classes : of the last layer; 1,000 as published
    """

    embedding_size = EMBEDDING_SIZE

    def __init__(self, n_classes: int = N_CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvUnit(3, _valid(32, 2)),
            ConvUnit(32, _valid(32)),
            ConvUnit(32, _same(64)),
            Branches(maxpool=_halved(), conv=ConvUnit(64, _valid(96, 2))),
            Branches(
                branch0=_chain(160, _point(64), _valid(96)),
                branch1=_chain(160, _point(64), _same(64, _ROW7), _same(64, _COLUMN7), _valid(96)),
            ),
            Branches(conv=ConvUnit(192, _valid(192, 2)), maxpool=_halved()),
            *(_inception_a() for _ in range(4)),
            _reduction_a(),
            *(_inception_b() for _ in range(7)),
            _reduction_b(),
            *(InceptionC() for _ in range(3)),
        )
        self.last_linear = nn.Linear(EMBEDDING_SIZE, n_classes)

    def embed(self, frames: Tensor) -> Tensor:
        """Mean of the last map.

        frames : (n, 3, height, width) normalised, 299 x 299 as published, at least 75 x 75
        Returns (n, 1536).
        """
        maps: Tensor = self.features(frames)
        return maps.mean((2, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to scores before the softmax, (n, n_classes)."""
        scores: Tensor = self.last_linear(self.embed(frames))
        return scores


def without_background(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state without the class before ImageNet's thousand, where it has one."""
    weight = state.get("last_linear.weight")
    if weight is None or len(weight) != N_CLASSES + 1:
        return state
    last = {name: state[name][1:] for name in ("last_linear.weight", "last_linear.bias")}
    return {**state, **last}
