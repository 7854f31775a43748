"""A folder of collected examples: `clips.csv` as training reads it, with a row for each clip.

    clips.csv           filename, label, fold, group; and why each was chosen
    features.csv        the same of what was collected as features
    porch-pi/….flac     one folder for each sensor
    porch-pi/….json     what the sensor told of it
    index.html          to listen and label (review_page.py)

`label` is empty until a person fills it, and `suggested` is what the model thought; training leaves
out rows without a label where the table has the column `suggested`, and rows whose `review` is
`rejected`. What stands in a row is never changed here: only rows are added, those of files that
have none.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from soundpost.device.clip_store import slug
from soundpost.device.errors import InputError
from soundpost.device.feedback.example import (
    MAX_EXAMPLE_RECORD_BYTES,
    SUFFIXES,
    Example,
)
from soundpost.device.feedback.feedback_settings import What
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import format_time

COLUMNS: Final = (
    *("filename", "label", "fold", "group", "suggested", "review"),
    *("reason", "score", "threshold", "new_score", "device", "source", "time", "model", "id"),
)
TABLES: Final[dict[What, str]] = {"clips": "clips.csv", "features": "features.csv"}
LABELS: Final = "labels.txt"
REJECTED: Final = "rejected"
N_FOLDS: Final = 5
_MAX_TABLE_BYTES: Final = 50_000_000

Row = dict[str, str]


class CollectedSet:
    """One folder; it is made where it is missing. Used by one thread.

    Raises InputError where it cannot be made or read, or a table of it is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made ({error.strerror}); choose another with --out"
            ) from error
        # A table that cannot be gone on with is told before anything is asked of a sensor.
        self._known = {
            row["id"] for what in TABLES for row in self._read(what)[1] if row.get("id")
        } | {example.id for example, _ in self._records()}

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._known

    def rows(self, what: What = "clips") -> list[Row]:
        """Rows of a table, in its order; none where there is no table."""
        return self._read(what)[1]

    def part(self, example: Example) -> Path:
        """Where the bytes of an example that is not whole yet wait for the rest."""
        return self.folder / f".{example.id}.{example.sha256[:12]}.collected"

    def add(self, example: Example, content: bytes) -> None:
        """Write the files of an example; its row follows with `save`.

        Raises InputError where the content is not what the record says.
        """
        check_content(example, content, f"example {example.id} of {example.device}")
        path = self.folder / _name_of(example)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{path.parent}: cannot be made ({error.strerror})") from error
        # The record last: a file without one is written again.
        write_atomically(path, content)
        record = f"{example.to_json()}\n".encode()
        write_atomically(path.with_suffix(".json"), record)
        self.part(example).unlink(missing_ok=True)
        self._known.add(example.id)

    def save(self, labels: Iterable[str] = ()) -> int:
        """Add a row for each file that has none; how many.

        labels : that a person may choose from, kept for the page
        """
        n_added = 0
        for what in TABLES:
            columns, rows = self._read(what)
            there = {row["id"] for row in rows if row.get("id")}
            there_names = {row["filename"] for row in rows}
            new = [
                _row(example, path.relative_to(self.folder).as_posix())
                for example, path in self._records()
                if example.what == what and example.id not in there
            ]
            new = [row for row in new if row["filename"] not in there_names]
            if new:
                self._write(what, columns, [*rows, *new])
            n_added += len(new)
        self._keep_labels(labels)
        return n_added

    @property
    def labels(self) -> list[str]:
        """Labels that a person may choose from: of the models, and those that were given."""
        path = self.folder / LABELS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = self.rows()
        given = [row.get(key) or "" for row in rows for key in ("label", "suggested")]
        return sorted({label.strip() for label in [*text.splitlines(), *given] if label.strip()})

    def _keep_labels(self, labels: Iterable[str]) -> None:
        before = self.labels
        wanted = sorted({*before, *labels})
        if wanted != before:
            write_atomically(self.folder / LABELS, ("\n".join(wanted) + "\n").encode())

    def _records(self) -> Iterable[tuple[Example, Path]]:
        """Examples whose files are here, oldest first, with their path."""
        found = []
        for path in self.folder.glob("*/*.json"):
            try:
                with path.open("rb") as file:
                    example = Example.from_json(file.read(MAX_EXAMPLE_RECORD_BYTES + 1), str(path))
            except (OSError, InputError):
                # Not ours: the folder may hold what a person keeps there.
                continue
            content = path.with_suffix(SUFFIXES[example.what])
            if content.is_file():
                found.append((example, content))
        return sorted(found, key=lambda known: known[0].id)

    def _read(self, what: What) -> tuple[Sequence[str], list[Row]]:
        path = self.folder / TABLES[what]
        if not path.exists():
            return COLUMNS, []
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if len(raw) > _MAX_TABLE_BYTES:
            raise InputError(f"{path}: {len(raw)} bytes, at most {_MAX_TABLE_BYTES} are read")
        try:
            reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
            columns = list(reader.fieldnames or [])
            missing = [name for name in COLUMNS[:3] if name not in columns]
            if missing:
                raise InputError(
                    f"{path}: line 1: column {missing[0]} is missing; expected at least "
                    f"{','.join(COLUMNS[:3])}; choose another folder with --out"
                )
            rows: list[Row] = []
            for row in reader:
                if None in row:
                    raise InputError(
                        f"{path}: line {reader.line_num}: has more values than columns; put "
                        "values with a comma in quotes"
                    )
                rows.append({key: value or "" for key, value in row.items()})
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: is no table in UTF-8 ({error})") from error
        return columns, rows

    def _write(self, what: What, columns: Sequence[str], rows: Sequence[Row]) -> None:
        text = io.StringIO(newline="")
        wanted = [*columns, *(name for name in COLUMNS if name not in columns)]
        writer = csv.DictWriter(text, wanted, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / TABLES[what], text.getvalue().encode())


def check_content(example: Example, content: bytes, where: str) -> None:
    """Raise InputError unless the content is that of the record."""
    found = hashlib.sha256(content).hexdigest()
    if len(content) != example.n_bytes or found != example.sha256:
        raise InputError(
            f"{where}: its {len(content)} bytes are not those of its record (sha256 "
            f"{found[:12]}…, expected {example.sha256[:12]}…): it is left out"
        )


def _name_of(example: Example) -> Path:
    moment = example.time.strftime("%Y%m%dT%H%M%SZ")
    suffix = SUFFIXES[example.what]
    # The whole id: two sensors may hear the same at once.
    return Path(slug(example.device), f"{moment}__{slug(example.label)}__{example.id}{suffix}")


def group_of(example: Example) -> str:
    """What was heard by one microphone within one hour: clips of it never stand on both sides."""
    return f"{example.device}/{example.source}/{format_time(example.time)[:13]}"


def fold_of(group: str) -> int:
    """1 to N_FOLDS, always the same for a group, and about even."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % N_FOLDS + 1


def _row(example: Example, filename: str) -> Row:
    group = group_of(example)
    model = example.model
    values: Mapping[str, object] = {
        "filename": filename,
        "label": "",
        "fold": fold_of(group),
        "group": group,
        "suggested": example.label,
        "review": "",
        "reason": example.reason,
        "score": f"{example.score:.4g}",
        "threshold": f"{example.threshold:.4g}",
        "new_score": "" if example.new_score is None else f"{example.new_score:.4g}",
        "device": example.device,
        "source": example.source,
        "time": format_time(example.time),
        "model": f"{model.name} {model.version} {model.sha256[:12]}",
        "id": example.id,
    }
    return {key: str(value) for key, value in values.items()}
