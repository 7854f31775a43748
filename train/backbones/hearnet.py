"""HearNet: the student of perez2020 that listens to spectrograms, with its front end.

Perez et al. (2020), section 5.1 and figure 4c. A spectrogram of 500 windows of 20 ms, half
overlapping, and 257 bins is a signal of 257 channels. Where the text is silent, as in the authors'
published code: a periodic Hann window, zero-padded from 440 to 512 samples; magnitudes, not
decibels; minimum and maximum of each bin over all training clips, and no clipping of what lies
outside; the fourth convolution, the only one without padding, spans the four steps that are left.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from soundpost.device.errors import InputError
from soundpost.train.backbones.scaling import scaled

WINDOW_LENGTH = 440
HOP_LENGTH = 220
FFT_LENGTH = 512
N_BINS = FFT_LENGTH // 2 + 1

KERNELS = (11, 5, 3)
CHANNELS = (128, 256, 256)
POOL = 5
# 500 / 5^3 steps are left.
LAST_KERNEL = 4
FEATURES = 1024
HIDDEN_UNITS = 1000


def spectrogram(waveform: Tensor) -> Tensor:
    """Magnitudes of the short-time Fourier transform.

    waveform : (n_clips, n_samples) at 22,050 Hz; five seconds (waveform.student_waveform) give 500
        windows

    Returns (n_clips, n_windows, 257).
    """
    window = torch.hann_window(WINDOW_LENGTH, device=waveform.device, dtype=waveform.dtype)
    windows = waveform.unfold(-1, WINDOW_LENGTH, HOP_LENGTH) * window
    magnitudes: Tensor = torch.fft.rfft(windows, n=FFT_LENGTH).abs()
    return magnitudes


class SpectrogramRange(nn.Module):
    """Normalisation of each bin by its smallest and largest value in training.

    Both are part of the state, so that a checkpoint carries what its network was trained on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.minimum: Tensor
        self.maximum: Tensor
        self.register_buffer("minimum", torch.full((N_BINS,), torch.inf))
        self.register_buffer("maximum", torch.full((N_BINS,), -torch.inf))

    @torch.no_grad()
    def fit(self, spectrograms: Iterable[Tensor]) -> SpectrogramRange:
        """Widen the range to hold these training clips: each (n_clips, n_windows, 257)."""
        for values in spectrograms:
            self.minimum = torch.minimum(self.minimum, values.amin((0, 1)))
            self.maximum = torch.maximum(self.maximum, values.amax((0, 1)))
        return self

    def forward(self, values: Tensor) -> Tensor:
        """(n_clips, n_windows, 257) to the same shape, 0 to 1 in training.

        A bin that never changed in training is 0. Raises InputError before `fit`.
        """
        span = self.maximum - self.minimum
        if not bool(torch.isfinite(span).all()):
            raise InputError(
                "the spectrogram's range is not known: fit it on the training clips, or load a "
                "checkpoint that has it"
            )
        scaled = (values - self.minimum) / torch.where(span > 0, span, 1.0)
        return torch.where(span > 0, scaled, 0.0)


class HearNet(nn.Module):
    """Normalised spectrograms to one score for each class and clip.

    n_classes : 14 actions as published
    width : factor on all channels but those of the spectrogram; 1 as published
    """

    def __init__(self, n_classes: int = 14, width: float = 1.0) -> None:
        super().__init__()
        self.embedding_size = scaled(FEATURES, width)
        channels = [scaled(c, width) for c in CHANNELS]
        sizes = (N_BINS, *channels)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv1d(c_in, c_out, kernel, padding=kernel // 2)
            for c_in, c_out, kernel in zip(sizes, channels, KERNELS, strict=False)
        )
        hidden = scaled(HIDDEN_UNITS, width)
        self.conv4 = nn.Conv1d(channels[-1], self.embedding_size, LAST_KERNEL)
        self.conv5 = nn.Conv1d(self.embedding_size, self.embedding_size, 1)
        self.fc1 = nn.Conv1d(self.embedding_size, hidden, 1)
        self.fc2 = nn.Conv1d(hidden, n_classes, 1)
        self.pool = nn.MaxPool1d(POOL)
        self.relu = nn.ReLU()

    def layers(self, spectrograms: Tensor) -> dict[str, Tensor]:
        """Output of each layer, by its name in table 4: conv1 to conv5, fc1, and the scores as fc2.

        spectrograms : (n_clips, n_windows, 257) normalised, at least 500 windows

        Each (n_clips, n_channels, n_steps), before the pooling of the first three.
        """
        x = spectrograms.transpose(1, 2)
        outputs: dict[str, Tensor] = {}
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv1d):
                y = layer(x)
                outputs[name] = y if name == "fc2" else self.relu(y)
                pooled = name in ("conv1", "conv2", "conv3")
                x = self.pool(outputs[name]) if pooled else outputs[name]
        return outputs

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Scores before the softmax.

        spectrograms : (n_clips, n_windows, 257) normalised, 500 windows as published; scores of a
            longer clip are averaged over time

        Returns (n_clips, n_classes).
        """
        return self.layers(spectrograms)["fc2"].mean(2)
