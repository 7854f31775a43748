"""The networks of perez2020 by name, with what each of them takes of a clip.

Where the text leaves a choice: ResNet-50 is not trained, as in the authors' code for AVNet; a
linear layer on the mean of its last map gives each frame's scores, which are averaged over the
clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from torch import Tensor, nn

from soundpost.train.backbones.avnet import VISUAL_EMBEDDING, AVNet
from soundpost.train.backbones.dualcamnet import FEATURES, DualCamNet
from soundpost.train.backbones.hearnet import HearNet, SpectrogramRange, spectrogram
from soundpost.train.backbones.soundnet5 import SoundNet5, SoundNetStudent

# Rows of a clip: acoustic images, embeddings of its pictures, waveform of one microphone.
InputKind = Literal["images", "pictures", "sound"]
INPUTS: Final[dict[str, tuple[InputKind, ...]]] = {
    "dualcamnet": ("images",),
    "resnet50": ("pictures",),
    "avnet": ("pictures", "images"),
    "hearnet": ("sound",),
    "soundnet5": ("sound",),
}
TEACHERS: Final = ("dualcamnet", "resnet50", "avnet")
STUDENTS: Final = ("hearnet", "soundnet5")
# What a teacher is shown at a time.
TEACHER_CLIP_S: Final = 1.0


class SeenActions(nn.Module):
    """Embeddings of a clip's pictures to one score for each class and clip.

    embedding_size : of ResNet-50, 2,048
    """

    def __init__(self, n_classes: int, embedding_size: int = VISUAL_EMBEDDING) -> None:
        super().__init__()
        self.fc = nn.Linear(embedding_size, n_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n_clips, n_frames, embedding_size) to (n_clips, n_classes), before the softmax."""
        scores: Tensor = self.fc(pictures)
        return scores.mean(1)


class HeardActions(nn.Module):
    """HearNet with its front end: waveforms to one score for each class and clip."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.range = SpectrogramRange()
        self.network = HearNet(n_classes)

    def fit_range(self, waveforms: Iterable[Tensor]) -> None:
        """Learn the range of each bin: of the training clips, each (n_clips, n_samples)."""
        self.range.fit(spectrogram(waveform) for waveform in waveforms)

    def forward(self, waveform: Tensor) -> Tensor:
        """(n_clips, n_samples) of `student_waveform` to (n_clips, n_classes)."""
        scores: Tensor = self.network(self.range(spectrogram(waveform)))
        return scores


def action_network(
    name: str,
    n_classes: int,
    picture_size: int = VISUAL_EMBEDDING,
    start: SoundNet5 | None = None,
) -> nn.Module:
    """A network with weights from torch's generator, from its inputs to logits.

    name : of INPUTS; it takes a tensor for each
    picture_size : elements of a picture's embedding
    start : trained SoundNet-5 that "soundnet5" begins with
    """
    if name == "dualcamnet":
        return DualCamNet(n_classes)
    if name == "resnet50":
        return SeenActions(n_classes, picture_size)
    if name == "avnet":
        network = AVNet(n_classes)
        if picture_size != VISUAL_EMBEDDING:
            network.visual = nn.Linear(picture_size, FEATURES)
        return network
    if name == "hearnet":
        return HeardActions(n_classes)
    return SoundNetStudent(n_classes, start)
