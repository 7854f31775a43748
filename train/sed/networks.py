"""Teacher and student of joint tagging and detection.

Liang et al., "Joint framework with deep feature distillation and adaptive focal loss for weakly
supervised audio tagging and acoustic event detection" (2021), section 2.1: a teacher (PT) of five
double-layer convolution blocks that shortens the time axis, a student (PS) of three single-layer
blocks that does not, each with a detection branch on frames and a tagging branch on the clip.

The text gives no sizes (they stand in its figure 1). Channels, kernels, pools, dropout and the
batch normalisation of the input are those that the authors of guided learning, whose networks it
extends, published with their code (Lin et al. 2020, winners of DCASE 2019 task 4); that teacher's
fifth block has one layer, ours two, as the paper says. Further choices:

- 10 s are 998 frames of the device's front end, 600 in the paper and 500 in guided learning. The
  networks average pairs of frames first (`frames_averaged`), so that the teacher's pools of 100
  leave five steps, as in guided learning, and the student's frames are 20 ms.
- Pooling keeps what is left over at the end, so that every frame lies under one step.
- Between a branch's Linear and what follows stands a ReLU: without one the two would be one layer.
- The "ten small separate fully connected layers" have one sigmoid unit each, hence no weight in
  common: the rows of one matrix.
- Attention pooling is that of the work it cites (the DCASE 2019 baseline): a softmax over classes
  weighs each frame, and a clip's score is the weighted mean of its frames' scores.
- A block pools before its last ReLU instead of after: the two commute, and it costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundpost.train.mobilenet_v2 import scaled_channels

Branches = Literal["separate", "joint"]


@dataclass(frozen=True)
class EncoderSettings:
    """Convolution blocks, the student's by default; one number for each block.

    layers : convolutions, each with batch normalisation and ReLU
    time_pools, mel_pools : frames and bands that the block's max-pooling makes one
    dropout : probability after each block
    """

    channels: tuple[int, ...] = (160, 160, 160)
    layers: tuple[int, ...] = (1, 1, 1)
    kernels: tuple[int, ...] = (5, 5, 3)
    time_pools: tuple[int, ...] = (1, 1, 1)
    mel_pools: tuple[int, ...] = (4, 4, 4)
    dropout: float = 0.0


@dataclass(frozen=True)
class TeacherSettings(EncoderSettings):
    """The teacher's blocks, which shorten the time axis a hundredfold."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    layers: tuple[int, ...] = (2, 2, 2, 2, 2)
    kernels: tuple[int, ...] = (3, 3, 3, 3, 1)
    time_pools: tuple[int, ...] = (5, 5, 2, 2, 1)
    mel_pools: tuple[int, ...] = (4, 2, 2, 2, 1)
    dropout: float = 0.3


STUDENT = EncoderSettings()
TEACHER = TeacherSettings()


@dataclass(frozen=True)
class PairSettings:
    """Both networks.

    width : multiplier on every channel and unit count (rounded to multiples of 8)
    frames_averaged : frames of the front end that make one of the networks'
    branches : "separate" (liang2021), or "joint": one head on frames, whose scores attention
        pooling turns into the clip's, as in the mean-teacher and guided-learning baselines
    gru_units, gru_layers : bidirectional, per direction, in the tagging branch; 0 layers: none.
        Where branches are joint, their head sees the recurrent output alone, as in the baseline
    hidden_units : of each branch's Linear
    distillation_units : columns of W_t and W_s in equation 2
    """

    kind: str = "pts"
    width: float = 1.0
    frames_averaged: int = 2
    branches: str = "separate"
    gru_units: int = 64
    gru_layers: int = 2
    hidden_units: int = 256
    distillation_units: int = 128
    student: EncoderSettings = STUDENT
    teacher: TeacherSettings = TEACHER


class Scores(NamedTuple):
    """What a network says about clips.

    frames : (n_clips, n_frames, n_labels) probabilities, one for each frame of the input
    clips : (n_clips, n_labels) probabilities
    features : (n_clips, n_steps, n_features) of the convolution blocks; n_steps =
        ceil(n_frames / frames_per_step)
    """

    frames: Tensor
    clips: Tensor
    features: Tensor


def stretch(steps: Tensor, n_frames: int, frames_per_step: int) -> Tensor:
    """Repeat each step over the frames that lie under it.

    Parameters
    ----------
    steps : (n_clips, n_steps, n_columns)

    Returns
    -------
    (n_clips, n_frames, n_columns)
        Frame i is step i // frames_per_step: the step whose pooled span holds the frame.
    """
    if frames_per_step == 1:
        return steps
    return steps.repeat_interleave(frames_per_step, 1)[:, :n_frames]


def attention_pool(scores: Tensor, attention: Tensor) -> Tensor:
    """Clip scores: mean over frames, weighted by a softmax over the classes of each frame.

    Parameters
    ----------
    scores : (n_clips, n_frames, n_labels) in [0, 1]
    attention : same shape, before the softmax

    Returns
    -------
    (n_clips, n_labels) in [0, 1]
    """
    # As in the DCASE baseline: a class that no frame attends to must not divide by zero.
    weights = attention.softmax(2).clamp(min=1e-7)
    return (weights * scores).sum(1) / weights.sum(1)


def _block(c_in: int, c_out: int, layers: int, kernel: int, pool: tuple[int, int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in range(layers):
        # No bias: the batch normalisation after it has one.
        parts += [
            nn.Conv2d(
                c_in if layer == 0 else c_out, c_out, kernel, padding=kernel // 2, bias=False
            ),
            nn.BatchNorm2d(c_out),
        ]
        if layer == layers - 1 and pool != (1, 1):
            parts.append(nn.MaxPool2d(pool, ceil_mode=True))
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


class TaggingDetectionNetwork(nn.Module):
    """Log-mel to frame scores and clip scores: teacher or student, by its encoder.

    Parameters
    ----------
    n_labels : number of independent (sigmoid) classes
    n_mels : bands of the front end
    settings : PairSettings
    encoder : EncoderSettings of this one, such as settings.student
    """

    def __init__(
        self, n_labels: int, n_mels: int, settings: PairSettings, encoder: EncoderSettings
    ) -> None:
        super().__init__()
        self.joint = settings.branches == "joint"
        self.frames_averaged = settings.frames_averaged
        self.frames_per_step = settings.frames_averaged
        self.normalise = nn.BatchNorm1d(n_mels)
        blocks: list[nn.Module] = []
        channels, mels = 1, n_mels
        for c, layers, kernel, time_pool, mel_pool in zip(
            encoder.channels,
            encoder.layers,
            encoder.kernels,
            encoder.time_pools,
            encoder.mel_pools,
            strict=True,
        ):
            c_out = scaled_channels(c * settings.width)
            blocks.append(_block(channels, c_out, layers, kernel, (time_pool, mel_pool)))
            if encoder.dropout:
                blocks.append(nn.Dropout(encoder.dropout))
            channels, mels = c_out, -(-mels // mel_pool)
            self.frames_per_step *= time_pool
        self.blocks = nn.Sequential(*blocks)
        self.n_features = context = channels * mels
        units = scaled_channels(settings.gru_units * settings.width)
        hidden = scaled_channels(settings.hidden_units * settings.width)
        self.gru: nn.GRU | None = None
        if settings.gru_layers:
            self.gru = nn.GRU(
                context, units, settings.gru_layers, batch_first=True, bidirectional=True
            )
            context = 2 * units if self.joint else context + 2 * units
        if self.joint:
            self.heads = nn.Linear(context, n_labels)
            self.attention = nn.Linear(context, n_labels)
        else:
            self.detection = nn.Linear(self.n_features, hidden)
            self.heads = nn.Linear(hidden, n_labels)
            self.tagging = nn.Linear(context, hidden)
            self.tags = nn.Linear(hidden, n_labels)
            self.attention = nn.Linear(hidden, n_labels)

    def encode(self, log_mel: Tensor) -> Tensor:
        """(n_clips, n_frames, n_mels) to (n_clips, n_steps, n_features)."""
        x = log_mel.transpose(1, 2)
        if self.frames_averaged > 1:
            x = functional.avg_pool1d(x, self.frames_averaged, ceil_mode=True)
        x = self.normalise(x).transpose(1, 2).unsqueeze(1)
        maps: Tensor = self.blocks(x.contiguous(memory_format=torch.channels_last))
        return maps.permute(0, 2, 3, 1).flatten(2)

    def forward(self, log_mel: Tensor) -> Scores:
        """Score clips of one length.

        log_mel : (n_clips, n_frames, n_mels) of the device's front end
        """
        features = self.encode(log_mel)
        context = features
        if self.gru is not None:
            recurrent, _ = self.gru(features)
            context = recurrent if self.joint else torch.cat([features, recurrent], 2)
        if self.joint:
            frames = self.heads(context).float().sigmoid()
            clips = attention_pool(frames, self.attention(context).float())
        else:
            frames = self.heads(self.detection(features).relu()).float().sigmoid()
            hidden = self.tagging(context).relu()
            clips = attention_pool(
                self.tags(hidden).float().sigmoid(), self.attention(hidden).float()
            )
        return Scores(stretch(frames, log_mel.shape[1], self.frames_per_step), clips, features)


class TeacherStudent(nn.Module):
    """Everything that is trained together.

    teacher : None for the mean teacher, which is an average of the student's weights
    W_t, W_s of equation 2 map the channels of both to a common space, and are learnt; the time axis
    of the teacher is stretched to the student's frames (`stretch`).
    """

    def __init__(
        self,
        n_labels: int,
        n_mels: int,
        settings: PairSettings,
        *,
        mean_teacher: bool,
        distil: bool,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.student = TaggingDetectionNetwork(n_labels, n_mels, settings, settings.student)
        self.teacher: TaggingDetectionNetwork | None = None
        if not mean_teacher:
            self.teacher = TaggingDetectionNetwork(n_labels, n_mels, settings, settings.teacher)
        self.project_teacher: nn.Linear | None = None
        self.project_student: nn.Linear | None = None
        if distil and self.teacher is not None:
            units = scaled_channels(settings.distillation_units * settings.width)
            self.project_teacher = nn.Linear(self.teacher.n_features, units, bias=False)
            self.project_student = nn.Linear(self.student.n_features, units, bias=False)
            if frozen:
                nn.init.orthogonal_(self.project_teacher.weight)
                self.project_teacher.requires_grad_(False)

    def projected(self, teacher: Scores, student: Scores) -> tuple[Tensor, Tensor]:
        """F_t W_t and F_s W_s on the input's frames: two of (n_clips, n_frames, n_units)."""
        if self.teacher is None or self.project_teacher is None or self.project_student is None:
            raise ValueError("this pair was made without feature distillation")
        n_frames = student.frames.shape[1]
        features = teacher.features
        if not self.project_teacher.weight.requires_grad:
            # Frozen: the teacher is followed, and does not come to meet its student.
            features = features.detach()
        # Distances are small differences of large numbers: not in bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            f_t = self.project_teacher(features.float())
            f_s = self.project_student(student.features.float())
        return (
            stretch(f_t, n_frames, self.teacher.frames_per_step),
            stretch(f_s, n_frames, self.student.frames_per_step),
        )
