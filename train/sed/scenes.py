"""What sound event detection learns from: recordings with strong, weak or no labels; batches."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

Labelling = Literal["strong", "weak", "unlabelled"]


@dataclass(frozen=True)
class Event:
    """One sound event. onset_s, offset_s: seconds from the start of the recording."""

    label: str
    onset_s: float
    offset_s: float


@dataclass(frozen=True)
class Scene:
    """One recording.

    events : where labelling is "strong"
    tags : labels that occur somewhere in it; of a strong one, those of its events
    seconds : length of the recording
    """

    path: Path
    labelling: Labelling
    seconds: float
    events: tuple[Event, ...] = ()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SceneSet:
    """Recordings of one folder and the vocabulary, in alphabetical order."""

    folder: Path
    scenes: tuple[Scene, ...]
    labels: tuple[str, ...]


def digest(scenes: SceneSet) -> str:
    """SHA-256 of what is known of a set's recordings, wherever its folder lies."""
    rows = [
        [
            os.path.relpath(scene.path, scenes.folder),
            scene.labelling,
            scene.seconds,
            sorted(scene.tags),
            [[event.label, event.onset_s, event.offset_s] for event in scene.events],
        ]
        for scene in scenes.scenes
    ]
    return hashlib.sha256(json.dumps([scenes.labels, rows]).encode()).hexdigest()


@dataclass
class SceneBatch:
    """Recordings of equal length for one training step: strong, then weak, then unlabelled ones.

    log_mel : (n_scenes, n_frames, n_mels) float32, of the device's front end
    frame_targets : (n_scenes, n_frames, n_labels) float32, zeros where has_frames is False
    clip_targets : (n_scenes, n_labels) float32, zeros where has_tags is False
    has_frames, has_tags : (n_scenes,) bool; a strong recording has both
    teacher : (n_scenes, n_frames, n_labels) float32, what a trained model said of them, or None
    """

    log_mel: torch.Tensor
    frame_targets: torch.Tensor
    clip_targets: torch.Tensor
    has_frames: torch.Tensor
    has_tags: torch.Tensor
    paths: tuple[Path, ...] = field(default=())
    teacher: torch.Tensor | None = None
