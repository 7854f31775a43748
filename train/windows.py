"""Clips cut into the windows that the sensor would score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.clips import Waveforms

# 250 ms at a hop of 10 ms: the sensor's hop between two windows.
HOP_FRAMES = 25


@dataclass(frozen=True)
class Windows:
    """Windows of several clips, one after the other.

    patches : (n_windows, n_frames, n_mels) float32
    clip : (n_windows,) index of the clip that each belongs to
    """

    patches: FloatArray
    clip: NDArray[np.int64]


def cut_windows(
    samples: FloatArray, front_end: FrontEnd, n_frames: int, hop_frames: int = HOP_FRAMES
) -> FloatArray:
    """Windows of one clip; one shorter than a window is padded with silence.

    Returns
    -------
    (n_windows, n_frames, n_mels) float32, at least one
    """
    short = front_end.samples_of(n_frames) - len(samples)
    if short > 0:
        samples = np.pad(samples, (0, short))
    return windows_of_frames(log_mel(samples, front_end), n_frames, hop_frames)


def windows_of_frames(
    frames: FloatArray, n_frames: int, hop_frames: int = HOP_FRAMES
) -> FloatArray:
    """Windows of one clip's log-mel, (n_clip_frames, n_mels) to (n_windows, n_frames, n_mels)."""
    view = sliding_window_view(frames, n_frames, axis=0)[::hop_frames]
    return np.ascontiguousarray(view.transpose(0, 2, 1))


def windows_of(
    waveforms: Waveforms, front_end: FrontEnd, n_frames: int, hop_frames: int = HOP_FRAMES
) -> Windows:
    """Windows of every clip."""
    parts = [
        cut_windows(waveforms.clip(i), front_end, n_frames, hop_frames)
        for i in range(len(waveforms.lengths))
    ]
    counts = [len(part) for part in parts]
    return Windows(np.concatenate(parts), np.repeat(np.arange(len(parts)), counts))
