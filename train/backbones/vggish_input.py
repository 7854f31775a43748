"""What the published weights of VGGish hear: 0.96 s patches of a log-mel of their own.

As the authors of Hershey et al. (2017) describe it with the weights: 16 kHz mono, magnitudes of a
25 ms periodic Hann window every 10 ms (512-point FFT), 64 mel bands from 125 to 7,500 Hz, natural
logarithm of mel + 0.01, cut into patches of 96 frames that do not overlap. Their mel triangles have
straight sides over the mel scale, where those of the device's front end have them over the
frequency, and the bin of 0 Hz belongs to no band.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from soundpost.device.features import FloatArray

RATE_HZ = 16_000
PATCH_FRAMES = 96
N_MELS = 64
_WINDOW, _HOP, _FFT = 400, 160, 512
_LOW_HZ, _HIGH_HZ = 125.0, 7_500.0
_LOG_OFFSET = 0.01
# Samples that the frames of one patch span.
PATCH_SAMPLES = (PATCH_FRAMES - 1) * _HOP + _WINDOW


def vggish_log_mel(samples: FloatArray) -> FloatArray:
    """Log-mel of mono audio at 16 kHz.

    samples : (n_samples,) float32, full scale ±1.0, a window or more

    Returns (n_frames, 64) float32: the whole windows, every 10 ms.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * hann, _FFT))
    log_mel: FloatArray = np.log(magnitudes @ _mel_weights() + _LOG_OFFSET).astype(np.float32)
    return log_mel


def vggish_patches(seconds: FloatArray) -> FloatArray:
    """The patch that begins with each of some seconds.

    seconds : (n, n_samples) float32, PATCH_SAMPLES or more of each; what is beyond is not heard

    Returns (n, 96, 64) float32.
    """
    return np.stack([vggish_log_mel(second[:PATCH_SAMPLES]) for second in seconds])


@lru_cache(maxsize=1)
def _mel_weights() -> FloatArray:
    """(257, 64): of each bin in each band."""

    def to_mel(hz: FloatArray) -> FloatArray:
        mel: FloatArray = 1127.0 * np.log1p(hz / 700.0)
        return mel

    low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (_LOW_HZ, _HIGH_HZ))
    edges = np.linspace(low, high, N_MELS + 2)
    bins = to_mel(np.arange(_FFT // 2 + 1) * (RATE_HZ / _FFT))[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights: FloatArray = np.maximum(0.0, np.minimum(rise, fall))
    weights[0] = 0.0
    return weights
