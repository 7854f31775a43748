"""Microphone profile: how loud and how flat a microphone hears, in a file beside the settings.

    schema = "soundpost.microphone/1"
    name = "porch, SPH0645"
    sensitivity_dbfs = -26.0      # reads this at 94 dB SPL and 1 kHz; a full-scale sine reads 0
    response = [[20, -3.5], [100, -0.4], [1000, 0.0], [8000, 1.2], [16000, 4.0]]

`response` is what the microphone adds, in dB over Hz; it is set to 0 at 1 kHz, where sensitivity is
given, and taken away from every level. Between the frequencies it is a straight line over log
frequency, outside them it stays as at the nearest. `response_file` names a table instead: lines of
frequency and dB, parted by a comma, a semicolon, a tab or spaces; such a file (.csv, .txt, .cal)
can stand for a profile without a sensitivity.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import ConfigError, InputError
from soundpost.device.files import expand_home

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MICROPHONE_SCHEMA: Final = "soundpost.microphone/1"
# The sound pressure of calibrators and data sheets: 1 Pa, 94 dB re 20 uPa.
CALIBRATION_DB_SPL: Final = 94.0
_REFERENCE_HZ = 1000.0
_MAX_BYTES = 1_000_000
_MAX_POINTS = 10_000
# What a data sheet may say; beyond it a sign or a unit is wrong.
_SENSITIVITY_DBFS = (-120.0, 20.0)
_RESPONSE_DB = (-60.0, 60.0)
_FREQUENCY_HZ = (0.1, 1_000_000.0)
_KEYS = ("schema", "name", "sensitivity_dbfs", "response", "response_file")
_TABLES = frozenset({".csv", ".txt", ".cal"})
_HEADER = re.compile(r"[\"A-Za-z*#;]")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MicrophoneProfile:
    """What levels need to know of a microphone.

    name : for people
    sensitivity_dbfs : what it reads at 94 dB SPL and 1 kHz (a full-scale sine reads 0 dBFS);
        None: levels stay relative to full scale
    response : (frequency_hz, response_db) pairs, ascending; empty: flat

    Raises InputError where a value cannot be.
    """

    name: str = ""
    sensitivity_dbfs: float | None = None
    response: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        low, high = _SENSITIVITY_DBFS
        value = self.sensitivity_dbfs
        if value is not None and not low <= value <= high:
            raise InputError(
                f"sensitivity_dbfs: found {value:g}, expected {low:g} to {high:g} dBFS at 94 dB SPL"
            )
        if len(self.response) == 1 or len(self.response) > _MAX_POINTS:
            raise InputError(
                f"response: found {len(self.response)} points, expected 2 to {_MAX_POINTS}"
            )
        before_hz = 0.0
        for number, (frequency_hz, gain_db) in enumerate(self.response, 1):
            where = f"response, point {number}"
            if not _FREQUENCY_HZ[0] <= frequency_hz <= _FREQUENCY_HZ[1]:
                raise InputError(f"{where}: found {frequency_hz:g} Hz, expected 0.1 Hz to 1 MHz")
            if frequency_hz <= before_hz:
                raise InputError(
                    f"{where}: found {frequency_hz:g} Hz after {before_hz:g} Hz, expected rising "
                    "frequencies"
                )
            if not _RESPONSE_DB[0] <= gain_db <= _RESPONSE_DB[1]:
                raise InputError(f"{where}: found {gain_db:g} dB, expected -60 to 60 dB")
            before_hz = frequency_hz
        if self.response and not self.response[0][0] <= _REFERENCE_HZ <= self.response[-1][0]:
            raise InputError(
                f"response: found {self.response[0][0]:g} to {self.response[-1][0]:g} Hz, expected "
                "a range with 1000 Hz in it, where the sensitivity is given"
            )

    @property
    def calibrated(self) -> bool:
        """Whether levels can be told in dB SPL (re 20 µPa)."""
        return self.sensitivity_dbfs is not None

    @property
    def offset_db(self) -> float:
        """What turns dBFS into the level that is told: dB SPL when calibrated, else 0."""
        return 0.0 if self.sensitivity_dbfs is None else CALIBRATION_DB_SPL - self.sensitivity_dbfs

    def response_db(self, frequency_hz: Array) -> Array:
        """Response in dB re that at 1 kHz, at any frequencies in Hz, of the same shape."""
        if not self.response:
            return np.zeros(np.shape(frequency_hz))
        table_hz, table_db = np.array(self.response).T
        # 0 Hz has no logarithm and lies below every table.
        asked = np.log(np.maximum(frequency_hz, 1e-3))
        found: Array = np.interp(asked, np.log(table_hz), table_db)
        return found - np.interp(math.log(_REFERENCE_HZ), np.log(table_hz), table_db)

    def correction_db(self, frequency_hz: Array) -> Array:
        """Gain in dB that makes the microphone flat, at frequencies in Hz."""
        return -self.response_db(frequency_hz)


def load_profile(path: Path) -> MicrophoneProfile:
    """Read a profile.

    path : TOML as in the module's text, or a table of the response (.csv, .txt, .cal)

    Raises
    ------
    ConfigError
        An unknown key, a value of the wrong kind or out of range; one line that says where.
    InputError
        The file cannot be read.
    """
    if path.suffix.lower() in _TABLES:
        return _checked(path, name=path.stem, response=_read_table(path))
    try:
        raw = tomllib.loads(_read(path))
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5,000 digits, brackets 5,000 deep.
        raise ConfigError(f"{path}: not TOML: {_printable(str(error))}") from error
    for key in raw:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_KEYS)}"
            raise ConfigError(f"{path}: {_cut(_printable(key))}: unknown key{hint}")
    if raw.get("schema") != MICROPHONE_SCHEMA:
        raise ConfigError(
            f"{path}: schema: found {_short(raw.get('schema'))}, expected {MICROPHONE_SCHEMA!r}"
        )
    name = _text(path, raw, "name")
    sensitivity = raw.get("sensitivity_dbfs")
    if "sensitivity_dbfs" in raw and not _is_number(sensitivity):
        found = _short(sensitivity)
        raise ConfigError(f"{path}: sensitivity_dbfs: found {found}, expected a number in dBFS")
    file = _text(path, raw, "response_file")
    if file is not None and "response" in raw:
        raise ConfigError(f"{path}: response_file: is set beside response; keep one of them")
    table = _read_table(path.parent / expand_home(file)) if file else _points(path, raw)
    return _checked(
        path,
        name=name if name is not None else path.stem,
        sensitivity_dbfs=None if sensitivity is None else float(sensitivity),
        response=table,
    )


def _checked(path: Path, **values: Any) -> MicrophoneProfile:
    try:
        return MicrophoneProfile(**values)
    except InputError as error:
        raise ConfigError(f"{path}: {error}") from error


def _text(path: Path, raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if key in raw and (not isinstance(value, str) or not value or "\0" in value):
        raise ConfigError(f"{path}: {key}: found {_short(value)}, expected a text in quotes")
    return value


def _points(path: Path, raw: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    points = raw.get("response", [])
    expected = "expected pairs, [[frequency in Hz, dB], ...]"
    if not isinstance(points, list):
        raise ConfigError(f"{path}: response: found {_short(points)}, {expected}")
    for number, point in enumerate(points, 1):
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
            raise ConfigError(
                f"{path}: response, point {number}: found {_short(point)}, {expected}"
            )
    return tuple((float(frequency_hz), float(gain_db)) for frequency_hz, gain_db in points)


def _is_number(value: object) -> bool:
    # TOML's whole numbers know no bound, and float() does.
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
    )


def _read_table(path: Path) -> tuple[tuple[float, float], ...]:
    points = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        text = line.strip()
        # Makers put their own first lines and column names: those begin with no digit.
        if not text or _HEADER.match(text):
            continue
        parts = [part for part in re.split(r"[,;\s]+", text) if part]
        pair = _pair(parts)
        if pair is None:
            raise ConfigError(
                f"{path}:{number}: found {_short(text)}, expected a frequency in Hz and dB, such "
                "as 1000, 0.0"
            )
        points.append(pair)
    if not points:
        raise ConfigError(f"{path}: no lines of frequency in Hz and dB")
    return tuple(points)


def _pair(parts: Sequence[str]) -> tuple[float, float] | None:
    # A third column is phase, which levels do not need.
    if not 2 <= len(parts) <= 3:
        return None
    try:
        return float(parts[0]), float(parts[1])
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot read the microphone profile: {reason}") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes: not a microphone profile")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: not a microphone profile") from error


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(value: object) -> str:
    try:
        return _cut(_printable(repr(value)))
    except ValueError:
        # TOML's hexadecimal numbers have no limit, Python's decimal ones do.
        return "a number of thousands of digits"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
