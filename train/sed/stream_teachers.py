"""What teachers say of every frame that the streaming student learns from.

A trained pair hears the student's own log-mel frames. Any other teacher has left soft labels of the
recordings, by their place in the folder and seconds (`soundpost distil --kind desed`): with a front
end of its own, of windows or of whole clips, alone or averaged with others.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.train.datasets.scene_folders import clip_id_of
from soundpost.train.multimodal.distil_loss import frame_soft_labels
from soundpost.train.multimodal.soft_labels import SoftLabels, missing_clips
from soundpost.train.multimodal.taught_clips import open_soft_labels
from soundpost.train.recipe import SoftLabelSettings
from soundpost.train.run import WEIGHTS
from soundpost.train.sed.batches import in_order
from soundpost.train.sed.event_filter import gate_and_filter
from soundpost.train.sed.feature_cache import FeatureCache
from soundpost.train.sed.fitting import score_scenes
from soundpost.train.sed.run import DetectionRun, load_detection_run
from soundpost.train.sed.scenes import Scene, SceneSet
from soundpost.train.sed.streaming_recipe import StreamingRecipe

_AT_ONCE = 16


class StreamTeacher(Protocol):
    """Who teaches a streaming student."""

    def identity(self) -> dict[str, Any]:
        """For the run's settings: a run goes on with the same teacher only."""
        ...

    def told_of(self) -> str:
        """For its report."""
        ...

    def posteriors(
        self, features: FeatureCache, device: torch.device, *, quiet: bool = False
    ) -> NDArray[np.float16]:
        """(n_scenes, n_frames, n_labels), 0 to 1."""
        ...


@dataclasses.dataclass(frozen=True)
class PairTeacher:
    """A trained pair (`--teacher RUN`)."""

    folder: Path
    pair: DetectionRun

    def identity(self) -> dict[str, Any]:
        """See StreamTeacher."""
        sha256 = hashlib.sha256((self.folder / WEIGHTS).read_bytes()).hexdigest()
        return {
            "teacher": {"recipe": self.pair.recipe.name, "sha256": sha256},
            "teacher_path": str(self.folder.resolve()),
        }

    def told_of(self) -> str:
        """See StreamTeacher."""
        return f"the posteriors of {self.folder} ({self.pair.recipe.name})"

    def posteriors(
        self, features: FeatureCache, device: torch.device, *, quiet: bool = False
    ) -> NDArray[np.float16]:
        """See StreamTeacher."""
        return teacher_posteriors(self.pair, features, device, quiet=quiet)


@dataclasses.dataclass(frozen=True)
class SoftLabelTeacher:
    """Stores of soft labels (`--soft-labels STORE`), with the recordings' labels as columns."""

    soft_labels: SoftLabels

    def identity(self) -> dict[str, Any]:
        """See StreamTeacher."""
        return {"soft_labels": [dataclasses.asdict(one) for one in self.soft_labels.teachers]}

    def told_of(self) -> str:
        """See StreamTeacher."""
        teachers = ", ".join(f"{t.name} ({t.sha256[:12]})" for t in self.soft_labels.teachers)
        return f"soft labels of {teachers}"

    def posteriors(
        self, features: FeatureCache, device: torch.device, *, quiet: bool = False
    ) -> NDArray[np.float16]:
        """See StreamTeacher; where a recording's tags are known, other labels say nothing."""
        scenes = features.scenes
        soft = frame_soft_labels(
            self.soft_labels,
            [clip_id_of(scene, scenes.folder) for scene in scenes.scenes],
            [scene.seconds for scene in scenes.scenes],
            features.front_end,
            features.n_frames,
        )
        for index, scene in enumerate(scenes.scenes):
            known = known_tags(scene, scenes.labels)
            if known is not None:
                soft[index, :, ~known] = 0.0
        return soft


def open_pair(folder: Path, train: SceneSet, front_end: FrontEnd) -> PairTeacher:
    """A trained pair that hears as the student does.

    Raises InputError for no finished run of one, and for other labels or another front end.
    """
    pair = load_detection_run(folder)
    if pair.labels != train.labels or pair.recipe.front_end != front_end:
        raise InputError(
            f"{folder}: its labels or its front end are not those of {train.folder} and the "
            "recipe; train the teacher on the same folder"
        )
    return PairTeacher(folder, pair)


def open_stores(
    stores: Sequence[Path], train: SceneSet, recipe: StreamingRecipe
) -> SoftLabelTeacher:
    """Soft labels of all training recordings.

    Raises InputError where a store is none, or lacks a label or a recording.
    """
    settings = SoftLabelSettings(rename=recipe.soft_labels.rename)
    soft = open_soft_labels(stores, train.labels, settings)
    missing = missing_clips(soft, [clip_id_of(scene, train.folder) for scene in train.scenes])
    if missing:
        raise InputError(
            f"soft labels: {len(missing)} of {len(train.scenes)} recordings have none, the first "
            f"{missing[0]}; label them: soundpost distil RUN --data {train.folder} --kind desed "
            "--split train --out STORE"
        )
    return SoftLabelTeacher(soft)


def known_tags(scene: Scene, labels: Sequence[str]) -> NDArray[np.bool_] | None:
    """(n_labels,) of a recording that somebody listened to; None of the others."""
    if scene.labelling == "unlabelled":
        return None
    return np.array([label in scene.tags for label in labels])


def teacher_posteriors(
    teacher: DetectionRun, features: FeatureCache, device: torch.device, *, quiet: bool = False
) -> NDArray[np.float16]:
    """What a trained pair says of each frame of a set, (n_scenes, n_frames, n_labels) 0 to 1.

    The published decision without its threshold on frames: posteriors of the pair's student,
    filtered, and gated by tags. Where a recording's tags are known the gate is those; else, where
    the pair's recipe gates, the clip branch's, from the threshold on that the pair's run chose on
    validation: at one half, a briefly trained pair shuts out half of what sounds.
    """
    front_end = features.front_end
    bar = tqdm(
        in_order(features, _AT_ONCE),
        "teacher",
        -(-len(features.codes) // _AT_ONCE),
        unit="batch",
        disable=quiet,
        leave=False,
    )
    frames, clips = score_scenes(teacher.pair.student.to(device), bar, device)
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    windows = teacher.windows.frames(teacher.labels, hop_s)
    threshold = teacher.decision.tag_threshold
    posteriors = np.zeros(frames.shape, np.float16)
    for index, scene in enumerate(features.scenes.scenes):
        tags = known_tags(scene, teacher.labels)
        if tags is None:
            everything = np.ones(len(teacher.labels), bool)
            tags = clips[index] >= threshold if teacher.decision.gate else everything
        posteriors[index] = gate_and_filter(frames[index], tags.astype(np.float32), windows)
    return posteriors
