"""Records on the wire: JSON objects with a schema name that ends in a version.

Reading checks every known field and keeps the unknown ones, so that a record from a newer sensor
passes through an older program unharmed. Times are UTC, RFC 3339 with microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from soundpost.device.errors import InputError
from soundpost.device.identifiers import TIME_PATTERN, UUID7_PATTERN, parse_time

# An event is about 600 bytes. A peer's payload beyond this is refused before it is parsed.
MAX_RECORD_BYTES: Final = 65_536
# What databases and other languages hold as a whole number.
MAX_COUNT: Final = 2**63 - 1
# A time outside these years has no local time in some zone. A sensor without a clock begins in
# 1970, and what it hears may reach back before that.
_YEARS: Final = (1900, 9998)


class Fields:
    """Takes checked fields out of a parsed JSON object; what is left over is unknown.

    Every method raises InputError where a field is missing or of another kind.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._rest = dict(data)
        self._where = where

    def rest(self) -> dict[str, Any]:
        """Fields that nobody has taken."""
        return self._rest

    def fail(self, name: str, expected: str, found: object) -> InputError:
        """The error to raise for a field, with what was found there."""
        shown = repr(found)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InputError(f"{self._where}: field {name!r}: expected {expected}, found {shown}")

    def take(self, name: str) -> Any:
        """A field of any kind."""
        if name not in self._rest:
            raise InputError(f"{self._where}: field {name!r} is missing")
        return self._rest.pop(name)

    def text(self, name: str) -> str:
        """A text."""
        value = self.take(name)
        if not isinstance(value, str):
            raise self.fail(name, "text", value)
        return value

    def optional_text(self, name: str) -> str | None:
        """A text or null."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.fail(name, "text or null", value)
        return value

    def truth(self, name: str) -> bool:
        """A truth value."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false", value)
        return value

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(name, "a whole number", value)
        return value

    def number(self, name: str) -> float:
        """A number."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(name, "a number", value)
        try:
            return float(value)
        except OverflowError as exc:
            raise self.fail(name, "a number", value) from exc

    def optional_number(self, name: str) -> float | None:
        """A number or null."""
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        return self.number(name)

    def optional_numbers(self, name: str) -> dict[str, float] | None:
        """An object of numbers, or null."""
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        inner = Fields(self.table(name), f"{self._where}, field {name!r}")
        return {key: inner.number(key) for key in list(inner.rest())}

    def optional_counts(self, name: str) -> dict[str, int] | None:
        """Whole numbers by name, or null."""
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        inner = Fields(self.table(name), f"{self._where}, field {name!r}")
        return {key: inner.integer(key) for key in list(inner.rest())}

    def moment(self, name: str) -> datetime:
        """A time."""
        value = self.take(name)
        try:
            return parse_time(value if isinstance(value, str) else repr(value))
        except ValueError as exc:
            raise self.fail(name, "RFC 3339 in UTC with microseconds", value) from exc

    def optional_moment(self, name: str) -> datetime | None:
        """A time or null."""
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        return self.moment(name)

    def table(self, name: str) -> Mapping[str, Any]:
        """An object."""
        value = self.take(name)
        if not isinstance(value, dict):
            raise self.fail(name, "an object", value)
        return value

    def optional_table(self, name: str) -> Mapping[str, Any] | None:
        """An object or null."""
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        return self.table(name)


def parse_object(
    payload: str | bytes, where: str, max_bytes: int = MAX_RECORD_BYTES
) -> Mapping[str, Any]:
    """Read a JSON object of bounded size; `where` names it in errors."""
    if len(payload) > max_bytes:
        raise InputError(f"{where}: {len(payload)} bytes, at most {max_bytes} are read")
    try:
        data = json.loads(payload, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def check_schema(fields: Fields, schema: str) -> None:
    """Take the field `schema` and compare it."""
    found = fields.text("schema")
    if found != schema:
        raise fields.fail("schema", f"{schema!r} (update the older of the two programs)", found)


def dump(data: Mapping[str, Any]) -> str:
    """Compact JSON on one line."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def require(ok: bool, what: str, expected: str, found: object) -> None:
    """Raise InputError unless ok."""
    if not ok:
        raise InputError(f"{what}: expected {expected}, found {str(found)[:60]!r}")


def check_moment(moment: datetime, what: str) -> None:
    """Raise InputError for a time without a zone, or too far away to be shown in each."""
    require(moment.tzinfo is not None, what, "a time with a zone", moment)
    first, last = _YEARS
    require(first <= moment.year <= last, what, f"a year from {first} to {last}", moment)


def check_count(value: int, what: str, least: int = 0) -> None:
    """Raise InputError for a whole number that is too small, or has more than 63 bits."""
    expected = "more than 0" if least else "0 or more"
    require(value >= least, what, expected, value)
    require(value <= MAX_COUNT, what, "at most 63 bits", value)


def check_writable(data: Mapping[str, Any], where: str) -> None:
    """Raise InputError for what JSON can be read from and not written to.

    By escapes it may hold half a character, which is no text that a file or a program takes, and
    by an exponent a number that is infinite.
    """
    try:
        dump(data).encode()
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{where}: cannot be passed on: {exc}") from exc


# --- schemas for other programs -----------------------------------------------------------------

_JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME_SCHEMA = {"type": "string", "pattern": "^[^/+#$\\u0000-\\u001f][^/+#\\u0000-\\u001f]*$"}
TIME_SCHEMA = {"type": "string", "pattern": f"^{TIME_PATTERN.pattern}$"}
OPTIONAL_TIME_SCHEMA = {"type": ["string", "null"], "pattern": f"^{TIME_PATTERN.pattern}$"}
UUID7_SCHEMA = {"type": "string", "pattern": f"^{UUID7_PATTERN.pattern}$"}
UNIT_SCHEMA = {"type": "number", "minimum": 0, "maximum": 1}
COUNT_SCHEMA = {"type": "integer", "minimum": 0}


def check_uuid7(value: str, what: str) -> None:
    """Raise InputError for what is no UUIDv7."""
    require(bool(UUID7_PATTERN.fullmatch(value)), what, "a lower-case UUIDv7", value)


def object_schema(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a record with these fields and any others."""
    # Unknown fields are allowed on purpose: later versions add to the record.
    return {
        "$schema": _JSON_SCHEMA_DIALECT,
        "title": title,
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": True,
    }
