"""AlexNet: the features by which li2018 selects key frames.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), the variant
whose weights torchvision publishes; tensors are named as there. The features of a frame are the
output of the fifth convolution after its ReLU and before the pooling, as in the blob `conv5` of the
networks of that time, where the ReLU works in place (li2018 says "conv5" and no more).
"""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN_UNITS = 4096
MAP_SIZE = 6
CONV5_CHANNELS = 256
# Position of the pooling after conv5 in `features`.
_POOL5 = 12


class AlexNet(nn.Module):
    """Frames to ImageNet scores, or to conv5.

    n_classes : of the last layer; 1,000 as published
    """

    # 256 maps of 13 x 13 for a frame of 224 x 224.
    embedding_size = CONV5_CHANNELS * 13 * 13

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, CONV5_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(MAP_SIZE)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(CONV5_CHANNELS * MAP_SIZE**2, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN_UNITS, n_classes),
        )

    def conv5(self, frames: Tensor) -> Tensor:
        """(n, 3, 224, 224) normalised to (n, 256, 13, 13)."""
        maps: Tensor = self.features[:_POOL5](frames)
        return maps

    def embed(self, frames: Tensor) -> Tensor:
        """conv5 as one vector: (n, 3, 224, 224) to (n, 43264)."""
        return self.conv5(frames).flatten(1)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, 224, 224) to scores before the softmax, (n, n_classes)."""
        maps = self.avgpool(self.features[_POOL5:](self.conv5(frames)))
        scores: Tensor = self.classifier(maps.flatten(1))
        return scores
