"""What one run is trained and judged on: clips by role, synthesised alarms, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from soundpost.device.alarms import AlarmKind, AlarmSettings, synthesise_alarm, synthesise_beeper
from soundpost.device.errors import InputError
from soundpost.train.clips import Clip, ClipSet
from soundpost.train.recipe import DataSettings

ALARM_LABELS: tuple[AlarmKind, ...] = ("co_alarm", "smoke_alarm")
# Long enough for every window of either cadence to be drawn from one clip.
ALARM_CLIP_S = 6.0


@dataclass(frozen=True)
class Split:
    """Clips by role. No group stands in two of them."""

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]


def split_clips(clip_set: ClipSet, fold: int | None, settings: DataSettings, seed: int) -> Split:
    """Hold out a fold, and of the rest whole groups for validation, balanced by label.

    Raises InputError where the fold does not exist or a group crosses it.
    """
    folds = clip_set.folds()
    if fold is not None and fold not in folds:
        raise InputError(
            f"{clip_set.folder}: has no fold {fold}; "
            f"give --fold one of {', '.join(map(str, folds))}"
        )
    test = tuple(clip for clip in clip_set.clips if clip.fold == fold)
    rest = tuple(clip for clip in clip_set.clips if clip.fold != fold)
    crossing = {clip.group for clip in test} & {clip.group for clip in rest}
    if crossing:
        raise InputError(
            f"{clip_set.folder}: group {sorted(crossing)[0]} stands in fold {fold} and outside it; "
            "give all clips of a group one fold"
        )
    if not rest:
        raise InputError(f"{clip_set.folder}: fold {fold} is all there is; nothing to train on")
    if settings.validation_fraction == 0:
        return Split(rest, (), test)
    parts = max(2, round(1 / settings.validation_fraction))
    groups = [clip.group for clip in rest]
    if len(set(groups)) < parts:
        raise InputError(
            f"{clip_set.folder}: {len(set(groups))} groups cannot give a validation share of "
            f"1/{parts}; set data.validation_fraction=0 or add clips"
        )
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    chosen, kept_out = next(
        iter(splitter.split(np.zeros(len(rest)), [clip.label for clip in rest], groups))
    )
    return Split(tuple(rest[i] for i in chosen), tuple(rest[i] for i in kept_out), test)


def targets_of(clips: Sequence[Clip], labels: Sequence[str]) -> NDArray[np.float32]:
    """(n_clips, n_labels) with a one at each clip's label."""
    column = {label: index for index, label in enumerate(labels)}
    targets = np.zeros((len(clips), len(labels)), np.float32)
    targets[np.arange(len(clips)), [column[clip.label] for clip in clips]] = 1.0
    return targets


def synthesise_alarms(
    labels: Sequence[str], settings: DataSettings, rate_hz: int, seed: int
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Alarm clips with their targets, then beepers without a label.

    The ranges that the generator holds out for tests are never drawn here.
    """
    rng = np.random.default_rng([seed, 0xA1A])
    held_in = AlarmSettings.for_training()
    sounds: list[NDArray[np.float32]] = []
    rows: list[int] = []
    for label in ALARM_LABELS:
        for _ in range(settings.alarms):
            sounds.append(synthesise_alarm(label, rng, ALARM_CLIP_S, rate_hz, held_in).samples)
            rows.append(labels.index(label))
    for _ in range(settings.beepers):
        sounds.append(synthesise_beeper(rng, ALARM_CLIP_S, rate_hz))
        rows.append(-1)
    targets = np.zeros((len(rows), len(labels)), np.float32)
    for row, column in enumerate(rows):
        if column >= 0:
            targets[row, column] = 1.0
    return sounds, targets
