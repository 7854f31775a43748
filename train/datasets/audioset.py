"""AudioSet: tables of segments with the ids of their labels (Gemmeke et al. 2017).

As published, the comments being part of the file:

    # Segments csv created Sun Mar  5 10:54:25 2017
    # num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804
    # YTID, start_seconds, end_seconds, positive_labels
    -0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"

in balanced_train_segments.csv, unbalanced_train_segments.csv and eval_segments.csv, beside
class_labels_indices.csv with the display names. Labels here are display names, in the order of
that file; without it they stay ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundpost.train.datasets.catalogue import Listing, MediaSet, Problem, once
from soundpost.train.datasets.labels import LabelNames, UnknownLabels, read_label_names
from soundpost.train.datasets.segments import (
    Folders,
    Segment,
    attach_files,
    missing_table,
    segment_id,
)
from soundpost.train.datasets.tables import read_lines, read_span

_TABLES = {
    "balanced_train": "balanced_train_segments.csv",
    "unbalanced_train": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
_CLASSES = "class_labels_indices.csv"
# Where people keep the tables; the set itself is three files without a folder.
_PLACES = ("", "metadata/", "csv/")


def read_audioset(folders: Folders) -> Listing:
    """The segments of the tables that are there; InputError where none is."""
    files = folders.files()
    problems: list[Problem] = []
    tables = {
        split: path
        for split, name in _TABLES.items()
        if (path := folders.table(*(place + name for place in _PLACES))) is not None
    }
    if not tables:
        raise missing_table(folders.tables, tuple(_TABLES.values()))
    names = audioset_names(folders, problems)
    rows = [
        segment for split, path in tables.items() for segment in _segments(path, split, problems)
    ]
    if names is None:
        labels: tuple[str, ...] = tuple(sorted({mid for row in rows for mid in row.labels}))
    else:
        labels = names.names
        unknown = UnknownLabels(names.ids, names)
        rows = [_named(row, names, unknown) for row in rows]
        problems += unknown.problems()
    clips = attach_files(rows, files, folders.whole_videos)
    problems += once(clips)
    return Listing(MediaSet(folders.tables, "audioset", labels, clips), tuple(problems))


def audioset_names(folders: Folders, problems: list[Problem]) -> LabelNames | None:
    """Ids and display names of AudioSet's classes, or None with a problem."""
    path = folders.table(*(place + _CLASSES for place in _PLACES))
    if path is None:
        problems.append(
            Problem(
                str(folders.tables / _CLASSES),
                "no such file, so that labels stay ids",
                "the table index,mid,display_name",
                "download it from where the segments are",
            )
        )
        return None
    return read_label_names(path, problems)


def _segments(path: Path, split: str, problems: list[Problem]) -> Iterator[Segment]:
    lines = read_lines(path, problems, comment="#")
    for line in lines:
        cells = line.cells()
        if len(cells) < 4:
            problems.append(
                Problem(
                    line.where,
                    f"has {len(cells)} cells",
                    "YTID, start_seconds, end_seconds, positive_labels",
                    "correct the row",
                )
            )
            continue
        span = read_span(line.where, cells[1], cells[2], problems)
        if span is None:
            continue
        # Without quotation marks, each label is a cell.
        labels = [label.strip() for cell in cells[3:] for label in cell.split(",")]
        yield Segment(
            segment_id(cells[0], *span), cells[0], *span, tuple(labels), split, line.where
        )


def _named(row: Segment, names: LabelNames, unknown: UnknownLabels) -> Segment:
    ids = unknown.keep_known(row.labels, row.source)
    labels = tuple(names.by_id[mid] for mid in ids)
    return Segment(
        row.id, row.video_id, row.start_s, row.end_s, labels, row.split, row.source, row.labelled
    )
