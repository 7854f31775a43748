"""Which subjects of a generated world are held out: its world.json says so."""

from __future__ import annotations

import json
from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.train.datasets.world_tables import SCHEMA, SETTINGS_FILE


def held_out_subjects(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Subjects for validation and for test; None where the folder is no world.

    Raises InputError where its world.json cannot be used.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if note["schema"] != SCHEMA:
            raise ValueError(f"schema {note['schema']!r}")
        settings = note["settings"]
        held = [tuple(map(int, settings[f"{side}_subjects"])) for side in ("validation", "test")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be used ({error}); expected {SCHEMA}, as soundpost dataset world "
            "writes it"
        ) from error
    return held[0], held[1]
