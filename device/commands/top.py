"""`soundpost top`: what a sensor on this machine hears now."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from soundpost.device.command import Command
from soundpost.device.errors import InputError, SoundpostError, UsageError
from soundpost.device.monitor_socket import (
    MAX_LINE_BYTES,
    MONITOR_SCHEMA,
    folders,
    sockets,
    watch,
)
from soundpost.device.records import parse_object
from soundpost.device.terminal import (
    Screen,
    clip_row,
    is_terminal,
    plain,
    print_anything,
    printable,
)
from soundpost.device.top_screen import top_rows

_DESCRIPTION = """\
Shows what a sensor that runs on this machine hears: the greatest scores of each source as bars with
the threshold at which an event begins, what sounds now, how loud it is, what waits for the broker,
processor and temperature. It needs no broker, and no sound leaves the sensor. q or Ctrl-C ends it.

examples:
  soundpost top
  soundpost top --device porch-pi                where several sensors run
  soundpost top --once                           one picture, as text
  soundpost top --json | jq '.sources[].scores[0]'

It reads DEVICE.sock, which a running sensor serves in $RUNTIME_DIRECTORY or /run/soundpost (as a
service), $XDG_RUNTIME_DIR/soundpost or /run/user/UID/soundpost (as yours), or else in a folder
soundpost-UID of the temporary one. Each line of it is a JSON object, every half second.
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="ID", help="which sensor, where several run here")
    parser.add_argument("--socket", type=Path, metavar="FILE", help="its socket, where it is known")
    parser.add_argument("--once", action="store_true", help="one picture, then end")
    parser.add_argument("--json", action="store_true", help="print records as JSON lines")


def _run(arguments: argparse.Namespace) -> int:
    path = _find(arguments)
    print_anything()
    records = _records(path)
    if arguments.once:
        # The first tells what was known before we came; how loud it is, the second.
        next(records)
        line, record = next(records)
        columns, lines = Screen().size
        # As text, it may be longer than the screen.
        rows = top_rows(record, columns, max(lines, 40))
        print(line if arguments.json else plain(clip_row(row, columns) for row in rows))
        return 0
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        if arguments.json or not is_terminal(sys.stdout):
            for line, record in records:
                text = line if arguments.json else plain(top_rows(record, 80, 40)) + "\n"
                print(text, flush=True)
                if stopping.is_set():
                    break
        else:
            _draw(records, stopping)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _draw(records: Iterator[tuple[str, Mapping[str, Any]]], stopping: threading.Event) -> None:
    with Screen() as screen:
        for _, record in records:
            screen.show(top_rows(record, *screen.size))
            if stopping.is_set() or screen.key() in ("q", "Q"):
                return


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Lines of a sensor, and what they say; ends with an error, for the sensor ended."""
    try:
        for line in watch(path):
            yield line.decode("utf-8", "replace"), _parse(line, path)
    except TimeoutError as error:
        raise InputError(
            f"{path}: the sensor says nothing: it is stuck; look at its log, and start it again"
        ) from error
    except PermissionError as error:
        raise InputError(_not_ours(path)) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}: the sensor has ended") from error
    raise InputError(f"{path}: the sensor has ended, or 16 others watch it already")


def _parse(line: bytes, path: Path) -> Mapping[str, Any]:
    record = parse_object(line, str(path), MAX_LINE_BYTES)
    if record.get("schema") != MONITOR_SCHEMA:
        raise InputError(
            f"{path}: expected {MONITOR_SCHEMA!r}, found {str(record.get('schema'))[:40]!r}: "
            "update the older of sensor and command"
        )
    return record


def _find(arguments: argparse.Namespace) -> Path:
    """The socket that was asked for, or the only one whose sensor runs."""
    if arguments.socket is not None:
        return Path(arguments.socket)
    places = folders()
    running: dict[Path, str] = {}
    refused: Path | None = None
    for path in sockets(places):
        try:
            device = _device_of(path)
        except PermissionError:
            refused = path
        else:
            if device is not None:
                running[path] = device
    wanted = arguments.device
    found = [path for path, device in running.items() if wanted in (None, device)]
    names = ", ".join(sorted(printable(device) for device in running.values()))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"several sensors run here: {names}; name one: --device ID")
    if running:
        raise UsageError(f"no sensor {wanted!r} runs here; there is {names}")
    if refused is not None:
        raise InputError(_not_ours(refused))
    where = " or ".join(map(str, places))
    raise InputError(
        f"no sensor runs on this machine (none has a socket in {where}): start one with "
        "soundpost run, or run this command as the user whose sensor it is"
    )


def _device_of(path: Path) -> str | None:
    """Name of the sensor that serves a socket, None where none does; may raise PermissionError."""
    try:
        with contextlib.closing(watch(path, 3.0)) as lines:
            return str(_parse(next(lines), path).get("device"))
    except PermissionError:
        raise
    except (OSError, StopIteration, SoundpostError):
        return None


def _not_ours(path: Path) -> str:
    return (
        f"{path}: only its owner and group may watch this sensor: sudo soundpost top, or become a "
        f"member of the group that `ls -ld {path}` shows"
    )


COMMAND = Command("show what a sensor on this machine hears now", _DESCRIPTION, _add, _run)
