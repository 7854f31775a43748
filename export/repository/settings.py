"""Settings of a repository: how long its signatures last, its channels, the devices it knows.

`repository.json` lies beside the keys, not in what is published. Keys and thresholds are not
settings: they stand in the signed root metadata.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.device.updates.offers import NAME

SCHEMA = "soundpost.repository/1"
SETTINGS_FILE = "repository.json"
# RSA's and everybody's keys have been replaced after less: a root of ten years is a slip of a key.
_MAX_DAYS = 3_650


@dataclass(frozen=True)
class Days:
    """Days that a signature of each role lasts."""

    root: int = 365
    targets: int = 90
    snapshot: int = 7
    timestamp: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or not 1 <= value <= _MAX_DAYS:
                raise ConfigError(f"days.{name} is {value!r}: expected 1 to {_MAX_DAYS}")


@dataclass(frozen=True)
class RepositorySettings:
    """Everything that repository.json says.

    public : folder that is published, from the repository's folder on or absolute
    channels : names that a model can stand under
    devices : that a model may be pinned for
    """

    public: str = "public"
    days: Days = field(default_factory=Days)
    channels: tuple[str, ...] = ("stable", "canary")
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (("channel", self.channels), ("device", self.devices)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ConfigError(
                        f"{kind} {name[:80]!r}: expected up to 64 of a-z, A-Z, 0-9, '.', '_', '-'"
                    )

    def to_json(self) -> bytes:
        """Content of repository.json."""
        return f"{json.dumps({'schema': SCHEMA, **asdict(self)}, indent=1)}\n".encode()

    def check_channels(self, names: Iterable[str]) -> None:
        """Raise UsageError naming the nearest channel where one is not known."""
        for name in names:
            if name not in self.channels:
                known = f"known: {', '.join(self.channels)}"
                hint = _near(name, known, self.channels)
                raise UsageError(f"channel {name!r} is not in {SETTINGS_FILE}; {hint}")

    def check_devices(self, names: Iterable[str]) -> None:
        """Raise UsageError naming the nearest device where one is not known."""
        for name in names:
            if name not in self.devices:
                hint = _near(name, "give --new-device if it is new", self.devices)
                raise UsageError(f"device {name!r} is not in {SETTINGS_FILE}; {hint}")


def _near(name: str, otherwise: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? ({otherwise})" if near else otherwise


def read_settings(folder: Path) -> RepositorySettings:
    """Settings of the repository in this folder; raises InputError or ConfigError."""
    path = folder / SETTINGS_FILE
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: is no repository (it has no {SETTINGS_FILE}); make one with `soundpost "
            f"repo init {folder}`"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({str(error)[:80]})") from error
    if not isinstance(table, dict) or table.pop("schema", None) != SCHEMA:
        raise ConfigError(f"{path}: expected an object of schema '{SCHEMA}'; update soundpost")
    days = table.pop("days", {})
    try:
        names: dict[str, Any] = {
            key: tuple(table.pop(key)) for key in ("channels", "devices") if _names(table, key)
        }
        _refuse_unknown(table, {"public"}, "")
        _refuse_unknown(days, {item.name for item in fields(Days)}, "days.")
        if not isinstance(table.get("public", ""), str):
            raise ConfigError(f"public is {table['public']!r}: expected the path of a folder")
        return RepositorySettings(**table, days=Days(**days), **names)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _names(table: dict[str, Any], key: str) -> bool:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{key} is {str(values)[:60]}: expected a list of names")
    return key in table


def _refuse_unknown(table: Any, known: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected an object")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"unknown key {where}{key[:60]!r}; "
                + (f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}")
            )


def write_settings(folder: Path, settings: RepositorySettings) -> None:
    """Replace repository.json; raises InputError where it cannot be written."""
    write_atomically(folder / SETTINGS_FILE, settings.to_json())
