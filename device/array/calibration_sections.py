"""The sections of calibration.json: what was found out, when, how, and how well it fits.

Each says its date, the temperature of the air, the method, and residuals: numbers by name, with
their unit at the name's end, for people to judge by. What a later version adds to a section is kept
and written back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from soundpost.device.array.geometry import Floats
from soundpost.device.array.section_fields import (
    check_within,
    take_list,
    take_numbers,
    take_rows,
    wrong_value,
)
from soundpost.device.errors import InputError
from soundpost.device.identifiers import format_time
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.records import Fields

# Whether a microphone can be used: dead hears nothing, noisy is louder than the sound by itself,
# clipped has a limit that the sound reaches.
STATES: Final = ("good", "dead", "noisy", "clipped")
# Beyond these a number is no microphone's, but a mistake of sign or unit.
_GAINS = (1e-4, 1e4)
_LATEST_S = 0.1
_PASCALS = (1e-9, 1e9)


@dataclass(frozen=True)
class Evidence:
    """When and how a section was found out.

    temperature_c : of the air; None where it does not matter or nobody knows
    residuals : what the model leaves unexplained, by name with the unit at its end
    extra : fields of later versions
    """

    date: datetime
    method: str
    temperature_c: float | None = None
    residuals: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.date.tzinfo is None:
            raise InputError("calibration: its date has no time zone; expected one")
        if not all(math.isfinite(value) for value in self.residuals.values()):
            raise InputError("calibration: a residual is not a finite number")

    def to_dict(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The section with these values of its own, as JSON takes it."""
        return {
            "date": format_time(self.date),
            "temperature_c": self.temperature_c,
            "method": self.method,
            "residuals": dict(self.residuals),
            **values,
            **self.extra,
        }

    @classmethod
    def take(cls, fields: Fields) -> Evidence:
        """From a section of which the values have been taken already."""
        date, temperature_c = fields.moment("date"), fields.optional_number("temperature_c")
        method, residuals = fields.text("method"), fields.optional_numbers("residuals")
        return cls(date, method, temperature_c, residuals or {}, fields.rest())


@dataclass(frozen=True)
class MicrophoneSection:
    """What each microphone does to the sound, in the order of array.json.

    gain : (n_mics,) times as strong as the array's typical microphone; 1 where it is not known
    delay_s : (n_mics,) later than it should; 0 where it is not known
    inverted : (n_mics,) minus where there should be plus
    states : (n_mics,) of STATES
    channels : (n_mics,) channel of the stream on which each really is
    positions_sha256 : of the positions with which the delays were found out
    """

    evidence: Evidence
    gain: tuple[float, ...]
    delay_s: tuple[float, ...]
    inverted: tuple[bool, ...]
    states: tuple[str, ...]
    channels: tuple[int, ...]
    positions_sha256: str

    def __post_init__(self) -> None:
        n_mics = len(self.gain)
        for name in ("delay_s", "inverted", "states", "channels"):
            if len(getattr(self, name)) != n_mics:
                raise wrong_value(name, f"{n_mics} values, as gain has", len(getattr(self, name)))
        for value in self.gain:
            check_within(value, *_GAINS, "gain")
        for value in self.delay_s:
            check_within(value, -_LATEST_S, _LATEST_S, "delay_s")
        for state in self.states:
            if state not in STATES:
                raise wrong_value("state", f"one of {', '.join(STATES)}", state)
        if min(self.channels, default=0) < 0 or len(set(self.channels)) < n_mics:
            raise wrong_value("channels", "another channel, from 0, for each", list(self.channels))

    def named(self, *states: str) -> tuple[int, ...]:
        """Numbers of the microphones in these states."""
        return tuple(mic for mic, state in enumerate(self.states) if state in states)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return self.evidence.to_dict(
            {
                "gain": list(self.gain),
                "delay_s": list(self.delay_s),
                "inverted": list(self.inverted),
                "state": list(self.states),
                "channels": list(self.channels),
                "positions_sha256": self.positions_sha256,
            }
        )

    @classmethod
    def take(cls, fields: Fields) -> MicrophoneSection:
        """From the parsed section; raises InputError."""
        values = (
            take_numbers(fields, "gain"),
            take_numbers(fields, "delay_s"),
            tuple(take_list(fields, "inverted", bool, "a list of true and false")),
            tuple(take_list(fields, "state", str, "a list of texts")),
            tuple(take_list(fields, "channels", int, "a list of whole numbers")),
            fields.text("positions_sha256"),
        )
        return cls(Evidence.take(fields), *values)


@dataclass(frozen=True, eq=False)
class PositionSection:
    """Where the microphones really are.

    positions_m : (n_mics, 3) in the axes of array.json
    """

    evidence: Evidence
    positions_m: Floats

    def __post_init__(self) -> None:
        positions = np.array(self.positions_m, np.float64)
        if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
            raise wrong_value("positions_m", "(n_mics, 3) finite numbers", positions.shape)
        positions += 0.0
        positions.setflags(write=False)
        object.__setattr__(self, "positions_m", positions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PositionSection):
            return NotImplemented
        same = np.array_equal(self.positions_m, other.positions_m)
        return same and self.evidence == other.evidence

    def __hash__(self) -> int:
        return hash(self.positions_m.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return self.evidence.to_dict({"positions_m": self.positions_m.tolist()})

    @classmethod
    def take(cls, fields: Fields) -> PositionSection:
        """From the parsed section; raises InputError."""
        positions_m = take_rows(fields, "positions_m", 3)
        return cls(Evidence.take(fields), positions_m)


@dataclass(frozen=True)
class LevelSection:
    """Sound pressure of a sample of full scale.

    channel : of the stream, on whose microphone the calibrator stood
    pa_per_unit : pascals that a sample of 1.0 stands for on this channel; others follow by gain
    uncertainty_db : standard uncertainty of that, the calibrator's own included
    """

    evidence: Evidence
    pa_per_unit: float
    uncertainty_db: float
    channel: int

    def __post_init__(self) -> None:
        check_within(self.pa_per_unit, *_PASCALS, "pa_per_unit")
        check_within(self.uncertainty_db, 0.0, 20.0, "uncertainty_db")
        check_within(self.channel, 0, 65_535, "channel")

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return self.evidence.to_dict(
            {
                "pa_per_unit": self.pa_per_unit,
                "uncertainty_db": self.uncertainty_db,
                "channel": self.channel,
            }
        )

    @classmethod
    def take(cls, fields: Fields) -> LevelSection:
        """From the parsed section; raises InputError."""
        values = fields.number("pa_per_unit"), fields.number("uncertainty_db")
        channel = fields.integer("channel")
        return cls(Evidence.take(fields), *values, channel)


@dataclass(frozen=True)
class ResponseSection:
    """What microphones add at each frequency, as their makers say.

    points : (frequency_hz, response_db) pairs, rising; see device/microphone.py. Of all microphones
        that have none of their own; empty: flat
    by_microphone : those of single microphones, by their number in array.json
    """

    evidence: Evidence
    points: tuple[tuple[float, float], ...] = ()
    by_microphone: Mapping[int, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        MicrophoneProfile(response=self.points)
        for mic, points in self.by_microphone.items():
            try:
                MicrophoneProfile(response=points)
            except InputError as error:
                raise InputError(f"calibration: microphone {mic}: {error}") from error

    def response_db(self, frequencies_hz: Floats, n_mics: int) -> Floats:
        """What microphones add, in dB re 1 kHz, (n_frequencies, n_mics)."""
        common = MicrophoneProfile(response=self.points).response_db(frequencies_hz)
        table = np.repeat(common[:, None], n_mics, axis=1)
        for mic, points in self.by_microphone.items():
            table[:, mic] = MicrophoneProfile(response=points).response_db(frequencies_hz)
        return table

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        values: dict[str, Any] = {"points": [list(point) for point in self.points]}
        if self.by_microphone:
            values["by_microphone"] = {
                str(mic): [list(point) for point in points]
                for mic, points in sorted(self.by_microphone.items())
            }
        return self.evidence.to_dict(values)

    @classmethod
    def take(cls, fields: Fields) -> ResponseSection:
        """From the parsed section; raises InputError."""
        points = _take_points(fields, "points")
        single: dict[int, tuple[tuple[float, float], ...]] = {}
        if "by_microphone" in fields.rest():
            table = fields.table("by_microphone")
            inner = Fields(table, "field 'by_microphone'")
            for name in table:
                if not (name.isascii() and name.isdecimal()) or str(int(name[:9])) != name:
                    raise fields.fail("by_microphone", "numbers of microphones from 0", name)
                single[int(name)] = _take_points(inner, name)
        return cls(Evidence.take(fields), points, single)


def _take_points(fields: Fields, name: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(f), float(db)) for f, db in take_rows(fields, name, 2))
