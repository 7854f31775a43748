"""`soundpost alerts`: print what the sensors of a broker hear, as it arrives."""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import time
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.events import DEFAULT_BASE_TOPIC, PHASES, SoundEvent, check_name
from soundpost.device.mqtt import (
    DEFAULT_PORT,
    BrokerSettings,
    LinkState,
    Subscriber,
    read_password,
)

EXIT_TIMEOUT = 124  # as timeout(1) has it

_DESCRIPTION = f"""\
Subscribe to the sensors of an MQTT broker and print one line for each message as it arrives:
local time, device, source, label, phase, score, and at the end of an event its duration. A `?`
after the time: the sensor did not know whether its clock was right.

examples:
  soundpost alerts                              all sensors of the broker on this machine
  soundpost alerts --host broker.local --device porch-pi
  soundpost alerts --label smoke_alarm --label co_alarm --phase start
  soundpost alerts --json --count 1 --timeout 60 | jq .label

Messages before the command began are not shown: a broker does not keep events. If the broker goes
away, this is said on standard error and the command connects again by itself.

exit codes:
  0    --count messages were printed; --timeout passed, and no --count was asked for
  2    an option is wrong
  3    the password file cannot be read
  4    the broker is absent or refused us
  {EXIT_TIMEOUT}  --timeout passed before --count messages were printed
  130  ended with Ctrl-C
"""


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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="broker (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="its TCP port (default: %(default)s)"
    )
    parser.add_argument("--username", help="user name, where the broker asks for one")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="file whose first line is the password"
    )
    parser.add_argument(
        "--base",
        default=DEFAULT_BASE_TOPIC,
        metavar="TOPIC",
        help="levels of the topics before the device (default: %(default)s)",
    )
    parser.add_argument("--device", metavar="ID", help="only this device")
    parser.add_argument(
        "--source", action="append", metavar="NAME", help="only this source; may be repeated"
    )
    parser.add_argument(
        "--label", action="append", metavar="LABEL", help="only this label; may be repeated"
    )
    parser.add_argument(
        "--phase", action="append", choices=PHASES, help="only this phase; may be repeated"
    )
    parser.add_argument(
        "--count", type=_positive_int, metavar="N", help="stop after N messages were printed"
    )
    parser.add_argument(
        "--timeout", type=_positive_seconds, metavar="S", help="stop after S seconds"
    )
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")


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
    return "  ".join(parts)


def _wanted(event: SoundEvent, arguments: argparse.Namespace) -> bool:
    return (
        (arguments.source is None or event.source in arguments.source)
        and (arguments.label is None or event.label in arguments.label)
        and (arguments.phase is None or event.phase in arguments.phase)
    )


def _run(arguments: argparse.Namespace) -> int:
    for what in ("source", "label"):
        for name in getattr(arguments, what) or ():
            check_name(name, what)
    if arguments.password_file is not None and arguments.username is None:
        raise UsageError("--password-file is given without --username: MQTT needs both")
    password = None
    if arguments.password_file is not None:
        password = read_password(arguments.password_file)
    settings = BrokerSettings(
        host=arguments.host,
        port=arguments.port,
        username=arguments.username,
        password=password,
    )
    inbox: queue.SimpleQueue[SoundEvent] = queue.SimpleQueue()
    was_connected = False

    def say(state: LinkState, line: str) -> None:
        # The first failure ends the command with the same line.
        nonlocal was_connected
        was_connected = was_connected or state == "connected"
        if was_connected:
            print(line, file=sys.stderr, flush=True)

    subscriber = Subscriber(
        settings,
        inbox.put,
        base_topic=arguments.base,
        device_id=arguments.device,
        on_state=say,
    )
    printed = 0
    with subscriber:
        subscriber.wait_connected(2 * settings.timeout_s, first_failure=True)
        deadline_s = None
        if arguments.timeout is not None:
            deadline_s = time.monotonic() + arguments.timeout
        while arguments.count is None or printed < arguments.count:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return 0 if arguments.count is None else EXIT_TIMEOUT
            with contextlib.suppress(queue.Empty):
                event = inbox.get(timeout=left_s)
                if _wanted(event, arguments):
                    print(event.to_json() if arguments.json else alert_line(event), flush=True)
                    printed += 1
    return 0


COMMAND = Command(
    summary="print what the sensors of a broker hear, as it arrives",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
