"""The tables of a scene's settings: every key, what it means and what it may be."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from soundpost.calibration.microphones import MicrophoneSettings
from soundpost.calibration.noise import Wind
from soundpost.calibration.rooms import Room
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.audio import MAX_RATE_HZ, MIN_RATE_HZ
from soundpost.device.kinds import Choice, FilePath, Flag, Kind, Number, Table, Text


@dataclass(frozen=True)
class Numbers(Kind):
    """A list of so many numbers from low to high."""

    count: int
    low: float
    high: float
    unit: str

    def read(self, value: object) -> tuple[float, ...] | None:
        """Floats, or None."""
        number = Number("", self.low, self.high)
        if not isinstance(value, list) or len(value) != self.count:
            return None
        read = [number.read(item) for item in value]
        return None if None in read else tuple(float(item) for item in read if item is not None)

    @property
    def expected(self) -> str:
        """In words."""
        return f"a list of {self.count} numbers from {self.low:g} to {self.high:g} {self.unit}"

    def schema(self) -> dict[str, Any]:
        """JSON Schema."""
        items = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"type": "array", "items": items, "minItems": self.count, "maxItems": self.count}


@dataclass(frozen=True)
class Points(Kind):
    """A list of points [time, x, y, z]."""

    def read(self, value: object) -> Trajectory | None:
        """A trajectory, or None."""
        point = Numbers("", 4, -1e4, 1e4, "")
        if not isinstance(value, list) or not value or any(point.read(of) is None for of in value):
            return None
        return Trajectory.through(value)

    @property
    def expected(self) -> str:
        """In words."""
        return "a list of points [time in seconds, x, y, z in metres]"

    def schema(self) -> dict[str, Any]:
        """JSON Schema."""
        items = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        return {"type": "array", "items": items, "minItems": 1}


TOP = Table(
    "a scene",
    {
        "array": FilePath("the array, array.json"),
        "seconds": Number("length", 0.01, 3_600, "s"),
        "rate_hz": Number("sample rate", MIN_RATE_HZ, MAX_RATE_HZ, "Hz", whole=True),
        "temperature_c": Number("of the air", -40, 60, "degrees Celsius"),
        "gain_db": Number("of all sound of the sources", -120, 120, "dB"),
        "seed": Number("of everything that is drawn", 0, 2**31, whole=True),
    },
)
ROOM = Table(
    "a room; without it the field is free",
    {
        "size_m": Numbers("width, height, depth", 3, 0.5, 100, "m"),
        "camera_m": Numbers("the camera, from the lowest corner", 3, 0, 100, "m"),
        "rt60_s": Number("reverberation time", 0.01, 5, "s"),
        "waypoint_m": Number("between the places of what moves", 0.01, 10, "m"),
        "most_waypoints": Number("places of what moves", 1, 1_000, whole=True),
        "max_order": Number("reflections that are followed", 0, 100, whole=True),
    },
    Room,
)
# What a source can sound; one of them is given.
SIGNALS = ("file", "tone_hz", "chirp_hz", "noise")
SOURCE = Table(
    "a source",
    {
        "label": Text("what it is"),
        "file": FilePath("a sound file; the mean of its channels, 8 at most"),
        "tone_hz": Number("a sine", 1, MAX_RATE_HZ / 2, "Hz"),
        "chirp_hz": Numbers("a sine that rises", 2, 1, MAX_RATE_HZ / 2, "Hz"),
        "noise": Flag("white noise"),
        "from_s": Number("where in the file it begins", 0, 36_000, "s"),
        "seconds": Number("how long; of a file all without it", 0.001, 3_600, "s"),
        "start_s": Number("when it begins", 0, 3_600, "s"),
        "level_dbfs": Number("root mean square at 1 m", -160, 60, "dB of full scale"),
        "position_m": Numbers("where it is: x, y, z", 3, -1_000, 1_000, "m"),
        "path": Points("where it is when"),
    },
)
# Keys of [[noise]] that belong to its kind wind.
WIND_KEYS = {field.name for field in fields(Wind)}
NOISE = Table(
    "noise",
    {
        "kind": Choice("where it comes from", ("diffuse", "wind", "self")),
        "snr_db": Number("the sources' level over it", -100, 200, "dB"),
        "level_dbfs": Number("root mean square", -200, 60, "dB of full scale"),
        "slope_db_per_octave": Number("of diffuse noise", -24, 24, "dB"),
        "speed_m_s": Number("of wind", 0.1, 60, "m/s"),
        "decay": Number("of the coherence of wind", 0.01, 10),
        "corner_hz": Number("above which wind falls", 0.1, 1_000, "Hz"),
        "gust_db": Number("standard deviation of the level of wind", 0, 20, "dB"),
    },
)
MICROPHONES = Table(
    "faults of the microphones",
    {
        "gain_db": Number("standard deviation", 0, 20, "dB"),
        "delay_s": Number("standard deviation", 0, 0.1, "s"),
        "inverted": Number("microphones", 0, 1_024, whole=True),
        "dead": Number("microphones", 0, 1_024, whole=True),
        "noisy": Number("microphones", 0, 1_024, whole=True),
        "clipped": Number("microphones", 0, 1_024, whole=True),
        "swapped": Number("pairs", 0, 512, whole=True),
        "noise_dbfs": Number("of a noisy one", -160, 0, "dB of full scale"),
        "clip_dbfs": Number("of a clipped one", -160, 0, "dB of full scale"),
    },
    MicrophoneSettings,
)
