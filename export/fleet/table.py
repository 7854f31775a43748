"""The table of `soundpost fleet list`: a sensor a line, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from soundpost.device.identifiers import format_time
from soundpost.device.terminal import Row, Span, Style, clip_row, pad, printable, text_width
from soundpost.export.fleet.sensors import LEVELS, Sensor, so_many, trouble

_HEADINGS: Final = ("SENSOR", "MODEL", "CHANNEL", "PHASE", "HEALTH", "LAST EVENT", "DRIFT", "")
# Names that are longer are cut: the note at the end must find its place.
_MOST_COLUMNS: Final = 28
_STYLES: Final[dict[str, Style]] = {
    "offline": "red",
    "deaf": "red",
    "update failed": "red",
    "degraded": "yellow",
    "drifted": "yellow",
    "tells nothing": "dim",
    "well": "",
}


def phase_words(sensor: Sensor) -> str:
    """What its update is doing, with its progress."""
    state = sensor.state
    if state is None:
        return "-"
    words = state.phase.replace("_", " ")
    if state.phase == "idle" and not state.confirmed:
        words = "probation"
    return words if state.progress is None else f"{words} {state.progress:.0%}"


def _cells(sensor: Sensor) -> tuple[str, ...]:
    state, event = sensor.state, sensor.last_event
    return (
        sensor.device,
        f"{state.installed.name} {state.installed.version}" if state else "-",
        (state.channel if state else None) or "-",
        phase_words(sensor),
        sensor.health_word,
        f"{event.onset.astimezone():%H:%M:%S} {event.label}" if event else "-",
        "-" if state is None or state.drift is None else f"{state.drift:.2f}",
        trouble(sensor)[1],
    )


def counts(sensors: Sequence[Sensor]) -> str:
    """How many there are of each kind of trouble."""
    kinds = [trouble(sensor)[0] for sensor in sensors]
    found = [f"{kinds.count(level)} {level}" for level in LEVELS if level in kinds]
    return so_many(len(sensors)) + (f": {', '.join(found)}" if found else "")


def sensor_rows(
    sensors: Sequence[Sensor], columns: int, lines: int, *, title: str = "", alarm: bool = False
) -> list[Row]:
    """Sensors, in the order that they come, in at most so many columns and lines.

    title : before the counts, such as which broker; alarm: something about it is wrong
    """
    rows: list[Row] = [[Span(title, "yellow" if alarm else "bold"), Span(counts(sensors), "bold")]]
    room = max(1, lines - 2)
    shown = sensors if len(sensors) <= room else sensors[: max(1, room - 1)]
    table = [_HEADINGS, *(tuple(map(printable, _cells(sensor))) for sensor in shown)]
    widths = [
        min(_MOST_COLUMNS, max(text_width(line[place]) for line in table))
        for place in range(len(_HEADINGS) - 1)
    ]
    styles: list[Style] = ["dim", *(_STYLES[trouble(sensor)[0]] for sensor in shown)]
    for cells, style in zip(table, styles, strict=True):
        text = "  ".join(pad(cell, width) for cell, width in zip(cells, widths, strict=False))
        rows.append([Span(f"{text}  {cells[-1]}".rstrip(), style)])
    if len(shown) < len(sensors):
        rows.append([Span(f"… and {len(sensors) - len(shown)} more", "dim")])
    return [clip_row(row, columns) for row in rows[: max(1, lines)]]


def sensor_record(sensor: Sensor) -> dict[str, Any]:
    """The same for a program."""
    level, line = trouble(sensor)
    state, event = sensor.state, sensor.last_event
    return {
        "device": sensor.device,
        "online": sensor.online,
        "trouble": level,
        "note": line or None,
        "model": None if state is None else state.to_dict(),
        "health": {
            name: {"state": one.state, "reason": one.reason, "time": format_time(one.time)}
            for name, one in sorted(sensor.health.items())
        },
        "last_heard_of": _newest(sensor),
        "last_event": None
        if event is None
        else {
            "source": event.source,
            "label": event.label,
            "phase": event.phase,
            "onset": format_time(event.onset),
        },
    }


def _newest(sensor: Sensor) -> str | None:
    """The latest time, by the sensor's own clock, that anything of it bears."""
    times: list[datetime] = [one.time for one in sensor.health.values()]
    times += [] if sensor.state is None else [sensor.state.time]
    times += [] if sensor.last_event is None else [sensor.last_event.onset]
    return format_time(max(times)) if times else None
