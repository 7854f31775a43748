"""The clips of a tagging run by role, as the export of its student takes them.

They are the run's own features: log-mel of the device's front end, as they lie in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.device.manifest import TrainingData
from soundpost.export.windows import CLIPS_PER_LABEL, ExportWindows, LabelledWindows
from soundpost.train.multimodal.acoustic_inputs import LogMelInput
from soundpost.train.multimodal.tagging_inputs import open_inputs
from soundpost.train.multimodal.tagging_run import TaggingRun
from soundpost.train.multimodal.tagging_sets import IntArray, TaggingSet
from soundpost.train.windows import windows_of_frames

# Of validation and of test: a clip of ten seconds has 36 windows, which four engines score one by
# one.
MOST_CLIPS = 400


@dataclass(frozen=True)
class Role:
    """Some clips of a set: numbers of those that are used."""

    of: TaggingSet
    clips: IntArray

    @property
    def truth(self) -> FloatArray:
        """(n_clips, n_labels), 0 or 1."""
        return self.of.targets[self.clips]

    def log_mel(self) -> list[FloatArray]:
        """(n_frames, n_mels) of each clip."""
        rows = self.of.sound_row[self.clips]
        return [self.of.sounds[0][int(row)].astype(np.float32) for row in rows]


@dataclass(frozen=True)
class TaggingRoles:
    """training : a few of each label, for the int8 ranges; n_trained : that the run learnt from."""

    training: Role
    validation: Role
    test: Role
    n_trained: int

    def training_data(self, name: str) -> tuple[TrainingData, ...]:
        """For the manifest: published sets say nothing of a clip's licence in their tables."""
        return (TrainingData(name, self.n_trained, {"not stated": self.n_trained}),)


def read_roles(run: TaggingRun, folder: Path, *, quiet: bool) -> TaggingRoles:
    """The clips of a folder in the roles that they had in a run.

    Raises InputError where the folder is not the one that the run was trained with.
    """
    recipe, noted = run.recipe, run.settings["data"]
    inputs = open_inputs(recipe, folder, (LogMelInput(recipe.front_end),), None, quiet=quiet)
    sets = {
        "train": inputs.open(recipe.data.train, to_learn=True),
        "validation": inputs.open(recipe.data.validation),
        "test": inputs.open(recipe.data.test),
    }
    found = {name: len(of.clips) for name, of in sets.items()}
    expected = {name: noted[name]["n_listed"] for name in sets}
    if sets["train"].labels != run.labels or found != expected:
        raise InputError(
            f"{folder}: has {len(sets['train'].labels)} labels and {tuple(found.values())} clips "
            f"to train, validate and test, {run.folder} was trained with {len(run.labels)} and "
            f"{tuple(expected.values())}; give --data the folder that it was trained with"
        )
    rng = np.random.default_rng([recipe.training.seed, 0xE7])
    training = sets["train"].usable(see=False)
    return TaggingRoles(
        Role(sets["train"], _few_per_label(sets["train"], rng.permutation(training))),
        _some(sets["validation"], rng),
        _some(sets["test"], rng),
        int(noted["train"]["n_clips"]),
    )


def _some(of: TaggingSet, rng: np.random.Generator) -> Role:
    return Role(of, np.sort(rng.permutation(of.usable(see=False))[:MOST_CLIPS]))


def _few_per_label(of: TaggingSet, clips: IntArray) -> IntArray:
    """Clips in this order until every label has CLIPS_PER_LABEL, and as many without a label."""
    counts = np.zeros(len(of.labels) + 1, int)
    chosen = []
    for clip in clips:
        has = np.append(of.targets[clip] > 0.5, not of.targets[clip].any())
        if (counts[has] < CLIPS_PER_LABEL).any():
            counts[has] += 1
            chosen.append(clip)
    return np.array(chosen, np.int64)


def export_windows_of(roles: TaggingRoles, n_frames: int) -> ExportWindows:
    """Windows of n_frames of all of them, 250 ms apart."""
    training, validation, test = (
        _windows(role, n_frames) for role in (roles.training, roles.validation, roles.test)
    )
    return ExportWindows(training, validation, test, ())


def _windows(role: Role, n_frames: int) -> LabelledWindows:
    parts = [windows_of_frames(frames, n_frames) for frames in role.log_mel()]
    return LabelledWindows(
        np.concatenate(parts),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        role.truth > 0.5,
        np.zeros(len(parts), bool),
    )
