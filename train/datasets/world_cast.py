"""Who can be heard by which subject: clips by subject and label, and where in them the sound is.

A subject's clips are those of its own groups (authors, recordings), and all of one fold: neither a
group nor a fold stands on both sides of a split by subjects. With as many subjects as folds, each
has a fold; with twice as many, two share one, group by group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from soundpost.device.audio import read_clip
from soundpost.device.errors import InputError
from soundpost.train.clips import Clip, ClipSet
from soundpost.train.datasets.action_files import RATE_HZ
from soundpost.train.datasets.world_settings import WorldSettings
from soundpost.train.sed.segments import find_segments


@dataclass(frozen=True)
class Voice:
    """One clip and the spans in which its event sounds, (first, stop) in samples at RATE_HZ.

    clip : index into the cast's clips
    """

    clip: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Cast:
    """Voices of each subject (counted from 1) by label, and those of sounds that have no class."""

    clips: tuple[Clip, ...]
    voices: Mapping[int, Mapping[str, tuple[Voice, ...]]]
    distractors: Mapping[int, tuple[Voice, ...]]


def gather(clip_set: ClipSet, settings: WorldSettings, *, quiet: bool = False) -> Cast:
    """Share the clips out to the subjects and find the sounds in them.

    Raises InputError for a label without clips, and where a subject gets no clip of a class that
    can be used.
    """
    labels = (*settings.classes, *settings.distractors)
    absent = [label for label in labels if label not in clip_set.labels]
    if absent:
        raise InputError(
            f"{clip_set.folder}: has no clip with the label {absent[0]}; take it out of the "
            "settings, or choose a folder that has"
        )
    clips = tuple(clip for clip in clip_set.clips if clip.label in labels)
    subject_of = share_groups(clips, settings.subjects)
    voices: dict[int, dict[str, list[Voice]]] = {
        subject: defaultdict(list) for subject in range(1, settings.subjects + 1)
    }
    for index, clip in enumerate(
        tqdm(clips, "reading clips", unit="clip", disable=quiet, leave=False)
    ):
        spans = find_segments(read_clip(clip.path, RATE_HZ), RATE_HZ, settings.rule)
        if spans:
            voices[subject_of[clip.group]][clip.label].append(Voice(index, tuple(spans)))
    for subject, found in voices.items():
        lacking = [label for label in settings.classes if not found[label]]
        if not lacking and settings.objects.distractor_share:
            lacking = [] if any(found[one] for one in settings.distractors) else ["a distractor"]
        if lacking:
            folds = len(clip_set.folds())
            raise InputError(
                f"{clip_set.folder}: subject {subject} of {settings.subjects} gets no clip of "
                f"{lacking[0]}; set subjects to {folds}, one for each fold, or take it out"
            )
    return Cast(
        clips,
        {s: {one: tuple(found[one]) for one in settings.classes} for s, found in voices.items()},
        {
            s: tuple(voice for one in settings.distractors for voice in found[one])
            for s, found in voices.items()
        },
    )


def share_groups(clips: Sequence[Clip], subjects: int) -> dict[str, int]:
    """Subject, from 1, of each group of clips: one of those that its fold has.

    Within a fold the largest groups go first, each to the subject that has the fewest clips of its
    labels so far. A group in several folds goes with the first of them.
    """
    folds = sorted({clip.fold for clip in clips})
    fold_of: dict[str, int] = {}
    of_group: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        fold_of[clip.group] = min(clip.fold, fold_of.get(clip.group, clip.fold))
        of_group[clip.group][clip.label] += 1
    has: dict[int, Counter[str]] = {subject: Counter() for subject in range(1, subjects + 1)}
    shared: dict[str, int] = {}
    for group in sorted(of_group, key=lambda name: (-of_group[name].total(), name)):
        labels = of_group[group]
        place = folds.index(fold_of[group])
        # With fewer subjects than folds, one has several folds.
        own = [s for s in has if (s - 1) % len(folds) == place] or [1 + place % subjects]
        subject = min(own, key=lambda s: (_met(has[s], labels), has[s].total(), s))
        has[subject].update(labels)
        shared[group] = subject
    return shared


def _met(has: Mapping[str, int], labels: Iterable[str]) -> int:
    return sum(has[label] for label in labels)
