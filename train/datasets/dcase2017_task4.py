"""DCASE 2017 task 4: sounds of vehicles and warnings, 17 classes of AudioSet.

As published, none of the tables with a first line of names:

    training_set.csv, testing_set.csv      parted by commas, one row a clip
        -5QrBL6MzLg,60.000,70.000,"Train horn,Train","/m/0284vy3,/m/07jdr"
    groundtruth_weak_label_training_set.csv, ..._testing_set.csv, ..._evaluation_set.csv
        parted by tabs, one row a clip and label
        -5QrBL6MzLg_60.000_70.000.wav  60.000  70.000  Train horn

The rows of either may also come with the other's delimiter, and the labels without quotation marks:
as two of the names hold a comma themselves ("Air horn, truck horn"), labels are told apart by the
list of the 17. Where both tables of a part are there, they must agree.

Mesaros et al., "DCASE 2017 challenge setup: tasks, datasets and baseline system" (2017).
"""

from __future__ import annotations

import re
from pathlib import Path

from soundpost.train.datasets.catalogue import Listing, MediaSet, Problem, once
from soundpost.train.datasets.labels import LabelNames, UnknownLabels
from soundpost.train.datasets.segments import (
    Folders,
    Segment,
    attach_files,
    bad_file_name,
    missing_table,
    parse_file_name,
    segment_id,
)
from soundpost.train.datasets.tables import Line, read_lines, read_span

# sound_event_list_17_classes.txt of the task, in its order.
CLASSES = LabelNames(
    (
        *("/m/0284vy3", "/m/05x_td", "/m/02mfyn", "/m/02rhddq", "/m/0199g", "/m/06_fw"),
        *("/m/012n7d", "/m/012ndj", "/m/0dgbq", "/m/04qvtq", "/m/03qc9zr", "/m/0k4j"),
        *("/t/dd00134", "/m/01bjv", "/m/07r04", "/m/04_sv", "/m/07jdr"),
    ),
    (
        *("Train horn", "Air horn, truck horn", "Car alarm", "Reversing beeps", "Bicycle"),
        *("Skateboard", "Ambulance (siren)", "Fire engine, fire truck (siren)"),
        *("Civil defense siren", "Police car (siren)", "Screaming", "Car", "Car passing by"),
        *("Bus", "Truck", "Motorcycle", "Train"),
    ),
)
_PARTS = ("training", "testing", "evaluation")
_PLACES = ("", "metadata/", "groundtruth_release/")
_MID = re.compile(r"^/[mgt]/\w+$")


def read_dcase2017(folders: Folders) -> Listing:
    """The clips of the parts whose tables are there; InputError where none is."""
    files = folders.files()
    problems: list[Problem] = []
    unknown = UnknownLabels(CLASSES.names, CLASSES)
    rows: list[Segment] = []
    names = []
    for part in _PARTS:
        tables = [f"{part}_set.csv", f"groundtruth_weak_label_{part}_set.csv"]
        names += tables
        found = [
            _read(path, part, unknown, problems)
            for name in tables
            if (path := folders.table(*(place + name for place in _PLACES))) is not None
        ]
        if len(found) == 2:
            _compare(found[0], found[1], problems)
        # What both have is taken from the first, which has the order and all labels in one row.
        rows += ({**found[0], **found[-1], **found[0]} if found else {}).values()
    if not any(folders.table(*(p + name for p in _PLACES)) for name in names):
        raise missing_table(folders.tables, names)
    problems += unknown.problems()
    clips = attach_files(rows, files, folders.whole_videos)
    problems += once(clips)
    return Listing(MediaSet(folders.tables, "dcase2017", CLASSES.names, clips), tuple(problems))


def _read(
    path: Path, part: str, unknown: UnknownLabels, problems: list[Problem]
) -> dict[str, Segment]:
    """Clips of one table by id: rows of one clip are put together."""
    found: dict[str, Segment] = {}
    for line in read_lines(path, problems):
        cells = line.cells()
        if len(cells) < 4:
            problems.append(
                Problem(
                    line.where,
                    f"has {len(cells)} cells",
                    "a video or file, its start and end, and labels",
                    "correct the row",
                )
            )
            continue
        video_id = cells[0]
        if video_id.endswith(".wav"):
            parsed = parse_file_name(video_id)
            if parsed is None:
                problems.append(bad_file_name(line.where, video_id))
                continue
            video_id = parsed[0]
        span = read_span(line.where, cells[1], cells[2], problems)
        if span is None:
            continue
        labels = unknown.keep_known(_labels(line, cells[3:], problems), line.where)
        clip = segment_id(video_id, *span)
        before = found[clip].labels if clip in found else ()
        both = tuple(dict.fromkeys(before + labels))
        source = found[clip].source if clip in found else line.where
        found[clip] = Segment(clip, video_id, *span, both, part, source)
    return found


def _labels(line: Line, cells: list[str], problems: list[Problem]) -> list[str]:
    """Names in the cells after the times; ids, where there are any, must say the same."""
    pieces = [piece.strip() for cell in cells for piece in cell.split(",")]
    ids = [piece for piece in pieces if _MID.match(piece)]
    words = [piece for piece in pieces if not _MID.match(piece)]
    labels = []
    while words:
        # The longest name that the next pieces make up: "Air horn" alone is none.
        length = next(
            (n for n in range(len(words), 0, -1) if ", ".join(words[:n]) in CLASSES.by_name), 1
        )
        labels.append(", ".join(words[:length]))
        words = words[length:]
    by_id = [CLASSES.by_id.get(mid, mid) for mid in ids]
    if labels and ids and sorted(by_id) != sorted(labels):
        problems.append(
            Problem(
                line.where,
                f"labels {', '.join(labels)}, but ids of {', '.join(by_id)}",
                "names and ids of the same classes",
                "correct one of them",
            )
        )
    return labels or by_id


def _compare(
    first: dict[str, Segment], second: dict[str, Segment], problems: list[Problem]
) -> None:
    for clip, segment in first.items():
        other = second.get(clip)
        if other is not None and set(other.labels) != set(segment.labels):
            problems.append(
                Problem(
                    other.source,
                    f"{clip} has the labels {', '.join(other.labels) or 'none'}",
                    f"{', '.join(segment.labels) or 'none'}, as in {segment.source}",
                    "correct one of the two tables",
                )
            )
    for here, there in ((first, second), (second, first)):
        missing = [segment for clip, segment in here.items() if clip not in there]
        if missing and there:
            last = next(iter(there.values())).source.rpartition(": line")[0]
            problems.append(
                Problem(
                    missing[0].source,
                    f"{missing[0].id} and {len(missing) - 1} more are not in {last}",
                    "the same clips in both tables of a part",
                    "download both again; the clips of either are used",
                )
            )
