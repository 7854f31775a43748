"""A small visual network that two cores can train: what is in a picture, wherever it is.

Six 3 x 3 convolutions with batch normalisation and ReLU, by which 240 x 320 pixels become a map of
15 x 20; the largest value of each channel is the embedding, for a thing covers a small part of the
picture and may be anywhere in it. 281,520 weights in the convolutions, 163 million multiply-adds.
It is ours and of no paper: what ImageNet's networks are to photographs it is to the pictures of a
generated world.
"""

from __future__ import annotations

from torch import Tensor, nn

from soundpost.train.backbones.frame_input import FrameInput

# The whole of a 4:3 picture.
FRAMES = FrameInput(resize_px=240, crop_px=240, crop_width_px=320)

# Channels and stride of each convolution.
_LAYERS = ((16, 2), (32, 2), (64, 2), (64, 1), (128, 2), (128, 1))


class PictureNet(nn.Module):
    """Pictures to embeddings, and to scores of names.

    embedding_size : elements of an embedding
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = 3
        for c_out, stride in _LAYERS:
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
            c_in = c_out
        self.features = nn.Sequential(*layers)
        self.embedding_size = c_in
        self.classifier = nn.Linear(c_in, n_classes)

    def embed(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to (n, embedding_size)."""
        maps: Tensor = self.features(frames)
        return maps.amax((2, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to scores before the softmax, (n, n_classes)."""
        scores: Tensor = self.classifier(self.embed(frames))
        return scores
