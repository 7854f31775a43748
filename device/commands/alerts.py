"""`soundpost alerts`: what the sensors of a broker hear, shown, written and acted upon."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import math
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from soundpost.device.alert_csv import AlertTableFile
from soundpost.device.alert_database import AlertDatabase
from soundpost.device.alert_output import Lines, Output, Table
from soundpost.device.alert_program import AlertProgram
from soundpost.device.broker_options import add_broker_options, broker_settings
from soundpost.device.command import Command
from soundpost.device.events import PHASES, SoundEvent
from soundpost.device.mqtt_link import LinkState
from soundpost.device.subscriber import Subscriber
from soundpost.device.terminal import Screen, is_terminal, print_anything
from soundpost.device.topics import DEFAULT_BASE_TOPIC, check_name

EXIT_TIMEOUT = 124  # as timeout(1) has it

_DESCRIPTION = f"""\
Subscribes to the sensors of an MQTT broker and shows what they hear: in a terminal a live table of
sensors, of what sounds now and of the last alerts; otherwise, or with --lines, one line for each
message: local time, device, source, label, phase, score, and at the end of an event its duration.
A `?` after the time: the sensor did not know whether its clock was right.

examples:
  soundpost alerts                              all sensors of the broker on this machine
  soundpost alerts --host broker.local --device porch-pi --device 'barn-*'
  soundpost alerts --label smoke_alarm --label co_alarm --phase start
  soundpost alerts --host broker.local --ca ca.pem --username me --password-file secret
  soundpost alerts --json --count 1 --timeout 60 | jq .label
  soundpost alerts --sqlite alerts.sqlite3 --csv alerts.csv --client-id logger
  soundpost alerts --phase start --exec 'notify-send Soundpost'
  soundpost alerts --label dog --exec "sh -c 'echo $SOUNDPOST_LABEL $SOUNDPOST_SCORE >> dogs'"

Messages from before the command began are not shown, unless it has a --client-id: then the broker
keeps what comes while it is away, as much as its own settings allow (Mosquitto: 1,000 messages,
over a restart of its own only with `persistence true`). Each listener needs a name of its own. To
end that for a name: mosquitto_sub -i soundpost:alerts:NAME -t none -W 1

If the broker goes away, this is said once, and the command connects again by itself; so is a sensor
that goes offline, and for how long it was. Files are written before the broker is told that a
message has arrived: with a --client-id, a crash or power cut loses none, and none is there twice.
--sqlite has a table `event` with one row for each event, --csv a line for each message; with
--phase end, for each event that has ended.

The program of --exec is run without a shell, for each message that is shown. It gets the values as
SOUNDPOST_LABEL, _PHASE, _SCORE, _DEVICE, _SOURCE, _ONSET, _OFFSET, _DURATION_S, _LEVEL_DBA, _CLIP,
_ID and others, and the message as JSON on its standard input. A run that fails is reported, and
counted at the end.

exit codes:
  0    --count messages were shown; --timeout passed, and no --count was asked for; SIGTERM
  2    an option is wrong
  3    a file of alerts, of the password or of TLS cannot be used
  4    the broker is absent or refused us
  {EXIT_TIMEOUT}  --timeout passed before --count messages were shown
  130  ended with Ctrl-C
"""

# Messages that are written and acknowledged together, at most.
_BATCH: Final = 200


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {value}")
    return value


def _positive_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0 s, found {text}")
    return value


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, found {text}")
    return value


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_broker_options(parser)
    parser.add_argument(
        "--base",
        default=DEFAULT_BASE_TOPIC,
        metavar="TOPIC",
        help="levels of the topics before the device (default: %(default)s)",
    )
    parser.add_argument(
        "--client-id", metavar="NAME", help="let the broker keep messages while NAME is away"
    )
    which = parser.add_argument_group("which messages")
    which.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="ID",
        help="only this device, or those that match a pattern with * or ?; may be repeated",
    )
    which.add_argument(
        "--source", action="append", metavar="NAME", help="only this source; may be repeated"
    )
    which.add_argument(
        "--label", action="append", metavar="LABEL", help="only this label; may be repeated"
    )
    which.add_argument(
        "--phase", action="append", choices=PHASES, help="only this phase; may be repeated"
    )
    which.add_argument(
        "--min-score", type=_score, default=0.0, metavar="X", help="only from this score on, 0 to 1"
    )
    until = parser.add_argument_group("how long")
    until.add_argument(
        "--count", type=_positive_int, metavar="N", help="stop after N messages were shown"
    )
    until.add_argument(
        "--timeout", type=_positive_seconds, metavar="S", help="stop after S seconds"
    )
    shown = parser.add_argument_group("what to do with them")
    form = shown.add_mutually_exclusive_group()
    form.add_argument("--lines", action="store_true", help="lines also in a terminal")
    form.add_argument("--json", action="store_true", help="print messages as JSON lines")
    shown.add_argument("--sqlite", type=Path, metavar="FILE", help="write events to an SQLite file")
    shown.add_argument("--csv", type=Path, metavar="FILE", help="append messages to a CSV file")
    shown.add_argument(
        "--exec", metavar="'CMD ...'", dest="program", help="run a program for each message"
    )
    shown.add_argument(
        "--exec-jobs",
        type=_positive_int,
        default=4,
        metavar="N",
        help="runs at once, at most (default: %(default)s)",
    )
    shown.add_argument(
        "--exec-limit",
        type=_positive_seconds,
        default=30.0,
        metavar="S",
        help="time limit of a run (default: %(default)g s)",
    )


class _Filter:
    """Which messages were asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        for what in ("source", "label", "device"):
            for name in getattr(arguments, what) or ():
                check_name(name, "device id" if what == "device" else what)
        self._devices: list[str] = arguments.device
        self._sources: list[str] | None = arguments.source
        self._labels: list[str] | None = arguments.label
        self._phases: list[str] | None = arguments.phase
        self._min_score: float = arguments.min_score

    def subscriptions(self) -> list[str]:
        """Devices to name to the broker; none where it must be asked for all."""
        patterns = any(set("*?[") & set(device) for device in self._devices)
        return [] if patterns else list(dict.fromkeys(self._devices))

    def of_device(self, device: str) -> bool:
        # The broker may still pass on what an earlier command of this --client-id asked for.
        return not self._devices or any(
            device == pattern or fnmatch.fnmatchcase(device, pattern) for pattern in self._devices
        )

    def takes(self, event: SoundEvent) -> bool:
        """All but the phase."""
        return (
            self.of_device(event.device)
            and (self._sources is None or event.source in self._sources)
            and (self._labels is None or event.label in self._labels)
            and event.score >= self._min_score
        )

    def takes_phase(self, event: SoundEvent) -> bool:
        return self._phases is None or event.phase in self._phases


class _File(Protocol):
    def write(self, events: list[SoundEvent]) -> None: ...
    def close(self) -> None: ...


class _Session:
    """Handles what comes in the main thread, one after the other."""

    def __init__(
        self,
        wanted: _Filter,
        output: Output,
        files: list[_File],
        count: int | None,
    ) -> None:
        self.program: AlertProgram | None = None
        # Events, and what else is to be done in the main thread. SimpleQueue may be filled by a
        # signal's handler while the main thread reads it.
        self._inbox: queue.SimpleQueue[SoundEvent | Callable[[], None]] = queue.SimpleQueue()
        self._output = output
        self._ending = False
        self._wanted = wanted
        self._files = files
        self._left = count

    def event(self, event: SoundEvent) -> None:
        """From the network's thread."""
        self._inbox.put(event)

    def status(self, device: str, online: bool) -> None:
        """From the network's thread."""
        if self._wanted.of_device(device):
            self._inbox.put(lambda: self._output.status(device, online))

    def link(self, state: LinkState, line: str) -> None:
        """From the supervisor's thread."""
        self._inbox.put(lambda: self._output.link(state, line))

    def say(self, line: str) -> None:
        """From any thread."""
        self._inbox.put(lambda: self._output.say(line))

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        """As the handler of a signal: end after what came before it."""
        self._inbox.put(self._end)

    def _end(self) -> None:
        self._ending = True

    def follow(self, subscriber: Subscriber, deadline_s: float) -> bool:
        """Handle what comes until the count is reached, the time has passed or it is ended.

        Returns whether the time passed before the count was reached.
        """
        while self._left != 0 and not self._ending:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return self._left is not None
            due_s = self._output.tick()
            events, then = self._take(left_s if due_s is None else min(left_s, due_s))
            self._handle(events, subscriber)
            if then is not None:
                then()
        return False

    def _take(self, wait_s: float) -> tuple[list[SoundEvent], Callable[[], None] | None]:
        """Wait for something; the events in it, and what is to be done after them."""
        events: list[SoundEvent] = []
        with contextlib.suppress(queue.Empty):
            item = self._inbox.get(timeout=min(wait_s, threading.TIMEOUT_MAX))
            while isinstance(item, SoundEvent):
                events.append(item)
                if len(events) == _BATCH:
                    return events, None
                item = self._inbox.get_nowait()
            return events, item
        return events, None

    def _handle(self, events: list[SoundEvent], subscriber: Subscriber) -> None:
        done: list[SoundEvent] = []
        wanted: list[SoundEvent] = []
        for event in events:
            if self._left is not None and len(wanted) == self._left:
                break
            done.append(event)
            if self._wanted.takes(event) and self._wanted.takes_phase(event):
                wanted.append(event)
        if wanted:
            for file in self._files:
                file.write(wanted)
        for event in done:
            if self._wanted.takes(event):
                self._output.event(event, self._wanted.takes_phase(event))
        if self.program is not None:
            for event in wanted:
                self.program.put(event)
        # Only now: what a crash or a full disk kept from the files comes again.
        for event in done:
            subscriber.acknowledge(event)
        if self._left is not None:
            self._left -= len(wanted)


def _run(arguments: argparse.Namespace) -> int:
    wanted = _Filter(arguments)
    settings = broker_settings(arguments)
    client_id = None
    if arguments.client_id is not None:
        # No sensor's: those begin with `soundpost-`, and the broker would push one out.
        client_id = f"soundpost:alerts:{check_name(arguments.client_id, '--client-id')}"
    print_anything()
    with contextlib.ExitStack() as ends:
        files: list[_File] = []
        if arguments.sqlite is not None:
            files.append(ends.enter_context(contextlib.closing(AlertDatabase(arguments.sqlite))))
        if arguments.csv is not None:
            files.append(ends.enter_context(contextlib.closing(AlertTableFile(arguments.csv))))
        live = not arguments.lines and not arguments.json and is_terminal(sys.stdout)
        screen = Screen()
        output: Output = Lines(as_json=arguments.json)
        if live:
            output = Table(screen, settings.address)
        session = _Session(wanted, output, files, arguments.count)
        if arguments.program is not None:
            session.program = ends.enter_context(
                AlertProgram(
                    arguments.program,
                    jobs=arguments.exec_jobs,
                    limit_s=arguments.exec_limit,
                    # What it prints would spoil the table.
                    output=None if live else sys.stderr.fileno(),
                    on_fault=lambda line: session.say(f"exec: {line}"),
                )
            )
        before = signal.signal(signal.SIGTERM, session.end)
        ends.callback(signal.signal, signal.SIGTERM, before)
        subscriber = Subscriber(
            settings,
            session.event,
            base_topic=arguments.base,
            device_ids=wanted.subscriptions(),
            client_id=client_id,
            hold=True,
            on_status=session.status,
            on_state=session.link,
        )
        ends.enter_context(subscriber)
        subscriber.wait_connected(2 * settings.timeout_s, first_failure=True)
        if live:
            ends.enter_context(screen)
        deadline_s = math.inf
        if arguments.timeout is not None:
            deadline_s = time.monotonic() + arguments.timeout
        late = session.follow(subscriber, deadline_s)
    return EXIT_TIMEOUT if late else 0


COMMAND = Command(
    summary="show, write or act upon what the sensors of a broker hear",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
