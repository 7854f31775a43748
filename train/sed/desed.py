"""Folders in the layout of DESED (DCASE 2019 task 4): recordings with times, labels or neither.

As published, and as `soundpost soundscapes` writes it:

    metadata/train/synthetic.tsv          audio/train/synthetic/          strong
    metadata/train/weak.tsv               audio/train/weak/               weak
    metadata/train/unlabel_in_domain.tsv  audio/train/unlabel_in_domain/  unlabelled
    metadata/validation/*.tsv             audio/validation/               strong
    metadata/eval/NAME.tsv                audio/eval/NAME/ or audio/eval/ strong, may be absent

As downloaded, the recordings of DCASE 2019 want `reading.lengths="fit" reading.overlaps="merge"
reading.missing="skip"`: some are shorter, some of its events overlap, some videos are gone.

A table's name may end in `.csv` (so DCASE 2019 has it); its columns are parted by tabs. Strong:
`filename onset offset event_label`, seconds from the start; a recording in which nothing happens is
one row with the other columns empty. Weak: `filename event_labels`, labels parted by commas.
Unlabelled: `filename`. Tables of later years beside these in metadata/train are not read.

Turpault et al., "Sound event detection in domestic environments with weakly labeled data and
soundscape synthesis" (2019).
"""

from __future__ import annotations

import csv
import difflib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import soundfile
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.train.sed.scenes import Event, Labelling, Scene, SceneSet

logger = logging.getLogger(__name__)

# Times have three decimals, and a file may end within its last millisecond.
_TIME_TOLERANCE_S = 0.01
_COLUMNS: dict[Labelling, tuple[str, ...]] = {
    "strong": ("filename", "onset", "offset", "event_label"),
    "weak": ("filename", "event_labels"),
    "unlabelled": ("filename",),
}
_TRAIN: dict[Labelling, str] = {
    "strong": "synthetic",
    "weak": "weak",
    "unlabelled": "unlabel_in_domain",
}


@dataclass(frozen=True)
class Reading:
    """How strictly a folder is read.

    seconds : length of every recording, give or take tolerance_s
    rate_hz : lowest sample rate: sound of a lower one lacks the upper bands of the front end
    lengths : "refuse" a recording of another length, or "fit": one that is shorter counts as
        silent after its end, of one that is longer only the first seconds count, and so for its
        events. Recordings from the web are of many lengths.
    overlaps : "refuse" two events of one label that overlap, or "merge" them into one, which is all
        that a frame's target can say. Most are typing errors; the metrics refuse them too.
    missing : "refuse" a file that is absent, or "skip" its rows. Videos disappear from the web.
    """

    seconds: float = 10.0
    tolerance_s: float = 0.1
    rate_hz: int = 16_000
    lengths: Literal["refuse", "fit"] = "refuse"
    overlaps: Literal["refuse", "merge"] = "refuse"
    missing: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True)
class DesedFolder:
    """The sets of a folder, with one vocabulary. test: None without metadata/eval."""

    train: SceneSet
    validation: SceneSet
    test: SceneSet | None


@dataclass
class _Row:
    """One row of a table: where it stands, for messages."""

    where: str
    name: str
    cells: dict[str, str]


def read_desed(
    folder: Path,
    reading: Reading = Reading(),
    labels: Sequence[str] = (),
    *,
    quiet: bool = False,
) -> DesedFolder:
    """Read all tables of a folder and look at every file that they name.

    labels : vocabulary; without any, the labels of the training tables, of which one that stands in
        a single recording and reads much like another is pointed out

    Raises
    ------
    InputError
        A table or a column is missing or empty; a time is not a number, inverted, or past the
        recording's end; events of one label overlap; a label is outside the vocabulary, or one of
        the vocabulary has no training recording; a file is absent, unreadable, listed twice, or of
        another rate or length: table and line are named.
    """
    metadata = folder / "metadata"
    if not metadata.is_dir():
        raise InputError(
            f"{folder}: has no folder metadata; expected DESED's layout "
            "(metadata/train/synthetic.tsv and so on, audio/train/synthetic/ and so on)"
        )
    vocabulary = tuple(sorted(labels)) or None
    train: list[Scene] = []
    for labelling, name in _TRAIN.items():
        table = _table(metadata / "train", name)
        if table is not None:
            audio = folder / "audio" / "train" / name
            train += read_table(table, audio, labelling, reading, vocabulary, quiet=quiet)
    if not any(scene.labelling == "strong" for scene in train):
        raise InputError(
            f"{metadata / 'train'}: has no synthetic.tsv; times are learnt from strongly labelled "
            "recordings, so that at least one is needed"
        )
    counts = Counter(label for scene in train for label in scene.tags)
    if vocabulary is None:
        vocabulary = tuple(sorted(counts))
        if not vocabulary:
            raise InputError(f"{metadata / 'train'}: no row has a label; nothing can be learnt")
        _point_out_typing_errors(counts, metadata / "train")
    for label in vocabulary:
        if not counts[label]:
            raise InputError(
                f"{metadata / 'train'}: no recording has the label {label!r} of reading.labels; "
                "take it out, or add recordings"
            )
    validation = _held_out(folder, "validation", reading, vocabulary, quiet=quiet)
    if not validation:
        raise InputError(
            f"{metadata / 'validation'}: has no table; thresholds are chosen on strongly labelled "
            "recordings that are not trained on: put some into validation.tsv"
        )
    test = _held_out(folder, "eval", reading, vocabulary, quiet=quiet)
    sets = [
        SceneSet(folder, _once(scenes, folder), vocabulary) for scenes in (train, validation, test)
    ]
    return DesedFolder(sets[0], sets[1], sets[2] if test else None)


def check_judged(sets: DesedFolder) -> None:
    """Raise InputError where validation or test recordings have no event to judge by.

    To be called before anything is trained: nothing could be said of the model at its end.
    """
    for name, scenes in (("validation", sets.validation), ("eval", sets.test)):
        if scenes is not None and not any(scene.events for scene in scenes.scenes):
            raise InputError(
                f"{scenes.folder / 'metadata' / name}: none of its {len(scenes.scenes)} recordings "
                "has an event; thresholds and figures rest on some that have: add them"
            )


def _point_out_typing_errors(counts: Counter[str], where: Path) -> None:
    for label, count in counts.items():
        others = [other for other in counts if counts[other] > 1]
        near = difflib.get_close_matches(label, others, n=1, cutoff=0.8) if count == 1 else []
        if near:
            logger.warning(
                "%s: label %r stands in one recording alone; if %r (in %d) is meant, correct it; "
                "reading.labels=[...] has others refused",
                where,
                label,
                near[0],
                counts[near[0]],
            )


def read_held_out(
    folder: Path,
    part: Literal["validation", "test"],
    reading: Reading,
    labels: Sequence[str],
    *,
    quiet: bool = False,
) -> SceneSet:
    """One part that is not trained on, all that judging needs; raises InputError as read_desed.

    labels : vocabulary; what else sounds in the recordings is an error
    """
    name = "eval" if part == "test" else part
    scenes = _held_out(folder, name, reading, tuple(labels), quiet=quiet)
    if not scenes:
        raise InputError(
            f"{folder / 'metadata' / name}: has no table of recordings with times (*.tsv with "
            "filename, onset, offset, event_label); give another --part or folder"
        )
    return SceneSet(folder, _once(scenes, folder), tuple(labels))


def _held_out(
    folder: Path, name: str, reading: Reading, labels: Sequence[str], *, quiet: bool
) -> list[Scene]:
    scenes: list[Scene] = []
    for table in _tables(folder / "metadata" / name):
        audio = folder / "audio" / name
        own = audio / table.stem
        scenes += read_table(
            table, own if own.is_dir() else audio, "strong", reading, labels, quiet=quiet
        )
    return scenes


def _tables(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.tsv"), *folder.glob("*.csv")])


def _table(folder: Path, name: str) -> Path | None:
    found = [path for path in _tables(folder) if path.stem == name]
    if len(found) > 1:
        raise InputError(f"{found[0]}: stands beside {found[1].name}; delete one of them")
    return found[0] if found else None


def _once(scenes: Sequence[Scene], folder: Path) -> tuple[Scene, ...]:
    """Each recording once. Tables may overlap as long as they say the same.

    DCASE 2019 has validation.csv beside the two tables of the year before that it is made of.
    """
    known: dict[Path, Scene] = {}
    for scene in scenes:
        if known.setdefault(scene.path, scene) != scene:
            raise InputError(
                f"{folder}: {scene.path.name} stands in two tables that differ; take it out of one"
            )
    return tuple(known.values())


def read_table(
    table: Path,
    audio: Path,
    labelling: Labelling,
    reading: Reading = Reading(),
    labels: Sequence[str] | None = None,
    *,
    quiet: bool = False,
) -> list[Scene]:
    """Recordings of one table, in its order. Raises InputError as read_desed does."""
    by_name: dict[str, list[_Row]] = {}
    for row in _rows(table, labelling):
        by_name.setdefault(row.name, []).append(row)
    if not by_name:
        raise InputError(f"{table}: lists no recordings; add rows, or delete the table")
    scenes = []
    absent = []
    bar = tqdm(by_name.items(), table.name, unit="file", disable=quiet, leave=False)
    for name, rows in bar:
        if labelling != "strong" and len(rows) > 1:
            raise InputError(
                f"{rows[1].where}: {name} is listed before, in {_line(rows[0])}; delete one row"
            )
        path = audio / name
        if not path.is_file():
            if reading.missing == "refuse":
                raise InputError(
                    f"{rows[0].where}: {path} does not exist; correct the name, delete the row, or "
                    'set reading.missing="skip" (evaluate: --missing skip)'
                )
            absent.append(name)
            continue
        seconds = _seconds(path, rows[0].where, reading)
        if labelling == "strong":
            events = _events(rows, seconds, reading, labels)
            tags = frozenset(event.label for event in events)
        else:
            events = ()
            tags = _tags(rows[0], labels) if labelling == "weak" else frozenset()
        heard = min(seconds, reading.seconds) if reading.lengths == "fit" else seconds
        scenes.append(Scene(path, labelling, heard, events, tags))
    if absent:
        logger.warning(
            "%s: %d of %d files are missing, the first is %s",
            table,
            len(absent),
            len(by_name),
            absent[0],
        )
    if not scenes:
        raise InputError(f"{table}: none of its {len(by_name)} files is in {audio}")
    return scenes


def _line(row: _Row) -> str:
    return row.where.rpartition(": ")[2]


def _rows(table: Path, labelling: Labelling) -> Iterator[_Row]:
    columns = _COLUMNS[labelling]
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{table}: line 1: column {missing[0]} is missing; expected "
                    f"{' '.join(columns)}, parted by tabs"
                )
            for row in reader:
                where = f"{table}: line {reader.line_num}"
                if None in row:
                    raise InputError(f"{where}: has more cells than line 1; expected {columns}")
                cells = {name: (row[name] or "").strip() for name in columns}
                # A table that went through pandas may have "nan" where nothing was.
                cells = {k: "" if v.lower() == "nan" else v for k, v in cells.items()}
                if not cells["filename"]:
                    raise InputError(f"{where}: filename is empty; name a file or delete the row")
                yield _Row(where, cells["filename"], cells)
    except FileNotFoundError as error:
        raise InputError(f"{table}: no such table") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table}: is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error


def _seconds(path: Path, where: str, reading: Reading) -> float:
    """Length of a recording, at most reading.seconds where it is made to fit."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{where}: {path} cannot be read as sound ({error})") from error
    if info.samplerate < reading.rate_hz:
        raise InputError(
            f"{where}: {path} has {info.samplerate} Hz; expected at least {reading.rate_hz} Hz: "
            "record it again, or take the row out"
        )
    seconds = float(info.frames) / float(info.samplerate)
    if info.frames == 0:
        raise InputError(f"{where}: {path} holds no sound; take the row out")
    if reading.lengths == "refuse" and abs(seconds - reading.seconds) > reading.tolerance_s:
        raise InputError(
            f"{where}: {path} is {seconds:.2f} s long; expected {reading.seconds:g} s: cut it, or "
            'set reading.lengths="fit" (evaluate: --lengths fit)'
        )
    return seconds


def _events(
    rows: Sequence[_Row], seconds: float, reading: Reading, labels: Sequence[str] | None
) -> tuple[Event, ...]:
    if len(rows) == 1 and not any(rows[0].cells[name] for name in _COLUMNS["strong"][1:]):
        return ()
    found = []
    for row in rows:
        label = row.cells["event_label"]
        _check_label(label, labels, row)
        onset, offset = (_time(row, name) for name in ("onset", "offset"))
        if not 0 <= onset < offset:
            raise InputError(
                f"{row.where}: {label} from {onset:g} to {offset:g} s: expected an onset of 0 or "
                "more, and an offset after it"
            )
        if offset > seconds + _TIME_TOLERANCE_S:
            raise InputError(
                f"{row.where}: {label} ends at {offset:g} s; {row.name} is {seconds:.3f} s long"
            )
        found.append((onset, min(offset, seconds), label, row))
    found.sort(key=lambda event: (event[2], event[0], event[1]))
    events: list[Event] = []
    rows_of: list[_Row] = []
    for onset, offset, label, row in found:
        last = events[-1] if events else None
        if last is None or last.label != label or onset >= last.offset_s:
            events.append(Event(label, onset, offset))
            rows_of.append(row)
        elif reading.overlaps == "refuse":
            raise InputError(
                f"{row.where}: {label} from {onset:g} to {offset:g} s overlaps the one from "
                f"{last.onset_s:g} to {last.offset_s:g} s in {_line(rows_of[-1])}; correct the "
                'times, or set reading.overlaps="merge" (evaluate: --overlaps merge)'
            )
        else:
            logger.warning("%s: %s overlaps %s: merged", row.where, label, _line(rows_of[-1]))
            events[-1] = Event(label, last.onset_s, max(offset, last.offset_s))
    # Of a recording that is longer than the others only its first seconds are heard.
    end = min(seconds, reading.seconds) if reading.lengths == "fit" else seconds
    kept = [Event(e.label, e.onset_s, min(e.offset_s, end)) for e in events if e.onset_s < end]
    return tuple(sorted(kept, key=lambda event: (event.onset_s, event.label)))


def _time(row: _Row, column: str) -> float:
    text = row.cells[column]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{row.where}: {column} is {text!r}; expected seconds, such as 1.25")
    return value


def _tags(row: _Row, labels: Sequence[str] | None) -> frozenset[str]:
    text = row.cells["event_labels"]
    # An empty cell says that none of the labels occurs, not that nobody listened.
    tags = [tag.strip() for tag in text.split(",")] if text else []
    for tag in tags:
        _check_label(tag, labels, row)
    return frozenset(tags)


def _check_label(label: str, labels: Sequence[str] | None, row: _Row) -> None:
    if not label:
        raise InputError(f"{row.where}: {row.name} has an empty label; write one")
    if labels is not None and label not in labels:
        near = difflib.get_close_matches(label, labels, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(labels)}"
        raise InputError(f"{row.where}: label {label!r} is outside the vocabulary; {hint}")
