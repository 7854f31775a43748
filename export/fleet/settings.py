"""Settings of a roll-out: waves, times, and what stops it; and how people write them."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from soundpost.device.errors import UsageError
from soundpost.device.records import Fields

_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_COUNT = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(%?)")
_LONGEST_S: Final = 90 * 86_400.0

# What may stop a roll-out, and what each counts.
STOP_KINDS: Final[Mapping[str, str]] = {
    "rolled-back": "went back to the model before",
    "refused": "did not take the model: refused, rejected or failed",
    "late": "did not get so far in time",
    "offline": "are away for longer than --grace",
    "deaf": "have a source that does not hear for longer than --grace",
    "drift": "have scores that have drifted since",
}


@dataclass(frozen=True)
class Amount:
    """Some sensors of many: a count, or a share of 0 to 1."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str, what: str) -> Amount:
        """Read `10` or `5%`; raises UsageError."""
        found = _COUNT.fullmatch(text.strip())
        if found is None or (not found[2] and "." in found[1]):
            raise UsageError(f"{what} {text.strip()!r}: expected a count such as 10, or a share 5%")
        if not found[2]:
            return cls(count=int(found[1]))
        if float(found[1]) > 100:
            raise UsageError(f"{what} {text.strip()!r}: a share is at most 100%")
        return cls(share=float(found[1]) / 100)

    def of(self, n_sensors: int) -> int:
        """How many that are of so many, rounded up."""
        if self.count is not None:
            return min(self.count, n_sensors)
        # 7% of 100 is 7, though 0.07 x 100 is a little more.
        return min(n_sensors, math.ceil(round((self.share or 0.0) * n_sensors, 6)))

    def reached_by(self, n: int, n_sensors: int) -> bool:
        """Whether n of so many are as many, or more; none never are."""
        if n == 0:
            return False
        if self.count is not None:
            return n >= self.count
        return n >= round((self.share or 0.0) * n_sensors, 6)

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"


def parse_duration(text: str, what: str) -> float:
    """Seconds of `90s`, `30m`, `2h`, `1d` or a bare number of seconds; raises UsageError."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found else math.inf
    if seconds > _LONGEST_S:
        raise UsageError(f"{what} {text!r}: expected a time such as 90s, 30m, 2h or 1d")
    return seconds


def parse_waves(text: str) -> tuple[Amount, ...]:
    """Waves as `5%,25%,100%` or `1,10,100%`: how many sensors have been asked by the end of each.

    Raises UsageError where they do not grow, or the last is not all.
    """
    waves = tuple(Amount.parse(part, "--waves") for part in text.replace("all", "100%").split(","))
    for before, after in itertools.pairwise(waves):
        for unit in ("count", "share"):
            one, other = getattr(before, unit), getattr(after, unit)
            if None not in (one, other) and one >= other:
                raise UsageError(f"--waves {text!r}: {after} is not more than {before}")
    if any(amount.of(1_000_000) == 0 for amount in waves):
        raise UsageError(f"--waves {text!r}: a wave of 0 sensors")
    if waves[-1].share != 1.0:
        raise UsageError(
            f"--waves {text!r}: the last one must be 100%, for the channel is then moved"
        )
    return waves


DEFAULT_WAVES: Final = parse_waves("5%,25%,100%")
DEFAULT_STOPS: Final[Mapping[str, Amount]] = {
    "rolled-back": Amount(share=0.05),
    "refused": Amount(share=0.05),
    "late": Amount(share=0.2),
    "offline": Amount(share=0.2),
    "deaf": Amount(share=0.05),
    "drift": Amount(share=0.2),
}


def parse_stops(texts: Sequence[str]) -> dict[str, Amount]:
    """Conditions as `rolled-back=2%` or `offline=off`, over the defaults; raises UsageError."""
    stops = dict(DEFAULT_STOPS)
    for text in (part for one in texts for part in one.split(",")):
        name, equals, amount = (part.strip() for part in text.partition("="))
        if not equals or name not in STOP_KINDS:
            near = difflib.get_close_matches(name, STOP_KINDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"KIND is one of {', '.join(STOP_KINDS)}"
            raise UsageError(f"--stop-if {text.strip()!r}: expected KIND=AMOUNT; {hint}")
        if amount == "off":
            stops.pop(name, None)
        else:
            stops[name] = Amount.parse(amount, f"--stop-if {name}")
            if stops[name].of(1_000_000) == 0:
                raise UsageError(f"--stop-if {name}=0: none is always reached; write {name}=off")
    return stops


@dataclass(frozen=True)
class RollOutSettings:
    """How a roll-out goes on, and what stops it. UsageError where times contradict.

    waves : sensors asked by the end of each
    hold_s : after the last sensor of a wave has proved itself
    spread_s : over which the sensors of a wave are asked
    install_s, confirm_s : from the beginning of a wave to a model on probation, and to one that has
        proved itself; a sensor that takes longer is late
    grace_s : that a sensor may be away, or a source deaf
    stops : by kind (STOP_KINDS), how many of the sensors that were asked
    allow_older : sensors may go back to the model from a newer one
    """

    waves: tuple[Amount, ...] = DEFAULT_WAVES
    hold_s: float = 1_800.0
    spread_s: float = 60.0
    install_s: float = 3_600.0
    confirm_s: float = 26 * 3_600.0
    grace_s: float = 300.0
    stops: Mapping[str, Amount] = field(default_factory=lambda: dict(DEFAULT_STOPS))
    allow_older: bool = False

    def __post_init__(self) -> None:
        if self.install_s <= self.spread_s or self.confirm_s < self.install_s:
            raise UsageError(
                f"--spread {self.spread_s:g}s, --install-within {self.install_s:g}s, "
                f"--confirm-within {self.confirm_s:g}s: expected each to be longer than the one "
                "before"
            )

    def to_dict(self) -> dict[str, Any]:
        """As the state file holds it."""
        return {
            "waves": ",".join(map(str, self.waves)),
            "hold_s": self.hold_s,
            "spread_s": self.spread_s,
            "install_s": self.install_s,
            "confirm_s": self.confirm_s,
            "grace_s": self.grace_s,
            "stops": {kind: str(amount) for kind, amount in self.stops.items()},
            "allow_older": self.allow_older,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> RollOutSettings:
        """Read what `to_dict` writes; raises InputError or UsageError naming what is wrong."""
        waves = parse_waves(fields.text("waves"))
        stops = {
            kind: Amount.parse(str(text), f"stops.{kind}")
            for kind, text in fields.table("stops").items()
        }
        return cls(
            waves=waves,
            hold_s=fields.number("hold_s"),
            spread_s=fields.number("spread_s"),
            install_s=fields.number("install_s"),
            confirm_s=fields.number("confirm_s"),
            grace_s=fields.number("grace_s"),
            stops=stops,
            allow_older=fields.truth("allow_older"),
        )
