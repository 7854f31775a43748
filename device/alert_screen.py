"""The live table of `soundpost alerts`: who is online, what sounds now, what was heard last."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from soundpost.device.events import SoundEvent
from soundpost.device.terminal import (
    Row,
    Span,
    Style,
    clip_row,
    duration,
    pad,
    printable,
    text_width,
)

# A sensor tells every ten seconds that an event goes on. Nothing for a minute: it may have lost
# its network or its power in the middle of the event, and nobody knows whether it still sounds.
SILENT_S: Final = 60.0
_FORGOTTEN_S: Final = 900.0
# More than any screen shows, and bounded: what a broker passes on is a peer's to choose.
_KEPT: Final = 200

_Value = TypeVar("_Value")


@dataclass
class _Sensor:
    """online : None while the broker has said nothing of it; left_s : monotonic, if we saw it go"""

    online: bool | None = None
    left_s: float | None = None
    alerts: int = 0
    last: SoundEvent | None = None


@dataclass
class AlertTable:
    """What the alerts so far amount to.

    Times are of the monotonic clock, so that a table is true while the system clock is set.
    """

    _sensors: OrderedDict[str, _Sensor] = field(default_factory=OrderedDict)
    # By event id: the latest message, and when the first and this one came.
    _open: OrderedDict[str, tuple[SoundEvent, float, float]] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _recent: deque[SoundEvent] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def hear(self, event: SoundEvent, now_s: float) -> None:
        """Take a message; a repeat or one that comes late changes nothing that is newer."""
        sensor = self._sensor(event.device)
        sensor.last = event
        known_before = event.id in self._open or event.id in self._ended
        sensor.alerts += not known_before
        if event.phase == "end":
            self._open.pop(event.id, None)
            if event.id not in self._ended:
                _remember(self._ended, event.id, None)
                self._put_recent(event)
            return
        if event.id in self._ended:
            return
        if not known_before:
            # A new stream of a source means that its sensor was started again or the microphone
            # replugged: what was open before has ended, and the end may never come.
            for other, (known, _, _) in list(self._open.items()):
                same = (known.device, known.source) == (event.device, event.source)
                if same and known.stream < event.stream:
                    del self._open[other]
            self._put_recent(event)
        first_s = self._open[event.id][1] if event.id in self._open else now_s
        _remember(self._open, event.id, (event, first_s, now_s))

    def status(self, device: str, online: bool, now_s: float) -> None:
        """The broker says that a sensor is there, or is not."""
        sensor = self._sensor(device)
        if online or sensor.online is True:
            sensor.left_s = None if online else now_s
        sensor.online = online

    def _sensor(self, device: str) -> _Sensor:
        if device not in self._sensors:
            _remember(self._sensors, device, _Sensor())
        return self._sensors[device]

    def _put_recent(self, event: SoundEvent) -> None:
        # One line for an event: its end takes the place of its start.
        for place, known in enumerate(self._recent):
            if known.id == event.id:
                self._recent[place] = event
                return
        self._recent.appendleft(event)

    def rows(
        self,
        columns: int,
        lines: int,
        now_s: float,
        *,
        title: str,
        trouble: bool = False,
        notes: Sequence[str] = (),
    ) -> list[Row]:
        """The table in at most so many columns and lines.

        title : first line: which broker, and how the connection stands; trouble: it is down
        notes : last lines, such as a command that failed
        """
        rows: list[Row] = []
        online = sum(sensor.online is True for sensor in self._sensors.values())
        known = len(self._sensors)
        of_sensors = f"  {online} of {known} sensors online"
        rows.append([Span(title, "yellow" if trouble else "bold"), Span(of_sensors)])
        foot: list[Row] = [[Span(note, "yellow")] for note in notes[-2:]]
        for event_id, (_, _, came_s) in list(self._open.items()):
            if now_s - came_s > _FORGOTTEN_S:
                del self._open[event_id]
        left = lines - len(rows) - len(foot)
        # Each part has a heading; what is short leaves its lines to the last.
        sensors = self._sensor_rows(max(1, left // 4 - 1), now_s)
        left -= len(sensors)
        open_now = self._open_rows(max(1, left // 3 - 1), now_s, columns)
        left -= len(open_now)
        rows += sensors + open_now + self._recent_rows(left, columns)
        rows = rows[: max(1, lines - len(foot))] + foot
        return [clip_row(row, columns) for row in rows[: max(1, lines)]]

    def _sensor_rows(self, most: int, now_s: float) -> list[Row]:
        rows: list[Row] = [[Span("SENSORS", "dim")]]
        # Those that are away first: they are the news.
        order = sorted(self._sensors.items(), key=lambda item: (item[1].online is True, item[0]))
        width = min(24, max((text_width(printable(name)) for name, _ in order), default=0))
        shown = order if len(order) <= most else order[: max(1, most - 1)]
        for device, sensor in shown:
            state, style = _STATES[sensor.online]
            if sensor.left_s is not None:
                state += f" for {duration(now_s - sensor.left_s)}"
            last = "" if sensor.last is None else f"last {_clock(sensor.last)} {sensor.last.label}"
            rows.append(
                [
                    Span(f"  {pad(printable(device), width)}  "),
                    Span(pad(state, 22), style),
                    Span(f"{sensor.alerts:>5} alerts  {last}"),
                ]
            )
        if len(shown) < len(order) and most > 1:
            rows.append([Span(f"  … and {len(order) - len(shown)} more", "dim")])
        if not order:
            rows.append([Span("  none yet: no sensor has said that it is online", "dim")])
        return rows

    def _open_rows(self, most: int, now_s: float, columns: int) -> list[Row]:
        rows: list[Row] = [[Span("SOUNDS NOW", "dim")]]
        newest = list(reversed(self._open.values()))
        shown = newest if len(newest) <= most else newest[: max(1, most - 1)]
        for event, first_s, came_s in shown:
            offline = self._sensors.get(event.device, _Sensor()).online is False
            unsure = offline or now_s - came_s > SILENT_S
            words = "no word" if unsure else f"for {duration(now_s - first_s)}"
            style: Style = "yellow" if unsure else "red"
            rows.append([*_cells(event, style, columns), Span(f"  {words}", style)])
        if len(shown) < len(newest) and most > 1:
            rows.append([Span(f"  … and {len(newest) - len(shown)} more", "dim")])
        if not newest:
            rows.append([Span("  nothing", "dim")])
        return rows

    def _recent_rows(self, most: int, columns: int) -> list[Row]:
        rows: list[Row] = [[Span("LAST ALERTS", "dim")]]
        for event in list(self._recent)[: max(0, most - 1)]:
            going_on = "  goes on" if event.id in self._open else ""
            rows.append([*_cells(event, "", columns), Span(going_on, "red")])
        if not self._recent:
            rows.append([Span("  none yet", "dim")])
        return rows


_STATES: Final[dict[bool | None, tuple[str, Style]]] = {
    True: ("online", "green"),
    False: ("offline", "red"),
    None: ("not known", "yellow"),
}


def _cells(event: SoundEvent, style: Style, columns: int) -> Row:
    # Label and place share what the other columns leave.
    width = max(8, min(30, (columns - 43) // 2))
    length = "" if event.duration_s is None else f"  {duration(event.duration_s)}"
    late = f"  came {duration(event.queued_s)} late" if event.queued_s >= 5.0 else ""
    return [
        Span(f"  {_clock(event)}  "),
        Span(pad(printable(event.label), width), style),
        Span(f"  {event.score:.2f}  {pad(printable(f'{event.device} {event.source}'), width)}"),
        Span(f"{length}"),
        Span(late, "dim"),
    ]


def _clock(event: SoundEvent) -> str:
    """Local time of the onset, in 15 columns; `?`: the sensor's clock was not known to be right."""
    local: datetime = event.onset.astimezone()
    return f"{local:%m-%d %H:%M:%S}{' ' if event.time_synced else '?'}"


def _remember(where: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    """Put a value last; the oldest goes where there are too many."""
    where.pop(key, None)
    where[key] = value
    if len(where) > _KEPT:
        where.popitem(last=False)
