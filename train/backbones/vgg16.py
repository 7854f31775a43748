"""VGG16: the visual features of yin2021.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015),
configuration D. Tensors are named as in torchvision, so that its weights load.
"""

from __future__ import annotations

from torch import Tensor, nn

# Channels and number of 3x3 convolutions before each halving of the map.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
HIDDEN_UNITS = 4096
# 224 / 2^5; maps of other frame sizes are averaged to it.
MAP_SIZE = 7


class VGG16(nn.Module):
    """Frames to ImageNet scores, or to the 4,096 values of the layer before them.

    n_classes : of the last layer; 1,000 as published
    """

    embedding_size = HIDDEN_UNITS

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for c, repeats in BLOCKS:
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, c, 3, padding=1), nn.ReLU(inplace=True)]
                channels = c
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(MAP_SIZE)
        self.classifier = nn.Sequential(
            nn.Linear(channels * MAP_SIZE**2, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN_UNITS, n_classes),
        )

    def embed(self, frames: Tensor) -> Tensor:
        """Output of the penultimate layer, after its ReLU ("VGG-4096" in yin2021).

        frames : (n, 3, height, width) normalised, 224 x 224 as published, at least 32 x 32
        Returns (n, 4096).
        """
        maps = self.avgpool(self.features(frames))
        hidden: Tensor = self.classifier[:-1](maps.flatten(1))
        return hidden

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to scores before the softmax, (n, n_classes) ("VGG-1000")."""
        scores: Tensor = self.classifier[-1](self.embed(frames))
        return scores
