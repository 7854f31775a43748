"""What a bundle is called, where it goes and when its model was made."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

from soundpost.device.errors import UsageError
from soundpost.device.manifest import VERSION


def check_out(out: Path) -> None:
    """Raise UsageError where no bundle can be written; before the long work."""
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out {out}: expected a file name in a folder that exists")


def bundle_name(wanted: str, recipe: str, version: str) -> str:
    """The name that was asked for, else the recipe's, as a manifest takes it.

    Small letters, digits, dots and dashes. Raises UsageError where nothing is left of it, or where
    the version is not a semantic one.
    """
    if not VERSION.fullmatch(version):
        raise UsageError(f"--version {version}: expected a version such as 1.0.0")
    name = re.sub(r"[^a-z0-9._-]+", "-", (wanted or recipe).lower()).strip("-._")[:64]
    if not name:
        raise UsageError(f"--name {wanted!r}: expected letters or digits")
    return name


def created_at(weights: Path) -> str:
    """When a model was made: SOURCE_DATE_EPOCH if set, else when its weights were written.

    Not the time of the export, so that the same run gives the same bundle, byte for byte.
    """
    stated = os.environ.get("SOURCE_DATE_EPOCH", "")
    if stated and not stated.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is '{stated}': expected seconds since 1970")
    seconds = int(stated) if stated else int(weights.stat().st_mtime)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
