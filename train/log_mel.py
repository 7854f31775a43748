"""The device's front end in torch, for whole batches and on a GPU.

Window and filters are the device's own tables, so what is trained and what listens can differ only
by the FFT's rounding (a test holds the difference below 1e-3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from soundpost.device.features import FrontEnd, hamming_window, mel_filters


class LogMel(nn.Module):
    """Batch of waveforms to log-mel patches."""

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        window = torch.zeros(front_end.fft_length)
        window[: front_end.window_length] = torch.from_numpy(hamming_window(front_end))
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", window[: front_end.window_length].clone())
        self.register_buffer("filters", torch.from_numpy(mel_filters(front_end)))

    def forward(self, samples: Tensor, gain: Tensor | None = None) -> Tensor:
        """Log-mel of a batch.

        Parameters
        ----------
        samples : (n_batch, n_samples) float32, full scale ±1.0
        gain : (n_batch, n_mels) or None
            Factor on the mel magnitudes before the logarithm: a random filter for augmentation.

        Returns
        -------
        (n_batch, 1, n_frames, n_mels)
        """
        f = self.front_end
        frames = samples.unfold(-1, f.window_length, f.hop_length) * self.window
        spectrum = torch.fft.rfft(frames, n=f.fft_length)
        mel = spectrum.abs() @ self.filters
        if gain is not None:
            mel = mel * gain[:, None, :]
        mel = (mel + f.log_offset).clamp(math.exp(f.clamp_low), math.exp(f.clamp_high))
        patches: Tensor = mel.log().unsqueeze(1)
        return patches
