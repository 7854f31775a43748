"""AVNet: the teacher of perez2020 that sees both sound and light.

Perez et al. (2020), section 6.1: the 1,024 features of DualCamNet and of ResNet-50 side by side,
then two layers of 1,000 and 14. As in the authors' published code, where the text is silent: the
visual features are a linear layer on the mean of ResNet-50's last map; ResNet-50 itself is not
trained; and each of the 12 images of a second, acoustic and visual, gives scores, which are
averaged. What does not change need not be computed twice: the network takes frames, or what
ResNet-50 made of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soundpost.device.errors import UsageError
from soundpost.train.backbones.dualcamnet import FEATURES, HIDDEN_UNITS, DualCamNet
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.backbones.scaling import scaled

# Of ResNet-50.
VISUAL_EMBEDDING = 2048


class AVNet(nn.Module):
    """Acoustic images and video frames to one score for each class and clip.

    n_classes : 14 actions as published
    trunk : trained ResNet-50, kept as it is, for input as frames; None for input as embeddings
    picture_size : elements of an embedding; those of the trunk where there is one
    width : factor on all channels but those of the inputs; 1 as published
    """

    def __init__(
        self,
        n_classes: int = 14,
        trunk: ResNet | None = None,
        *,
        picture_size: int = VISUAL_EMBEDDING,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.picture_size = picture_size if trunk is None else trunk.embedding_size
        if trunk is not None:
            trunk.requires_grad_(False).eval()
        features, hidden = scaled(FEATURES, width), scaled(HIDDEN_UNITS, width)
        self.visual = nn.Linear(self.picture_size, features)
        self.acoustic = DualCamNet(n_classes, width=width)
        # Only DualCamNet's features are used, not its own scores.
        del self.acoustic.full2, self.acoustic.full3
        self.fc1 = nn.Linear(2 * features, hidden)
        self.fc2 = nn.Linear(hidden, n_classes)
        self.relu = nn.ReLU()

    def train(self, mode: bool = True) -> AVNet:
        """Training mode for all but the trunk, whose batch statistics stay those it came with."""
        super().train(mode)
        if self.trunk is not None:
            self.trunk.eval()
        return self

    def visual_features(self, visual: Tensor) -> Tensor:
        """Frames or their embeddings to (n_clips, n_frames, 1024 * width); see forward."""
        if visual.dim() == 5:
            if self.trunk is None:
                raise UsageError(
                    "this AVNet was made without a ResNet-50: give it the embeddings of the "
                    f"frames, (n_clips, n_frames, {self.picture_size}), or make it with a trunk"
                )
            with torch.no_grad():
                vectors = self.trunk.embed(visual.flatten(0, 1))
            visual = vectors.view(*visual.shape[:2], -1)
        features: Tensor = self.visual(visual)
        return features

    def forward(self, visual: Tensor, images: Tensor) -> Tensor:
        """Scores before the softmax, averaged over the images.

        Parameters
        ----------
        visual : (n_clips, n_frames, 3, height, width) normalised frames, or
            (n_clips, n_frames, picture_size) their embeddings by ResNet-50
        images : (n_clips, n_frames, 36, 48, n_mfcc) acoustic images of the same moments

        Returns
        -------
        (n_clips, n_classes)

        Raises UsageError where frames are given and there is no trunk.
        """
        both = torch.cat([self.visual_features(visual), self.acoustic.embed(images)], 2)
        scores: Tensor = self.fc2(self.relu(self.fc1(both)))
        return scores.mean(1)
