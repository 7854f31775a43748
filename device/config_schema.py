"""The settings as JSON Schema, for editors that complete and check TOML as it is typed."""

from __future__ import annotations

from typing import Any, Final

from soundpost.device.kinds import Kind, Table
from soundpost.device.settings import NAME_PATTERN, NAMED_TABLES, SOURCE_OPTIONS, TABLES, TOP
from soundpost.device.topics import MAX_NAME_BYTES, RESERVED_SOURCES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def settings_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a settings file.

    It says what the reader says of each table, key and range. It cannot compare two values
    (release with onset, retry_min_s with retry_max_s), count bytes, or tell which files exist.
    """
    properties = {key: _value(kind, TOP.default(key)) for key, kind in TOP.kinds.items()}
    properties |= {name: _table(table) for name, table in TABLES.items()}
    for name, table in NAMED_TABLES.items():
        properties[name] = {
            "type": "object",
            "description": f"{table.about}: [{name}.NAME]",
            "additionalProperties": _table(table),
        }
    source = properties["source"]
    source["propertyNames"] = {
        "pattern": NAME_PATTERN,
        "maxLength": MAX_NAME_BYTES,
        "not": {"enum": sorted(RESERVED_SOURCES)},
    }
    of_source = source["additionalProperties"]
    of_source["allOf"] = _source_rules()
    of_source["properties"]["class"] = {
        **properties["class"],
        "description": "as [class.NAME], for this source alone: [source.NAME.class.LABEL]",
    }
    return {
        "$schema": DIALECT,
        "title": "Soundpost settings",
        "description": TOP.about,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _value(kind: Kind, default: Any) -> dict[str, Any]:
    schema = {"description": f"{kind.about}: {kind.expected}"} | kind.schema()
    return schema if default is None else schema | {"default": default}


def _table(table: Table) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": table.about,
        "properties": {key: _value(kind, table.default(key)) for key, kind in table.kinds.items()},
        "additionalProperties": False,
    }
    if table.needs is not None:
        others = [key for key in table.kinds if key != table.needs]
        schema["dependentRequired"] = {key: [table.needs] for key in others}
        if table.wants is not None:
            schema["dependentRequired"][table.needs] = [table.wants]
    return schema


def _source_rules() -> list[dict[str, Any]]:
    """The options of one kind of source are refused for the others."""
    every = {key for table in SOURCE_OPTIONS.values() for key in table.kinds}
    rules = []
    for scheme, table in SOURCE_OPTIONS.items():
        refused = dict.fromkeys(sorted(every - set(table.kinds)), False)
        rules.append({"if": _is_of(scheme), "then": {"properties": refused}})
    return rules


def _is_of(scheme: str) -> dict[str, Any]:
    # A url without a scheme (of two characters or more) is a file's path; no url is mic:.
    pattern = rf"^{scheme}:" if scheme != "file" else r"^(file:|[^:]?(:|$)|[^:]*$)"
    condition: dict[str, Any] = {"properties": {"url": {"type": "string", "pattern": pattern}}}
    return condition if scheme == "mic" else condition | {"required": ["url"]}
