"""Settings of a sensor: a TOML file, or none at all, to frozen values.

Every key has its unit in its name, an unknown key is refused with the nearest known one, and a
value outside its range with the range. Paths are relative to the settings file. The MQTT password
comes from the environment variable SOUNDPOST_MQTT_PASSWORD or from a file; it never stands in the
settings and is never printed.

    device_id = "porch-pi"

    [mqtt]                        # without it a broker of our own listens on 127.0.0.1
    host = "192.168.1.2"
    username = "porch"
    password_file = "mqtt.password"

    [source.porch]
    url = "mic:USB"
    channel = 0

    [class.dog]
    onset = 0.8
    release = 0.5
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from soundpost.device.audio import Channel
from soundpost.device.detector import ClassSettings
from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.device.events import DEFAULT_BASE_TOPIC, check_base_topic, check_name, check_source
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.mqtt_link import BrokerSettings, read_password

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PASSWORD_VARIABLE = "SOUNDPOST_MQTT_PASSWORD"
# Larger than any hand-written file: a sound file given by mistake is refused at once.
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class ModelSettings:
    """bundle : None for the starter bundle; threads, runtime : of the interpreter."""

    bundle: Path | None = None
    threads: int = 1
    runtime: str = "auto"


@dataclass(frozen=True)
class SourceSettings:
    """One source.

    name : in its topics
    url : "mic:", "mic:NAME", "file:PATH" or another kind that is installed
    channel : index, or "mix" for the mean of all
    bundle : None for the one of [model]
    options : of the kind's opener, only those that were given
    """

    name: str = "mic0"
    url: str = "mic:"
    channel: Channel = "mix"
    bundle: Path | None = None
    options: Mapping[str, float | int | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All settings of `soundpost run`.

    device_id : unique among the sensors of a broker; by default the machine's name
    mqtt : None: the embedded broker, on 127.0.0.1 at broker_port (0: any free port)
    detector : values for every label, in place of the bundle's
    classes : values by label, in place of both
    path : of the file they came from
    """

    device_id: str
    base_topic: str = DEFAULT_BASE_TOPIC
    mqtt: BrokerSettings | None = None
    broker_port: int = 1883
    model: ModelSettings = field(default_factory=ModelSettings)
    sources: tuple[SourceSettings, ...] = (SourceSettings(),)
    detector: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: Path | None = None

    def detector_classes(self, defaults: Sequence[ClassSettings]) -> tuple[ClassSettings, ...]:
        """A bundle's detector settings with these in their place.

        Raises ConfigError for a label that the bundle lacks, or thresholds that contradict.
        """
        where = str(self.path) if self.path is not None else "settings"
        labels = [known.label for known in defaults]
        for label in self.classes:
            if label not in labels:
                near = _nearest(label, labels) or "; delete this table"
                raise ConfigError(f"{where}: [class.{label}]: the bundle has no such label{near}")
        found = []
        for default in defaults:
            changed = {**self.detector, **self.classes.get(default.label, {})}
            if "onset" in changed and "release" not in changed:
                # One threshold moved: the other keeps its share of it.
                changed["release"] = changed["onset"] * default.release / default.onset
            try:
                found.append(replace(default, **changed))
            except InputError as error:
                raise ConfigError(f"{where}: {error}") from error
        return tuple(found)


@dataclass(frozen=True)
class _Number:
    low: float
    high: float
    unit: str = ""
    whole: bool = False

    def read(self, value: object) -> float | int | None:
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return None
        # Not a number fails both comparisons.
        return value if self.low <= value <= self.high else None

    @property
    def expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        return f"{kind} from {self.low:g} to {self.high:g}{unit}"


@dataclass(frozen=True)
class _Text:
    choices: tuple[str, ...] = ()

    def read(self, value: object) -> str | None:
        if not isinstance(value, str) or not value or "\0" in value:
            return None
        return value if not self.choices or value in self.choices else None

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}" if self.choices else "a text in quotes"


@dataclass(frozen=True)
class _Flag:
    expected = "true or false"

    def read(self, value: object) -> bool | None:
        return value if isinstance(value, bool) else None


@dataclass(frozen=True)
class _Channel:
    expected = 'a channel number from 0 to 255, or "mix"'

    def read(self, value: object) -> int | str | None:
        if value == "mix":
            return "mix"
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
            return value
        return None


_Kind = _Number | _Text | _Flag | _Channel

_CLASS: dict[str, _Kind] = {
    "onset": _Number(0.01, 1.0),
    "release": _Number(0.001, 1.0),
    "smoothing": _Text(("median", "mean", "none")),
    "smoothing_windows": _Number(1, 100, "windows", whole=True),
    "min_duration_s": _Number(0, 3_600, "s"),
    "min_gap_s": _Number(0, 3_600, "s"),
}
_MQTT: dict[str, _Kind] = {
    "host": _Text(),
    "port": _Number(1, 65_535, whole=True),
    "username": _Text(),
    "password_file": _Text(),
    "base_topic": _Text(),
    "keepalive_s": _Number(1, 65_535, "s", whole=True),
    "timeout_s": _Number(0.1, 600, "s"),
    "retry_min_s": _Number(0.01, 3_600, "s"),
    "retry_max_s": _Number(0.01, 86_400, "s"),
}
_MODEL: dict[str, _Kind] = {
    "bundle": _Text(),
    "threads": _Number(1, 64, whole=True),
    "runtime": _Text(RUNTIME_CHOICES),
}
_BROKER: dict[str, _Kind] = {"port": _Number(0, 65_535, whole=True)}
_MICROPHONE: dict[str, _Kind] = {
    "rate_hz": _Number(8_000, 192_000, "Hz", whole=True),
    "channels": _Number(1, 256, whole=True),
    "block_s": _Number(0.005, 1.0, "s"),
    "latency_s": _Number(0.005, 2.0, "s"),
}
_FILE: dict[str, _Kind] = {
    "block_s": _Number(0.005, 1.0, "s"),
    "realtime": _Flag(),
    "loop": _Flag(),
}
_OPTIONS: dict[str, dict[str, _Kind]] = {"mic": _MICROPHONE, "file": _FILE}
_SOURCE: dict[str, _Kind] = {
    "url": _Text(),
    "channel": _Channel(),
    "bundle": _Text(),
    **_MICROPHONE,
    **_FILE,
}
_TOP: dict[str, _Kind] = {"device_id": _Text()}
_TABLES: dict[str, dict[str, _Kind]] = {
    "mqtt": _MQTT,
    "broker": _BROKER,
    "model": _MODEL,
    "detector": {key: kind for key, kind in _CLASS.items() if key not in ("onset", "release")},
}
_NAMED_TABLES: dict[str, dict[str, _Kind]] = {"source": _SOURCE, "class": _CLASS}


def load_settings(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings of a file, with defaults for what it does not say.

    Parameters
    ----------
    path : TOML file; None for the defaults: the default microphone, the starter bundle and the
        embedded broker
    overrides : values in place of the file's by dotted key, such as {"mqtt.host": "10.0.0.2"}
    environment : where the password is looked up; the process's own by default

    Raises
    ------
    ConfigError
        An unknown key, a value of the wrong kind or outside its range; one line that says where.
    InputError
        The settings file or the password file cannot be read.
    """
    text = _read(path) if path is not None else ""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    given = dict(overrides or {})
    for key, value in given.items():
        _put(raw, key, value)
    reader = _Reader(path, text, frozenset(given))
    environment = environment if environment is not None else os.environ
    return reader.settings(raw, environment)


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`, as an option gives it; a value that is no TOML is a text."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
        raise UsageError(f"{text!r}: expected KEY=VALUE, such as mqtt.host=192.168.1.2")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the settings: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes: not a settings file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: not a settings file") from error


def _put(raw: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    table = raw
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"option {key}: {name} is not a table of the settings")
        table = inner
    table[last] = value


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected one of {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""


class _Reader:
    """Checks one file's tables; knows where they stand, for its messages."""

    def __init__(self, path: Path | None, text: str, overridden: frozenset[str]) -> None:
        self._path = path
        self._lines = _line_numbers(text)
        self._overridden = overridden
        self._folder = path.parent if path is not None else Path()

    def settings(self, raw: dict[str, Any], environment: Mapping[str, str]) -> Settings:
        top = {key: value for key, value in raw.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in raw.items() if isinstance(value, dict)}
        known = [*_TOP, *_TABLES, *_NAMED_TABLES]
        for key in tables:
            if key in _TOP:
                self._refuse("", key, f"found a table, expected {_TOP[key].expected}")
            if key not in known:
                self._refuse(key, "", f"unknown table{_nearest(key, known)}")
        for key in top:
            if key in _TABLES or key in _NAMED_TABLES:
                self._refuse("", key, f"expected a table, such as [{key}]")
        values = self._table("", top, _TOP, [*known])
        simple = {
            name: self._table(name, tables.get(name, {}), kinds) for name, kinds in _TABLES.items()
        }
        named: dict[str, dict[str, dict[str, Any]]] = {}
        for name, kinds in _NAMED_TABLES.items():
            named[name] = {}
            for entry, table in tables.get(name, {}).items():
                place = f"{name}.{entry}"
                if not isinstance(table, dict):
                    self._refuse(name, entry, f"expected a table of its own, [{name}.NAME]")
                named[name][entry] = self._table(place, table, kinds)
        device_id = values.get("device_id", _host_name())
        self._checked("", "device_id", check_name, device_id, "device_id")
        base_topic = simple["mqtt"].pop("base_topic", DEFAULT_BASE_TOPIC)
        self._checked("mqtt", "base_topic", check_base_topic, base_topic)
        for label, entry_values in named["class"].items():
            onset, release = entry_values.get("onset"), entry_values.get("release")
            if onset is not None and release is not None and release > onset:
                self._refuse(f"class.{label}", "release", f"found {release}, above onset ({onset})")
        sources = tuple(self._source(name, entry) for name, entry in named["source"].items())
        model = simple["model"]
        if "bundle" in model:
            model["bundle"] = self._resolve(model["bundle"])
        return Settings(
            device_id=device_id,
            base_topic=base_topic,
            mqtt=self._mqtt(simple["mqtt"], environment),
            broker_port=simple["broker"].get("port", Settings.broker_port),
            model=ModelSettings(**model),
            sources=sources or (SourceSettings(),),
            detector=simple["detector"],
            classes=named["class"],
            path=self._path,
        )

    def _table(
        self,
        place: str,
        table: Mapping[str, Any],
        kinds: Mapping[str, _Kind],
        known: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        values = {}
        for key, value in table.items():
            kind = kinds.get(key)
            if kind is None:
                if key == "password":
                    # Not echoed: it is a secret in the wrong place.
                    self._refuse(
                        place,
                        key,
                        "passwords do not belong in settings: use password_file or the "
                        f"environment variable {PASSWORD_VARIABLE}",
                    )
                self._refuse(place, key, f"unknown key{_nearest(key, known or list(kinds))}")
            read = kind.read(value)
            if read is None:
                self._refuse(place, key, f"found {_short(value)}, expected {kind.expected}")
            values[key] = read
        return values

    def _source(self, name: str, values: dict[str, Any]) -> SourceSettings:
        place = f"source.{name}"
        self._checked(place, "", check_source, name)
        url = values.pop("url", "mic:")
        scheme, colon, rest = url.partition(":")
        if not colon or len(scheme) < 2:
            scheme, rest = "file", url
        if scheme == "file":
            url = f"file:{self._resolve(rest)}"
        channel = values.pop("channel", "mix")
        bundle = values.pop("bundle", None)
        if scheme in _OPTIONS:
            for key in values:
                if key not in _OPTIONS[scheme]:
                    self._refuse(place, key, f"not an option of a {scheme}: source")
        return SourceSettings(
            name=name,
            url=url,
            channel=channel,
            bundle=None if bundle is None else self._resolve(bundle),
            options=values,
        )

    def _mqtt(
        self, values: dict[str, Any], environment: Mapping[str, str]
    ) -> BrokerSettings | None:
        password_file = values.pop("password_file", None)
        if "host" not in values:
            if values or password_file is not None:
                key = next(iter(values), "password_file")
                self._refuse("mqtt", key, "is set but host is not; set host, or leave [mqtt] out")
            return None
        password = None
        if environment.get(PASSWORD_VARIABLE):
            password = environment[PASSWORD_VARIABLE]
        elif password_file is not None:
            password = read_password(self._resolve(password_file))
        if password is not None and "username" not in values:
            self._refuse("mqtt", "username", "is missing, but a password is given: MQTT needs both")
        low, high = values.get("retry_min_s"), values.get("retry_max_s")
        defaults = BrokerSettings()
        low = defaults.retry_min_s if low is None else low
        high = defaults.retry_max_s if high is None else high
        if low > high:
            self._refuse("mqtt", "retry_min_s", f"found {low} s, above retry_max_s ({high} s)")
        return BrokerSettings(password=password, **values)

    def _resolve(self, path: str) -> Path:
        return self._folder / Path(path).expanduser()

    def _checked(self, place: str, key: str, check: Any, *values: str) -> None:
        try:
            check(*values)
        except UsageError as error:
            raise ConfigError(_one_line(f"{self._where(place, key)}: {error}")) from error

    def _where(self, place: str, key: str) -> str:
        dotted = ".".join(part for part in (place, key) if part)
        if any(dotted == given or given.startswith(f"{dotted}.") for given in self._overridden):
            return f"option {dotted}"
        line = self._lines.get((place, key)) or self._lines.get((place, ""))
        file = str(self._path) if self._path is not None else "settings"
        file += f":{line}" if line else ""
        table = f" [{place}]" if place else ""
        return f"{file}:{table} {key}".rstrip()

    def _refuse(self, place: str, key: str, reason: str) -> NoReturn:
        raise ConfigError(_one_line(f"{self._where(place, key)}: {reason}"))


def _one_line(text: str) -> str:
    """A quoted key may hold anything: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*[.=]")


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """Line of each (table, key) and each (table, "") written in the usual way."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            parts = re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", header[1])
            table = ".".join(part.strip("\"'") for part in parts)
            lines.setdefault((table, ""), number)
            continue
        key = _KEY.match(line)
        if key is not None:
            lines.setdefault((table, key[1].strip("\"'")), number)
    return lines


def _host_name() -> str:
    # An MQTT topic level must not hold these.
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
    return name or "soundpost"
