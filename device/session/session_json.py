"""session.json: what a recorded session is, apart from its sound, its pictures and its gaps.

    {
     "schema": "soundpost.session/1",
     "id": "0192…",
     "device": "porch-pi",
     "created": "2026-11-20T10:00:00.000000Z",
     "state": "closed",
     "end": "asked to stop",
     "audio": {"source": "rtp:array.sdp", "rate_hz": 48000, "n_channels": 128,
               "segment_samples": 2880000, "n_samples": 28800000},
     "array": {"sha256": "…"},
     "calibration": {"sha256": "…"},
     "video": {"camera": "v4l2:/dev/video0", "width": 640, "height": 480, "codec": "h264",
               "dropped": 0, "gaps": [{"first_sample": 480000, "length": 96000, "cause": "…"}]},
     "clock": [{"sample": 0, "monotonic_s": 1234.5, "utc": "2026-11-20T10:00:00.000000Z"}],
     "time_synced": true,
     "temperature_c": 21.5,
     "notes": "two people talk in the hall"
    }

`array` and `calibration` are null or name the hash of array.json's positions and of
calibration.json's bytes, which lie beside this file. While a session is recorded its state is
"recording" and n_samples is null. Unknown fields are kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from soundpost.device.audio import MAX_RATE_HZ, MIN_RATE_HZ
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import format_time
from soundpost.device.records import (
    Fields,
    check_count,
    check_moment,
    check_schema,
    check_uuid7,
    check_writable,
    parse_object,
    require,
)

SESSION_SCHEMA: Final = "soundpost.session/1"
SESSION_FILE: Final = "session.json"
ARRAY_FILE: Final = "array.json"
CALIBRATION_FILE: Final = "calibration.json"

State = Literal["recording", "closed"]

# An anchor a minute for a week takes 1.2 MB.
_MAX_BYTES = 16_000_000
MAX_CHANNELS: Final = 1_024


@dataclass(frozen=True)
class ClockAnchor:
    """When a sample was heard.

    sample : position on the session's timeline
    monotonic_s : by the clock of the machine that recorded
    utc : by its system clock
    """

    sample: int
    monotonic_s: float
    utc: datetime


@dataclass(frozen=True)
class CameraGap:
    """A time without pictures.

    first_sample, length : on the timeline of the sound; None where it lasts to the end
    """

    first_sample: int
    length: int | None
    cause: str


@dataclass(frozen=True)
class VideoDescription:
    """What session.json says of the camera.

    camera : its URL
    width, height : of every frame
    codec : of video.mkv, by FFmpeg's name
    dropped : frames that came and could not be written in time
    gaps : when there was no camera
    """

    camera: str
    width: int
    height: int
    codec: str
    dropped: int = 0
    gaps: tuple[CameraGap, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionDescription:
    """What session.json says.

    id : UUIDv7
    device : name of the sensor that recorded
    created : when, with a zone
    source : URL of the sound
    rate_hz, n_channels : of the sound, all channels
    segment_samples : length of every file but the last
    n_samples : of the timeline, gaps included; None while it is recorded
    state : "recording" until it is closed
    end : why it ended, for people; empty while it is recorded
    array_sha256, calibration_sha256 : of the files beside it, None where there is none
    clock : anchors, rising
    time_synced : whether the system clock was known to be right
    temperature_c : of the air, None where it is not known
    notes : free text

    Raises InputError where a value is outside its range.
    """

    id: str
    device: str
    created: datetime
    source: str
    rate_hz: int
    n_channels: int
    segment_samples: int
    n_samples: int | None = None
    state: State = "recording"
    end: str = ""
    array_sha256: str | None = None
    calibration_sha256: str | None = None
    video: VideoDescription | None = None
    clock: tuple[ClockAnchor, ...] = ()
    time_synced: bool = False
    temperature_c: float | None = None
    notes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_uuid7(self.id, "session id")
        check_moment(self.created, "session created")
        rates = f"{MIN_RATE_HZ} to {MAX_RATE_HZ}"
        require(MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ, "session rate_hz", rates, self.rate_hz)
        most = f"1 to {MAX_CHANNELS}"
        require(1 <= self.n_channels <= MAX_CHANNELS, "session n_channels", most, self.n_channels)
        check_count(self.segment_samples, "session segment_samples", 1)
        states = ("recording", "closed")
        require(self.state in states, "session state", "'recording' or 'closed'", self.state)
        if self.n_samples is not None:
            check_count(self.n_samples, "session n_samples")
        require(
            (self.n_samples is None) == (self.state == "recording"),
            "session n_samples",
            "a number, once it is closed",
            self.n_samples,
        )
        places = [anchor.sample for anchor in self.clock]
        require(places == sorted(set(places)), "session clock", "samples that rise", places)

    def closed(self, n_samples: int, end: str) -> SessionDescription:
        """The same, ended."""
        return dataclasses.replace(self, state="closed", n_samples=n_samples, end=end)

    def to_json(self) -> str:
        """The file's text, a line for each field and each anchor."""
        audio = {
            "source": self.source,
            "rate_hz": self.rate_hz,
            "n_channels": self.n_channels,
            "segment_samples": self.segment_samples,
            "n_samples": self.n_samples,
        }
        anchors = [
            {
                "sample": anchor.sample,
                "monotonic_s": round(anchor.monotonic_s, 6),
                "utc": format_time(anchor.utc),
            }
            for anchor in self.clock
        ]
        parts = {
            "schema": _json(SESSION_SCHEMA),
            "id": _json(self.id),
            "device": _json(self.device),
            "created": _json(format_time(self.created)),
            "state": _json(self.state),
            "end": _json(self.end),
            "audio": _json(audio),
            "array": _json(_hashed(self.array_sha256)),
            "calibration": _json(_hashed(self.calibration_sha256)),
            "video": _json(None if self.video is None else _video_table(self.video)),
            "clock": _lines(anchors),
            "time_synced": _json(self.time_synced),
            "temperature_c": _json(self.temperature_c),
            "notes": _json(self.notes),
            **{name: _json(value) for name, value in self.extra.items()},
        }
        lines = ",\n".join(f" {_json(name)}: {text}" for name, text in parts.items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = SESSION_FILE) -> SessionDescription:
        """Read the file's text; raises InputError naming `where` and the field."""
        data = parse_object(text, where, _MAX_BYTES)
        check_writable(data, where)
        fields = Fields(data, where)
        check_schema(fields, SESSION_SCHEMA)
        audio = Fields(fields.table("audio"), f"{where}, field 'audio'")
        n_samples = audio.take("n_samples")
        if n_samples is not None and (type(n_samples) is not int):
            raise audio.fail("n_samples", "a whole number or null", n_samples)
        try:
            return cls(
                id=fields.text("id"),
                device=fields.text("device"),
                created=fields.moment("created"),
                source=audio.text("source"),
                rate_hz=audio.integer("rate_hz"),
                n_channels=audio.integer("n_channels"),
                segment_samples=audio.integer("segment_samples"),
                n_samples=n_samples,
                state=fields.text("state"),  # type: ignore[arg-type]  # refused if neither
                end=fields.text("end"),
                array_sha256=_hash(fields, "array", where),
                calibration_sha256=_hash(fields, "calibration", where),
                video=_video(fields, where),
                clock=_clock(fields, where),
                time_synced=fields.truth("time_synced"),
                temperature_c=fields.optional_number("temperature_c"),
                notes=fields.text("notes"),
                extra=fields.rest(),
            )
        except InputError as error:
            if str(error).startswith(where):
                raise
            raise InputError(f"{where}: {error}") from error


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(values: Sequence[object]) -> str:
    if not values:
        return "[]"
    return "[\n" + ",\n".join(f"  {_json(value)}" for value in values) + "\n ]"


def _hashed(sha256: str | None) -> dict[str, str] | None:
    return None if sha256 is None else {"sha256": sha256}


def _hash(fields: Fields, name: str, where: str) -> str | None:
    table = fields.optional_table(name)
    return None if table is None else Fields(table, f"{where}, field {name!r}").text("sha256")


def _video_table(video: VideoDescription) -> dict[str, Any]:
    return {
        "camera": video.camera,
        "width": video.width,
        "height": video.height,
        "codec": video.codec,
        "dropped": video.dropped,
        "gaps": [dataclasses.asdict(gap) for gap in video.gaps],
        **video.extra,
    }


def _video(fields: Fields, where: str) -> VideoDescription | None:
    table = fields.optional_table("video")
    if table is None:
        return None
    inner = Fields(table, f"{where}, field 'video'")
    gaps = []
    for one in _list(inner, "gaps"):
        gap = Fields(one, f"{where}, field 'video', a gap")
        first, length = gap.integer("first_sample"), gap.take("length")
        if length is not None and type(length) is not int:
            raise gap.fail("length", "a whole number or null", length)
        gaps.append(CameraGap(first, length, gap.text("cause")))
    return VideoDescription(
        camera=inner.text("camera"),
        width=inner.integer("width"),
        height=inner.integer("height"),
        codec=inner.text("codec"),
        dropped=inner.integer("dropped"),
        gaps=tuple(gaps),
        extra=inner.rest(),
    )


def _clock(fields: Fields, where: str) -> tuple[ClockAnchor, ...]:
    anchors = []
    for one in _list(fields, "clock"):
        inner = Fields(one, f"{where}, field 'clock', an anchor")
        anchors.append(
            ClockAnchor(inner.integer("sample"), inner.number("monotonic_s"), inner.moment("utc"))
        )
    return tuple(anchors)


def _list(fields: Fields, name: str) -> list[Mapping[str, Any]]:
    value = fields.take(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise fields.fail(name, "a list of objects", value)
    return value


def read_description(folder: Path) -> SessionDescription:
    """Read a session's session.json; raises InputError naming the file and the field."""
    path = folder / SESSION_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; give the folder of a recorded session"
        ) from error
    return SessionDescription.from_json(raw, str(path))


def write_description(folder: Path, session: SessionDescription) -> None:
    """Write a session's session.json; raises InputError where that cannot be done."""
    write_atomically(folder / SESSION_FILE, session.to_json().encode())
