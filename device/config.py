"""Settings of a sensor: a TOML file, or none at all, to frozen values.

Every key has its unit in its name, an unknown key is refused with the nearest known one, and a
value outside its range with the range. Paths are relative to the settings file. The MQTT password
comes from the environment variable SOUNDPOST_MQTT_PASSWORD or from a file; it never stands in the
settings and is never printed. SOUNDPOST_MQTT_USERNAME takes the place of the user name.

    device_id = "porch-pi"

    [mqtt]                        # without it a broker of our own listens on 127.0.0.1
    host = "192.168.1.2"
    username = "porch"
    password_file = "mqtt.password"
    ca_file = "ca.pem"            # TLS, on port 8883

    [source.porch]
    url = "mic:USB"
    channel = 0

    [outbox]                      # where events wait until the broker has them
    max_age_days = 7

    [class.dog]
    onset = 0.8
    release = 0.5

    [levels]                      # sound levels; off unless asked for
    enabled = true

    [clips]                       # the sound of events, on disk; off unless asked for
    enabled = true
    max_age_days = 7
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

from soundpost.device.broker_settings import (
    PASSWORD_VARIABLE,
    USERNAME_VARIABLE,
    BrokerSettings,
    default_port,
    read_password,
)
from soundpost.device.clip_store import ClipSettings
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import ConfigError, InputError, SoundpostError, UsageError
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.files import expand_home
from soundpost.device.kinds import FilePath, Table
from soundpost.device.settings import (
    NAMED_TABLES,
    PATH_SCHEMES,
    SOURCE_OPTIONS,
    TABLES,
    TOP,
    Settings,
    SourceSettings,
    nearest,
)
from soundpost.device.tls import TlsSettings, client_context
from soundpost.device.topics import DEFAULT_BASE_TOPIC, check_source
from soundpost.device.updates.update_settings import UpdateSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Larger than any hand-written file: a sound file given by mistake is refused at once.
MAX_BYTES = 1_000_000


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
    environment : where the password and the folder for state are looked up; the process's own by
        default

    Raises
    ------
    ConfigError
        An unknown key, a value of the wrong kind or outside its range; one line that says where.
    InputError
        The settings file or the password file cannot be read.
    """
    return read_settings(path, overrides, environment).settings


@dataclass(frozen=True)
class Reading:
    """Settings as they were read.

    values : what was given, by table ("", "mqtt", "source.porch") and key; paths are resolved
    origins : where that stands: "settings.toml:3" or "command line"
    password_origin : where the broker's password comes from, None without one
    """

    settings: Settings
    values: Mapping[str, Mapping[str, Any]]
    origins: Mapping[tuple[str, str], str]
    password_origin: str | None


def read_settings(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Reading:
    """As `load_settings`, with where each value came from."""
    text = _read(path) if path is not None else ""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5,000 digits, brackets 5,000 deep.
        raise ConfigError(_one_line(f"{path}: not TOML: {error}")) from error
    given = dict(overrides or {})
    for key, value in given.items():
        _put(raw, key, value)
    reader = _Reader(path, text, frozenset(given))
    environment = environment if environment is not None else os.environ
    settings = reader.settings(raw, environment)
    password_origin = None
    if settings.mqtt is not None and settings.mqtt.password is not None:
        of_environment = bool(environment.get(PASSWORD_VARIABLE))
        password_origin = f"${PASSWORD_VARIABLE}" if of_environment else "password_file"
    return Reading(settings, reader.values, reader.origins, password_origin)


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`, as an option gives it; a value that is no TOML is a text."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
        raise UsageError(f"{text!r}: expected KEY=VALUE, such as mqtt.host=192.168.1.2")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
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


class _NotedError(Exception):
    """A problem that `_Reader` has noted; ends what cannot go on with it."""


class _Reader:
    """Checks one file's tables and notes every problem; knows where they stand."""

    def __init__(self, path: Path | None, text: str, overridden: frozenset[str]) -> None:
        self._path = path
        self._lines = _line_numbers(text)
        self._overridden = overridden
        self._folder = path.parent if path is not None else Path()
        self._problems: list[tuple[int, SoundpostError]] = []
        # Tables with a problem: what else they seem to lack may follow from it.
        self._spoilt: set[str] = set()
        self.values: dict[str, dict[str, Any]] = {}
        self.origins: dict[tuple[str, str], str] = {}

    def settings(self, raw: dict[str, Any], environment: Mapping[str, str]) -> Settings:
        once, named = self._tables(raw)
        values = once.pop("")
        device_id = values.get("device_id") or _host_name()
        fields: dict[str, Any] = {
            "base_topic": once["mqtt"].pop("base_topic", DEFAULT_BASE_TOPIC),
            "broker_port": once["broker"].pop("port", Settings.broker_port),
            "detector": once["detector"],
            "classes": named["class"],
        }
        for name, table in TABLES.items():
            if name in self._spoilt:
                continue
            with self._collected(name):
                if name == "mqtt":
                    fields["mqtt"] = self._mqtt(once["mqtt"], environment)
                elif name == "outbox":
                    fields["outbox"] = self._outbox(once["outbox"], device_id, environment)
                elif name == "clips":
                    fields["clips"] = self._clips(once["clips"], environment)
                elif name == "updates":
                    fields["updates"] = self._updates(once["updates"], device_id, environment)
                elif name == "feedback":
                    fields["feedback"] = self._feedback(once["feedback"], environment)
                elif table.record is not None:
                    fields[name] = table.build(once[name])
        sources = []
        for name, of_source in named["source"].items():
            with self._collected(f"source.{name}"):
                sources.append(self._source(name, of_source))
            self._check_classes(f"source.{name}.class", of_source.get("classes", {}))
        self._check_classes("class", named["class"])
        self._end()
        return Settings(
            device_id=device_id,
            sources=tuple(sources) or (SourceSettings(),),
            path=self._path,
            **fields,
        )

    def _check_classes(self, place: str, classes: Mapping[str, Mapping[str, Any]]) -> None:
        for label, of_class in classes.items():
            onset, release = of_class.get("onset"), of_class.get("release")
            if onset is not None and release is not None and release > onset:
                self._note(f"{place}.{label}", "release", f"found {release}, above onset ({onset})")

    def _tables(
        self, raw: dict[str, Any]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
        """Checked values of each table that stands once ("" for the top), and of each named one."""
        known = [*TOP.kinds, *TABLES, *NAMED_TABLES]
        top: dict[str, Any] = {}
        given: dict[str, dict[str, Any]] = {}
        for key, value in raw.items():
            if isinstance(value, dict):
                given[key] = value
                if key in TOP.kinds:
                    self._note("", key, f"found a table, expected {TOP.kinds[key].expected}")
                elif key not in known:
                    self._note(key, "", f"unknown table{nearest(key, known)}")
            elif key in TABLES or key in NAMED_TABLES:
                self._note("", key, f"expected a table, such as [{key}]")
            else:
                top[key] = value
        once = {"": self._table("", top, TOP, known)}
        once |= {name: self._table(name, given.get(name, {}), TABLES[name]) for name in TABLES}
        named: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in NAMED_TABLES}
        for name, table in NAMED_TABLES.items():
            named[name] = self._named(name, given.get(name, {}), table)
        return once, named

    def _named(
        self, name: str, given: Mapping[str, object], table: Table
    ) -> dict[str, dict[str, Any]]:
        """Checked values of the tables [name.ENTRY], and of those of a source's labels in them."""
        found: dict[str, dict[str, Any]] = {}
        for entry, values in given.items():
            place = f"{name}.{entry}"
            if not isinstance(values, dict):
                self._note(name, entry, f"expected a table of its own, [{name}.NAME]")
                continue
            values = dict(values)
            classes = values.pop("class", None) if name == "source" else None
            found[entry] = self._table(place, values, table)
            if isinstance(classes, dict):
                of_labels = self._named(f"{place}.class", classes, NAMED_TABLES["class"])
                found[entry]["classes"] = of_labels
            elif classes is not None:
                self._note(place, "class", f"expected tables, such as [{place}.class.LABEL]")
        return found

    def _table(
        self,
        place: str,
        given: Mapping[str, Any],
        table: Table,
        known: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        values = {}
        for key, value in given.items():
            with self._collected(place, key):
                values[key] = self._value(place, key, value, table, known or list(table.kinds))
                self.origins[place, key] = self._origin(place, key)
        self.values[place] = dict(values)
        if table.needs is not None and given and table.needs not in given:
            key = next(iter(given))
            need = table.needs
            self._note(place, key, f"is set but {need} is not; set {need}, or leave [{place}] out")
        return values

    def _value(
        self, place: str, key: str, value: object, table: Table, known: Sequence[str]
    ) -> Any:
        kind = table.kinds.get(key)
        if kind is None:
            if key == "password":
                # Not echoed: it is a secret in the wrong place.
                self._refuse(
                    place,
                    key,
                    "passwords do not belong in settings: use password_file or the "
                    f"environment variable {PASSWORD_VARIABLE}",
                )
            self._refuse(place, key, f"unknown key{nearest(key, known)}")
        read = kind.read(value)
        if read is None:
            self._refuse(place, key, f"found {_short(value)}, expected {kind.expected}")
        return self._resolve(read) if isinstance(kind, FilePath) else read

    def _source(self, name: str, values: dict[str, Any]) -> SourceSettings:
        place = f"source.{name}"
        check_source(name)
        values = dict(values)
        url = values.pop("url", SourceSettings.url)
        scheme, colon, rest = url.partition(":")
        if not colon or len(scheme) < 2:
            scheme, rest = "file", url
        kinds = [point.name for point in entry_points(group="soundpost.sources")]
        # As when it is opened: what is there is a file, whatever its name looks like.
        if scheme not in kinds and not _is_there(Path(url)):
            near = nearest(scheme, kinds)
            self._refuse(place, "url", f"{_short(scheme)} is no kind of source{near}")
        if scheme in PATH_SCHEMES:
            url = f"{scheme}:{self._resolve(rest)}"
        own = {
            key: values.pop(key)
            for key in ("channel", "bundle", "profile", "classes")
            if key in values
        }
        for key in values:
            if scheme in SOURCE_OPTIONS and key not in SOURCE_OPTIONS[scheme].kinds:
                self._refuse(place, key, f"not an option of a {scheme}: source")
        return SourceSettings(name=name, url=url, options=values, **own)

    def _mqtt(
        self, values: dict[str, Any], environment: Mapping[str, str]
    ) -> BrokerSettings | None:
        password_file = values.pop("password_file", None)
        if "host" not in values:
            return None
        tls = self._tls(values, environment)
        values.setdefault("port", default_port(tls))
        if environment.get(USERNAME_VARIABLE):
            values["username"] = environment[USERNAME_VARIABLE]
        password = None
        if environment.get(PASSWORD_VARIABLE):
            password = environment[PASSWORD_VARIABLE]
        elif password_file is not None:
            password = read_password(_handed_over(password_file, environment))
        if password is not None and "username" not in values:
            self._refuse("mqtt", "username", "is missing, but a password is given: MQTT needs both")
        low = values.get("retry_min_s", BrokerSettings.retry_min_s)
        high = values.get("retry_max_s", BrokerSettings.retry_max_s)
        if low > high:
            self._refuse("mqtt", "retry_min_s", f"found {low} s, above retry_max_s ({high} s)")
        return BrokerSettings(password=password, tls=tls, **values)

    def _tls(self, values: dict[str, Any], environment: Mapping[str, str]) -> TlsSettings | None:
        wanted = values.pop("tls", None)
        files = {
            key: values.pop(key) for key in ("ca_file", "cert_file", "key_file") if key in values
        }
        insecure = values.pop("tls_insecure", False)
        given = [*files, *(["tls_insecure"] if insecure else [])]
        if wanted is False and given:
            self._refuse("mqtt", given[0], "is set, but tls is false: delete one of them")
        if not wanted and not given:
            return None
        if "key_file" in files and "cert_file" not in files:
            self._refuse("mqtt", "key_file", "is set but cert_file is not: set both")
        files = {key: _handed_over(path, environment) for key, path in files.items()}
        tls = TlsSettings(**files, insecure=insecure)
        # Its files are read for each connection; what is wrong with them is said now.
        client_context(tls)
        return tls

    def _outbox(
        self, values: dict[str, Any], device_id: str, environment: Mapping[str, str]
    ) -> OutboxSettings:
        # By its name, so that two sensors on one machine do not meet.
        default = f"outbox-{device_id}.sqlite3"
        path = values.pop("path", None) or state_folder(environment) / default
        return OutboxSettings(path, **values)

    def _clips(self, values: dict[str, Any], environment: Mapping[str, str]) -> ClipSettings:
        # Without clips nobody asks for a folder, nor for a home to have it in.
        if values.get("enabled") and "folder" not in values:
            values["folder"] = state_folder(environment) / "clips"
        return ClipSettings(**values)

    def _updates(
        self, values: dict[str, Any], device_id: str, environment: Mapping[str, str]
    ) -> UpdateSettings:
        if "repository" in values:
            if "://" not in values["repository"]:
                values["repository"] = str(self._resolve(values["repository"]).absolute())
            # By its name, as the outbox.
            values.setdefault("folder", state_folder(environment) / f"models-{device_id}")
        return UpdateSettings(**values)

    def _feedback(self, values: dict[str, Any], environment: Mapping[str, str]) -> FeedbackSettings:
        if values.get("enabled") and "folder" not in values:
            values["folder"] = state_folder(environment) / "feedback"
        return FeedbackSettings(**values)

    def _resolve(self, path: str) -> Path:
        return self._folder / expand_home(path)

    @contextlib.contextmanager
    def _collected(self, place: str, key: str = "") -> Iterator[None]:
        """Note what is refused within, and go on after it."""
        try:
            yield
        except _NotedError:
            pass
        except UsageError as error:
            self._note(place, key, str(error))
        except SoundpostError as error:
            # A file that the settings name: the message says which.
            named = type(error)(_one_line(str(error)))
            self._problems.append((self._line(place, key), named))

    def _note(self, place: str, key: str, reason: str) -> None:
        self._spoilt.add(place)
        error = ConfigError(_one_line(f"{self._where(place, key)}: {reason}"))
        self._problems.append((self._line(place, key), error))

    def _refuse(self, place: str, key: str, reason: str) -> NoReturn:
        self._note(place, key, reason)
        raise _NotedError

    def _end(self) -> None:
        """Raise what was found wrong, in the order of the file."""
        if not self._problems:
            return
        errors = [error for _, error in sorted(self._problems, key=lambda problem: problem[0])]
        if not any(isinstance(error, ConfigError) for error in errors):
            raise errors[0]
        raise ConfigError(*(str(error) for error in errors))

    def _line(self, place: str, key: str) -> int:
        return self._lines.get((place, key)) or self._lines.get((place, "")) or 0

    def _is_overridden(self, dotted: str) -> bool:
        return any(dotted == given or given.startswith(f"{dotted}.") for given in self._overridden)

    def _origin(self, place: str, key: str) -> str:
        if self._is_overridden(".".join(part for part in (place, key) if part)):
            return "command line"
        line = self._line(place, key)
        name = self._path.name if self._path is not None else ""
        return f"{name}:{line}" if line else name

    def _where(self, place: str, key: str) -> str:
        dotted = ".".join(part for part in (place, key) if part)
        if self._is_overridden(dotted):
            return f"option {dotted}"
        line = self._line(place, key)
        file = str(self._path) if self._path is not None else "settings"
        file += f":{line}" if line else ""
        table = f" [{_cut(place)}]" if place else ""
        return f"{file}:{table} {_cut(key)}".rstrip()


def _one_line(text: str) -> str:
    """A quoted key may hold anything: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        # TOML's hexadecimal numbers have no limit, Python's decimal ones do.
        text = "a number of thousands of digits"
    return _cut(text)


def _cut(text: str) -> str:
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


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A name that is too long for any file, or a folder that we may not look into.
        return False


def _handed_over(secret: Path, environment: Mapping[str, str]) -> Path:
    """Where a secret is to be read: the service manager's copy, where it handed over one.

    systemd gives the service, which may not read the file itself, a copy of the same name
    (LoadCredential=).
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    copy = Path(folder, secret.name) if folder else secret
    try:
        return copy if copy.is_file() else secret
    except OSError:
        # A name that is too long for any file; reading it says so.
        return secret


def _host_name() -> str:
    # An MQTT topic level must not hold these.
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
    return name or "soundpost"


def state_folder(environment: Mapping[str, str]) -> Path:
    """Where a sensor keeps what outlives it, by systemd or by the XDG base directories."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = Path(environment.get("XDG_STATE_HOME") or "")
    if not home.is_absolute():
        # "All paths must be absolute. If a relative path is encountered, ignore it."
        try:
            home = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise ConfigError(
                "outbox.path is not set, and this user has no home folder to keep it in: set it, "
                "or the environment variable STATE_DIRECTORY"
            ) from error
    return home / "soundpost"
