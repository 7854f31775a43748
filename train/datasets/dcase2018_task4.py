"""DCASE 2018 task 4: ten classes of domestic sounds, a part of AudioSet.

As published, all parted by tabs and with a first line of names, below `metadata/`:

    train/weak.csv                       filename  event_labels
        Y-BJNMHMZDcU_50.000_60.000.wav  Alarm_bell_ringing,Dog
    train/unlabel_in_domain.csv, train/unlabel_out_of_domain.csv    filename
    test/test.csv, eval/eval.csv         filename  onset  offset  event_label

Labels of a weak row are parted by commas (the task's page says semicolons, which are read too). A
clip of test and eval has the labels of its events; eval was first published without any.

Serizel et al., "Large-scale weakly labeled semi-supervised sound event detection in domestic
environments" (2018).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from soundpost.train.datasets.catalogue import Listing, MediaSet, Problem, once
from soundpost.train.datasets.labels import UnknownLabels
from soundpost.train.datasets.segments import (
    Folders,
    Segment,
    attach_files,
    bad_file_name,
    missing_table,
    parse_file_name,
)
from soundpost.train.datasets.tables import read_columns

# In the order of the task's description.
LABELS = (
    *("Speech", "Dog", "Cat", "Alarm_bell_ringing", "Dishes", "Frying", "Blender"),
    *("Running_water", "Vacuum_cleaner", "Electric_shaver_toothbrush"),
)
_TABLES = {
    "weak": "train/weak",
    "unlabel_in_domain": "train/unlabel_in_domain",
    "unlabel_out_of_domain": "train/unlabel_out_of_domain",
    "test": "test/test",
    "eval": "eval/eval",
}
_PLACES = ("metadata/", "dataset/metadata/")


def read_dcase2018(folders: Folders) -> Listing:
    """The clips of the tables that are there; InputError where none is."""
    files = folders.files()
    problems: list[Problem] = []
    unknown = UnknownLabels(LABELS)
    rows: list[Segment] = []
    found = False
    for split, table in _TABLES.items():
        path = folders.table(*(p + table + end for p in _PLACES for end in (".csv", ".tsv")))
        if path is not None:
            found = True
            rows += _read(path, split, unknown, problems)
    if not found:
        raise missing_table(folders.tables, [f"metadata/{table}.csv" for table in _TABLES.values()])
    problems += unknown.problems()
    clips = attach_files(rows, files, folders.whole_videos)
    problems += once(clips)
    return Listing(MediaSet(folders.tables, "dcase2018", LABELS, clips), tuple(problems))


def _read(
    path: Path, split: str, unknown: UnknownLabels, problems: list[Problem]
) -> Iterable[Segment]:
    columns = ("filename", "event_labels") if split == "weak" else ("filename",)
    found: dict[str, Segment] = {}
    rows: list[Segment] = []
    for where, cells in read_columns(path, columns, problems):
        name = cells["filename"]
        parsed = parse_file_name(name)
        if parsed is None:
            problems.append(bad_file_name(where, name))
            continue
        labels: tuple[str, ...] = ()
        labelled = "event_labels" in cells or "event_label" in cells
        if "event_labels" in cells:
            labels = unknown.keep_known(_parted(cells["event_labels"]), where)
        elif labelled:
            labels = unknown.keep_known(_parted(cells["event_label"]), where)
            if name in found:
                # Further events of the same clip.
                first = found[name]
                labels = tuple(dict.fromkeys(first.labels + labels))
                where = first.source
        segment = Segment(name, *parsed, labels, split, where, labelled)
        if "event_label" in cells:
            found[name] = segment
        else:
            rows.append(segment)
    return [*rows, *found.values()]


def _parted(cell: str) -> list[str]:
    # A table that went through pandas may have "nan" where nothing was.
    if not cell or cell.lower() == "nan":
        return []
    return [label.strip() for label in re.split("[,;]", cell)]
