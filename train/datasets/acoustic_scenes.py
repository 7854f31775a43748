"""TUT Urban Acoustic Scenes 2018 and its TAU successor: ten scenes in European cities.

As published, parted by tabs:

    meta.csv                           filename  scene_label  identifier  source_label
        audio/airport-barcelona-0-0-a.wav  airport  barcelona-0  a
    evaluation_setup/fold1_train.txt   file and scene; 2019: .csv with a first line of names
    evaluation_setup/fold1_test.txt    file alone
    evaluation_setup/fold1_evaluate.txt    file and scene of what is tested
    audio/

The identifier is the place of a recording (city and number): all of a place stands on one side of
the split. Files that neither list has (2019: 1,030 of a city) get the split "unused".

Mesaros, Heittola and Virtanen, "A multi-device dataset for urban acoustic scene classification"
(2018).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet, Problem, once
from soundpost.train.datasets.labels import UnknownLabels
from soundpost.train.datasets.tables import read_columns, read_lines

SCENES = (
    *("airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall"),
    *("street_pedestrian", "street_traffic", "tram"),
)
_COLUMNS = ("filename", "scene_label", "identifier", "source_label")
# The sets are cut into segments of 10 s.
_SECONDS = 10.0
# scene-city-place-segment-device.wav
_FILE_NAME = re.compile(r"^(?P<scene>[a-z_]+)-(?P<city>[a-z]+)-(?P<place>\d+)-\d+-\w+\.wav$")


def read_scenes(folder: Path, fold: int = 1) -> Listing:
    """The recordings of meta.csv, split by a fold's lists.

    Raises InputError where there is no meta.csv or no list of the fold.
    """
    table = folder / "meta.csv"
    if not table.is_file():
        raise InputError(
            f"{folder}: has no meta.csv; expected the development set as published (meta.csv, "
            "audio/, evaluation_setup/): give the folder that holds meta.csv"
        )
    problems: list[Problem] = []
    splits, scenes = _lists(folder, fold, problems)
    unknown = UnknownLabels(SCENES)
    clips = []
    for where, cells in read_columns(table, _COLUMNS, problems):
        name, scene, place = cells["filename"], cells["scene_label"], cells["identifier"]
        match = _FILE_NAME.match(Path(name).name)
        if match and (match["scene"], f"{match['city']}-{match['place']}") != (scene, place):
            problems.append(
                Problem(
                    where,
                    f"{name} with scene {scene} and place {place}",
                    "those of its name",
                    "take the row as published",
                )
            )
        if name in scenes and scenes[name][0] != scene:
            problems.append(
                Problem(
                    scenes[name][1],
                    f"{name} is {scenes[name][0]}",
                    f"{scene}, as in {where}",
                    "download both tables again",
                )
            )
        path = folder / name
        clips.append(
            MediaClip(
                name,
                path if path.is_file() else None,
                None,
                unknown.keep_known([scene], where),
                splits.pop(name, ("unused", ""))[0],
                seconds=_SECONDS,
                group=place,
                location=place.partition("-")[0],
                source=where,
            )
        )
    problems += unknown.problems()
    problems += [
        Problem(where, f"{name} is not in meta.csv", "a file of the set", "download both again")
        for name, (_, where) in splits.items()
    ]
    problems += once(clips)
    problems += _torn_places(clips)
    return Listing(MediaSet(folder, "scenes", SCENES, tuple(clips)), tuple(problems))


def _lists(
    folder: Path, fold: int, problems: list[Problem]
) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """Split and scene of each file of the fold's lists, each with where it says so."""
    setup = folder / "evaluation_setup"
    splits: dict[str, tuple[str, str]] = {}
    scenes: dict[str, tuple[str, str]] = {}
    for split, parts in (("train", ("train",)), ("test", ("evaluate", "test"))):
        paths = [
            path
            for part in parts
            for end in (".txt", ".csv")
            if (path := setup / f"fold{fold}_{part}{end}").is_file()
        ]
        if not paths:
            raise InputError(
                f"{setup}: has no fold{fold}_{parts[0]}.txt (or .csv); expected the lists of the "
                "set as published: download evaluation_setup"
            )
        listed = [_read_list(path, scenes, problems) for path in paths]
        for other in listed[1:]:
            problems += _differing(listed[0], other)
        for name, where in listed[0].items():
            if name in splits:
                problems.append(
                    Problem(
                        where,
                        f"{name} is listed in {splits[name][1]} too",
                        "no file on both sides of the split",
                        "delete one row",
                    )
                )
            splits.setdefault(name, (split, where))
    return splits, scenes


def _read_list(
    path: Path, scenes: dict[str, tuple[str, str]], problems: list[Problem]
) -> dict[str, str]:
    found = {}
    for line in read_lines(path, problems):
        cells = line.cells()
        if cells[0] == "filename":
            continue
        found[cells[0]] = line.where
        if len(cells) > 1:
            scenes.setdefault(cells[0], (cells[1], line.where))
    return found


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[Problem]:
    problems = []
    for here, there in ((first, second), (second, first)):
        only = [name for name in here if name not in there]
        if only:
            problems.append(
                Problem(
                    here[only[0]],
                    f"{only[0]} and {len(only) - 1} more are in this list of the fold alone",
                    "the same files to test and to evaluate",
                    "download evaluation_setup again",
                )
            )
    return problems


def _torn_places(clips: list[MediaClip]) -> list[Problem]:
    """Places on both sides of the split, which a network would know again."""
    first: dict[tuple[str, ...], MediaClip] = {}
    torn: dict[tuple[str, ...], MediaClip] = {}
    for clip in clips:
        place = (clip.group, *clip.labels)
        if clip.split != "unused" and first.setdefault(place, clip).split != clip.split:
            torn.setdefault(place, clip)
    return [
        Problem(
            clip.source,
            f"{clip.id} is of place {clip.group} and for {clip.split}, {first[place].id} for "
            f"{first[place].split}",
            "all recordings of a place on one side of the split",
            "take the lists as published",
        )
        for place, clip in torn.items()
    ]
