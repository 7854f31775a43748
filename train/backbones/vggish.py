"""VGGish on 1 s log-mel patches: as published, with batch normalisation, fully convolutional.

Hershey et al., "CNN architectures for large-scale audio classification" (2017), and its two
improvements in Jia et al. (2019), section 3 and table 1, which are cumulative. The last map is
6 x 4 by itself: each pooling drops what is left over, 100 -> 50 -> 25 -> 12 -> 6 frames. Where the
text is silent:

- Batch normalisation follows the ReLU ("after each activation layer in convolutional layers"), so
  convolutions keep their biases. In the second network the fully connected layers have none.
- The embedding is what the classifier sees: after the ReLU, and in the third network after its
  batch normalisation.
- The printed 73.54 million parameters are those of the kernels alone: biases and batch
  normalisation add 41 thousand. The printed 360.72 million FLOPs do not follow from table 1, which
  takes 884 million multiply-adds (`counts.multiply_adds`).

The first network carries the names of the published conversion of the authors' weights
(`torchvggish`), which end at the embedding and whose front end differs: `vggish_front_end`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from soundpost.device.errors import UsageError
from soundpost.train.mobilenet_v2 import scaled_channels

# Table 1: channels and number of 3x3 convolutions before each pooling.
BLOCKS = ((64, 1), (128, 1), (256, 2), (512, 2))
LAST_MAP = (6, 4)

Kind = Literal["plain", "batch_norm", "fully_convolutional"]


@dataclass(frozen=True)
class VGGishSettings:
    """Shape of the network.

    kind : "plain" (as published), "batch_norm" or "fully_convolutional"
    embedding_size : units of the bottleneck before the classifier
    hidden_units : of the two layers before it
    width : multiplier on all channels and hidden units but those of the embedding (1.0 as
        published), rounded as MobileNet_v2's are
    """

    kind: Kind = "plain"
    embedding_size: int = 128
    hidden_units: int = 4096
    width: float = 1.0

    def scaled(self, channels: int) -> int:
        """Channels, or hidden units, at this width."""
        return channels if self.width == 1.0 else scaled_channels(channels * self.width)


def _convolutions(settings: VGGishSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for published, repeats in BLOCKS:
        c = settings.scaled(published)
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, c, 3, padding=1), nn.ReLU(inplace=True)]
            if settings.kind != "plain":
                layers.append(nn.BatchNorm2d(c))
            channels = c
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGGish(nn.Module):
    """Log-mel patches to independent scores, and the embedding before them.

    n_labels : of the classifier; None for a network that ends at the embedding, as published
    settings : VGGishSettings
    """

    def __init__(self, n_labels: int | None, settings: VGGishSettings | None = None) -> None:
        super().__init__()
        settings = settings or VGGishSettings()
        self.settings = settings
        self.embedding_size = settings.embedding_size
        channels, hidden = (settings.scaled(n) for n in (BLOCKS[-1][0], settings.hidden_units))
        self.features = _convolutions(settings)
        layers: list[nn.Module] = []
        if settings.kind == "fully_convolutional":
            kernels: list[tuple[int, int]] = [LAST_MAP, (1, 1), (1, 1)]
            for kernel, c in zip(kernels, (hidden, hidden, settings.embedding_size), strict=True):
                layers += [nn.Conv2d(channels, c, kernel), nn.ReLU(), nn.BatchNorm2d(c)]
                channels = c
        else:
            units = channels * LAST_MAP[0] * LAST_MAP[1]
            for c in (hidden, hidden, settings.embedding_size):
                layers += [nn.Linear(units, c), nn.ReLU(inplace=True)]
                units = c
        self.embeddings = nn.Sequential(*layers)
        self.classifier: nn.Linear | None = None
        if n_labels is not None:
            self.classifier = nn.Linear(settings.embedding_size, n_labels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.classifier is not None:
            nn.init.normal_(self.classifier.weight, 0.0, 0.01)

    def embed(self, patch: Tensor) -> Tensor:
        """(n_batch, 1, n_frames, n_mels) to (n_batch, embedding_size).

        n_frames is 96 to 111 and n_mels 64; the fully convolutional network takes longer patches,
        and averages its embeddings over them.
        """
        maps: Tensor = self.features(patch)
        if self.settings.kind == "fully_convolutional":
            embedded: Tensor = self.embeddings(maps)
            return embedded.mean((2, 3))
        # The published weights expect time, then band, then channel.
        vector: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return vector

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid.

        Parameters
        ----------
        patch : (n_batch, 1, n_frames, n_mels) log-mel, n_frames = 100 and n_mels = 64 as published

        Returns
        -------
        logits : (n_batch, n_labels)
        embedding : (n_batch, embedding_size)

        Raises UsageError for a network without a classifier.
        """
        if self.classifier is None:
            raise UsageError(
                "this VGGish ends at its embedding, as its published weights do: use `embed`, or "
                "build it with labels and train or load a classifier"
            )
        embedding = self.embed(patch)
        logits: Tensor = self.classifier(embedding)
        return logits, embedding
