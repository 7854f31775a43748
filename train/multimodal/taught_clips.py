"""Soft labels for the sensor's clip student: its clips, its labels, its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from soundpost.device.errors import ConfigError
from soundpost.device.features import FloatArray
from soundpost.device.settings import nearest
from soundpost.train.augment import Bank
from soundpost.train.clips import Clip, ClipSet
from soundpost.train.datasets.clip_folders import media_of_clips
from soundpost.train.multimodal.distil_loss import (
    join_targets,
    split_targets,
    window_distil_loss,
)
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labels import (
    SoftLabelEnsemble,
    SoftLabels,
    SoftLabelStore,
)
from soundpost.train.multimodal.soft_timeline import soft_timeline
from soundpost.train.recipe import Recipe, SoftLabelSettings


def open_soft_labels(
    stores: Sequence[Path], labels: Sequence[str], settings: SoftLabelSettings
) -> SoftLabels:
    """Stores of one teacher or several, with a student's labels as columns.

    Raises InputError where a store is none or lacks a label, ConfigError where a label is renamed
    that the student does not have.
    """
    for label in settings.rename:
        if label not in labels:
            raise ConfigError(
                f"soft_labels.rename: the clips have no label {label!r}{nearest(label, labels)}"
            )
    opened = [SoftLabelStore(folder).for_labels(labels, settings.rename) for folder in stores]
    return opened[0] if len(opened) == 1 else SoftLabelEnsemble(opened)


def teach(
    bank: Bank,
    soft_labels: SoftLabels,
    clips: Sequence[Clip],
    of: ClipSet,
    labels: Sequence[str],
    rate_hz: int,
) -> Bank:
    """The bank of some clips of a set with their soft labels.

    labels : of the student; those that the soft labels lack (synthesised alarms, which no real clip
        has) are zero there, as they are among the clips' labels

    Raises InputError where a clip has no soft labels, or not for all of its windows.
    """
    ids = {
        clip.path: media.id for clip, media in zip(of.clips, media_of_clips(of).clips, strict=True)
    }
    columns: NDArray[np.int64] = np.array(
        [labels.index(label) for label in soft_labels.labels], np.int64
    )
    timeline = soft_timeline(
        soft_labels,
        [ids[clip.path] for clip in clips],
        bank.lengths.numpy(),
        columns,
        len(labels),
        rate_hz,
        bank.window,
    )
    return replace(bank, soft=timeline)


def say_it_themselves(targets: FloatArray) -> FloatArray:
    """Targets of clips that no teacher heard, for they are synthesised: their soft labels are
    their labels, (n_clips, 2 n_labels)."""
    return join_targets(targets, targets)


def taught_loss(logits: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Loss of a batch of `train.loop.draw_batch` whose clips have soft labels."""
    settings = recipe.soft_labels
    return window_distil_loss(
        logits, *split_targets(targets), recipe, settings.teacher_weight, settings.temperature
    )


def source_line(teachers: Sequence[Teacher], settings: SoftLabelSettings) -> str:
    """What a report says of the teachers."""
    names = ", ".join(f"{teacher.name} ({teacher.sha256[:12]})" for teacher in teachers)
    return (
        f"Learnt, with weight {settings.teacher_weight:g} and temperature "
        f"{settings.temperature:g}, from what {names} heard."
    )
