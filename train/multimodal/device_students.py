"""The sensor's own networks as students of a teacher that sees: MobileNet_v2, streaming CRNN.

yin2021 teaches a student of the teacher's own kind. Here the student is what the sensor runs, so
that it learns together with its teacher instead of from scores that were stored. What differs:

- The network is the sensor's as it is, on the sensor's front end; no layer is added to it. The
  published student's imagined context `g = ReLU(W_c h + b_c)` feeds its classifier, which would be
  16,500 weights more and another graph. Here g and the projection of h are heads that only the
  losses see: the gradient of equation 2 reaches the network through W_c, W_c is dropped when the
  network leaves. What is exported is then byte for byte of the size that the same student has when
  it learns from labels alone, and the two can be compared.
- h_s^a is the mean of MobileNet_v2's embeddings over the clip's windows, or of the GRU's states
  over its frames. Where equation 1 wants it to be of the size of h_t^a, a linear layer makes it so.
- A clip's score is what a sensor's scores are judged by (train/metrics.py, soundpost evaluate): of
  windows the mean probability; of frames, of which few may sound, the mean probability weighted by
  itself (linear softmax: Wang et al., "A comparison of five multiple instance learning pooling
  functions", 2019). Both are computed from logits, so that nothing saturates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT, MobileNetV2, MobileNetV2Settings
from soundpost.train.multimodal.mutual_networks import Inputs, Tagged
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings
from soundpost.train.windows import HOP_FRAMES

PAPER, WINDOWS, FRAMES = "paper", "mobilenet_v2", "streaming"
DEVICE_STUDENTS = (WINDOWS, FRAMES)
# Norm of the gradient of each of the GRU's weights, at most.
GRU_NORM = 1.0
# Windows that are in memory at a time where nothing is learnt.
_AT_ONCE = 256


@dataclass(frozen=True)
class WindowStudentSettings(MobileNetV2Settings):
    """MobileNet_v2, and what it hears of a clip.

    patch_frames : frames of a window
    windows : of a clip in training, one drawn at random from each of as many equal parts; when
        judged, those of the sensor, 250 ms apart
    """

    patch_frames: int = 100
    windows: int = 4

    def __post_init__(self) -> None:
        if not (0.1 <= self.width <= 4 and 0 <= self.dropout < 1 and self.embedding_size >= 1):
            raise ConfigError(
                f"mobilenet_v2: width {self.width}, embedding_size {self.embedding_size}, dropout "
                f"{self.dropout}: expected 0.1 to 4, 1 or more, 0 to below 1"
            )
        if self.patch_frames < 32 or self.windows < 1:
            raise ConfigError(
                f"mobilenet_v2: patch_frames {self.patch_frames}, windows {self.windows}: expected "
                "32 or more, 1 or more"
            )


@dataclass(frozen=True)
class DeviceSettings:
    """Which network the student is.

    student : "mobilenet_v2" or "streaming"
    windows, frames : the shape of either
    """

    student: str
    front_end: FrontEnd
    windows: WindowStudentSettings
    frames: StreamingSettings


@dataclass(frozen=True)
class Matched:
    """Sizes of a teacher's contexts, where the student's have to be the same."""

    acoustic: int
    visual: int


def mean_probability(logits: Tensor) -> Tensor:
    """Logit of the mean of probabilities over dimension 1: (n, n_windows, k) to (n, k)."""
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return torch.logsumexp(yes, 1) - torch.logsumexp(no, 1)


def linear_softmax(logits: Tensor) -> Tensor:
    """Logit of sum p^2 / sum p over dimension 1: (n, n_frames, k) to (n, k)."""
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return torch.logsumexp(2 * yes, 1) - torch.logsumexp(yes + no, 1)


class _Student(nn.Module):
    """What both have in common: the contexts that the losses compare.

    Attributes
    ----------
    network : the sensor's, without anything else
    acoustic_size, visual_size : of the contexts in Tagged
    """

    network: nn.Module

    def __init__(self, size: int, matched: Matched | None) -> None:
        super().__init__()
        self.project: nn.Linear | None = None
        self.imagine: nn.Linear | None = None
        self.acoustic_size, self.visual_size = size, 0
        if matched is not None:
            self.acoustic_size, self.visual_size = matched.acoustic, matched.visual
            self.project = nn.Linear(size, matched.acoustic)
            self.imagine = nn.Linear(size, matched.visual)

    def tagged(self, context: Tensor, logits: Tensor) -> Tagged:
        """context : (n_clips, size)"""
        acoustic, visual = context, context.new_empty(len(context), 0)
        if self.project is not None and self.imagine is not None:
            acoustic = self.project(context)
            visual = self.imagine(context).relu()
        return Tagged(acoustic, visual, logits)


class WindowStudent(_Student):
    """MobileNet_v2 over the windows of a clip.

    matched : of a teacher to which both contexts are compared; without it the student has no
        visual context, and its acoustic one is the embedding

    Attributes
    ----------
    network : MobileNetV2
    """

    network: MobileNetV2

    def __init__(
        self,
        n_labels: int,
        settings: WindowStudentSettings,
        matched: Matched | None = None,
    ) -> None:
        super().__init__(settings.embedding_size, matched)
        self.settings = settings
        shape = MobileNetV2Settings(settings.width, settings.embedding_size, settings.dropout)
        self.network = MobileNetV2(n_labels, shape)

    def forward(self, inputs: Inputs) -> Tagged:
        """Hears inputs.acoustic[0], log-mel (n_clips, n_frames, n_mels), and looks at nothing.

        In training the windows are drawn anew from torch's generator; else they are the sensor's.
        Raises ValueError for clips shorter than a window.
        """
        log_mel = inputs.acoustic[0]
        windows = self._drawn(log_mel) if self.training else self._all(log_mel)
        n_clips, n_windows = windows.shape[:2]
        patches = windows.flatten(0, 1).unsqueeze(1)
        patches = patches.contiguous(memory_format=torch.channels_last)
        if self.training:
            logits, embedding = self.network(patches)
        else:
            parts = [self.network(part) for part in torch.split(patches, _AT_ONCE)]
            logits = torch.cat([part[0] for part in parts]).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            embedding = torch.cat([part[1] for part in parts])
        context = embedding.view(n_clips, n_windows, -1).float().mean(1)
        scores = mean_probability(logits.view(n_clips, n_windows, -1).float())
        return self.tagged(context, scores)

    def _all(self, log_mel: Tensor) -> Tensor:
        """(n_clips, n_windows, patch_frames, n_mels), HOP_FRAMES apart."""
        return self._cut(log_mel)[:, ::HOP_FRAMES]

    def _drawn(self, log_mel: Tensor) -> Tensor:
        """The same of one window from each of `windows` equal parts."""
        every = self._cut(log_mel)
        n_clips, n_starts = every.shape[:2]
        n = min(self.settings.windows, n_starts)
        device = log_mel.device
        place = torch.arange(n, device=device) + torch.rand(n_clips, n, device=device)
        starts = (place * n_starts / n).long().clamp(max=n_starts - 1)
        return every[torch.arange(n_clips, device=device)[:, None], starts]

    def _cut(self, log_mel: Tensor) -> Tensor:
        """Windows from every frame on, as a view: (n_clips, n_starts, patch_frames, n_mels)."""
        length = self.settings.patch_frames
        if log_mel.shape[1] < length:
            raise ValueError(f"clips of {log_mel.shape[1]} frames: expected {length} or more")
        return log_mel.unfold(1, length, 1).transpose(2, 3)


class FrameStudent(_Student):
    """The streaming CRNN over the frames of a clip, heard from its beginning.

    matched : see WindowStudent; without it the acoustic context is the mean state

    Attributes
    ----------
    network : StreamingCRNN
    """

    network: StreamingCRNN

    def __init__(
        self,
        n_labels: int,
        settings: StreamingSettings,
        front_end: FrontEnd,
        matched: Matched | None = None,
    ) -> None:
        super().__init__(settings.hidden_size, matched)
        self.network = StreamingCRNN(n_labels, settings, front_end)
        for weight in self.network.gru.parameters():
            weight.register_hook(_limited)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Inputs) -> Tagged:
        """Hears inputs.acoustic[0], log-mel (n_clips, n_frames, n_mels), and looks at nothing."""
        logits, states = self.network.hear_sequence(inputs.acoustic[0])
        return self.tagged(states.float().mean(1), linear_softmax(logits.float()))


def _limited(gradient: Tensor) -> Tensor:
    """At most GRU_NORM of it: over a thousand frames it explodes now and then."""
    norm: Tensor = torch.linalg.vector_norm(gradient)
    return gradient * (GRU_NORM / norm.clamp(min=GRU_NORM))


def device_student(
    n_labels: int, settings: DeviceSettings, matched: Matched | None = None
) -> WindowStudent | FrameStudent:
    """A student with random weights, drawn from torch's generator.

    Raises ConfigError where no student has this shape.
    """
    if settings.student == WINDOWS:
        return WindowStudent(n_labels, settings.windows, matched)
    return FrameStudent(n_labels, settings.frames, settings.front_end, matched)


def shortest_clip_s(settings: DeviceSettings) -> float:
    """Seconds that a clip must have for the student to hear it."""
    front_end = settings.front_end
    n_frames = settings.windows.patch_frames if settings.student == WINDOWS else 1
    return math.ceil(1e3 * front_end.samples_of(n_frames) / front_end.sample_rate_hz) / 1e3
