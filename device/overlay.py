"""Thresholds that commands have set: kept on disk, over what settings and bundle say."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.records import parse_object

logger = logging.getLogger(__name__)

OVERLAY_SCHEMA: Final = "soundpost.overlay/1"
# Of a source's name: what is set for all.
ALL: Final = ""
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Overlay:
    """thresholds : {"onset": ..., "release": ...} by source (ALL for every one) and label."""

    thresholds: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def with_threshold(
        self, source: str, label: str, onset: float, release: float | None
    ) -> Overlay:
        """This one with a label's thresholds in place of what was set before."""
        values = {"onset": onset} | ({} if release is None else {"release": release})
        of_source = {**self.thresholds.get(source, {}), label: values}
        return Overlay({**self.thresholds, source: of_source})

    def without(self, source: str | None, label: str | None) -> Overlay:
        """This one without what was set for a source, a label, or both; None: for any."""
        kept = {
            name: {
                known: values
                for known, values in labels.items()
                if (source is not None and name != source) or (label is not None and known != label)
            }
            for name, labels in self.thresholds.items()
        }
        return Overlay({name: labels for name, labels in kept.items() if labels})

    def classes(self, source: str, defaults: Sequence[ClassSettings]) -> tuple[ClassSettings, ...]:
        """Detector settings of a source with these thresholds; labels that are gone are skipped.

        Where the onset alone was set, the release keeps its share of it.
        """
        found = []
        for settings in defaults:
            for name in (ALL, source):
                values = self.thresholds.get(name, {}).get(settings.label)
                if values:
                    onset = values["onset"]
                    share = settings.release / settings.onset
                    release = values.get("release", onset * share)
                    settings = replace(settings, onset=onset, release=release)
            found.append(settings)
        return tuple(found)


def load_overlay(path: Path) -> Overlay:
    """What was saved; nothing, and a line in the log, where it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        return _parse(raw, str(path))
    except (FileNotFoundError, NotADirectoryError):
        return Overlay()
    except (OSError, InputError) as error:
        logger.warning("thresholds set by commands are not used: %s", error)
        return Overlay()


def save_overlay(path: Path, overlay: Overlay) -> None:
    """Write the file anew; raises InputError where that fails, with the old one in place.

    One that would be too large to be read again is not written either.
    """
    content = {"schema": OVERLAY_SCHEMA, "thresholds": overlay.thresholds}
    raw = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    if len(raw) > _MAX_BYTES:
        raise InputError(
            f"{path}: thresholds set by commands would take {len(raw)} bytes, at most "
            f"{_MAX_BYTES}: reset some of them"
        )
    write_atomically(path, raw)


def _parse(raw: bytes, where: str) -> Overlay:
    content = parse_object(raw, where, _MAX_BYTES)
    if content.get("schema") != OVERLAY_SCHEMA:
        raise InputError(f"{where}: expected schema {OVERLAY_SCHEMA}")
    table: Any = content.get("thresholds")
    if not _is_thresholds(table):
        raise InputError(f"{where}: thresholds: expected onset and release by source and label")
    return Overlay(table)


def _is_thresholds(table: Any) -> bool:
    return isinstance(table, dict) and all(
        isinstance(labels, dict)
        and all(
            isinstance(values, dict)
            and values.keys() <= {"onset", "release"}
            and all(type(value) in (int, float) and 0 < value <= 1 for value in values.values())
            and values.get("release", 0) <= values.get("onset", 0)
            and "onset" in values
            for values in labels.values()
        )
        for labels in table.values()
    )
