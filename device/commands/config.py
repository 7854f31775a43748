"""`soundpost config check|show|schema`: what a settings file says, and whether it is right."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soundpost.device.command import Command
from soundpost.device.config import Reading, parse_override, read_settings
from soundpost.device.config_schema import settings_schema
from soundpost.device.errors import ConfigError, UsageError
from soundpost.device.kinds import Table
from soundpost.device.overlay import Overlay, load_overlay
from soundpost.device.settings import NAMED_TABLES, SOURCE_KEYS, SOURCE_OPTIONS, TABLES

_DESCRIPTION = """\
Looks into a settings file.

check   prints every problem, one line each, with its line and the nearest name. It reads the
        settings alone; `soundpost run --config FILE --check` tries bundles and profiles too.
show    prints the settings as the sensor would use them, and where each value comes from: the
        file, the command line, or the default. Passwords are never printed.
schema  prints a JSON Schema, with which an editor completes and checks the file as you type.

examples:
  soundpost config check soundpost.toml
  soundpost config show soundpost.toml
  soundpost config show soundpost.toml --set mqtt.host=10.0.0.2
  soundpost config show                            what holds without a file
  soundpost config schema > soundpost.schema.json

For VS Code (Even Better TOML) and other editors that use taplo, the first line of the settings:
  #:schema ./soundpost.schema.json

exit codes:
  0    the settings are in order
  2    they are not; standard error says why
  3    the file, or one that it names, cannot be read
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check", "show", "schema"))
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="settings (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value in place of the file's, as for `soundpost run`; repeatable",
    )


def _run(arguments: argparse.Namespace) -> int:
    path: Path | None = arguments.file
    if arguments.action == "schema":
        if path is not None or arguments.set:
            raise UsageError("soundpost config schema: takes no file: it is of all settings")
        print(json.dumps(settings_schema(), indent=1, ensure_ascii=False))
        return 0
    if arguments.action == "check" and path is None:
        raise UsageError("soundpost config check: FILE is missing: which settings?")
    try:
        reading = read_settings(path, dict(parse_override(text) for text in arguments.set))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return error.exit_code
    if arguments.action == "check":
        print(f"{path}: in order")
        return 0
    for line in shown(reading):
        print(line)
    return 0


def shown(reading: Reading) -> Iterator[str]:
    """The settings in force as TOML; each value with its origin in a comment."""
    settings = reading.settings
    origin = reading.origins.get(("", "device_id"), "default")
    yield f"device_id = {_toml(settings.device_id)}  # {origin}"
    depends: dict[tuple[str, str], Any] = {("outbox", "path"): settings.outbox.path}
    if settings.clips.enabled:
        depends["clips", "folder"] = settings.clips.folder
    if settings.feedback.enabled:
        depends["feedback", "folder"] = settings.feedback.folder
    for name, table in TABLES.items():
        if name == "mqtt" and settings.mqtt is None:
            yield from ("", "# no [mqtt]: a broker of our own, for this machine alone")
        elif name == "metrics" and settings.metrics.port is None:
            yield from ("", "# no [metrics]: no figures for Prometheus")
        elif name != "broker" or settings.mqtt is None:
            yield from _table(reading, name, table, depends)
            if name == "mqtt":
                yield f"# password: {reading.password_origin or 'none'}"
    for source in settings.sources:
        place, scheme = f"source.{source.name}", source.url.partition(":")[0]
        options = SOURCE_OPTIONS.get(scheme)
        own = NAMED_TABLES["source"]
        kinds = {
            key: kind
            for key, kind in own.kinds.items()
            if key in SOURCE_KEYS or options is None or key in options.kinds
        }
        defaults = {**own.defaults, **(options.defaults if options is not None else {})}
        depends[place, "url"] = source.url
        if scheme == "file":
            depends[place, "url"] = f"file:{Path(source.url.partition(':')[2]).absolute()}"
        header = f"source.{_key(source.name)}"
        table = Table(own.about, kinds, defaults=defaults)
        yield from _table(reading, place, table, depends, header)
        for label in source.classes:
            of_label = f"{header}.class.{_key(label)}"
            yield from _table(
                reading, f"{place}.class.{label}", NAMED_TABLES["class"], {}, of_label
            )
    for label in settings.classes:
        header = f"class.{_key(label)}"
        yield from _table(reading, f"class.{label}", NAMED_TABLES["class"], {}, header)
    yield from _commanded(load_overlay(settings.overlay_path))


def _commanded(overlay: Overlay) -> Iterator[str]:
    """Thresholds that commands have set, which go over those of the file; comments."""
    if overlay.thresholds:
        yield from ("", "# set by commands, until `soundpost command threshold --reset`:")
    for source, labels in overlay.thresholds.items():
        where = f" at {source}" if source else ""
        for label, values in labels.items():
            said = ", ".join(f"{key} {value:g}" for key, value in values.items())
            yield f"# {label}{where}: {said}"


def _table(
    reading: Reading,
    place: str,
    table: Table,
    depends: Mapping[tuple[str, str], Any],
    header: str | None = None,
) -> Iterator[str]:
    if table.needs is not None and table.needs not in reading.values.get(place, {}):
        yield from ("", f"# no [{place}]: {table.needs} is not set")
        return
    yield from ("", f"[{header or place}]")
    given = reading.values.get(place, {})
    lines: list[tuple[str, str]] = []
    for key in table.kinds:
        value = depends.get((place, key), given.get(key, table.default(key)))
        # A key without a value of its own is shown as a comment: TOML has no null.
        text = f"# {key}" if value is None else f"{key} = {_toml(value)}"
        origin = reading.origins.get((place, key)) or ("not set" if value is None else "default")
        lines.append((text, origin))
    yield from _aligned(lines)


def _aligned(lines: list[tuple[str, str]]) -> Iterator[str]:
    width = min(48, max((len(text) for text, _ in lines), default=0))
    for text, origin in lines:
        yield f"{text:<{width}}  # {origin}"


def _key(name: str) -> str:
    plain = all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if plain else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value.absolute())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, str)):
        # JSON's escapes of a text are TOML's, but for one that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


COMMAND = Command(
    summary="check and show settings; a schema for editors",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
    intermixed=True,
)
