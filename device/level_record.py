"""Sound levels of an interval, as they are published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

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
    check_uuid7,
    dump,
    object_schema,
    parse_object,
    require,
)
from soundpost.device.topics import check_name, check_source

if TYPE_CHECKING:
    from soundpost.device.levels import LevelMeter, Levels

LEVEL_SCHEMA: Final = "soundpost.level/1"


@dataclass(frozen=True)
class LevelRecord:
    """Sound levels of one interval (schema `soundpost.level/1`).

    Levels are in dB SPL (re 20 µPa) where calibrated is true, else in dBFS (a full-scale sine
    reads 0).

    time : when the interval began, with a zone
    time_synced : whether the system clock was known to be right
    stream, sample, rate_hz : as of an event; sample is the interval's first
    interval_s : its length
    measured_s : seconds of sound in it that were measured; the rest was lost or filters settled
    gaps : breaks of the stream in it
    calibrated : whether a microphone's sensitivity is known
    upper_limit_hz : sound above is not measured; None from a rate of 44.1 kHz on
    laeq_db, lceq_db : equivalent level, A- and C-weighted
    lafmax_db, lasmax_db : greatest A-weighted level, fast and slow
    l10_db, l50_db, l90_db : A-weighted fast level exceeded for 10, 50, 90 % of the time; None where
        too little sound came
    rms_dbfs, peak_dbfs : of the samples as captured, in dBFS always
    bands_db : by nominal third-octave mid-band frequency in Hz, None where they are not measured
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    device: str
    source: str
    time: datetime
    time_synced: bool
    stream: str
    sample: int
    rate_hz: int
    interval_s: float
    measured_s: float
    gaps: int
    calibrated: bool
    upper_limit_hz: float | None
    laeq_db: float
    lceq_db: float
    lafmax_db: float
    lasmax_db: float
    l10_db: float | None
    l50_db: float | None
    l90_db: float | None
    rms_dbfs: float
    peak_dbfs: float
    bands_db: Mapping[str, float] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_name(self.device, "device id")
            check_source(self.source)
        except UsageError as exc:
            raise InputError(f"level: {exc}") from exc
        check_moment(self.time, "level time")
        check_uuid7(self.stream, "level stream")
        for name in ("sample", "gaps", "measured_s"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"level {name}", "0 or more", value)
        for name in ("rate_hz", "interval_s", "upper_limit_hz"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"level {name}", "more than 0", value)
        for name in _LEVELS:
            value = getattr(self, name)
            require(value is None or math.isfinite(value), f"level {name}", "finite", value)
        for name, value in (self.bands_db or {}).items():
            require(math.isfinite(value), f"level bands_db {name[:20]}", "finite", value)

    @classmethod
    def of(
        cls,
        levels: Levels,
        meter: LevelMeter,
        *,
        device: str,
        source: str,
        time: datetime,
        time_synced: bool,
        stream: str,
    ) -> LevelRecord:
        """Record of an interval's levels, rounded to 0.1 dB."""
        bands_db = levels.bands_db
        return cls(
            device=device,
            source=source,
            time=time,
            time_synced=time_synced,
            stream=stream,
            sample=levels.first_sample,
            rate_hz=meter.rate_hz,
            interval_s=round(levels.n_samples / meter.rate_hz, 3),
            measured_s=round(levels.measured_s, 3),
            gaps=levels.gaps,
            calibrated=meter.profile.calibrated,
            upper_limit_hz=meter.upper_limit_hz,
            laeq_db=round(levels.laeq_db, 1),
            lceq_db=round(levels.lceq_db, 1),
            lafmax_db=round(levels.lafmax_db, 1),
            lasmax_db=round(levels.lasmax_db, 1),
            l10_db=_rounded(levels.l10_db),
            l50_db=_rounded(levels.l50_db),
            l90_db=_rounded(levels.l90_db),
            rms_dbfs=round(levels.rms_dbfs, 1),
            peak_dbfs=round(levels.peak_dbfs, 1),
            bands_db=bands_db and {name: round(level, 1) for name, level in bands_db.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON object in the order of the fields, then the unknown ones."""
        return {
            "schema": LEVEL_SCHEMA,
            "device": self.device,
            "source": self.source,
            "time": format_time(self.time),
            "time_synced": self.time_synced,
            "stream": self.stream,
            "sample": self.sample,
            "rate_hz": self.rate_hz,
            "interval_s": self.interval_s,
            "measured_s": self.measured_s,
            "gaps": self.gaps,
            "calibrated": self.calibrated,
            "upper_limit_hz": self.upper_limit_hz,
            **{name: getattr(self, name) for name in _LEVELS},
            "bands_db": None if self.bands_db is None else dict(self.bands_db),
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return dump(self.to_dict())

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "level") -> LevelRecord:
        """Read JSON text; raises InputError naming the field that is wrong or missing."""
        fields = Fields(parse_object(payload, where), where)
        check_schema(fields, LEVEL_SCHEMA)
        return cls(
            device=fields.text("device"),
            source=fields.text("source"),
            time=fields.moment("time"),
            time_synced=fields.truth("time_synced"),
            stream=fields.text("stream"),
            sample=fields.integer("sample"),
            rate_hz=fields.integer("rate_hz"),
            interval_s=fields.number("interval_s"),
            measured_s=fields.number("measured_s"),
            gaps=fields.integer("gaps"),
            calibrated=fields.truth("calibrated"),
            upper_limit_hz=fields.optional_number("upper_limit_hz"),
            laeq_db=fields.number("laeq_db"),
            lceq_db=fields.number("lceq_db"),
            lafmax_db=fields.number("lafmax_db"),
            lasmax_db=fields.number("lasmax_db"),
            l10_db=fields.optional_number("l10_db"),
            l50_db=fields.optional_number("l50_db"),
            l90_db=fields.optional_number("l90_db"),
            rms_dbfs=fields.number("rms_dbfs"),
            peak_dbfs=fields.number("peak_dbfs"),
            bands_db=fields.optional_numbers("bands_db"),
            extra=fields.rest(),
        )


_LEVELS: Final = (
    *("laeq_db", "lceq_db", "lafmax_db", "lasmax_db", "l10_db", "l50_db", "l90_db"),
    *("rms_dbfs", "peak_dbfs"),
)


def _rounded(level_db: float | None) -> float | None:
    return None if level_db is None else round(level_db, 1)


def level_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a level record, for programs that receive one."""
    number, optional = {"type": "number"}, {"type": ["number", "null"]}
    return object_schema(
        LEVEL_SCHEMA,
        {
            "schema": {"const": LEVEL_SCHEMA},
            "device": NAME_SCHEMA,
            "source": NAME_SCHEMA,
            "time": TIME_SCHEMA,
            "time_synced": {"type": "boolean"},
            "stream": UUID7_SCHEMA,
            "sample": COUNT_SCHEMA,
            "rate_hz": {"type": "integer", "minimum": 1},
            "interval_s": {"type": "number", "exclusiveMinimum": 0},
            "measured_s": {"type": "number", "minimum": 0},
            "gaps": COUNT_SCHEMA,
            "calibrated": {"type": "boolean"},
            "upper_limit_hz": {"type": ["number", "null"], "exclusiveMinimum": 0},
            "laeq_db": number,
            "lceq_db": number,
            "lafmax_db": number,
            "lasmax_db": number,
            "l10_db": optional,
            "l50_db": optional,
            "l90_db": optional,
            "rms_dbfs": number,
            "peak_dbfs": number,
            "bands_db": {"type": ["object", "null"], "additionalProperties": number},
        },
    )
