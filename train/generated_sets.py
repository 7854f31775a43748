"""Folders of data sets that we make: begun with a note of all settings, and gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.clips import ClipSet


def begin_set(out: Path, file_name: str, note: Mapping[str, Any]) -> None:
    """Write the note of a new set; of one that was begun, check that it is the same.

    note : all that decides the set, as JSON takes it, and a schema

    Raises InputError for a folder with another note, with files and no note, and for one that
    cannot be written.
    """
    path = out / file_name
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        strange = found is None and any(out.iterdir())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose an empty folder") from error
    if strange:
        raise InputError(f"{out}: has files but no {file_name}; choose an empty folder")
    # Through JSON, which knows no tuples.
    wanted = json.loads(json.dumps(note))
    if found is None:
        write_atomically(path, (json.dumps(note, indent=2, ensure_ascii=False) + "\n").encode())
    elif found != wanted:
        raise InputError(
            f"{out}: was made with another {_difference(found, wanted)}; choose another folder, or "
            "delete this one"
        )


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """Dotted name of the first value that differs, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(set(found) | set(wanted)):
            if found.get(key) != wanted.get(key):
                return _difference(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
    return f"{name} ({json.dumps(found)}, now {json.dumps(wanted)})"


def fingerprint(clip_set: ClipSet, labels: Collection[str]) -> str:
    """SHA-256 of the rows of some labels and of the length of their files."""
    digest = hashlib.sha256()
    for clip in clip_set.clips:
        if clip.label in labels:
            row = (
                clip.path.relative_to(clip_set.folder).as_posix(),
                clip.label,
                clip.fold,
                clip.group,
                clip.path.stat().st_size,
            )
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()
