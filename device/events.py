"""What the sensor says and where: sound events, health records, MQTT topics.

Both records are JSON objects with a schema name that ends in a version. Reading checks every
known field and keeps the unknown ones, so that a record from a newer sensor passes through an
older program unharmed. Times are UTC, RFC 3339 with microseconds.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final, Literal, get_args

from soundpost.device.errors import InputError, UsageError

EVENT_SCHEMA: Final = "soundpost.event/1"
HEALTH_SCHEMA: Final = "soundpost.health/1"
DEFAULT_BASE_TOPIC: Final = "soundpost"
RESERVED_SOURCES: Final = frozenset({"status", "model", "cmd"})
_SOURCE_LEVELS: Final = frozenset({"event", "class", "level", "health"})

# A topic is at most 65,535 bytes (MQTT 3.1.1, 1.5.3); three names of this size and a base stay
# far below, and a log line stays readable.
MAX_NAME_BYTES: Final = 128
MAX_BASE_BYTES: Final = 512
# An event is about 600 bytes. A peer's payload beyond this is refused before it is parsed.
MAX_RECORD_BYTES: Final = 65_536

Phase = Literal["start", "update", "end"]
HealthState = Literal["ok", "degraded", "failed"]
PHASES: Final[tuple[str, ...]] = get_args(Phase)
HEALTH_STATES: Final[tuple[str, ...]] = get_args(HealthState)

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")


# --- identifiers --------------------------------------------------------------------------------


class _Uuid7Clock:
    """Issues UUIDv7 values that only ever grow within this process.

    RFC 9562, 5.7 and 6.2 method 2: 48 bits of Unix milliseconds, then 74 random bits that are
    incremented by a random step while the millisecond stays the same or the clock goes back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = -1
        self._tail = 0

    def next(self) -> int:
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # The top bit starts clear, so that increments have room before they overflow.
                self._tail = int.from_bytes(os.urandom(10), "big") >> 7
            else:
                self._tail += 1 + int.from_bytes(os.urandom(4), "big")
                if self._tail >> 74:
                    self._last_ms += 1
                    self._tail = int.from_bytes(os.urandom(10), "big") >> 7
            ms, tail = self._last_ms, self._tail
        rand_a, rand_b = tail >> 62, tail & ((1 << 62) - 1)
        return (ms & ((1 << 48) - 1)) << 80 | 7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b


_CLOCK = _Uuid7Clock()


def uuid7() -> str:
    """Return a new UUIDv7 (RFC 9562) in canonical lower case, greater than all before it.

    The order holds within one process, between threads and when the system clock goes back.
    """
    text = f"{_CLOCK.next():032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def format_time(moment: datetime) -> str:
    """RFC 3339 text in UTC with microseconds, such as `2026-11-20T10:00:01.250000Z`.

    Raises
    ------
    ValueError
        The moment has no time zone: which instant it means is unknown.
    """
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with a zone, found {moment.isoformat()} without one")
    utc = moment.astimezone(timezone.utc)
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read what `format_time` writes; exactly that form, so that text and instant are one to one.

    Raises
    ------
    ValueError
        The text has another form or names no real date.
    """
    if not _TIME.fullmatch(text):
        raise ValueError(f"expected a time like 2026-11-20T10:00:01.250000Z, found {text[:40]!r}")
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)


# --- names and topics ---------------------------------------------------------------------------


def _name_fault(name: str, max_bytes: int) -> str | None:
    """Why `name` cannot be one level of a topic, or None where it can."""
    if not name:
        return "it is empty"
    for character in name:
        if character in "/+#":
            return f"it contains {character!r}, which has a meaning in MQTT topics"
        code = ord(character)
        # NUL and surrogates are forbidden by MQTT 3.1.1 (1.5.3); other control characters and
        # non-characters may make a broker close the connection, and would disturb a terminal.
        if code < 0x20 or 0x7F <= code <= 0x9F or code in (0x2028, 0x2029):
            return f"it contains the control character U+{code:04X}"
        if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            return f"it contains U+{code:04X}, which is no character"
    if name.startswith("$"):
        return "it begins with '$', which brokers keep for themselves"
    if name != name.strip():
        return "it begins or ends with a space"
    n_bytes = len(name.encode())
    if n_bytes > max_bytes:
        return f"it has {n_bytes} bytes, at most {max_bytes} are allowed"
    return None


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it can be one level of an MQTT topic.

    Raises
    ------
    UsageError
        It is empty, longer than `MAX_NAME_BYTES`, begins with `$`, or holds `/`, `+`, `#`, a
        control character or something that is not a character.
    """
    fault = _name_fault(name, MAX_NAME_BYTES)
    if fault is not None:
        raise UsageError(f"{what} {name[:60]!r} cannot be used: {fault}")
    return name


def check_source(name: str) -> str:
    """Return `name` if a source may bear it.

    Raises
    ------
    UsageError
        As `check_name`; also for `status`, `model` and `cmd`, whose topics mean something else.
    """
    check_name(name, "source name")
    if name in RESERVED_SOURCES:
        taken = ", ".join(sorted(RESERVED_SOURCES))
        raise UsageError(f"source name {name!r} is reserved ({taken} are topics of their own)")
    return name


def check_base_topic(base: str) -> str:
    """Return `base` if it can stand before `/<device_id>/…`; it may have several levels.

    Raises
    ------
    UsageError
        A level is empty or not usable (see `check_name`).
    """
    for level in base.split("/"):
        fault = _name_fault(level, MAX_BASE_BYTES)
        if fault is not None:
            raise UsageError(f"base topic {base[:60]!r} cannot be used: a level of it: {fault}")
    if len(base.encode()) > MAX_BASE_BYTES:
        raise UsageError(f"base topic has {len(base.encode())} bytes, at most {MAX_BASE_BYTES}")
    return base


@dataclass(frozen=True)
class Topics:
    """Topics of one device, `<base>/<device_id>/…`.

    base : levels before the device, `soundpost` unless told
    device_id : one level, unique among the sensors of a broker
    """

    base: str
    device_id: str

    def __post_init__(self) -> None:
        check_base_topic(self.base)
        check_name(self.device_id, "device id")

    def _of(self, *levels: str) -> str:
        return "/".join((self.base, self.device_id, *levels))

    @property
    def status(self) -> str:
        """`online` or `offline`; retained, last will."""
        return self._of("status")

    @property
    def model_state(self) -> str:
        """State of the installed model; retained."""
        return self._of("model", "state")

    def event(self, source: str) -> str:
        """Events of a source; QoS 1, not retained."""
        return self._of(check_source(source), "event")

    def state(self, source: str, label: str) -> str:
        """`ON` or `OFF` of one class at one source; retained."""
        return self._of(check_source(source), "class", check_name(label, "label"))

    def level(self, source: str) -> str:
        """Sound levels of a source; QoS 0."""
        return self._of(check_source(source), "level")

    def health(self, source: str) -> str:
        """Health of a source; retained."""
        return self._of(check_source(source), "health")

    def cmd(self, name: str) -> str:
        """Command of that name; its answer is on the same topic and `/result`.

        Raises
        ------
        UsageError
            Also for the last levels of a source's topics: those who listen to all sources would
            take the command for what a source named `cmd` says.
        """
        check_name(name, "command")
        if name in _SOURCE_LEVELS:
            raise UsageError(f"command {name!r} is reserved: sources publish under this word")
        return self._of("cmd", name)

    def cmd_result(self, name: str) -> str:
        """Answer to a command."""
        return self.cmd(name) + "/result"


def event_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the events of all sources of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/+/event"


def status_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the status of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/status"


def _device_level(device_id: str | None) -> str:
    return "+" if device_id is None else check_name(device_id, "device id")


# --- reading fields -----------------------------------------------------------------------------


class _Fields:
    """Takes checked fields out of a parsed JSON object; what is left over is unknown."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._rest = dict(data)
        self._where = where

    def rest(self) -> dict[str, Any]:
        return self._rest

    def fail(self, name: str, expected: str, found: object) -> InputError:
        shown = repr(found)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InputError(f"{self._where}: field {name!r}: expected {expected}, found {shown}")

    def take(self, name: str) -> Any:
        if name not in self._rest:
            raise InputError(f"{self._where}: field {name!r} is missing")
        return self._rest.pop(name)

    def text(self, name: str) -> str:
        value = self.take(name)
        if not isinstance(value, str):
            raise self.fail(name, "text", value)
        return value

    def optional_text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.fail(name, "text or null", value)
        return value

    def truth(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false", value)
        return value

    def integer(self, name: str) -> int:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(name, "a whole number", value)
        return value

    def number(self, name: str) -> float:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(name, "a number", value)
        try:
            return float(value)
        except OverflowError as exc:
            raise self.fail(name, "a number", value) from exc

    def optional_number(self, name: str) -> float | None:
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        return self.number(name)

    def moment(self, name: str) -> datetime:
        value = self.take(name)
        try:
            return parse_time(value if isinstance(value, str) else repr(value))
        except ValueError as exc:
            raise self.fail(name, "RFC 3339 in UTC with microseconds", value) from exc

    def optional_moment(self, name: str) -> datetime | None:
        if self._rest.get(name, 0) is None:
            del self._rest[name]
            return None
        return self.moment(name)

    def table(self, name: str) -> Mapping[str, Any]:
        value = self.take(name)
        if not isinstance(value, dict):
            raise self.fail(name, "an object", value)
        return value


def _parse_object(payload: str | bytes, where: str) -> Mapping[str, Any]:
    if len(payload) > MAX_RECORD_BYTES:
        raise InputError(f"{where}: {len(payload)} bytes, at most {MAX_RECORD_BYTES} are read")
    try:
        data = json.loads(payload, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _check_schema(fields: _Fields, schema: str) -> None:
    found = fields.text("schema")
    if found != schema:
        raise fields.fail("schema", f"{schema!r} (update the older of the two programs)", found)


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _require(ok: bool, what: str, expected: str, found: object) -> None:
    if not ok:
        raise InputError(f"{what}: expected {expected}, found {str(found)[:60]!r}")


def _check_moment(moment: datetime, what: str) -> None:
    _require(moment.tzinfo is not None, what, "a time with a zone", moment)


# --- records ------------------------------------------------------------------------------------


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
        _require(bool(_SHA256.fullmatch(found)), "event model sha256", "64 hex digits", found)

    def to_dict(self) -> dict[str, Any]:
        """JSON object, known fields first."""
        known = {"name": self.name, "version": self.version, "sha256": self.sha256}
        return {**known, **self.extra}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "event model") -> ModelRef:
        """Read a JSON object; raises InputError naming the field."""
        fields = _Fields(data, where)
        return cls(
            name=fields.text("name"),
            version=fields.text("version"),
            sha256=fields.text("sha256"),
            extra=fields.rest(),
        )


@dataclass(frozen=True)
class SoundEvent:
    """One phase of one sound event (schema `soundpost.event/1`).

    id : UUIDv7, the same through start, update and end: receivers drop repeats by (id, phase)
    device, source, label : names that can be levels of a topic
    score, threshold : 0 to 1; the smoothed score and the onset threshold it passed
    onset, offset : instants with a zone; offset is given in the phase `end`, and only there
    time_synced : whether the system clock was known to be right
    stream : UUIDv7 of the capture stream; changes with every restart or replug
    sample : samples of `stream` before the onset, at `rate_hz`
    queued_s : seconds this message waited to be sent
    level_dba : A-weighted level, None without a calibrated microphone
    clip : name of the recorded clip, None without one
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "stream"):
            value = getattr(self, name)
            _require(bool(_UUID7.fullmatch(value)), f"event {name}", "a lower-case UUIDv7", value)
        try:
            check_name(self.device, "device id")
            check_source(self.source)
            check_name(self.label, "label")
        except UsageError as exc:
            raise InputError(f"event: {exc}") from exc
        _require(self.phase in PHASES, "event phase", "start, update or end", self.phase)
        for name in ("score", "threshold"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, f"event {name}", "0 to 1", value)
        _check_moment(self.onset, "event onset")
        if self.phase == "end":
            _require(self.offset is not None, "event offset", "a time, for its phase is end", None)
        else:
            _require(
                self.offset is None, "event offset", f"null in phase {self.phase}", self.offset
            )
        if self.offset is not None:
            _check_moment(self.offset, "event offset")
            _require(self.offset >= self.onset, "event offset", "not before the onset", self.offset)
        _require(self.sample >= 0, "event sample", "0 or more", self.sample)
        _require(self.rate_hz > 0, "event rate_hz", "more than 0", self.rate_hz)
        _require(0.0 <= self.queued_s < math.inf, "event queued_s", "0 or more", self.queued_s)
        level = self.level_dba
        _require(level is None or math.isfinite(level), "event level_dba", "finite", level)

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
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return _dump(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "event") -> SoundEvent:
        """Read a JSON object.

        Raises
        ------
        InputError
            The schema is another one, a field is missing, or a value has the wrong type or range.
        """
        fields = _Fields(data, where)
        _check_schema(fields, EVENT_SCHEMA)
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
            extra=fields.rest(),
        )

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "event") -> SoundEvent:
        """Read JSON text of at most `MAX_RECORD_BYTES`; raises as `from_dict`."""
        return cls.from_dict(_parse_object(payload, where), where)


@dataclass(frozen=True)
class Health:
    """How a source is doing (schema `soundpost.health/1`), published when it changes.

    time : instant with a zone
    state : `ok`, `degraded` (it listens, but lost something) or `failed` (it does not listen)
    reason : one line for a person, None while all is well
    uptime_s : seconds since the stream began
    gaps, overflows : breaks in the stream and capture overruns since it began
    queue : events waiting for the broker's acknowledgement
    dropped : events given up because the queue was full
    temperature_c : of the processor, None where the machine does not say
    cpu_percent : of one core, used by the daemon since the last record
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    device: str
    source: str
    time: datetime
    state: HealthState
    reason: str | None = None
    uptime_s: float = 0.0
    gaps: int = 0
    overflows: int = 0
    queue: int = 0
    dropped: int = 0
    temperature_c: float | None = None
    cpu_percent: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_name(self.device, "device id")
            check_source(self.source)
        except UsageError as exc:
            raise InputError(f"health: {exc}") from exc
        _check_moment(self.time, "health time")
        _require(self.state in HEALTH_STATES, "health state", "ok, degraded or failed", self.state)
        for name in ("uptime_s", "gaps", "overflows", "queue", "dropped"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"health {name}", "0 or more", value)
        for name in ("temperature_c", "cpu_percent"):
            value = getattr(self, name)
            _require(value is None or math.isfinite(value), f"health {name}", "finite", value)

    def to_dict(self) -> dict[str, Any]:
        """JSON object in the order of the fields, then the unknown ones."""
        return {
            "schema": HEALTH_SCHEMA,
            "device": self.device,
            "source": self.source,
            "time": format_time(self.time),
            "state": self.state,
            "reason": self.reason,
            "uptime_s": self.uptime_s,
            "gaps": self.gaps,
            "overflows": self.overflows,
            "queue": self.queue,
            "dropped": self.dropped,
            "temperature_c": self.temperature_c,
            "cpu_percent": self.cpu_percent,
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return _dump(self.to_dict())

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "health") -> Health:
        """Read JSON text; raises InputError naming the field that is wrong or missing."""
        fields = _Fields(_parse_object(payload, where), where)
        _check_schema(fields, HEALTH_SCHEMA)
        state = fields.text("state")
        if state not in HEALTH_STATES:
            raise fields.fail("state", "ok, degraded or failed", state)
        return cls(
            device=fields.text("device"),
            source=fields.text("source"),
            time=fields.moment("time"),
            state=state,  # type: ignore[arg-type]  # checked against HEALTH_STATES above
            reason=fields.optional_text("reason"),
            uptime_s=fields.number("uptime_s"),
            gaps=fields.integer("gaps"),
            overflows=fields.integer("overflows"),
            queue=fields.integer("queue"),
            dropped=fields.integer("dropped"),
            temperature_c=fields.optional_number("temperature_c"),
            cpu_percent=fields.optional_number("cpu_percent"),
            extra=fields.rest(),
        )


# --- schemas for other programs -----------------------------------------------------------------

_JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME_SCHEMA = {"type": "string", "pattern": "^[^/+#$\\u0000-\\u001f][^/+#\\u0000-\\u001f]*$"}
_TIME_SCHEMA = {"type": "string", "pattern": f"^{_TIME.pattern}$"}
_OPTIONAL_TIME_SCHEMA = {"type": ["string", "null"], "pattern": f"^{_TIME.pattern}$"}
_UUID7_SCHEMA = {"type": "string", "pattern": f"^{_UUID7.pattern}$"}
_UNIT_SCHEMA = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT_SCHEMA = {"type": "integer", "minimum": 0}


def _object_schema(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    # Unknown fields are allowed on purpose: later versions add to the record.
    return {
        "$schema": _JSON_SCHEMA_DIALECT,
        "title": title,
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": True,
    }


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
    schema = _object_schema(
        EVENT_SCHEMA,
        {
            "schema": {"const": EVENT_SCHEMA},
            "id": _UUID7_SCHEMA,
            "device": _NAME_SCHEMA,
            "source": _NAME_SCHEMA,
            "label": _NAME_SCHEMA,
            "phase": {"enum": list(PHASES)},
            "score": _UNIT_SCHEMA,
            "threshold": _UNIT_SCHEMA,
            "onset": _TIME_SCHEMA,
            "offset": _OPTIONAL_TIME_SCHEMA,
            "time_synced": {"type": "boolean"},
            "stream": _UUID7_SCHEMA,
            "sample": _COUNT_SCHEMA,
            "rate_hz": {"type": "integer", "minimum": 1},
            "queued_s": {"type": "number", "minimum": 0},
            "level_dba": {"type": ["number", "null"]},
            "model": model,
            "clip": {"type": ["string", "null"]},
        },
    )
    schema["if"] = {"properties": {"phase": {"const": "end"}}}
    schema["then"] = {"properties": {"offset": {"type": "string"}}}
    schema["else"] = {"properties": {"offset": {"type": "null"}}}
    return schema


def health_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a health record, for programs that receive one."""
    return _object_schema(
        HEALTH_SCHEMA,
        {
            "schema": {"const": HEALTH_SCHEMA},
            "device": _NAME_SCHEMA,
            "source": _NAME_SCHEMA,
            "time": _TIME_SCHEMA,
            "state": {"enum": list(HEALTH_STATES)},
            "reason": {"type": ["string", "null"]},
            "uptime_s": {"type": "number", "minimum": 0},
            "gaps": _COUNT_SCHEMA,
            "overflows": _COUNT_SCHEMA,
            "queue": _COUNT_SCHEMA,
            "dropped": _COUNT_SCHEMA,
            "temperature_c": {"type": ["number", "null"]},
            "cpu_percent": {"type": ["number", "null"]},
        },
    )
