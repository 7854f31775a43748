"""Causal streaming CRNN: the student that tells on a sensor when a sound begins and ends.

After the student of Liang et al., "Joint acoustic event detection and tagging" (liang2021): three
convolutional blocks of one layer without time compression, a recurrent layer, a head on frames.
What a sensor cannot do is left out: its recurrence runs forwards only, its convolutions look back
only, and there is no clip branch. Written for the exporter (static shapes, two-dimensional
convolutions, 2-D states): see `soundpost.export.frames`.

A stream is heard in chunks. What the next chunk needs of the past are two tensors: `context`, the
last log-mel frames that the convolutions still look at, and `hidden`, the state of the GRU. The
first frames of a chunk are so computed from the context anew instead of keeping every layer's own
past: a few per cent more work, and in int8 nothing that rounding could carry on but `hidden`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT


@dataclass(frozen=True)
class StreamingSettings:
    """Shape of the student.

    channels : of the convolutional blocks, each 3 x 3
    pools : by how much each block halves the mel axis: the mean over so many bands
    hidden_size : units of the GRU
    dropout : probability on what enters the GRU and the head, while training
    """

    channels: tuple[int, ...] = (32, 48, 64)
    pools: tuple[int, ...] = (4, 4, 2)
    hidden_size: int = 96
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.pools):
            raise ConfigError(
                f"streaming student: {len(self.channels)} channels, {len(self.pools)} pools: "
                "expected one of each for every block"
            )
        if min(*self.channels, *self.pools, self.hidden_size) < 1:
            raise ConfigError(
                f"streaming student: channels {self.channels}, pools {self.pools}, hidden_size "
                f"{self.hidden_size}: expected positive numbers"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"streaming student: dropout {self.dropout}: expected 0 up to 1")


# Frames that a 3 x 3 convolution looks at, and how many of them lie in the past.
_KERNEL = 3
_LOOKS_BACK = _KERNEL - 1


class StreamingCRNN(nn.Module):
    """Convolutions over the last frames, a GRU over all of them, a logit for each frame and label.

    Attributes
    ----------
    context_frames : log-mel frames of the past that a chunk needs beside its own
    silence : log-mel value that stands for what was before the stream
    """

    def __init__(
        self,
        n_labels: int,
        settings: StreamingSettings | None = None,
        front_end: FrontEnd | None = None,
    ) -> None:
        super().__init__()
        settings, front_end = settings or StreamingSettings(), front_end or FrontEnd()
        n_mels = front_end.n_mels
        if n_mels % math.prod(settings.pools):
            raise ConfigError(
                f"streaming student: pools {settings.pools} of {n_mels} mel bands: expected "
                "factors whose product divides them"
            )
        self.settings = settings
        self.n_labels, self.n_mels = n_labels, n_mels
        self.context_frames = _LOOKS_BACK * len(settings.channels)
        self.silence = front_end.clamp_low
        blocks: list[nn.Module] = []
        n_in = 1
        for n_out, pool in zip(settings.channels, settings.pools, strict=True):
            # No padding in time: a chunk brings its past along.
            blocks += [
                nn.Conv2d(n_in, n_out, _KERNEL, padding=(0, 1), bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
                nn.AvgPool2d((1, pool)),
            ]
            n_in = n_out
        self.convolutions = nn.Sequential(*blocks)
        features = n_in * (n_mels // math.prod(settings.pools))
        self.gru = nn.GRU(features, settings.hidden_size, batch_first=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.hidden_size, n_labels)

    def initial_state(self) -> tuple[Tensor, Tensor]:
        """Context (context_frames, n_mels) and hidden (1, hidden_size) of a stream that begins."""
        parameter = self.head.weight
        context = parameter.new_full((self.context_frames, self.n_mels), self.silence)
        return context, parameter.new_zeros(1, self.settings.hidden_size)

    def forward(
        self, chunk: Tensor, context: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hear one chunk of one stream.

        Parameters
        ----------
        chunk : (1, 1, n_frames, n_mels) log-mel, n_frames >= 1
        context : (context_frames, n_mels)
        hidden : (1, hidden_size)

        Returns
        -------
        logits : (n_frames, n_labels) within ±LOGIT_LIMIT
        context, hidden : for the chunk that follows
        """
        # Joined in two dimensions: onnx2tf loses track of the axes where it is done in four.
        heard = torch.cat([context, chunk.reshape(-1, self.n_mels)])
        n_heard = self.context_frames + chunk.shape[2]
        logits, _, last = self._hear(heard.reshape(1, 1, n_heard, self.n_mels), hidden.unsqueeze(0))
        return logits[0], heard[-self.context_frames :], last[0]

    def forward_sequence(self, log_mel: Tensor) -> Tensor:
        """Logits of whole recordings, each heard from its beginning: what training uses.

        Equals `forward` on the recording in any chunks.

        Parameters
        ----------
        log_mel : (n_batch, n_frames, n_mels)

        Returns
        -------
        (n_batch, n_frames, n_labels), within ±LOGIT_LIMIT
        """
        return self.hear_sequence(log_mel)[0]

    def hear_sequence(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """`forward_sequence`, and the GRU's states (n_batch, n_frames, hidden_size) behind it."""
        past = log_mel.new_full((len(log_mel), 1, self.context_frames, self.n_mels), self.silence)
        heard = torch.cat([past, log_mel.unsqueeze(1)], dim=2)
        logits, states, _ = self._hear(heard, None)
        return logits, states

    def _hear(self, heard: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.convolutions(heard)
        # (n_batch, channels, n_frames, bands) to (n_batch, n_frames, channels * bands)
        features = maps.permute(0, 2, 1, 3).flatten(2)
        states, last = self.gru(self.dropout(features), hidden)
        logits = self.head(self.dropout(states))
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), states, last
