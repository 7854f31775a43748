"""Lists of numbers as the sections of calibration.json hold them: read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError
from soundpost.device.records import Fields


def take_list(fields: Fields, name: str, kind: type, expected: str) -> Sequence[Any]:
    """A list of one kind; raises InputError."""
    found = fields.take(name)
    if not isinstance(found, list) or any(type(value) is not kind for value in found):
        raise fields.fail(name, expected, found)
    return found


def take_numbers(fields: Fields, name: str) -> tuple[float, ...]:
    """A list of numbers; raises InputError."""
    found = fields.take(name)
    return _numbers(fields, name, found, "a list of numbers")


def take_rows(fields: Fields, name: str, width: int) -> Floats:
    """A list of lists of so many numbers, (n, width); raises InputError."""
    found, expected = fields.take(name), f"a list of lists of {width} numbers"
    if not isinstance(found, list):
        raise fields.fail(name, expected, found)
    rows = [_numbers(fields, name, row, expected) for row in found]
    if any(len(row) != width for row in rows):
        raise fields.fail(name, expected, found)
    return np.array(rows, np.float64).reshape(-1, width)


def _numbers(fields: Fields, name: str, found: object, expected: str) -> tuple[float, ...]:
    if not isinstance(found, list) or any(type(value) not in (int, float) for value in found):
        raise fields.fail(name, expected, found)
    try:
        return tuple(float(value) for value in found)
    except OverflowError as error:
        raise fields.fail(name, expected, found) from error


def check_within(value: float, low: float, high: float, name: str) -> None:
    """Raise InputError for a value outside these bounds, or that is no number."""
    if not low <= value <= high:
        raise wrong_value(name, f"{low:g} to {high:g}", value)


def wrong_value(name: str, expected: str, found: object) -> InputError:
    """The error to raise for a value, with what was expected."""
    shown = repr(found)
    return InputError(f"calibration: {name} is {shown[:60]}; expected {expected}")
