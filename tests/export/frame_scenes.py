"""Tones that begin and end at known times: what the streaming student of these tests learns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.sed.distil import DistilBatch

RATE_HZ = 16_000
LABELS = ("high", "low")
TONES_HZ = (4_000.0, 400.0)
FRONT_END = FrontEnd()

# (label, onset s, offset s)
Truth = list[tuple[str, float, float]]


def tone_scene(rng: np.random.Generator, seconds: float = 2.5) -> tuple[NDArray[np.float32], Truth]:
    """Two tones of 0.4 to 1 s over noise, which may overlap."""
    n_samples = round(seconds * RATE_HZ)
    sound = 10 ** rng.uniform(-3.5, -2.5) * rng.standard_normal(n_samples)
    truth: Truth = []
    for label, hz in zip(LABELS, TONES_HZ, strict=True):
        onset_s = rng.uniform(0.2, seconds - 1.2)
        offset_s = onset_s + rng.uniform(0.4, 1.0)
        first, last = round(onset_s * RATE_HZ), round(offset_s * RATE_HZ)
        time_s = np.arange(last - first) / RATE_HZ
        tone = 10 ** rng.uniform(-1.5, -0.3) * np.sin(
            2 * np.pi * hz * rng.uniform(0.95, 1.05) * time_s
        )
        sound[first:last] += tone
        truth.append((label, first / RATE_HZ, last / RATE_HZ))
    return np.clip(sound, -1, 1).astype(np.float32), truth


def targets_of(truth: Truth, n_frames: int) -> NDArray[np.float32]:
    """(n_frames, n_labels): 1 where the middle of a frame lies within an event."""
    middle_s = np.arange(n_frames) * 0.01 + 0.0125
    targets = np.zeros((n_frames, len(LABELS)), np.float32)
    for label, onset_s, offset_s in truth:
        targets[:, LABELS.index(label)] = (middle_s >= onset_s) & (middle_s < offset_s)
    return targets


def features(n_scenes: int, seed: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Log-mel (n_frames, 64) and targets of so many scenes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_scenes):
        sound, truth = tone_scene(rng)
        frames = log_mel(sound, FRONT_END)
        found.append((frames, targets_of(truth, len(frames))))
    return found


def batches(epoch: int) -> Iterator[DistilBatch]:
    """A teacher that is right, and not quite sure; half of the scenes are labelled."""
    for index in range(10):
        scenes = features(8, 1_000 * epoch + index)
        targets = torch.tensor(np.stack([known for _, known in scenes]))
        has_frames = torch.arange(8) % 2 == 0
        yield DistilBatch(
            torch.tensor(np.stack([frames for frames, _ in scenes])),
            0.02 + 0.96 * targets,
            targets * has_frames[:, None, None],
            has_frames,
        )
