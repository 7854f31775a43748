"""`soundpost devices`: the microphones of this machine, by the names that settings use."""

from __future__ import annotations

import argparse
import json

from soundpost.device.command import Command
from soundpost.device.inputs import InputDevice
from soundpost.device.microphone_source import list_inputs

DESCRIPTION = """\
List the sound inputs of this machine. NAME is what a source is called after `mic:`, and stays
the same over restarts: a USB microphone's serial number, or its port where it has none of its own,
or the id of a sound card. The other names mean the same input now. * marks the input that a plain
`mic:` means.

examples:
  soundpost devices                    a table
  soundpost devices --json             for a program: {"schema", "inputs": [{"name",
                                       "other_names", "portaudio_name", "portaudio_index",
                                       "alsa_card", "n_channels", "default_rate_hz",
                                       "is_default", "user"}, ...]}
  soundpost run --source mic:NAME      listen with one of them: mic:usb-1-1.2, mic:serial-0A17F2

exit codes: 0 listed, also when there is none; 5 PortAudio is missing or failed
"""

NO_INPUTS = (
    "no sound inputs found: plug in a microphone and see `arecord -l`; without a sound server, add "
    "the user to the group `audio`; recordings need none (file:PATH)"
)


def _table(inputs: list[InputDevice]) -> str:
    rows = [["", "NAME", "CHANNELS", "DEFAULT RATE", "OTHER NAMES"]]
    for item in inputs:
        rows.append(
            [
                "*" if item.is_default else "",
                item.name,
                str(item.n_channels) if item.portaudio_index >= 0 else "-",
                f"{item.default_rate_hz} Hz" if item.portaudio_index >= 0 else _why_closed(item),
                ", ".join(item.other_names) or "-",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _why_closed(item: InputDevice) -> str:
    return "cannot be opened" if item.user is None else f"in use by process {item.user}"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    inputs = list_inputs()
    if arguments.json:
        listing = {"schema": "soundpost.devices/1", "inputs": [item._asdict() for item in inputs]}
        print(json.dumps(listing, ensure_ascii=False))
    else:
        print(_table(inputs) if inputs else NO_INPUTS)
    return 0


COMMAND = Command(
    summary="list microphones by the names that settings use",
    description=DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
