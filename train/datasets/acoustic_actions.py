"""The acoustic-image action set: 14 actions seen, heard and imaged by 128 microphones.

Perez et al., "Audio-visual model distillation using acoustic images" (2020). In the layout

    Location_01/Subject_01/Action_01/{MFCC_Image, audio, video}/    (files: action_files.py)

numbers count from 1 and may have any number of digits. As it is downloaded the set has two trees,
`matfiles/` with MFCC_Image and `sync/` with audio and video, subjects are `01_name` and actions
`data_000`, counted from 0: that is read as well. Locations are the paper's scenarios. The paper's
list of actions has "typing" twice; the names here are those that the authors publish with their
code.

Sets of one's own in this layout may say in `actions.json` what differs:

    {"schema": "soundpost.actions/1", "name": "...", "actions": {"1": "dog", ...},
     "locations": {"1": "anechoic", ...}, "n_microphones": 128, "broken_microphones": []}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from soundpost.device.array.published_files import SETTINGS_FILE, SETTINGS_SCHEMA
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.action_files import (
    BROKEN_MICROPHONES,
    FRAMES_PER_SECOND,
    IMAGE_SHAPE,
    N_MICROPHONES,
    SAMPLES_PER_FRAME,
    block_name,
    block_samples,
    image_name,
    picture_name,
    read_block,
    read_image,
    read_picture,
)
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet, Problem
from soundpost.train.datasets.media import Frames

ACTIONS: Final[Mapping[int, str]] = dict(
    enumerate(
        (
            *("clapping", "snapping fingers", "speaking", "whistling", "playing kendama"),
            *("clicking", "typing", "knocking", "hammering", "peanut breaking"),
            *("paper ripping", "plastic crumpling", "paper shaking", "stick dropping"),
        ),
        1,
    )
)
LOCATIONS: Final[Mapping[int, str]] = {
    1: "anechoic chamber",
    2: "open space office",
    3: "outdoor terrace",
}
_LOCATION = re.compile(r"^Location_(\d+)$")
_SUBJECT = re.compile(r"^(?:Subject_(\d+)|(\d+)_.+)$")
_ACTION = re.compile(r"^Action_(\d+)$")
_ACTION_FROM_0 = re.compile(r"^data_(\d+)$")
_KINDS: Final = {
    "MFCC_Image": re.compile(r"^Data_(\d+)\.mat$"),
    "audio": re.compile(r"^A_(\d{6,})\.npy$"),
    "video": re.compile(r"^I_(\d{6,})\.jpeg$"),
}
_NAMES: Final = {"MFCC_Image": image_name, "audio": block_name, "video": picture_name}


@dataclass(frozen=True)
class ActionSettings:
    """What a set says of itself; by default, what is known of the published one."""

    name: str = "perez2020"
    actions: Mapping[int, str] = field(default_factory=lambda: ACTIONS)
    locations: Mapping[int, str] = field(default_factory=lambda: LOCATIONS)
    n_microphones: int = N_MICROPHONES
    broken_microphones: tuple[int, ...] = BROKEN_MICROPHONES

    def good_microphones(self) -> tuple[int, ...]:
        """Microphones that hear, counted from 0."""
        return tuple(i for i in range(self.n_microphones) if i not in self.broken_microphones)


@dataclass(frozen=True)
class ActionRecording:
    """One subject doing one action in one place.

    images, audio, video : folders of a file per frame, None where there is none
    n_frames : frames from the first on of which all that is there has a file
    """

    location: int
    subject: int
    action: int
    images: Path | None
    audio: Path | None
    video: Path | None
    n_frames: int

    @property
    def id(self) -> str:
        """Location, subject and action, as in the published layout."""
        return f"Location_{self.location:02d}/Subject_{self.subject:02d}/Action_{self.action:02d}"

    @property
    def seconds(self) -> float:
        """Length: 12 frames make a second."""
        return self.n_frames / FRAMES_PER_SECOND

    def load_images(self, first: int = 0, n: int | None = None) -> FloatArray:
        """Acoustic images of n frames from frame `first` (counted from 0) on.

        Returns (n, 36, 48, 12) float32. Raises InputError where one is missing or broken.
        """
        folder, numbers = self._frames(self.images, "acoustic images", first, n)
        images = np.empty((len(numbers), *IMAGE_SHAPE), np.float32)
        for row, number in enumerate(numbers):
            images[row] = read_image(folder / image_name(number))
        return images

    def load_audio(
        self,
        first: int = 0,
        n: int | None = None,
        microphones: Iterable[int] | None = None,
        settings: ActionSettings = ActionSettings(),
    ) -> FloatArray:
        """Sound of n frames from frame `first` on, at 12,288 Hz.

        microphones : counted from 0; by default all, broken ones too

        Returns (n * 1024, n_microphones) float32, full scale ±1.0. Raises InputError where a frame
        is missing or broken, or a microphone is asked for that is broken.
        """
        chosen = None if microphones is None else list(microphones)
        for number in chosen or ():
            if number not in settings.good_microphones():
                broken = number in settings.broken_microphones
                raise InputError(
                    f"{self.id}: microphone {number} is {'broken' if broken else 'not there'}; "
                    f"expected one of 0 to {settings.n_microphones - 1}, and none of "
                    f"{list(settings.broken_microphones)}: choose another"
                )
        folder, numbers = self._frames(self.audio, "sound", first, n)
        width = settings.n_microphones if chosen is None else len(chosen)
        samples = np.empty((len(numbers), SAMPLES_PER_FRAME, width), np.float32)
        for row, number in enumerate(numbers):
            block = read_block(folder / block_name(number), settings.n_microphones)
            samples[row] = block_samples(block if chosen is None else block[chosen])
        return samples.reshape(-1, width)

    def load_pictures(
        self, first: int = 0, n: int | None = None, size: tuple[int, int] | None = None
    ) -> Frames:
        """Pictures of n frames from frame `first` on, (n, height, width, 3) uint8 RGB.

        size : (height, width), to which they are scaled
        """
        folder, numbers = self._frames(self.video, "pictures", first, n)
        return np.stack([read_picture(folder / picture_name(i), size) for i in numbers])

    def _frames(
        self, folder: Path | None, what: str, first: int, n: int | None
    ) -> tuple[Path, range]:
        last = self.n_frames if n is None else first + n
        if folder is None:
            raise InputError(
                f"{self.id}: has no {what}; expected a folder of them beside the others: copy it, "
                "or leave the recording out"
            )
        if not 0 <= first < last <= self.n_frames:
            raise InputError(
                f"{self.id}: frames {first} to {last} are asked for; expected a part of the "
                f"{self.n_frames} that are there"
            )
        return folder, range(first + 1, last + 1)


@dataclass(frozen=True)
class ActionSet:
    """Recordings of a folder, by location, subject and action."""

    folder: Path
    settings: ActionSettings
    recordings: tuple[ActionRecording, ...]

    def media(self) -> MediaSet:
        """The same as clips: a split per location, of which the protocol makes its own."""
        actions, locations = self.settings.actions, self.settings.locations
        clips = tuple(
            MediaClip(
                recording.id,
                recording.audio,
                recording.video,
                (actions[recording.action],),
                locations[recording.location],
                seconds=recording.seconds,
                group=recording.id,
                location=locations[recording.location],
                subject=f"{recording.subject:02d}",
                images=recording.images,
                source=str(self.folder / recording.id),
            )
            for recording in self.recordings
        )
        return MediaSet(self.folder, self.settings.name, tuple(actions.values()), clips)


def read_actions(folder: Path) -> tuple[ActionSet, tuple[Problem, ...]]:
    """Recordings of a folder and what is wrong with them; InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds Location_01")
    settings = read_settings(folder)
    problems: list[Problem] = []
    trees = [folder / name for name in ("matfiles", "sync") if (folder / name).is_dir()]
    found: dict[tuple[int, int, int], dict[str, Path]] = {}
    for tree in trees or [folder]:
        for key, path in _recording_folders(tree):
            kinds = found.setdefault(key, {})
            kinds.update({kind: path / kind for kind in _KINDS if (path / kind).is_dir()})
            kinds.setdefault("", path)
    if not found:
        raise InputError(
            f"{folder}: has no recordings; expected Location_01/Subject_01/Action_01/MFCC_Image "
            "and so on: give the folder that holds Location_01"
        )
    recordings = []
    for (location, subject, action), kinds in sorted(found.items()):
        where = str(kinds.pop(""))
        unknown = _unnamed(location, action, where, settings)
        problems += unknown
        if unknown:
            continue
        n_frames = _count(kinds, where, problems)
        recordings.append(
            ActionRecording(
                location,
                subject,
                action,
                kinds.get("MFCC_Image"),
                kinds.get("audio"),
                kinds.get("video"),
                n_frames,
            )
        )
    return ActionSet(folder, settings, tuple(recordings)), tuple(problems)


def list_actions(folder: Path) -> Listing:
    """The recordings as clips."""
    actions, problems = read_actions(folder)
    return Listing(actions.media(), problems)


def read_settings(folder: Path) -> ActionSettings:
    """What a folder's actions.json says, or the published set's; InputError where it is wrong."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return ActionSettings()
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if table["schema"] != SETTINGS_SCHEMA:
            raise ValueError(f"schema {table['schema']!r}")
        return ActionSettings(
            str(table["name"]),
            {int(number): str(name) for number, name in table["actions"].items()},
            {int(number): str(name) for number, name in table["locations"].items()},
            int(table["n_microphones"]),
            tuple(int(number) for number in table["broken_microphones"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be used ({error}); expected {SETTINGS_SCHEMA} with name, actions, "
            "locations, n_microphones and broken_microphones: write it again"
        ) from error


def _recording_folders(tree: Path) -> Iterator[tuple[tuple[int, int, int], Path]]:
    for location in sorted(tree.iterdir()):
        place = _LOCATION.match(location.name)
        if place is None or not location.is_dir():
            continue
        for subject in sorted(location.iterdir()):
            person = _SUBJECT.match(subject.name)
            if person is None or not subject.is_dir():
                continue
            for action in sorted(subject.iterdir()):
                one, zero = _ACTION.match(action.name), _ACTION_FROM_0.match(action.name)
                if action.is_dir() and (one or zero):
                    number = int(one[1]) if one else int(zero[1]) + 1 if zero else 0
                    yield (int(place[1]), int(person[1] or person[2]), number), action


def _unnamed(location: int, action: int, where: str, settings: ActionSettings) -> list[Problem]:
    problems = []
    for what, number, names in (
        ("location", location, settings.locations),
        ("action", action, settings.actions),
    ):
        if number not in names:
            problems.append(
                Problem(
                    where,
                    f"{what} {number}",
                    f"one of {min(names, default=0)} to {max(names, default=0)}",
                    f"name it in {SETTINGS_FILE}, or take the folder away",
                )
            )
    return problems


def _count(kinds: Mapping[str, Path], where: str, problems: list[Problem]) -> int:
    """Frames that all kinds have from the first on; missing folders and gaps are problems."""
    for kind in _KINDS:
        if kind not in kinds:
            problems.append(
                Problem(where, f"has no {kind}", f"a folder {kind}", "copy the recording again")
            )
    whole, last = {}, {}
    for kind, folder in kinds.items():
        matches = (_KINDS[kind].match(path.name) for path in folder.iterdir())
        numbers = {int(match[1]) for match in matches if match}
        last[kind] = max(numbers, default=0)
        whole[kind] = next(i for i in range(len(numbers) + 1) if i + 1 not in numbers)
        if not numbers:
            problems.append(
                Problem(str(folder), "is empty", _NAMES[kind](1), "copy the recording again")
            )
        elif whole[kind] < last[kind]:
            problems.append(
                Problem(
                    str(folder),
                    f"{_NAMES[kind](whole[kind] + 1)} is missing, of {last[kind]}",
                    "files numbered from 1 without a gap",
                    "copy the recording again; frames from there on are left out",
                )
            )
    if len(set(last.values())) > 1:
        problems.append(
            Problem(
                where,
                ", ".join(f"{kind} {n}" for kind, n in last.items()) + " frames",
                "the same number of each",
                "copy the recording again; the frames that all have are used",
            )
        )
    return min(whole.values(), default=0)
