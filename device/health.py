"""Health of a source: whether it listens, what it lost, what waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from soundpost.device.errors import InputError, UsageError
from soundpost.device.identifiers import format_time
from soundpost.device.records import (
    COUNT_SCHEMA,
    NAME_SCHEMA,
    TIME_SCHEMA,
    UUID7_SCHEMA,
    Fields,
    check_moment,
    check_schema,
    dump,
    object_schema,
    parse_object,
    require,
)
from soundpost.device.topics import check_name, check_source

HEALTH_SCHEMA: Final = "soundpost.health/1"

HealthState = Literal["ok", "degraded", "failed", "paused"]
HEALTH_STATES: Final[tuple[str, ...]] = get_args(HealthState)


@dataclass(frozen=True)
class Gap:
    """Sound that was lost: samples of a stream from its number `sample` on.

    Between two streams it is counted at the rate of the first, behind its last sample.
    """

    stream: str
    sample: int
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """JSON object in the order of the fields."""
        return {"stream": self.stream, "sample": self.sample, "samples": self.samples}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Gap:
        """Read a JSON object; raises InputError naming the field."""
        fields = Fields(data, where)
        return cls(fields.text("stream"), fields.integer("sample"), fields.integer("samples"))


@dataclass(frozen=True)
class Health:
    """How a source is doing (schema `soundpost.health/1`), published when it changes.

    time : instant with a zone
    state : `ok`, `degraded` (it listens, but lost something), `failed` (it does not listen) or
        `paused` (it does not listen because it was told so)
    reason : one line for a person, None while all is well
    uptime_s : seconds since the sensor started
    streams : how often the source was opened
    gaps, overflows : breaks in its sound and capture overruns
    lost_s : sound that the breaks cost, in seconds
    last_gap : the latest break, None before the first
    queue : messages waiting for the broker's acknowledgement
    dropped : messages given up because the queue was full, or which had waited too long
    clips : how many were `written`, `gated` since someone spoke, `unjudged` (and so not kept) and
        `failed`; None where none are kept
    temperature_c : of the processor, None where the machine does not say
    cpu_percent : of one core, used by the daemon and its child processes since the last record
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    device: str
    source: str
    time: datetime
    state: HealthState
    reason: str | None = None
    uptime_s: float = 0.0
    streams: int = 0
    gaps: int = 0
    overflows: int = 0
    lost_s: float = 0.0
    last_gap: Gap | None = None
    queue: int = 0
    dropped: int = 0
    clips: Mapping[str, int] | None = None
    temperature_c: float | None = None
    cpu_percent: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_name(self.device, "device id")
            check_source(self.source)
        except UsageError as exc:
            raise InputError(f"health: {exc}") from exc
        check_moment(self.time, "health time")
        require(
            self.state in HEALTH_STATES,
            "health state",
            "ok, degraded, failed or paused",
            self.state,
        )
        for name in ("uptime_s", "streams", "gaps", "overflows", "lost_s", "queue", "dropped"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"health {name}", "0 or more", value)
        for name, count in (self.clips or {}).items():
            require(count >= 0, f"health clips {name[:20]}", "0 or more", count)
        for name in ("temperature_c", "cpu_percent"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), f"health {name}", "finite", value)

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
            "streams": self.streams,
            "gaps": self.gaps,
            "overflows": self.overflows,
            "lost_s": self.lost_s,
            "last_gap": None if self.last_gap is None else self.last_gap.to_dict(),
            "queue": self.queue,
            "dropped": self.dropped,
            "clips": None if self.clips is None else dict(self.clips),
            "temperature_c": self.temperature_c,
            "cpu_percent": self.cpu_percent,
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return dump(self.to_dict())

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "health") -> Health:
        """Read JSON text; raises InputError naming the field that is wrong or missing."""
        fields = Fields(parse_object(payload, where), where)
        check_schema(fields, HEALTH_SCHEMA)
        state = fields.text("state")
        if state not in HEALTH_STATES:
            raise fields.fail("state", "ok, degraded, failed or paused", state)
        gap = fields.optional_table("last_gap")
        return cls(
            device=fields.text("device"),
            source=fields.text("source"),
            time=fields.moment("time"),
            state=state,  # type: ignore[arg-type]  # checked against HEALTH_STATES above
            reason=fields.optional_text("reason"),
            uptime_s=fields.number("uptime_s"),
            streams=fields.integer("streams"),
            gaps=fields.integer("gaps"),
            overflows=fields.integer("overflows"),
            lost_s=fields.number("lost_s"),
            last_gap=None if gap is None else Gap.from_dict(gap, f"{where}, field 'last_gap'"),
            queue=fields.integer("queue"),
            dropped=fields.integer("dropped"),
            clips=fields.optional_counts("clips"),
            temperature_c=fields.optional_number("temperature_c"),
            cpu_percent=fields.optional_number("cpu_percent"),
            extra=fields.rest(),
        )


def health_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a health record, for programs that receive one."""
    return object_schema(
        HEALTH_SCHEMA,
        {
            "schema": {"const": HEALTH_SCHEMA},
            "device": NAME_SCHEMA,
            "source": NAME_SCHEMA,
            "time": TIME_SCHEMA,
            "state": {"enum": list(HEALTH_STATES)},
            "reason": {"type": ["string", "null"]},
            "uptime_s": {"type": "number", "minimum": 0},
            "streams": COUNT_SCHEMA,
            "gaps": COUNT_SCHEMA,
            "overflows": COUNT_SCHEMA,
            "lost_s": {"type": "number", "minimum": 0},
            "last_gap": {
                "type": ["object", "null"],
                "required": ["stream", "sample", "samples"],
                "properties": {
                    "stream": UUID7_SCHEMA,
                    "sample": COUNT_SCHEMA,
                    "samples": COUNT_SCHEMA,
                },
            },
            "queue": COUNT_SCHEMA,
            "dropped": COUNT_SCHEMA,
            "clips": {"type": ["object", "null"], "additionalProperties": COUNT_SCHEMA},
            "temperature_c": {"type": ["number", "null"]},
            "cpu_percent": {"type": ["number", "null"]},
        },
    )
