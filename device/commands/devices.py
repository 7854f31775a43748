"""`soundpost devices`: the microphones of this machine, by the names that settings use."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from soundpost.device.capture import InputDevice, list_inputs
from soundpost.device.command import Command

DESCRIPTION = """\
List the sound inputs of this machine. NAME is what a source is called after `mic:`, and stays
the same over restarts; * marks the input that a plain `mic:` means.

examples:
  soundpost devices                    a table
  soundpost devices --json             for a program: {"schema", "inputs": [{"name", "alsa_card",
                                       "portaudio_name", "n_channels", "default_rate_hz",
                                       "is_default", "index"}, ...]}
  soundpost run --source mic:NAME      listen with one of them

exit codes: 0 listed, also when there is none; 5 PortAudio is missing or failed
"""

NO_INPUTS = (
    "no sound inputs found: plug in a microphone and see `arecord -l`; without a sound server, add "
    "the user to the group `audio`; recordings need none (file:PATH)"
)


def _table(inputs: list[InputDevice]) -> str:
    rows = [["", "NAME", "ALSA CARD", "CHANNELS", "DEFAULT RATE", "PORTAUDIO NAME"]]
    for item in inputs:
        rows.append(
            [
                "*" if item.is_default else "",
                item.name,
                item.alsa_card or "-",
                str(item.n_channels),
                f"{item.default_rate_hz} Hz",
                item.portaudio_name,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    inputs = list_inputs()
    if arguments.json:
        listing = {"schema": "soundpost.devices/1", "inputs": [asdict(item) for item in inputs]}
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
