"""Where `soundpost alerts` shows what comes: lines, JSON lines, or a live table."""

from __future__ import annotations

import sys
import time
from typing import Final, Protocol

from soundpost.device.alert_screen import AlertTable
from soundpost.device.events import SoundEvent
from soundpost.device.mqtt_link import LinkState
from soundpost.device.terminal import Screen, duration, printable

# A burst of alerts is drawn as often as an eye can follow, not once for each.
_FRAME_S: Final = 0.15
_REFRESH_S: Final = 1.0


class Output(Protocol):
    """Shows what comes; every method is called in the main thread."""

    def event(self, event: SoundEvent, wanted: bool) -> None:
        """A message; wanted: it passed --phase too."""

    def status(self, device: str, online: bool) -> None:
        """A sensor came or went."""

    def link(self, state: LinkState, line: str) -> None:
        """The connection to the broker changed."""

    def say(self, line: str) -> None:
        """Anything else that a person should know."""

    def tick(self) -> float | None:
        """Draw what is due; seconds until the next call, None: none is needed."""


def alert_line(event: SoundEvent) -> str:
    """One readable line: `2026-11-20 11:00:01.250  porch-pi  mic0  smoke_alarm  end  0.97  4.2 s`.

    The time is local, of the onset, and of the offset once the event has ended; `?` after it means
    that the sensor's clock was not known to be right.
    """
    moment = event.onset if event.offset is None else event.offset
    local = moment.astimezone()
    unsure = "" if event.time_synced else "?"
    shown = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}{unsure}"
    parts = [shown, event.device, event.source, event.label, event.phase, f"{event.score:.2f}"]
    if event.duration_s is not None:
        parts.append(f"{event.duration_s:.1f} s")
    return printable("  ".join(parts))


class Lines:
    """One line for each message; everything else goes to standard error.

    as_json : the message itself in place of a line for people
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._was_connected = False
        # Monotonic time at which each sensor went; None while it is there.
        self._away_since: dict[str, float | None] = {}

    def event(self, event: SoundEvent, wanted: bool) -> None:
        """Print it."""
        if wanted:
            print(event.to_json() if self._as_json else alert_line(event), flush=True)

    def status(self, device: str, online: bool) -> None:
        """Say that a sensor went or came back; that one is there is no news."""
        known = device in self._away_since
        since_s = self._away_since.get(device)
        if online:
            self._away_since[device] = None
            if since_s is not None:
                away = duration(time.monotonic() - since_s)
                self.say(f"{device}: online again after {away}; late alerts may still come")
        elif not known or since_s is None:
            self._away_since[device] = time.monotonic()
            self.say(f"{device}: offline{'' if known else ' (since before this command began)'}")

    def link(self, state: LinkState, line: str) -> None:
        """Say how the connection stands; the first failure ends the command with the same line."""
        self._was_connected = self._was_connected or state == "connected"
        if self._was_connected:
            self.say(line)

    def say(self, line: str) -> None:
        """To standard error."""
        print(printable(line), file=sys.stderr, flush=True)

    def tick(self) -> float | None:
        """Lines stay as they are."""
        return None


class Table:
    """A live table on a terminal."""

    def __init__(self, screen: Screen, address: str) -> None:
        self._screen = screen
        self._address = address
        self._table = AlertTable()
        self._title = f"{address}  connecting"
        self._trouble = False
        self._notes: list[str] = []
        self._changed = True
        self._drawn_s = 0.0

    def event(self, event: SoundEvent, wanted: bool) -> None:
        """Into the table go all phases: it shows what goes on."""
        self._table.hear(event, time.monotonic())
        self._changed = True

    def status(self, device: str, online: bool) -> None:
        """Into the table."""
        self._table.status(device, online, time.monotonic())
        self._changed = True

    def link(self, state: LinkState, line: str) -> None:
        """Into the first line."""
        self._trouble = state != "connected"
        self._title = line if self._trouble else f"{self._address}  connected"
        self._changed = True

    def say(self, line: str) -> None:
        """At the foot, with the time; the last two stay."""
        self._notes = [*self._notes[-1:], f"{time.strftime('%H:%M:%S')}  {printable(line)}"]
        self._changed = True

    def tick(self) -> float | None:
        """Draw, if something changed or a second has passed."""
        now_s = time.monotonic()
        due_s = self._drawn_s + (_FRAME_S if self._changed else _REFRESH_S)
        if now_s < due_s:
            return due_s - now_s
        columns, lines = self._screen.size
        self._screen.show(
            self._table.rows(
                columns,
                lines,
                now_s,
                title=self._title,
                trouble=self._trouble,
                notes=self._notes,
            )
        )
        self._changed, self._drawn_s = False, now_s
        return _REFRESH_S
