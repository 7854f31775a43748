"""Teacher that hears and sees, and student that hears and imagines (yin2021).

Yin et al., "Enhanced audio tagging via multi- to single-modal teacher-student mutual learning"
(AAAI 2021), figures 2 and 3. The audio network is that of Kong et al., "DCASE 2018 challenge Surrey
cross-task convolutional neural network baseline". Where the text leaves a choice:

- Convolutions, and the layers in front of a batch normalisation, have no bias: the normalisation
  has one.
- 64 bands are 4 after four poolings. A frame vector is the mean over them, as in Kong's code: 512
  elements. Pooling keeps what is left over at the end, so that short clips have a frame too.
- Kong standardises each mel band by the training set's mean and standard deviation. They are
  buffers of the network (`Standardise`), so that a student carries them along.
- The sub-network of a pre-trained acoustic representation such as VGGish is not described. It is
  that of the video frames: 128 units, batch normalisation, ReLU, mean over time.
- A student of the baselines has no visual context, as the audio network of table 4 has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from soundpost.device.errors import ConfigError
from soundpost.train.mobilenet_v2 import scaled_channels

# Least standard deviation of a band: a front end clamps, and a band may never sound.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class AcousticFeature:
    """One input of the audio side.

    kind : "spectrogram", for the convolutions, or "vectors", such as VGGish's 128 per second
    size : mel bands, or elements of a vector
    """

    kind: str = "spectrogram"
    size: int = 64

    def __post_init__(self) -> None:
        if self.kind not in ("spectrogram", "vectors") or self.size < 1:
            raise ConfigError(
                f"acoustic feature: kind {self.kind!r}, size {self.size}: expected "
                "'spectrogram' or 'vectors', and 1 or more"
            )


@dataclass(frozen=True)
class TaggingSettings:
    """Sizes of teacher and student.

    acoustic : inputs of the audio side, each with a sub-network of its own
    visual_size : elements of a frame's embedding (4096: penultimate layer of VGG16)
    visual_units : of the visual context
    channels : of the convolutions; after every second one is a 2 x 2 max-pooling
    width : multiplier on channels and units (rounded to multiples of 8)
    """

    acoustic: tuple[AcousticFeature, ...] = (AcousticFeature(),)
    visual_size: int = 4096
    visual_units: int = 128
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512)
    width: float = 1.0

    def __post_init__(self) -> None:
        if not self.acoustic:
            raise ConfigError("tagging networks: acoustic is empty: expected a feature or more")
        if not self.channels or len(self.channels) % 2:
            raise ConfigError(
                f"tagging networks: {len(self.channels)} channels: expected an even number of "
                "them, for pairs of convolutions"
            )


class Inputs(NamedTuple):
    """What is known of some clips.

    acoustic : for each feature (n_clips, n_frames, size)
    visual : (n_clips, n_video_frames, visual_size) embeddings, or None where nobody saw
    """

    acoustic: tuple[Tensor, ...]
    visual: Tensor | None = None


class TaggingBatch(NamedTuple):
    """Clips with their labels; targets : (n_clips, n_labels), 0 or 1."""

    inputs: Inputs
    targets: Tensor


class Tagged(NamedTuple):
    """What a network says of clips.

    acoustic : (n_clips, acoustic_size), h^a: the global context of what is heard
    visual : (n_clips, visual_size), h_t^v of a teacher, g of a student; of size 0 where it has none
    logits : (n_clips, n_labels); p = sigmoid(logits)
    """

    acoustic: Tensor
    visual: Tensor
    logits: Tensor


class Standardise(nn.Module):
    """(x - mean) / std of each band; nothing is changed before `set_to`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def set_to(self, mean: Tensor, std: Tensor) -> None:
        """Statistics of the training set, each (size,)."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=_SMALLEST))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) to the same."""
        return (x - self.mean) / self.std


class SpectrogramNetwork(nn.Module):
    """Eight 3 x 3 convolutions, four poolings: log-mel to frame vectors.

    Attributes
    ----------
    size : elements of a frame vector
    """

    def __init__(self, n_bands: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.standardise = Standardise(n_bands)
        layers: list[nn.Module] = []
        c_in = 1
        for index, c_out in enumerate(channels):
            layers += [
                nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
            if index % 2:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            c_in = c_out
        self.layers = nn.Sequential(*layers)
        self.size = c_in

    def forward(self, log_mel: Tensor) -> Tensor:
        """(n_clips, n_frames, n_bands) to (n_clips, n_steps, size), n_steps = ceil(n_frames/16)."""
        x = self.standardise(log_mel).unsqueeze(1)
        maps: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return maps.mean(3).transpose(1, 2)


class VectorNetwork(nn.Module):
    """Fully-connected layer, batch normalisation and ReLU on each of a clip's vectors.

    Attributes
    ----------
    size : elements of a result
    """

    def __init__(self, size: int, units: int) -> None:
        super().__init__()
        self.size = units
        self.linear = nn.Linear(size, units, bias=False)
        self.normalise = nn.BatchNorm1d(units)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n_clips, n_frames, elements) to (n_clips, n_frames, size)."""
        units: Tensor = self.linear(vectors)
        normal: Tensor = self.normalise(units.flatten(0, 1))
        return normal.relu().view(units.shape)


class AcousticContext(nn.Module):
    """Global context of what is heard: each feature's mean over time, concatenated (figure 3).

    Attributes
    ----------
    size : elements of h^a
    """

    def __init__(self, settings: TaggingSettings) -> None:
        super().__init__()
        channels = tuple(scaled_channels(c * settings.width) for c in settings.channels)
        units = scaled_channels(settings.visual_units * settings.width)
        self.parts = nn.ModuleList(
            SpectrogramNetwork(feature.size, channels)
            if feature.kind == "spectrogram"
            else VectorNetwork(feature.size, units)
            for feature in settings.acoustic
        )
        sizes = [channels[-1] if f.kind == "spectrogram" else units for f in settings.acoustic]
        self.size = sum(sizes)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """For each feature (n_clips, n_frames, elements), to (n_clips, size)."""
        contexts = [
            part(feature).mean(1) for part, feature in zip(self.parts, features, strict=True)
        ]
        return torch.cat(contexts, 1)


class TeacherNetwork(nn.Module):
    """Hears and sees: `p_t = sigmoid(FC(concat(h_t^a, h_t^v)))`."""

    def __init__(self, n_labels: int, settings: TaggingSettings) -> None:
        super().__init__()
        self.hear = AcousticContext(settings)
        self.see = VectorNetwork(
            settings.visual_size, scaled_channels(settings.visual_units * settings.width)
        )
        self.acoustic_size, self.visual_size = self.hear.size, self.see.size
        self.tags = nn.Linear(self.acoustic_size + self.visual_size, n_labels)

    def forward(self, inputs: Inputs) -> Tagged:
        """Raises ValueError where there is no video."""
        acoustic, visual = self.hear(inputs.acoustic), self.see(_seen(inputs)).mean(1)
        return Tagged(acoustic, visual, self.tags(torch.cat([acoustic, visual], 1)))


class StudentNetwork(nn.Module):
    """Hears alone: `p_s = sigmoid(FC(concat(h_s^a, g)))`, `g = ReLU(W_c h_s^a + b_c)`.

    Parameters
    ----------
    imagines : whether it has the visual context g; without it, the plain audio network
    """

    def __init__(self, n_labels: int, settings: TaggingSettings, *, imagines: bool = True) -> None:
        super().__init__()
        self.hear = AcousticContext(settings)
        self.acoustic_size, self.visual_size = self.hear.size, 0
        self.imagine: nn.Linear | None = None
        if imagines:
            self.visual_size = scaled_channels(settings.visual_units * settings.width)
            self.imagine = nn.Linear(self.acoustic_size, self.visual_size)
        self.tags = nn.Linear(self.acoustic_size + self.visual_size, n_labels)

    def forward(self, inputs: Inputs) -> Tagged:
        """Looks at inputs.acoustic only."""
        acoustic = self.hear(inputs.acoustic)
        visual = acoustic.new_empty(len(acoustic), 0)
        if self.imagine is not None:
            visual = self.imagine(acoustic).relu()
        return Tagged(acoustic, visual, self.tags(torch.cat([acoustic, visual], 1)))


class VisualNetwork(nn.Module):
    """Sees alone: the visual rows of table 1."""

    def __init__(self, n_labels: int, settings: TaggingSettings) -> None:
        super().__init__()
        self.see = VectorNetwork(
            settings.visual_size, scaled_channels(settings.visual_units * settings.width)
        )
        self.acoustic_size, self.visual_size = 0, self.see.size
        self.tags = nn.Linear(self.visual_size, n_labels)

    def forward(self, inputs: Inputs) -> Tagged:
        """Looks at inputs.visual only; raises ValueError where there is none."""
        visual = self.see(_seen(inputs)).mean(1)
        return Tagged(visual.new_empty(len(visual), 0), visual, self.tags(visual))


def _seen(inputs: Inputs) -> Tensor:
    if inputs.visual is None:
        raise ValueError("clips without video embeddings: this network needs them")
    return inputs.visual
