"""Plain convolutional network on 1 s log-mel patches: a teacher that a CPU can train.

Pairs of 3x3 convolutions as in Kong et al., "DCASE 2018 challenge Surrey cross-task convolutional
neural network baseline", with these differences: a strided convolution comes first, for two thirds
of the time would go into maps of 100 x 64, poolings average, and the last map is averaged whole.
The last map is 6 x 4, as that of the other networks on patches: 100 -> 50 -> 25 -> 12 -> 6 frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from soundpost.train.mobilenet_v2 import scaled_channels

STEM_CHANNELS = 32
# Of each pair of convolutions; between two pairs, maps are halved.
CHANNELS = (64, 128, 256, 512)


@dataclass(frozen=True)
class AudioCNNSettings:
    """Shape of the network.

    width : multiplier on every channel count
    embedding_size : units of the bottleneck before the classifier
    dropout : probability on the embedding while training
    """

    width: float = 1.0
    embedding_size: int = 128
    dropout: float = 0.3


class AudioCNN(nn.Module):
    """Log-mel patches to independent scores.

    n_labels : number of independent (sigmoid) classes
    settings : AudioCNNSettings
    """

    def __init__(self, n_labels: int, settings: AudioCNNSettings | None = None) -> None:
        super().__init__()
        settings = settings or AudioCNNSettings()
        self.settings = settings
        channels = scaled_channels(STEM_CHANNELS * settings.width)
        layers = _convolution(1, channels, stride=2)
        for pair, c in enumerate(CHANNELS):
            if pair:
                layers.append(nn.AvgPool2d(2))
            for _ in range(2):
                c_out = scaled_channels(c * settings.width)
                layers += _convolution(channels, c_out)
                channels = c_out
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(channels, settings.embedding_size)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(settings.embedding_size, n_labels)
        nn.init.xavier_uniform_(self.embedding.weight)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        for layer in (self.embedding, self.classifier):
            nn.init.zeros_(layer.bias)

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid.

        Parameters
        ----------
        patch : (n_batch, 1, n_frames, n_mels) log-mel

        Returns
        -------
        logits : (n_batch, n_labels)
        embedding : (n_batch, embedding_size)
        """
        embedding: Tensor = self.embedding(self.features(patch).mean((2, 3)))
        logits: Tensor = self.classifier(self.dropout(embedding))
        return logits, embedding


def _convolution(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
