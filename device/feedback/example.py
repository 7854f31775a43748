"""One hard example: what is known of it, as it lies on a sensor's disk and goes to a person."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import ModelRef
from soundpost.device.feedback.feedback_settings import WHATS, What
from soundpost.device.feedback.hard_examples import REASONS, Reason
from soundpost.device.identifiers import format_time
from soundpost.device.records import (
    Fields,
    check_count,
    check_moment,
    check_schema,
    check_uuid7,
    dump,
    parse_object,
    require,
)
from soundpost.device.topics import check_name, check_source

EXAMPLE_SCHEMA: Final = "soundpost.example/1"
# Ten seconds at 192 kHz, not compressed.
MAX_EXAMPLE_BYTES: Final = 4_000_000
MAX_EXAMPLE_RECORD_BYTES: Final = 4_096
SUFFIXES: Final[dict[What, str]] = {"clips": ".flac", "features": ".npz"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_N_TOP_MOST: Final = 16


@dataclass(frozen=True)
class Example:
    """A stretch of sound or of features, and why it was kept (schema `soundpost.example/1`).

    id : UUIDv7
    time : of its first sample, an instant with a zone; time_synced: whether the clock was right
    stream, sample, rate_hz : its first sample in the stream, at the source's rate
    length_s : seconds
    label, reason : whose score made it one, and how
    score, threshold, new_score : 0 to 1; see Candidate
    top : labels with the highest scores, highest first
    model : that heard it
    what : "clips": a FLAC file. "features": an npz with log_mel (n_frames, n_mels) float32 and the
        front end as JSON
    n_bytes, sha256 : of that file
    seen : candidates of its label on that day, itself included: it stands for so many
    collected : a person has it
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    id: str
    device: str
    source: str
    time: datetime
    time_synced: bool
    stream: str
    sample: int
    rate_hz: int
    length_s: float
    label: str
    reason: Reason
    score: float
    threshold: float
    new_score: float | None
    top: tuple[str, ...]
    model: ModelRef
    what: What
    n_bytes: int
    sha256: str
    seen: int
    collected: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_uuid7(self.id, "example id")
        check_uuid7(self.stream, "example stream")
        try:
            check_name(self.device, "device id")
            check_source(self.source)
            for label in (self.label, *self.top):
                check_name(label, "label")
        except UsageError as error:
            raise InputError(f"example: {error}") from error
        check_moment(self.time, "example time")
        require(self.reason in REASONS, "example reason", f"one of {REASONS}", self.reason)
        require(self.what in WHATS, "example what", f"one of {WHATS}", self.what)
        for name in ("score", "threshold", "new_score"):
            value = getattr(self, name)
            require(value is None or 0.0 <= value <= 1.0, f"example {name}", "0 to 1", value)
        require(0 < self.length_s < math.inf, "example length_s", "more than 0", self.length_s)
        require(len(self.top) <= _N_TOP_MOST, "example top", "few labels", len(self.top))
        require(bool(_SHA256.fullmatch(self.sha256)), "example sha256", "64 hex", self.sha256)
        for name, least in (("sample", 0), ("rate_hz", 1), ("n_bytes", 1), ("seen", 1)):
            check_count(getattr(self, name), f"example {name}", least)
        require(
            self.n_bytes <= MAX_EXAMPLE_BYTES,
            "example n_bytes",
            f"at most {MAX_EXAMPLE_BYTES}",
            self.n_bytes,
        )

    @property
    def day(self) -> str:
        """UTC date by the sensor's clock."""
        return format_time(self.time)[:10]

    @property
    def file(self) -> str:
        """Name of its file on the sensor."""
        return self.id + SUFFIXES[self.what]

    def to_dict(self) -> dict[str, Any]:
        """JSON object in the order of the fields, then the unknown ones."""
        return {
            "schema": EXAMPLE_SCHEMA,
            "id": self.id,
            "device": self.device,
            "source": self.source,
            "time": format_time(self.time),
            "time_synced": self.time_synced,
            "stream": self.stream,
            "sample": self.sample,
            "rate_hz": self.rate_hz,
            "length_s": self.length_s,
            "label": self.label,
            "reason": self.reason,
            "score": self.score,
            "threshold": self.threshold,
            "new_score": self.new_score,
            "top": list(self.top),
            "model": self.model.to_dict(),
            "what": self.what,
            "n_bytes": self.n_bytes,
            "sha256": self.sha256,
            "seen": self.seen,
            "collected": self.collected,
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return dump(self.to_dict())

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "example") -> Example:
        """Read JSON text; raises InputError naming the field that is wrong or missing."""
        return cls.from_dict(parse_object(payload, where, MAX_EXAMPLE_RECORD_BYTES), where)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "example") -> Example:
        """Read a JSON object; raises InputError naming the field."""
        fields = Fields(data, where)
        check_schema(fields, EXAMPLE_SCHEMA)
        top = fields.take("top")
        if not isinstance(top, list) or not all(isinstance(label, str) for label in top):
            raise fields.fail("top", "a list of labels", top)
        reason, what = fields.text("reason"), fields.text("what")
        if reason not in REASONS:
            raise fields.fail("reason", f"one of {', '.join(REASONS)}", reason)
        if what not in WHATS:
            raise fields.fail("what", f"one of {', '.join(WHATS)}", what)
        return cls(
            id=fields.text("id"),
            device=fields.text("device"),
            source=fields.text("source"),
            time=fields.moment("time"),
            time_synced=fields.truth("time_synced"),
            stream=fields.text("stream"),
            sample=fields.integer("sample"),
            rate_hz=fields.integer("rate_hz"),
            length_s=fields.number("length_s"),
            label=fields.text("label"),
            reason=reason,
            score=fields.number("score"),
            threshold=fields.number("threshold"),
            new_score=fields.optional_number("new_score"),
            top=tuple(top),
            model=ModelRef.from_dict(fields.table("model"), f"{where}, field 'model'"),
            what=what,
            n_bytes=fields.integer("n_bytes"),
            sha256=fields.text("sha256"),
            seen=fields.integer("seen"),
            collected=fields.truth("collected"),
            extra=fields.rest(),
        )
