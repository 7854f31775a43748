"""`soundpost array`: arrays of microphones; each action is a Command of its own."""

from __future__ import annotations

import argparse
from typing import Final

from soundpost.device.array import layout_command
from soundpost.device.command import Command
from soundpost.firmware_bridge import receive_command, simulate_command

# An action of a folder further to the right cannot stand here: it has a command of its own.
ACTIONS: Final[dict[str, Command]] = {
    "layout": layout_command.COMMAND,
    "simulate": simulate_command.COMMAND,
    "receive": receive_command.COMMAND,
}

_DESCRIPTION = (
    "Arrays of many microphones.\n\n"
    + "".join(f"{name:<10} {command.summary}\n" for name, command in ACTIONS.items())
    + """
examples:
  soundpost array layout optimised --out array.json
  soundpost array simulate scene.wav
  soundpost array receive scene.sdp
  soundpost array ACTION --help                options and examples of an action
"""
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    for name, command in ACTIONS.items():
        action = actions.add_parser(
            name,
            help=command.summary,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    return ACTIONS[arguments.action].run(arguments)


COMMAND = Command(
    "lay out an array of microphones; play or hear one over the network",
    _DESCRIPTION,
    _add_arguments,
    _run,
)
