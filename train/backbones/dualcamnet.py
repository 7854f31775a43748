"""DualCamNet: the teacher of perez2020 that sees sound.

Perez et al. (2020), section 4 and figure 4a, on one second of acoustic images (12 images of 36 x 48
directions with 12 MFCCs each). Where the text is silent or at odds with itself:

- It gives the pooling a stride of 1 "to keep the spatial resolution"; the authors' published code
  pools 2 x 2 twice to a map of 9 x 12, and that is what the layer after it fits.
- Convolutions have batch normalisation and ReLU, as in the text; the published code has none.
- Every image of the second gives scores of its own, which are averaged before the softmax.
"""

from __future__ import annotations

from torch import Tensor, nn

from soundpost.train.backbones.scaling import scaled

FRAMES = 12
IMAGE_SIZE = (36, 48)
N_MFCC = 12
# Each pooling halves the image.
LAST_MAP = (9, 12)
FEATURES = 1024
HIDDEN_UNITS = 1000
TEMPORAL_KERNEL = 7
SPATIAL_KERNEL = 5
CHANNELS = (32, 64)


class DualCamNet(nn.Module):
    """Acoustic images to one score for each class and clip.

    n_classes : 14 actions as published
    n_mfcc : values of each direction
    dropout : probability on the features while training (keep probability 0.5 in the code)
    width : factor on all channels but those of the images; 1 as published
    """

    def __init__(
        self,
        n_classes: int = 14,
        n_mfcc: int = N_MFCC,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(
            n_mfcc, n_mfcc, (TEMPORAL_KERNEL, 1, 1), padding=(TEMPORAL_KERNEL // 2, 0, 0)
        )
        self.relu = nn.ReLU()
        layers: list[nn.Module] = []
        channels = n_mfcc
        for c in (scaled(c, width) for c in CHANNELS):
            # No bias: the batch normalisation after it has one.
            layers += [
                nn.Conv2d(channels, c, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False),
                nn.BatchNorm2d(c),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = c
        self.spatial = nn.Sequential(*layers)
        self.embedding_size, hidden = scaled(FEATURES, width), scaled(HIDDEN_UNITS, width)
        self.full1 = nn.Conv2d(channels, self.embedding_size, LAST_MAP)
        self.dropout = nn.Dropout(dropout)
        self.full2 = nn.Linear(self.embedding_size, hidden)
        self.full3 = nn.Linear(hidden, n_classes)

    def maps(self, images: Tensor) -> Tensor:
        """The last map of each image: (n_clips, n_frames, 36, 48, n_mfcc) to (…, 64, 9, 12).

        Images of one clip are filtered along time; those of different clips never meet.
        """
        filtered = self.relu(self.conv1(images.permute(0, 4, 1, 2, 3)))
        maps: Tensor = self.spatial(filtered.transpose(1, 2).flatten(0, 1))
        return maps.view(*images.shape[:2], *maps.shape[1:])

    def embed(self, images: Tensor) -> Tensor:
        """(n_clips, n_frames, 36, 48, n_mfcc) to (n_clips, n_frames, embedding_size)."""
        maps = self.maps(images)
        features: Tensor = self.relu(self.full1(maps.flatten(0, 1)))
        return features.view(*maps.shape[:2], self.embedding_size)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before the softmax, averaged over the images.

        Parameters
        ----------
        images : (n_clips, n_frames, 36, 48, n_mfcc), 12 frames as published

        Returns
        -------
        (n_clips, n_classes)
        """
        hidden = self.relu(self.full2(self.dropout(self.embed(images))))
        scores: Tensor = self.full3(hidden)
        return scores.mean(1)
