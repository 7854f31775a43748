"""Sound events: what was heard, from when to when, and by which model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from soundpost.device.errors import InputError, UsageError
from soundpost.device.identifiers import format_time
from soundpost.device.records import (
    COUNT_SCHEMA,
    MAX_COUNT,
    NAME_SCHEMA,
    OPTIONAL_TIME_SCHEMA,
    TIME_SCHEMA,
    UNIT_SCHEMA,
    UUID7_SCHEMA,
    Fields,
    check_count,
    check_moment,
    check_schema,
    check_uuid7,
    check_writable,
    dump,
    object_schema,
    parse_object,
    require,
)
from soundpost.device.topics import check_name, check_source

EVENT_SCHEMA: Final = "soundpost.event/1"

Phase = Literal["start", "update", "end"]
PHASES: Final[tuple[str, ...]] = get_args(Phase)

_COUNT_SCHEMA = {**COUNT_SCHEMA, "maximum": MAX_COUNT}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelRef:
    """The model that heard an event.

    sha256 : of the bundle's `model.tflite`, 64 lower-case hexadecimal digits
    """

    name: str
    version: str
    sha256: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = self.sha256
        require(bool(_SHA256.fullmatch(found)), "event model sha256", "64 hex digits", found)

    def to_dict(self) -> dict[str, Any]:
        """JSON object, known fields first."""
        known = {"name": self.name, "version": self.version, "sha256": self.sha256}
        return {**known, **self.extra}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "event model") -> ModelRef:
        """Read a JSON object; raises InputError naming the field."""
        fields = Fields(data, where)
        return cls(
            name=fields.text("name"),
            version=fields.text("version"),
            sha256=fields.text("sha256"),
            extra=fields.rest(),
        )


@dataclass(frozen=True)
class SoundEvent:
    """One phase of one sound event (schema `soundpost.event/1`).

    id : UUIDv7, the same through start, update and end: receivers drop repeats by (id, report)
    device, source, label : names that can be levels of a topic
    score, threshold : 0 to 1; the smoothed score and the onset threshold it passed
    onset, offset : instants with a zone; offset is given in the phase `end`, and only there
    time_synced : whether the system clock was known to be right
    stream : UUIDv7 of the capture stream; changes with every restart or replug
    sample : samples of `stream` before the onset, at `rate_hz`
    queued_s : seconds this message waited to be sent
    level_dba : greatest A-weighted fast level (LAFmax) of the event so far in dB SPL, None without
        a calibrated microphone
    clip : name of the recorded clip, None without one
    report : number of this message among those of its event, from 0; None where the sensor does not
        count: two updates of a steady sound may then be the same in every field
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    id: str
    device: str
    source: str
    label: str
    phase: Phase
    score: float
    threshold: float
    onset: datetime
    offset: datetime | None
    time_synced: bool
    stream: str
    sample: int
    rate_hz: int
    model: ModelRef
    queued_s: float = 0.0
    level_dba: float | None = None
    clip: str | None = None
    report: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "stream"):
            value = getattr(self, name)
            check_uuid7(value, f"event {name}")
        try:
            check_name(self.device, "device id")
            check_source(self.source)
            check_name(self.label, "label")
        except UsageError as exc:
            raise InputError(f"event: {exc}") from exc
        require(self.phase in PHASES, "event phase", "start, update or end", self.phase)
        for name in ("score", "threshold"):
            value = getattr(self, name)
            require(0.0 <= value <= 1.0, f"event {name}", "0 to 1", value)
        check_moment(self.onset, "event onset")
        if self.phase == "end":
            require(self.offset is not None, "event offset", "a time, for its phase is end", None)
        else:
            require(self.offset is None, "event offset", f"null in phase {self.phase}", self.offset)
        if self.offset is not None:
            check_moment(self.offset, "event offset")
            require(self.offset >= self.onset, "event offset", "not before the onset", self.offset)
        check_count(self.sample, "event sample")
        check_count(self.rate_hz, "event rate_hz", 1)
        require(0.0 <= self.queued_s < math.inf, "event queued_s", "0 or more", self.queued_s)
        check_count(self.report or 0, "event report")
        level = self.level_dba
        require(level is None or math.isfinite(level), "event level_dba", "finite", level)

    @property
    def duration_s(self) -> float | None:
        """Seconds from onset to offset; None before the end."""
        return None if self.offset is None else (self.offset - self.onset).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """JSON object: the fields in the order of the contract, then the unknown ones."""
        return {
            "schema": EVENT_SCHEMA,
            "id": self.id,
            "device": self.device,
            "source": self.source,
            "label": self.label,
            "phase": self.phase,
            "score": self.score,
            "threshold": self.threshold,
            "onset": format_time(self.onset),
            "offset": None if self.offset is None else format_time(self.offset),
            "time_synced": self.time_synced,
            "stream": self.stream,
            "sample": self.sample,
            "rate_hz": self.rate_hz,
            "queued_s": self.queued_s,
            "level_dba": self.level_dba,
            "model": self.model.to_dict(),
            "clip": self.clip,
            **({} if self.report is None else {"report": self.report}),
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return dump(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "event") -> SoundEvent:
        """Read a JSON object.

        Raises
        ------
        InputError
            The schema is another one, a field is missing, or a value has the wrong type or range.
        """
        check_writable(data, where)
        fields = Fields(data, where)
        check_schema(fields, EVENT_SCHEMA)
        phase = fields.text("phase")
        if phase not in PHASES:
            raise fields.fail("phase", "start, update or end", phase)
        return cls(
            id=fields.text("id"),
            device=fields.text("device"),
            source=fields.text("source"),
            label=fields.text("label"),
            phase=phase,  # type: ignore[arg-type]  # checked against PHASES above
            score=fields.number("score"),
            threshold=fields.number("threshold"),
            onset=fields.moment("onset"),
            offset=fields.optional_moment("offset"),
            time_synced=fields.truth("time_synced"),
            stream=fields.text("stream"),
            sample=fields.integer("sample"),
            rate_hz=fields.integer("rate_hz"),
            queued_s=fields.number("queued_s"),
            level_dba=fields.optional_number("level_dba"),
            model=ModelRef.from_dict(fields.table("model")),
            clip=fields.optional_text("clip"),
            report=fields.integer("report") if "report" in data else None,
            extra=fields.rest(),
        )

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "event") -> SoundEvent:
        """Read JSON text of at most `MAX_RECORD_BYTES`; raises as `from_dict`."""
        return cls.from_dict(parse_object(payload, where), where)


def event_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an event, for programs that receive one."""
    model = {
        "type": "object",
        "required": ["name", "version", "sha256"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "sha256": {"type": "string", "pattern": f"^{_SHA256.pattern}$"},
        },
        "additionalProperties": True,
    }
    schema = object_schema(
        EVENT_SCHEMA,
        {
            "schema": {"const": EVENT_SCHEMA},
            "id": UUID7_SCHEMA,
            "device": NAME_SCHEMA,
            "source": NAME_SCHEMA,
            "label": NAME_SCHEMA,
            "phase": {"enum": list(PHASES)},
            "score": UNIT_SCHEMA,
            "threshold": UNIT_SCHEMA,
            "onset": TIME_SCHEMA,
            "offset": OPTIONAL_TIME_SCHEMA,
            "time_synced": {"type": "boolean"},
            "stream": UUID7_SCHEMA,
            "sample": _COUNT_SCHEMA,
            "rate_hz": {**_COUNT_SCHEMA, "minimum": 1},
            "queued_s": {"type": "number", "minimum": 0},
            "level_dba": {"type": ["number", "null"]},
            "model": model,
            "clip": {"type": ["string", "null"]},
        },
    )
    # Not required: events from before it was counted have none.
    schema["properties"]["report"] = _COUNT_SCHEMA
    schema["if"] = {"properties": {"phase": {"const": "end"}}}
    schema["then"] = {"properties": {"offset": {"type": "string"}}}
    schema["else"] = {"properties": {"offset": {"type": "null"}}}
    return schema
