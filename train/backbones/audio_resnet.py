"""ResNet-50 on 1 s log-mel patches, with a bottleneck before the classifier.

Jia et al. (2019), section 3: "the stride of the convolutional layer is decreased by half to
guarantee an output feature map of 6*4". A ResNet-50 halves five times, 100 x 64 may be halved only
four times: the last stage keeps its resolution (the text does not say which). Of 25 frames the
second stage must make 12 and not 13: its strided convolution takes no time padding, and the
shortcut beside it leaves out the first and the last frame, so that both look at the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from soundpost.train.backbones.resnet import (
    BLOCKS_50,
    Bottleneck,
    ResNet,
    plain_block,
)

STRIDES = (1, 2, 2, 1)
# The stage before which 25 frames are left.
_CROPPED_STAGE = 2


@dataclass(frozen=True)
class AudioResNetSettings:
    """Shape of the network.

    embedding_size : units of the bottleneck before the classifier (128 in jia2019)
    dropout : probability on the embedding while training
    blocks, width : see ResNet; as published by default
    """

    embedding_size: int = 128
    dropout: float = 0.3
    blocks: tuple[int, int, int, int] = BLOCKS_50
    width: int = 64


class CroppedBottleneck(Bottleneck):
    """A block that halves an odd number of frames downwards: 25 to 12."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__(c_in, c, stride)
        self.conv2.padding = (0, 1)

    def shortcut(self, x: Tensor) -> Tensor:
        """(n, c_in, 2 k + 1 frames, n_bands) to (n, 4 c, k, n_bands / 2)."""
        return super().shortcut(x[:, :, 1:-1])


def _block(stage: int, index: int, c_in: int, c: int, stride: int) -> Bottleneck:
    if stage == _CROPPED_STAGE and index == 0:
        return CroppedBottleneck(c_in, c, stride)
    return plain_block(stage, index, c_in, c, stride)


class AudioResNet(nn.Module):
    """Log-mel patches to independent scores.

    n_labels : number of independent (sigmoid) classes
    settings : AudioResNetSettings
    """

    def __init__(self, n_labels: int, settings: AudioResNetSettings | None = None) -> None:
        super().__init__()
        settings = settings or AudioResNetSettings()
        self.settings = settings
        self.embedding_size = settings.embedding_size
        self.trunk = ResNet(
            settings.blocks,
            n_classes=None,
            in_channels=1,
            strides=STRIDES,
            width=settings.width,
            make_block=_block,
        )
        self.embedding = nn.Linear(self.trunk.embedding_size, settings.embedding_size)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(settings.embedding_size, n_labels)
        nn.init.xavier_uniform_(self.embedding.weight)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        for layer in (self.embedding, self.classifier):
            nn.init.zeros_(layer.bias)

    def embed(self, patch: Tensor) -> Tensor:
        """(n_batch, 1, n_frames, n_mels) to (n_batch, embedding_size)."""
        embedding: Tensor = self.embedding(self.trunk.embed(patch))
        return embedding

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid.

        Parameters
        ----------
        patch : (n_batch, 1, n_frames, n_mels) log-mel, n_frames = 100 and n_mels = 64 as published

        Returns
        -------
        logits : (n_batch, n_labels)
        embedding : (n_batch, embedding_size)
        """
        embedding = self.embed(patch)
        logits: Tensor = self.classifier(self.dropout(embedding))
        return logits, embedding
