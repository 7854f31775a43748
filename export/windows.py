"""Windows of a run's training and held-out clips, as the sensor would cut them.

Alarm labels that the run learnt from synthesised sound have no clips in the folder: for them alarms
are synthesised anew and laid over real clips of the same role, so that nothing held out is used to
set a range, and nothing trained on is used to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from soundpost.device.alarms import AlarmKind, AlarmSettings, synthesise_alarm, synthesise_beeper
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.clips import Clip, load_waveforms, read_clip_set
from soundpost.train.dataset import ALARM_CLIP_S, Split
from soundpost.train.recipe import Recipe, recipe_from_dict
from soundpost.train.run import SETTINGS, TrainedRun
from soundpost.train.windows import HOP_FRAMES, cut_windows

# Synthesised clips per alarm label, and beepers, in each role: a recall of 95 % is told from 85 %.
N_ALARMS = 60
# The alarm's level, while it sounds, over the real clip under it.
ALARM_SNR_DB = (0.0, 20.0)
# Training clips of each label that the representative set is drawn from.
CLIPS_PER_LABEL = 12

NO_LABEL = -1


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of several clips, one clip after the other.

    patches : (n_windows, n_frames, n_mels) float32
    clips : (n_windows,) clip of each window, ascending from 0
    clip_labels : (n_clips,) index of each clip's label, NO_LABEL for none of the model's; or, where
        a clip may have several, (n_clips, n_labels) bool
    synthesised : (n_clips,) True for a clip that is no recording of its label
    """

    patches: FloatArray
    clips: NDArray[np.int64]
    clip_labels: NDArray[Any]
    synthesised: NDArray[np.bool_]

    @property
    def window_labels(self) -> NDArray[np.int64]:
        """(n_windows,) label of each window's clip; of several the first."""
        labels = self.clip_labels
        if labels.ndim == 2:
            labels = np.where(labels.any(axis=1), labels.argmax(axis=1), NO_LABEL)
        found: NDArray[np.int64] = labels[self.clips]
        return found

    def joined(self, other: LabelledWindows) -> LabelledWindows:
        """These windows, then the others."""
        return LabelledWindows(
            np.concatenate([self.patches, other.patches]),
            np.concatenate([self.clips, other.clips + len(self.clip_labels)]),
            np.concatenate([self.clip_labels, other.clip_labels]),
            np.concatenate([self.synthesised, other.synthesised]),
        )


@dataclass(frozen=True)
class ExportWindows:
    """Windows by role, and the clips that the model was trained on (for credits).

    test : None where the run held no fold out
    """

    training: LabelledWindows
    validation: LabelledWindows
    test: LabelledWindows | None
    trained_on: tuple[Clip, ...]


def cut(
    sounds: Sequence[FloatArray], clip_labels: Sequence[int], n_recorded: int, run: TrainedRun
) -> LabelledWindows:
    """Windows of sounds (n_samples,) at the front end's rate, HOP_FRAMES apart.

    The first n_recorded sounds are recordings, the others synthesised.
    """
    parts = [cut_windows(sound, run.front_end, run.n_frames, HOP_FRAMES) for sound in sounds]
    return LabelledWindows(
        np.concatenate(parts),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        np.asarray(clip_labels, np.int64),
        np.arange(len(parts)) >= n_recorded,
    )


def load_windows(run: TrainedRun, data: Path, *, quiet: bool = False) -> ExportWindows:
    """Windows of the folder that a run was trained on, split as it was then.

    Raises InputError where the folder has no such split, or lacks labels that the model has.
    """
    recipe = recipe_of(run)
    split = split_of(run, data)
    if not split.validation:
        raise InputError(
            f"{run.folder}: was trained without validation clips, and thresholds are chosen on "
            "those; train with data.validation_fraction=0.2"
        )
    alarm_labels: list[AlarmKind] = [
        label for label in get_args(AlarmKind) if recipe.data.alarms and label in run.labels
    ]
    found = {clip.label for clip in (*split.train, *split.validation)}
    missing = sorted(set(run.labels) - found - set(alarm_labels))
    if missing:
        raise InputError(
            f"{data}: has no clips of {', '.join(missing[:5])}, which {run.folder} was trained on; "
            "give --data the folder that it was trained with"
        )
    seed = recipe.training.seed
    training = _few_per_label(split.train, seed)
    roles = [training, split.validation, split.test]
    windows = [
        _windows(
            run,
            role,
            alarm_labels,
            CLIPS_PER_LABEL if role is training else N_ALARMS,
            np.random.default_rng([seed, 0xE8, index]),
            quiet,
        )
        for index, role in enumerate(roles)
        if role
    ]
    test = windows[2] if split.test else None
    return ExportWindows(windows[0], windows[1], test, split.train)


def recipe_of(run: TrainedRun) -> Recipe:
    """The recipe that a run was made by."""
    return recipe_from_dict(run.settings["recipe"], str(run.folder / SETTINGS))


def split_of(run: TrainedRun, data: Path) -> Split:
    """Clips of a folder in the roles that they had in a run.

    Raises InputError where the folder is not the one that the run was trained with.
    """
    clip_set = read_clip_set(data)
    notes = run.settings["data"]
    held = set(notes["validation"])
    names = {clip: str(clip.path.relative_to(data)) for clip in clip_set.clips}
    absent = sorted(held - set(names.values()))
    test = tuple(clip for clip in clip_set.clips if clip.fold == notes["fold_test"])
    validation = tuple(clip for clip in clip_set.clips if names[clip] in held)
    held_out = {*test, *validation}
    train = tuple(clip for clip in clip_set.clips if clip not in held_out)
    counts = (len(train), len(validation), len(test))
    expected = (notes["n_train"], notes["n_validation"], notes["n_test"])
    if absent or counts != expected:
        raise InputError(
            f"{data}: has {counts} clips to train, validate and test, {run.folder} was trained "
            f"with {expected}; give --data the folder that it was trained with"
        )
    return Split(train, validation, test)


def _few_per_label(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    rng = np.random.default_rng([seed, 0xC1])
    counts: dict[str, int] = {}
    chosen = []
    for index in rng.permutation(len(clips)):
        clip = clips[int(index)]
        counts[clip.label] = counts.get(clip.label, 0) + 1
        if counts[clip.label] <= CLIPS_PER_LABEL:
            chosen.append(clip)
    return tuple(chosen)


def _windows(
    run: TrainedRun,
    clips: Sequence[Clip],
    alarm_labels: Sequence[AlarmKind],
    n_alarms: int,
    rng: np.random.Generator,
    quiet: bool,
) -> LabelledWindows:
    rate_hz = run.front_end.sample_rate_hz
    waveforms = load_waveforms(clips, rate_hz, quiet=quiet)
    column = {label: index for index, label in enumerate(run.labels)}
    sounds = [waveforms.clip(index) for index in range(len(clips))]
    labels = [column.get(clip.label, NO_LABEL) for clip in clips]
    settings = AlarmSettings.for_training()
    n_recorded = len(sounds)
    kinds: list[AlarmKind | None] = [*alarm_labels, *([None] if alarm_labels else [])]
    for label in kinds:
        for _ in range(n_alarms):
            under = sounds[int(rng.integers(n_recorded))]
            sounding = None
            if label is None:
                beeps = synthesise_beeper(rng, ALARM_CLIP_S, rate_hz)
            else:
                alarm = synthesise_alarm(label, rng, ALARM_CLIP_S, rate_hz, settings)
                beeps = alarm.samples
                # What counts is its level while it sounds: T4 is silent for 93 % of the time.
                sounding = np.zeros(len(beeps), bool)
                for start_s, end_s in alarm.beeps:
                    sounding[round(start_s * rate_hz) : round(end_s * rate_hz)] = True
            sounds.append(_over(beeps, under, float(rng.uniform(*ALARM_SNR_DB)), sounding))
            labels.append(NO_LABEL if label is None else column[label])
    return cut(sounds, labels, n_recorded, run)


def _over(
    sound: FloatArray,
    under: FloatArray,
    snr_db: float,
    sounding: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Sound laid over a real clip, repeated to its length, at a ratio of their mean powers.

    sounding : samples over which the sound's own power is taken; all by default
    """
    ground = np.resize(under, len(sound))
    power = float(np.mean(np.square(ground)))
    if power > 0:
        part = sound if sounding is None or not sounding.any() else sound[sounding]
        wanted = float(np.mean(np.square(part))) / 10 ** (snr_db / 10)
        sound = sound + ground * np.float32(np.sqrt(wanted / power))
    peak = float(np.abs(sound).max())
    return np.asarray(sound / max(1.0, peak), np.float32)
