"""What a recording is given: array.json and calibration.json, which must belong together."""

from __future__ import annotations

from pathlib import Path

from soundpost.device.array.calibration_file import read_calibration
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError, UsageError


def read_calibration_bytes(path: Path, array: ArrayDescription | None) -> bytes:
    """A calibration.json as it is, once it is known to belong to the array.

    Raises UsageError without an array, InputError for a file that is none, or of another array.
    """
    if array is None:
        raise UsageError(f"--calibration {path}: belongs to an array; give its --array array.json")
    read_calibration(path, array.geometry)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error
