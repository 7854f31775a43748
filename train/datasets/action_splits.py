"""Who learns from which seconds of the acoustic-image action set, and across its scenarios.

The authors cut the first 30 s of every recording into parts of 10 s, shuffle the parts and take
80 % for training and 10 % for validation (their published code; the paper states the shares alone).
Parts of one recording then stand on both sides, which is how the published figures came about:
`by="part"`. "recording" draws whole recordings instead, and "subject" holds out whole subjects, who
are named and not drawn. Across scenarios, a network that was trained on one is tested on all data
of each other; with "subject", on what the test subjects do there alone. A person acts alike
everywhere, and in a generated world a subject's sources are clips of their own, which are heard in
every scenario: what the training subjects do elsewhere has been heard before.

A part that is not complete is left out; the authors' code begins a recording again where it is
shorter than 30 s, which no published one should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

import numpy as np

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND

TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1
SplitBy = Literal["part", "recording", "subject"]
SPLIT_BY: Final[tuple[SplitBy, ...]] = ("part", "recording", "subject")
Side = Literal["train", "validation", "test"]
T = TypeVar("T")


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
class Split(Generic[T]):
    """What to learn from, to choose by and to judge on: clips, or their numbers."""

    train: T
    validation: T
    test: T


Parts = tuple[ActionPart, ...]


def action_parts(actions: ActionSet, seconds: float = 10.0, limit_s: float | None = 30.0) -> Parts:
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


def draw_sides(keys: Sequence[str], seed: int) -> list[Side]:
    """Which side each stands on: of what has one key, all on the same.

    Of the keys, 80 % are drawn to train, 10 % to validate and the rest to test.
    """
    units = list(dict.fromkeys(keys))
    order = np.random.default_rng(seed).permutation(len(units))
    n_train = int(TRAIN_SHARE * len(units))
    n_held = n_train + int(VALIDATION_SHARE * len(units))
    side: dict[str, Side] = {
        units[unit]: "train" if place < n_train else "validation" if place < n_held else "test"
        for place, unit in enumerate(order)
    }
    return [side[key] for key in keys]


@dataclass(frozen=True)
class SplitRule:
    """How parts are split.

    by : what is held out
    seed : of what is drawn
    validation_subjects, test_subjects : numbers, for "subject"
    """

    by: SplitBy = "part"
    seed: int = 0
    validation_subjects: tuple[int, ...] = ()
    test_subjects: tuple[int, ...] = ()

    def split(self, parts: Sequence[ActionPart]) -> Split[Parts]:
        """Parts of one scenario or of all together; InputError where a subject has none."""
        sides = self._sides(parts)

        def of(name: Side) -> Parts:
            return tuple(part for part, side in zip(parts, sides, strict=True) if side == name)

        return Split(of("train"), of("validation"), of("test"))

    def across(
        self, parts: Sequence[ActionPart], location: int
    ) -> tuple[Split[Parts], dict[int, Parts]]:
        """One scenario split, and of each other one what its network is judged on there.

        Raises InputError where the scenario has no parts, or a subject has none in one.
        """
        there = sorted({part.recording.location for part in parts})
        if location not in there:
            raise InputError(
                f"location {location} has no parts; expected one of {', '.join(map(str, there))}"
            )
        of = {
            place: tuple(part for part in parts if part.recording.location == place)
            for place in there
        }
        own = self.split(of.pop(location))
        if self.by == "subject":
            return own, {place: self.split(others).test for place, others in of.items()}
        return own, of

    def _sides(self, parts: Sequence[ActionPart]) -> list[Side]:
        if self.by == "part":
            return draw_sides([part.id for part in parts], self.seed)
        if self.by == "recording":
            return draw_sides([part.recording.id for part in parts], self.seed)
        subjects = [part.recording.subject for part in parts]
        for subject in (*self.validation_subjects, *self.test_subjects):
            if subject not in subjects:
                there = ", ".join(map(str, sorted(set(subjects))))
                raise InputError(f"subject {subject} has no parts; expected some of {there}")
        return [
            "test"
            if subject in self.test_subjects
            else "validation"
            if subject in self.validation_subjects
            else "train"
            for subject in subjects
        ]
