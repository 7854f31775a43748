"""Kinds of values in a settings file: what is accepted, in words and as JSON Schema.

A kind is declared once, with its meaning, unit and range (settings.py); the reader, the messages,
`soundpost config schema` and `soundpost config show` all follow from it.
"""

# ruff: noqa: D102 - `read`, `expected` and `schema` are everywhere what `Kind` says.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from soundpost.device.errors import UsageError


@dataclass(frozen=True)
class Kind(ABC):
    """What one key accepts.

    about : what it means, one line for a person
    """

    about: str

    @property
    @abstractmethod
    def expected(self) -> str:
        """What is accepted, in words."""

    @abstractmethod
    def read(self, value: object) -> Any:
        """The value as it is used, or None where it is not accepted.

        Raises UsageError instead where there is more to say than `expected`.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """JSON Schema of what is accepted."""


@dataclass(frozen=True)
class Number(Kind):
    """A number from low to high, both included; `whole` takes 2 and 2.0, and gives 2."""

    low: float
    high: float
    unit: str = ""
    whole: bool = False

    def read(self, value: object) -> float | int | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        # Not a number fails both comparisons.
        if not self.low <= value <= self.high:
            return None
        if self.whole:
            return int(value) if value == int(value) else None
        return value

    @property
    def expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        return f"{kind} from {self.low:g} to {self.high:g}{unit}"

    def schema(self) -> dict[str, Any]:
        kind = "integer" if self.whole else "number"
        return {"type": kind, "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Text(Kind):
    """A text that is not empty; `check` may say more and raises UsageError.

    pattern, max_length : what `check` accepts, for the schema
    """

    check: Callable[[str], object] | None = None
    pattern: str = r"^[^\u0000]+$"
    max_length: int | None = None

    def read(self, value: object) -> str | None:
        if not isinstance(value, str) or not value or "\0" in value:
            return None
        if self.check is not None:
            self.check(value)
        return value

    @property
    def expected(self) -> str:
        return "a text in quotes"

    def schema(self) -> dict[str, Any]:
        length = {} if self.max_length is None else {"maxLength": self.max_length}
        return {"type": "string", "pattern": self.pattern} | length


@dataclass(frozen=True)
class FilePath(Text):
    """A path; the reader takes it relative to the settings file's folder."""


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words."""

    choices: tuple[str, ...]

    def read(self, value: object) -> str | None:
        return value if isinstance(value, str) and value in self.choices else None

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.choices)}


@dataclass(frozen=True)
class Choices(Kind):
    """A list of some words, each at most once."""

    choices: tuple[str, ...]

    def read(self, value: object) -> tuple[str, ...] | None:
        if not isinstance(value, (list, tuple)):
            return None
        if not all(isinstance(item, str) and item in self.choices for item in value):
            return None
        return tuple(value) if len(set(value)) == len(value) else None

    @property
    def expected(self) -> str:
        return f"a list of some of {', '.join(self.choices)}"

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"enum": list(self.choices)}, "uniqueItems": True}


@dataclass(frozen=True)
class Names(Kind):
    """A list of texts, each at most once; `check` raises UsageError for one that cannot be."""

    check: Callable[[str], object]
    pattern: str

    def read(self, value: object) -> tuple[str, ...] | None:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            return None
        for item in value:
            self.check(item)
        return tuple(value) if len(set(value)) == len(value) else None

    @property
    def expected(self) -> str:
        return 'a list of texts, such as ["dog", "siren"], each once'

    def schema(self) -> dict[str, Any]:
        items = {"type": "string", "pattern": self.pattern}
        return {"type": "array", "items": items, "uniqueItems": True}


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    def read(self, value: object) -> bool | None:
        return value if isinstance(value, bool) else None

    @property
    def expected(self) -> str:
        return "true or false"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class ChannelNumber(Kind):
    """A channel of a source, or the mean of all."""

    def read(self, value: object) -> int | str | None:
        if value == "mix":
            return "mix"
        number = Number("", 0, 255, whole=True).read(value)
        return None if number is None else int(number)

    @property
    def expected(self) -> str:
        return 'a channel number from 0 to 255, or "mix"'

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "mix"}, {"type": "integer", "minimum": 0, "maximum": 255}]}


@dataclass(frozen=True)
class Table:
    """The keys of one table of the settings.

    about : what the table is for
    kinds : by key
    record : frozen dataclass with a field for each key, built from what is given; its own checks
        raise UsageError. None: the reader knows what to do with the values.
    defaults : of keys whose record does not say
    needs : key without which no other may stand here
    wants : key without which that one may not; its record says so
    """

    about: str
    kinds: Mapping[str, Kind]
    record: type[Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: str | None = None
    wants: str | None = None

    def default(self, key: str) -> Any:
        """Value of a key that is not given; None where there is none, or it depends."""
        if key in self.defaults:
            return self.defaults[key]
        for known in fields(self.record) if self.record is not None else ():
            if known.name == key and known.default is not MISSING:
                return known.default
        return None

    def build(self, values: Mapping[str, Any]) -> Any:
        """The record of checked values; raises UsageError where they contradict each other."""
        if self.record is None:
            raise UsageError("this table makes no record")
        return self.record(**values)
