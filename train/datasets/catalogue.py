"""What a data set of clips is, whatever its layout, and what a check finds wrong with it.

A reader lists all that is wrong and goes on, for who mends a folder wants to see everything at
once: it returns a Listing of the clips and the problems. Only where there is nothing to go on with
(no folder, no table) does it raise InputError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from soundpost.device.errors import InputError

Medium = Literal["audio", "video", "images"]


@dataclass(frozen=True)
class Problem:
    """One thing that is missing or broken.

    where : file, line or clip
    found, expected : how it is, and how it should be
    remedy : what to do
    """

    where: str
    found: str
    expected: str
    remedy: str

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.where}: {self.found}; expected {self.expected}: {self.remedy}"

    def error(self) -> ProblemError:
        """The same as an error, to be raised."""
        return ProblemError(self)


class ProblemError(InputError):
    """A file cannot be used; `problem` has the parts of the message."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line())
        self.problem = problem


@dataclass(frozen=True)
class MediaClip:
    """One recording, or a part of one.

    id : as published; soft labels and features travel by it
    audio, video : file with the sound, with the pictures (often the same); None where it is absent.
        Of the acoustic-image set, the folders that hold a file per frame
    images : folder of acoustic images, where there are any
    start_s, end_s : the clip's part of audio and video; None where they hold the clip alone
    seconds : length of the clip as published, where it is known without opening a file
    labels : as published, each once
    labelled : False where nobody listened, which is not the same as no labels
    split : part or fold of the set
    group : clips of one group (video, place, author) never stand on both sides of a split
    location, subject : where and by whom it was recorded, where that is known
    source : where it is listed, for messages
    """

    id: str
    audio: Path | None
    video: Path | None
    labels: tuple[str, ...]
    split: str
    start_s: float | None = None
    end_s: float | None = None
    seconds: float | None = None
    labelled: bool = True
    group: str = ""
    location: str = ""
    subject: str = ""
    images: Path | None = None
    source: str = field(default="", compare=False)

    def has(self, *media: Medium) -> bool:
        """Whether all of these are there."""
        there = {"audio": self.audio, "video": self.video, "images": self.images}
        return all(there[medium] is not None for medium in media)


@dataclass(frozen=True)
class MediaSet:
    """Clips of one folder.

    labels : vocabulary, in the order of the set's own list; a network's outputs have this order
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    clips: tuple[MediaClip, ...]

    def splits(self) -> tuple[str, ...]:
        """Splits present: folds ascending, parts in the order of their first clip."""
        found = tuple(dict.fromkeys(clip.split for clip in self.clips))
        return tuple(sorted(found, key=int)) if all(map(str.isdecimal, found)) else found

    def where(self, keep: Callable[[MediaClip], bool]) -> MediaSet:
        """The set with some of its clips."""
        return replace(self, clips=tuple(clip for clip in self.clips if keep(clip)))

    def of(self, *splits: str) -> MediaSet:
        """The set with the clips of some splits; InputError where there is none such."""
        for split in splits:
            if split not in self.splits():
                raise InputError(
                    f"{self.folder}: has no split {split!r}; there are {', '.join(self.splits())}"
                )
        return self.where(lambda clip: clip.split in splits)

    def having(self, *media: Medium) -> MediaSet:
        """The set with the clips that have all of these."""
        return self.where(lambda clip: clip.has(*media))

    def renamed(self, names: Mapping[str, str]) -> MediaSet:
        """The set with some labels named otherwise (see labels.agreed_names)."""

        def new(labels: Iterable[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(names.get(label, label) for label in labels))

        clips = tuple(replace(clip, labels=new(clip.labels)) for clip in self.clips)
        return replace(self, labels=new(self.labels), clips=clips)

    def counts(self) -> dict[str, Counter[str]]:
        """Clips of each label, by split."""
        found: dict[str, Counter[str]] = {split: Counter() for split in self.splits()}
        for clip in self.clips:
            found[clip.split].update(clip.labels)
        return found

    def seconds(self) -> dict[str, float | None]:
        """Length of each split as published, None where that of a clip is not known."""
        found: dict[str, float | None] = dict.fromkeys(self.splits(), 0.0)
        for clip in self.clips:
            so_far = found[clip.split]
            unknown = so_far is None or clip.seconds is None
            found[clip.split] = None if unknown else (so_far or 0.0) + (clip.seconds or 0.0)
        return found


@dataclass(frozen=True)
class Listing:
    """What a reader found: the clips, and what is wrong with their tables."""

    media: MediaSet
    problems: tuple[Problem, ...] = ()

    def without_problems(self) -> MediaSet:
        """The set, for who trains on it; InputError of the first problem where there is one."""
        if not self.problems:
            return self.media
        more = len(self.problems) - 1
        raise InputError(
            self.problems[0].line()
            + (f" (and {more} more; soundpost dataset check lists them)" if more else "")
        )


def once(clips: Iterable[MediaClip]) -> list[Problem]:
    """Clips that are listed twice: within a split a slip, across splits a leak."""
    problems = []
    seen: dict[str, MediaClip] = {}
    for clip in clips:
        first = seen.setdefault(clip.id, clip)
        if first is clip:
            continue
        within = first.split == clip.split
        problems.append(
            Problem(
                clip.source,
                f"{clip.id} is listed before, in {first.source}"
                + ("" if within else f", for {first.split}"),
                "every clip once" if within else "no clip on both sides of a split",
                "delete one row",
            )
        )
    return problems
