"""The audio branch of li2018: a recurrent network whose clip score is that of its best frame.

Li et al. 2018, sections 2.1 and 3.2: multiple-instance learning. A clip has an event if any of its
frames has it, so the clip's probability is the largest of its frames', and only that frame gets a
gradient. The front end is its own: 20 kHz, 24 ms frames, 5 ms hop, 1,024-point Fourier transform,
60 mel bands, 2,000 frames of a 10 s clip. Where the text leaves a choice:

- Sizes of the convolutions stand in a figure that is a block diagram. Ours are three blocks of 32,
  64 and 128 channels, 5 x 5, that pool 200 frames a second to 10 (5, 2, 2) and 60 bands to 2
  (5, 3, 2): 475,361 weights. No batch normalisation between them, which the text does not have.
- Bands are normalised at the input by statistics of the batches (running ones in use); the text
  says nothing, and SGD with clipped gradients takes long to learn a scale.
- "Mel spectral features" are in natural logarithm, as by the device's front end; range 0 to 10 kHz.
  To have 2,000 frames, a clip has half of what a frame is longer than its hop added to either end.
- A gradient clipping limit of 1e-3 is of each value (Keras' clipvalue): a norm of 1e-3 would allow
  steps of 1e-4 in all of the weights together.
- A validation loss that "did not reduce for 3 consecutive epochs" is no lower than the lowest
  before it in each of the three.
- An epoch took 20 minutes and training converged "within 6 hours": 18 epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.multimodal.fitting import Line
from soundpost.train.multimodal.method import Method, Stage
from soundpost.train.multimodal.mutual_networks import TaggingBatch
from soundpost.train.recipe import check_all

# The offset is the device's. The upper clamp lies above what noise at full scale reaches in the
# widest band, which is wider here.
FRONT_END = FrontEnd(
    sample_rate_hz=20_000,
    window_length=480,
    hop_length=100,
    fft_length=1_024,
    n_mels=60,
    fmin_hz=0.0,
    fmax_hz=10_000.0,
    clamp_high=8.0,
)


@dataclass(frozen=True)
class MilCrnnSettings:
    """Shape of the network; one number for each block.

    kernel : side of the convolutions
    time_pools, mel_pools : frames and bands that a block's max-pooling makes one
    gru_units : per direction
    dropout : probability after each block and after the recurrent layer
    """

    channels: tuple[int, ...] = (32, 64, 128)
    kernel: int = 5
    time_pools: tuple[int, ...] = (5, 2, 2)
    mel_pools: tuple[int, ...] = (5, 3, 2)
    gru_units: int = 100
    dropout: float = 0.2

    def checks(self) -> list[tuple[bool, str, object, str]]:
        """What a recipe's [model] must be; see recipe.check_all."""
        n = len(self.channels)
        rows: list[tuple[bool, str, object, str]] = [
            (n > 0, "model.channels", "empty", "a number for each block"),
            (self.kernel > 0 and self.kernel % 2 == 1, "model.kernel", self.kernel, "odd"),
            (self.gru_units >= 1, "model.gru_units", self.gru_units, "at least 1"),
            (0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1"),
        ]
        for name in ("channels", "time_pools", "mel_pools"):
            values = getattr(self, name)
            right = len(values) == n and all(value >= 1 for value in values)
            rows.append((right, f"model.{name}", list(values), f"{n} numbers of 1 or more"))
        return rows


@dataclass(frozen=True)
class MilTrainingSettings:
    """Optimisation, section 3.2: SGD with Nesterov momentum; see fitting.Optimisation.

    decay : of the learning rate, when the validation loss has not fallen for patience_epochs
    clip_value : largest absolute value of a gradient
    bfloat16 : mixed precision
    """

    epochs: int = 18
    batch_size: int = 95
    learning_rate: float = 0.1
    momentum: float = 0.8
    decay: float = 0.8
    patience_epochs: int = 3
    clip_value: float = 1e-3
    bfloat16: bool = False
    seed: int = 0

    @property
    def report_every(self) -> int:
        """Every epoch is judged: rate and choice of the network depend on it."""
        return 1

    def check(self, where: str) -> None:
        """Raise ConfigError for a value outside its range."""
        lowest = {"epochs": 1, "batch_size": 2, "patience_epochs": 1, "seed": 0}
        rows = [
            (getattr(self, name) >= low, f"training.{name}", getattr(self, name), f"at least {low}")
            for name, low in lowest.items()
        ]
        above_0 = ("learning_rate", "clip_value")
        rows += [
            (getattr(self, name) > 0, f"training.{name}", getattr(self, name), "above 0")
            for name in above_0
        ]
        momentum, decay = self.momentum, self.decay
        rows += [
            (0 <= momentum < 1, "training.momentum", momentum, "0 to below 1"),
            (0 < decay < 1, "training.decay", decay, "above 0, below 1"),
        ]
        check_all(rows, where)

    def optimiser(self, weights: list[nn.Parameter]) -> torch.optim.SGD:
        """SGD with Nesterov momentum."""
        return torch.optim.SGD(
            weights, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0
        )

    def limit_gradients(self, weights: list[nn.Parameter]) -> None:
        """Clip each value."""
        nn.utils.clip_grad_value_(weights, self.clip_value)

    def learning_rate_of(self, epoch: int, earlier: Sequence[Line] = ()) -> float:
        """Decayed on plateaus of the earlier epochs' "validation_loss"."""
        nobody = self.optimiser([nn.Parameter(torch.zeros(1))])
        schedule = ReduceLROnPlateau(
            nobody,
            factor=self.decay,
            # torch counts the epochs that it still bears.
            patience=self.patience_epochs - 1,
            threshold=0.0,
        )
        for line in earlier:
            schedule.step(line["validation_loss"])
        return float(nobody.param_groups[0]["lr"])


class MilScores(NamedTuple):
    """Scores before the sigmoid.

    frames : (n_clips, n_steps, n_labels), 10 a second
    clips : (n_clips, n_labels), the largest of each clip's frames
    """

    frames: Tensor
    clips: Tensor


def clip_features(samples: FloatArray, front_end: FrontEnd = FRONT_END) -> FloatArray:
    """Log-mel frames of a clip, one for each hop.

    Parameters
    ----------
    samples : (n_samples,) float32, full scale ±1.0, at the front end's rate

    Returns
    -------
    (n_samples // hop_length, n_mels) float32
        Frame i is centred on hop i; 2,000 x 60 for 10 s.
    """
    beyond = front_end.window_length - front_end.hop_length
    padded = np.pad(samples, (beyond // 2, beyond - beyond // 2))
    return log_mel(padded, front_end)


class MilCrnn(nn.Module):
    """Log-mel to frame and clip scores.

    n_labels : independent (sigmoid) classes, 17 in the paper
    n_mels : bands of the front end
    settings : MilCrnnSettings
    """

    def __init__(
        self,
        n_labels: int,
        n_mels: int = FRONT_END.n_mels,
        settings: MilCrnnSettings | None = None,
    ) -> None:
        super().__init__()
        settings = settings or MilCrnnSettings()
        self.settings = settings
        self.normalise = nn.BatchNorm1d(n_mels)
        blocks: list[nn.Module] = []
        c_in, mels, self.frames_per_step = 1, n_mels, 1
        for c, time_pool, mel_pool in zip(
            settings.channels, settings.time_pools, settings.mel_pools, strict=True
        ):
            blocks += [
                nn.Conv2d(c_in, c, settings.kernel, padding=settings.kernel // 2),
                nn.ReLU(inplace=True),
                # What is left over at the end keeps a step of its own.
                nn.MaxPool2d((time_pool, mel_pool), ceil_mode=True),
                nn.Dropout(settings.dropout),
            ]
            c_in, mels = c, -(-mels // mel_pool)
            self.frames_per_step *= time_pool
        self.blocks = nn.Sequential(*blocks)
        self.gru = nn.GRU(c_in * mels, settings.gru_units, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(2 * settings.gru_units, n_labels)

    def forward(self, log_mel: Tensor) -> MilScores:
        """Score clips of one length.

        log_mel : (n_clips, n_frames, n_mels), as of clip_features
        """
        x = self.normalise(log_mel.transpose(1, 2)).transpose(1, 2).unsqueeze(1)
        maps: Tensor = self.blocks(x)
        recurrent, _ = self.gru(maps.permute(0, 2, 1, 3).flatten(2))
        frames: Tensor = self.classifier(self.dropout(recurrent))
        return MilScores(frames, max_over_time(frames))


def max_over_time(frames: Tensor) -> Tensor:
    """Clip scores of frame scores: (n_clips, n_steps, n_labels) to (n_clips, n_labels).

    One frame gets the gradient, also where several are as high. Before the sigmoid as after it, for
    a sigmoid keeps the order.
    """
    return frames.max(1).values


def mil_loss(clips: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of clip scores, averaged over clips and classes (section 2.1).

    clips, targets : (n_clips, n_labels), before the sigmoid; 0 or 1
    """
    return functional.binary_cross_entropy_with_logits(clips, targets)


class MilMethod(Method[TaggingBatch]):
    """The network alone, from labels: what the training loop takes."""

    stages = (Stage("audio", ("student",)),)

    def __init__(self, network: MilCrnn) -> None:
        super().__init__()
        self.student = network

    def losses(self, batch: TaggingBatch, stage: Stage) -> dict[str, Tensor]:
        """Its one term, of the clips' sound."""
        said: MilScores = self.student(batch.inputs.acoustic[0])
        return {"loss": mil_loss(said.clips.float(), batch.targets)}
