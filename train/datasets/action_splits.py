"""Who learns from which seconds of the acoustic-image action set: 80/10/10, and across scenarios.

The authors cut the first 30 s of every recording into parts of 10 s, shuffle the parts and take
80 % for training and 10 % for validation (their published code; the paper states the shares alone).
Parts of one recording then stand on both sides, which is how the published figures came about:
`by="recording"` keeps a recording together. Across scenarios, a network that was trained on one is
tested on all data of each other. A part that is not complete is left out; the authors' code begins
a recording again where it is shorter than 30 s, which no published one should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND

TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1


@dataclass(frozen=True)
class ActionPart:
    """Consecutive frames of a recording, counted from 0."""

    recording: ActionRecording
    first: int
    n_frames: int

    @property
    def id(self) -> str:
        """The recording's id and the part's first and last second, for soft labels."""
        begin_s = self.first / FRAMES_PER_SECOND
        return f"{self.recording.id}#{begin_s:g}-{begin_s + self.n_frames / FRAMES_PER_SECOND:g}"


@dataclass(frozen=True)
class Split:
    """Parts to learn from, to choose by and to judge on."""

    train: tuple[ActionPart, ...]
    validation: tuple[ActionPart, ...]
    test: tuple[ActionPart, ...]


def action_parts(
    actions: ActionSet, seconds: float = 10.0, limit_s: float | None = 30.0
) -> tuple[ActionPart, ...]:
    """Parts of equal length of every recording, in the set's order.

    limit_s : of a recording only its first seconds count, so that long ones weigh no more; None for
        all of it

    Raises InputError where no recording is long enough.
    """
    n = round(seconds * FRAMES_PER_SECOND)
    if n < 1:
        raise InputError(f"parts of {seconds:g} s; expected at least one frame, 1/12 s")
    found = []
    for recording in actions.recordings:
        end = recording.n_frames
        if limit_s is not None:
            end = min(end, round(limit_s * FRAMES_PER_SECOND))
        found += [ActionPart(recording, first, n) for first in range(0, end - n + 1, n)]
    if not found:
        longest_s = max((recording.seconds for recording in actions.recordings), default=0.0)
        raise InputError(
            f"{actions.folder}: no recording holds a part of {seconds:g} s, the longest is "
            f"{longest_s:g} s; ask for shorter parts"
        )
    return tuple(found)


def split_parts(
    parts: Sequence[ActionPart], seed: int, by: Literal["part", "recording"] = "part"
) -> Split:
    """80 % to train, 10 % to validate, the rest to test, drawn by a seed.

    by : what is drawn: a part as published, or a recording with all of its parts
    """
    keys = [part.id if by == "part" else part.recording.id for part in parts]
    units = list(dict.fromkeys(keys))
    order = np.random.default_rng(seed).permutation(len(units))
    n_train = int(TRAIN_SHARE * len(units))
    n_held = n_train + int(VALIDATION_SHARE * len(units))
    side = {
        units[unit]: "train" if place < n_train else "validation" if place < n_held else "test"
        for place, unit in enumerate(order)
    }

    def of(name: str) -> tuple[ActionPart, ...]:
        return tuple(part for part, key in zip(parts, keys, strict=True) if side[key] == name)

    return Split(of("train"), of("validation"), of("test"))


def cross_scenario(
    parts: Sequence[ActionPart],
    location: int,
    seed: int,
    by: Literal["part", "recording"] = "part",
) -> tuple[Split, dict[int, tuple[ActionPart, ...]]]:
    """One scenario split to learn from, and all parts of each other one to be judged on.

    Raises InputError where the scenario has no parts.
    """
    there = sorted({part.recording.location for part in parts})
    if location not in there:
        raise InputError(
            f"location {location} has no parts; expected one of {', '.join(map(str, there))}"
        )
    own = [part for part in parts if part.recording.location == location]
    others = {
        other: tuple(part for part in parts if part.recording.location == other)
        for other in there
        if other != location
    }
    return split_parts(own, seed, by), others
