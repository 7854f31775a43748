"""One pre-training from labels by machine, from a recipe, a set and its labels to a run folder.

It holds settings.json, metrics.jsonl, a checkpoint, model.safetensors (with the names of its
classes, so that a clip student can begin with it), figures.json, pictures and report.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.checkpoint import load_weights, save_tensors
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import cache_folder
from soundpost.train.multimodal.audio_networks import audio_network
from soundpost.train.multimodal.clip_media import ClipMedia, lacks, read_media_set
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.machine_labels import fold_of
from soundpost.train.multimodal.machine_learning import (
    IntArray,
    MachineBatches,
    MachineLearning,
    score_seconds,
)
from soundpost.train.multimodal.machine_recipe import MachineRecipe, machine_recipe_from_dict
from soundpost.train.multimodal.machine_report import write_machine_report
from soundpost.train.multimodal.machine_targets import (
    MachineTargets,
    class_names,
    read_machine_targets,
)
from soundpost.train.multimodal.method import Stage
from soundpost.train.multimodal.recognition import Recognition, recognise
from soundpost.train.multimodal.second_features import HeardClips, open_seconds
from soundpost.train.multimodal.tagging_inputs import FEATURES
from soundpost.train.run import SETTINGS, WEIGHTS, claim, finished_settings, git_revision

logger = logging.getLogger(__name__)

SCHEMA = "soundpost.machine_run/1"
# Numbers that clips are told apart by when some are kept for validation.
_KEYS = 2**32


@dataclass(frozen=True)
class MachineRun:
    """A finished run.

    labels : names of its classes; network : patches to (logits, embedding), in evaluation mode
    """

    folder: Path
    labels: tuple[str, ...]
    recipe: MachineRecipe
    network: nn.Module


@dataclass(frozen=True)
class LabelledClips:
    """Clips with sound and labels by machine.

    rows, labelled : (n_clips,) of each clip, its number among those heard and among the targets
    validation : (n_clips,) whether it is kept to watch the training
    n_silent : labelled clips whose sound cannot be used
    """

    heard: HeardClips
    targets: MachineTargets
    rows: IntArray
    labelled: IntArray
    validation: np.ndarray[tuple[int], np.dtype[np.bool_]]
    n_silent: int

    def digest(self) -> str:
        """SHA-256 of the clips and all their labels."""
        digest = hashlib.sha256(json.dumps(self.targets.classes).encode())
        for number in self.labelled:
            line = [self.targets.clip_ids[number], self.targets.of_clip(int(number)).tolist()]
            digest.update(json.dumps(line).encode())
        return digest.hexdigest()


def train_machine(
    recipe: MachineRecipe, folder: Path, run: Path, device: torch.device, *, quiet: bool = False
) -> Recognition | None:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    folder : of the data set

    Returns what the network says of the clips kept for validation; None where there are none.

    Raises
    ------
    InputError
        The set, its labels or a clip cannot be used; the loss is no number any more.
    ConfigError
        The run folder holds another run.
    UsageError
        No labels are given.
    """
    clips = open_labelled(recipe, folder, quiet=quiet)
    labels = class_names(clips.targets.classes)
    train = np.flatnonzero(~clips.validation)
    held = _watched(clips, recipe.data.validation_clips)
    training = recipe.training
    best_by = training.best_by("student_map", validated=bool(len(held)))
    torch.manual_seed(training.seed)
    network = audio_network(recipe.model, len(labels))
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(labels),
        "classes": [list(named) for named in clips.targets.classes],
        "front_end": recipe.front_end.to_dict(),
        "data": {
            "n_train": len(train),
            "n_validation": len(held),
            "n_silent": clips.n_silent,
            "sha256": clips.digest(),
        },
        "path": str(folder.resolve()),
        "recipe": recipe.without_places(),
        "git": git_revision(),
        "torch": torch.__version__,
    }
    source = MachineBatches(
        clips.heard, clips.targets, clips.rows[train], clips.labelled[train], training.batch_size,
        training.seed, anywhere=recipe.data.crops == "anywhere",
    )  # fmt: skip
    claim(run, settings)
    method = MachineLearning(network, recipe.regularisation.l2)

    def judge() -> Recognition:
        numbers = clips.labelled[held]
        return recognise(
            [clips.targets.clip_ids[number] for number in numbers],
            labels,
            score_seconds(network, clips.heard, clips.rows[held], device),
            clips.targets.all_labels(numbers).numpy(),
        )

    def watch(_stage: Stage) -> dict[str, Any]:
        judged = judge()
        line: dict[str, Any] = {"judged": "validation"}
        return line | {
            f"student_{name}": round(value, 4) for name, value in judged.figures().items()
        }

    watched = watch if len(held) else None
    fit_method(method, source, training, run, device, judge=watched, best_by=best_by, quiet=quiet)
    save_tensors(run / WEIGHTS, network.state_dict(), {"labels": list(labels)})
    judged = judge() if len(held) else None
    write_machine_report(run, recipe, settings, network, judged)
    return judged


def _watched(clips: LabelledClips, at_most: int) -> IntArray:
    """Clips that the training is watched by; none where they all have the same labels."""
    held = np.flatnonzero(clips.validation)[:at_most]
    counts = clips.targets.all_labels(clips.labelled[held]).sum(0)
    if len(held) and not ((counts > 0) & (counts < len(held))).any():
        logger.warning(
            "%d clips are kept for validation, and all have the same labels: the training is not "
            "watched; set data.validation_share higher",
            len(held),
        )
        return held[:0]
    return held


def open_labelled(recipe: MachineRecipe, folder: Path, *, quiet: bool) -> LabelledClips:
    """Clips of a set that have labels and sound.

    Raises InputError where labels are of clips that the set lacks, or none can be used.
    """
    data = recipe.data
    if not data.labels:
        raise UsageError(
            f"{recipe.name}: data.labels is missing: give the folder that `soundpost distil "
            "--seen-by NETWORK --heard-by NETWORK --out LABELS` wrote, as data.labels=LABELS"
        )
    labels = Path(data.labels)
    targets = read_machine_targets(labels)
    read = read_media_set(data.kind, data.folders(folder), refuse=not data.skip)
    by_id = {clip.id: clip for clip in read.clips.clips}
    absent = [clip_id for clip_id in targets.clip_ids if clip_id not in by_id]
    if absent:
        raise InputError(
            f"{labels}: {len(absent)} of its {len(targets.clip_ids)} clips are not in {folder}, "
            f"the first {absent[0]}; give the set that was labelled"
        )
    of_splits = read.clips.of(*data.splits) if data.splits else read.clips
    chosen = {clip.id for clip in of_splits.clips}
    numbers = [n for n, clip_id in enumerate(targets.clip_ids) if clip_id in chosen]
    clips = [by_id[targets.clip_ids[n]] for n in numbers]
    heard, usable = _open_sound(clips, read.media, recipe, folder, quiet)
    if not len(usable):
        raise InputError(
            f"{labels}: none of its clips in {folder} has sound that can be used; soundpost "
            "dataset check says why"
        )
    labelled = np.array(numbers, np.int64)[usable]
    kept = kept_back([clips[n] for n in usable], data.validation_share)
    return LabelledClips(heard, targets, usable, labelled, kept, len(clips) - len(usable))


def kept_back(clips: Sequence[MediaClip], share: float) -> NDArray[np.bool_]:
    """Which clips the training is watched by: a share of them, by hash, whatever the others are.

    Whole groups (a video's clips), where there are enough of them to come near the share.
    """
    groups = [clip.group or clip.id for clip in clips]
    whole = len(set(groups)) * share >= 1
    keys = groups if whole else [clip.id for clip in clips]
    # By more digits of the hash than a fold has, so that any folds will do.
    return np.array([fold_of(key, _KEYS) < share * _KEYS for key in keys], bool)


def _open_sound(
    clips: list[MediaClip], media: ClipMedia, recipe: MachineRecipe, folder: Path, quiet: bool
) -> tuple[HeardClips, IntArray]:
    """Clips as they are heard, of those given that have a sound file, and rows that can be used.

    Of clips without one the row is empty.
    """
    skip = recipe.data.skip
    silent = [clip for clip in clips if not clip.has("audio")]
    if silent and not skip:
        raise InputError(
            f"{lacks(silent[0], 'audio')}; so it is with {len(silent)} of {len(clips)} labelled "
            "clips: data.problems=skip goes on without them"
        )
    heard = open_seconds(
        clips, media, recipe.front_end, cache_folder(folder, FEATURES), skip=skip, quiet=quiet
    )
    usable = np.flatnonzero(heard.n_frames())
    if len(usable) < len(clips):
        logger.warning("%s: %d of %d clips left out", folder, len(clips) - len(usable), len(clips))
    return heard, usable


def load_machine_run(folder: Path) -> MachineRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    give = "a run of a pre-training recipe, such as jia2019_mobilenet_v2"
    settings = finished_settings(folder, SCHEMA, give)
    recipe = machine_recipe_from_dict(settings["recipe"], str(path))
    labels = tuple(settings["labels"])
    network = audio_network(recipe.model, len(labels))
    load_weights(network, folder / WEIGHTS)
    return MachineRun(folder, labels, recipe, network.eval())
