"""What is known of each sensor of a fleet, which is worst, and which were meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from soundpost.device.errors import UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.updates.model_state import ModelState

# Population stability index from which scores count as changed (a rule of thumb of credit scoring).
DRIFTED: Final = 0.25
BAD_RESULTS: Final = ("refused", "rejected", "rolled_back", "failed")

# From the worst on; `severity` returns places of this list.
LEVELS: Final = ("offline", "deaf", "update failed", "degraded", "drifted", "tells nothing", "well")


@dataclass(frozen=True)
class Sensor:
    """One sensor, as far as the broker has told.

    online : None where the broker has no status of it
    since_s : monotonic; when `online` became what it is, as far as we have seen
    state : of its model; None: its updates are off, or it is of an earlier version
    health : by source
    last_event : that came while we listened
    """

    device: str
    online: bool | None = None
    since_s: float = 0.0
    state: ModelState | None = None
    health: Mapping[str, Health] = field(default_factory=dict)
    last_event: SoundEvent | None = None

    @property
    def deaf_sources(self) -> dict[str, str]:
        """Sources that do not listen, though nobody told them so, and why."""
        return {
            name: health.reason or "no reason given"
            for name, health in sorted(self.health.items())
            if health.state == "failed"
        }

    @property
    def health_word(self) -> str:
        """The worst state of its sources; `-` where none has told."""
        states = {health.state for health in self.health.values()}
        order = ("failed", "degraded", "paused", "ok")
        return next((state for state in order if state in states), "-")

    @property
    def drifted(self) -> bool:
        """Whether its scores are no longer distributed as they were."""
        drift = None if self.state is None else self.state.drift
        return drift is not None and drift > DRIFTED


def so_many(n_sensors: int) -> str:
    """`1 sensor`, `2 sensors`."""
    return f"{n_sensors} sensor{'' if n_sensors == 1 else 's'}"


def trouble(sensor: Sensor) -> tuple[str, str]:
    """The worst about a sensor: one of LEVELS, and a line on it (empty where it is well)."""
    if sensor.online is not True:
        return "offline", "offline" if sensor.online is False else "has no status on the broker"
    for source, reason in sensor.deaf_sources.items():
        return "deaf", f"{source} does not hear: {reason}"
    state = sensor.state
    if state is not None and state.result in BAD_RESULTS:
        return "update failed", f"{state.result.replace('_', ' ')}: {state.reason or 'no reason'}"
    for source, health in sorted(sensor.health.items()):
        if health.state == "degraded":
            return "degraded", f"{source}: {health.reason or 'degraded'}"
    if sensor.drifted:
        return "drifted", "its scores have drifted"
    if state is None:
        return "tells nothing", "tells nothing of its model: [updates] is off, or it is older"
    return "well", ""


def worst_first(sensors: Iterable[Sensor]) -> list[Sensor]:
    """Sensors in the order of LEVELS, then by name."""
    return sorted(sensors, key=lambda one: (LEVELS.index(trouble(one)[0]), one.device))


def _facts(sensor: Sensor) -> dict[str, str]:
    state = sensor.state
    return {
        "device": sensor.device,
        "status": {True: "online", False: "offline", None: ""}[sensor.online],
        "health": sensor.health_word,
        "model": state.installed.name if state else "",
        "version": state.installed.version if state else "",
        "channel": (state.channel or "") if state else "",
        "phase": state.phase if state else "",
        "result": (state.result or "") if state else "",
    }


FACTS: Final = tuple(_facts(Sensor("x")))


@dataclass(frozen=True)
class Condition:
    """`name=pattern` or `name!=pattern` of `--where`."""

    name: str
    pattern: str
    is_met: bool = True

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read one; raises UsageError naming what it may be about."""
        name, equals, pattern = text.partition("=")
        negated = name.endswith("!")
        name = name.rstrip("!").strip()
        if not equals or name not in FACTS:
            near = difflib.get_close_matches(name, FACTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(FACTS)}"
            raise UsageError(f"--where {text!r}: expected NAME=PATTERN; NAME is {hint}")
        return cls(name, pattern, not negated)

    def holds(self, sensor: Sensor) -> bool:
        """Whether a sensor is as it says."""
        return fnmatchcase(_facts(sensor)[self.name], self.pattern) is self.is_met


def choose_sensors(
    sensors: Mapping[str, Sensor], patterns: Sequence[str], conditions: Collection[Condition]
) -> dict[str, Sensor]:
    """Sensors whose id matches one of the patterns (none: all) and that meet every condition.

    Raises UsageError for a pattern that no sensor's id matches.
    """
    for pattern in patterns:
        if not any(fnmatchcase(device, pattern) for device in sensors):
            near = difflib.get_close_matches(pattern, list(sensors), n=1)
            hint = f"did you mean {near[0]}?" if near else f"it knows {len(sensors)} sensors"
            raise UsageError(f"no sensor {pattern!r} is known to the broker; {hint}")
    return {
        device: sensor
        for device, sensor in sorted(sensors.items())
        if (not patterns or any(fnmatchcase(device, pattern) for pattern in patterns))
        and all(condition.holds(sensor) for condition in conditions)
    }
