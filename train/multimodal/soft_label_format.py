"""Soft labels of a teacher, stored by clip id: what lies in the folder of a store.

    soft_labels.json   schema, teacher's name and SHA-256, labels; written once
    scores.f32         rows of little-endian float32 probabilities, one per label; memory-mapped
    clips.jsonl        a line for each clip: id, number of rows, start_s, window_s, hop_s

Rows and lines are appended, rows first and on disk before their lines: what a line promises is
there. A writer that was killed leaves at most rows without a line and half a line, which the next
one cuts off; it then goes on with the clips that are not there yet. One writes at a time; anybody
reads meanwhile, and sees the clips whose lines were whole when the store was opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.device.errors import InputError

SCHEMA = "soundpost.soft_labels/1"
HEADER, SCORES, CLIPS = "soft_labels.json", "scores.f32", "clips.jsonl"
ROW = np.dtype("<f4")


@dataclass(frozen=True)
class Teacher:
    """Who says so: name, and SHA-256 of the weights (64 hexadecimal digits)."""

    name: str
    sha256: str

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise InputError(
                f"teacher {self.name}: sha256 is {self.sha256[:70]!r}: expected 64 hexadecimal "
                "digits in lower case"
            )


@dataclass(frozen=True)
class Entry:
    """Where a clip's rows stand, and when they were heard."""

    first: int
    n_rows: int
    start_s: float
    window_s: float
    hop_s: float


def read_header(folder: Path) -> dict[str, Any]:
    """Teacher and labels; raises InputError where the folder is no store."""
    path = folder / HEADER
    try:
        header: dict[str, Any] = json.loads(path.read_bytes())
        if header.get("schema") != SCHEMA:
            raise InputError(
                f"{path}: schema is {header.get('schema')!r}: expected {SCHEMA!r}; label the clips "
                "again"
            )
        if not header["labels"] or not {"name", "sha256"} <= header["teacher"].keys():
            raise KeyError("labels or teacher")
        header["teacher"] = {name: str(header["teacher"][name]) for name in ("name", "sha256")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no store of soft labels ({error}); give the folder that a teacher wrote"
        ) from error
    return header


def require_same_header(folder: Path, wanted: dict[str, Any]) -> None:
    """Raise InputError where the store is another teacher's, or has other labels."""
    found = read_header(folder)
    for key in ("teacher", "labels"):
        if found[key] != wanted[key]:
            raise InputError(
                f"{folder}: holds soft labels with {key} {str(found[key])[:120]}, not "
                f"{str(wanted[key])[:120]}; give another folder, or delete it to start again"
            )


def read_lines(path: Path) -> tuple[dict[str, Entry], int]:
    """Clips of the whole lines, and how many bytes those take; InputError where one is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    whole = content.rfind(b"\n") + 1
    entries: dict[str, Entry] = {}
    first = 0
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
            times = (float(row[name]) for name in ("start_s", "window_s", "hop_s"))
            entry = Entry(first, int(row["rows"]), *times)
            clip_id = str(row["clip"])
            if entry.n_rows < 1 or clip_id in entries:
                raise ValueError("no rows, or a clip for the second time")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is damaged ({error}); delete the folder and label the "
                "clips again"
            ) from error
        entries[clip_id] = entry
        first += entry.n_rows
    return entries, whole


def require_rows(folder: Path, n_rows: int, n_labels: int) -> None:
    """Raise InputError where the scores are fewer than the lines promise."""
    path = folder / SCORES
    expected = n_rows * n_labels * ROW.itemsize
    found = path.stat().st_size if path.is_file() else 0
    if found < expected:
        raise InputError(
            f"{path}: has {found} bytes, {CLIPS} promises {expected}; delete the folder and label "
            "the clips again"
        )
