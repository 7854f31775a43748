"""The front end that the published VGGish weights were trained with.

Hershey et al., "CNN architectures for large-scale audio classification" (2017), section 4, and the
settings of the authors' release (AudioSet's VGGish, of which `torchvggish` is a conversion): 16 kHz
mono, 25 ms windows 10 ms apart, 64 mel bands from 125 to 7,500 Hz, non-overlapping patches of 96
frames. It is the device's front end (device/features.py) but for three things, each of which the
weights have learnt with: the window is Hann's, the filters are triangles over mel and not over
frequency, and 0.01 is added before the logarithm, whose result is not clamped. What the authors do
to embeddings afterwards (PCA, eight bits) is for storage and not done here.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from soundpost.device.features import FloatArray

SAMPLE_RATE_HZ = 16_000
WINDOW_LENGTH = 400
HOP_LENGTH = 160
FFT_LENGTH = 512
N_MELS = 64
FMIN_HZ, FMAX_HZ = 125.0, 7_500.0
LOG_OFFSET = 0.01
# Frames of a patch, and between the beginnings of two: 0.96 s.
PATCH_FRAMES = 96
PATCH_HOP_S = PATCH_FRAMES * HOP_LENGTH / SAMPLE_RATE_HZ
# Samples that a patch looks at: 0.975 s.
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_LENGTH + WINDOW_LENGTH


@lru_cache(maxsize=1)
def _tables() -> tuple[FloatArray, FloatArray]:
    """Periodic Hann window (WINDOW_LENGTH,) and filters (FFT_LENGTH / 2 + 1, N_MELS)."""
    n = np.arange(WINDOW_LENGTH)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW_LENGTH)
    # HTK's mel scale; its factor cancels in the slopes.
    bins = np.log1p(np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE_HZ / FFT_LENGTH / 700.0)
    edges = np.linspace(np.log1p(FMIN_HZ / 700.0), np.log1p(FMAX_HZ / 700.0), N_MELS + 2)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    return window.astype(np.float32), filters.astype(np.float32)


def vggish_log_mel(samples: FloatArray) -> FloatArray:
    """Log-mel frames as the published weights expect them.

    Parameters
    ----------
    samples : (n_samples,) float32 at SAMPLE_RATE_HZ, full scale ±1.0

    Returns
    -------
    (n_frames, N_MELS) float32
        log(mel magnitude + LOG_OFFSET). Empty where there is less than one window.
    """
    if len(samples) < WINDOW_LENGTH:
        return np.empty((0, N_MELS), np.float32)
    window, filters = _tables()
    frames = sliding_window_view(np.asarray(samples, np.float32), WINDOW_LENGTH)[::HOP_LENGTH]
    magnitude = np.abs(scipy.fft.rfft(frames * window, FFT_LENGTH))
    mel: FloatArray = np.log(magnitude @ filters + np.float32(LOG_OFFSET))
    return mel


def vggish_patches(samples: FloatArray) -> FloatArray:
    """The patches of a clip, one after the other.

    Parameters
    ----------
    samples : (n_samples,) float32 at SAMPLE_RATE_HZ, full scale ±1.0; fewer than PATCH_SAMPLES are
        padded with silence

    Returns
    -------
    (n_patches, PATCH_FRAMES, N_MELS) float32
        At least one. Frames that do not fill a patch are left out, as in the release: 10 s have ten
        patches.
    """
    padded = np.pad(samples, (0, max(0, PATCH_SAMPLES - len(samples))))
    frames = vggish_log_mel(padded)
    n = len(frames) // PATCH_FRAMES
    return frames[: n * PATCH_FRAMES].reshape(n, PATCH_FRAMES, N_MELS)


def patch_of_each(seconds: FloatArray) -> FloatArray:
    """The patch that begins with each of some seconds.

    seconds : (n, n_samples) float32, PATCH_SAMPLES or more of each; what is beyond is not heard

    Returns (n, PATCH_FRAMES, N_MELS) float32.
    """
    return np.concatenate([vggish_patches(second[:PATCH_SAMPLES]) for second in seconds])


def patches_of(n_samples: int) -> int:
    """How many patches n_samples have."""
    n_frames = max(0, (n_samples - WINDOW_LENGTH) // HOP_LENGTH + 1)
    return max(1, n_frames // PATCH_FRAMES)


def fingerprint() -> str:
    """Changes whenever the patches may: for the names of stored features."""
    parts = ("Hann, HTK triangles over mel", SAMPLE_RATE_HZ, WINDOW_LENGTH, HOP_LENGTH, FFT_LENGTH)
    more = (N_MELS, FMIN_HZ, FMAX_HZ, LOG_OFFSET, PATCH_FRAMES)
    return hashlib.sha256(json.dumps([*parts, *more]).encode()).hexdigest()[:32]
