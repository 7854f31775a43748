"""`soundpost service`: the sensor as a systemd service."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.errors import ServiceError, UsageError
from soundpost.device.service import (
    Installation,
    Layout,
    find_python,
    perform,
    removal,
    systemd_runs,
)
from soundpost.device.service_unit import UNIT

_DESCRIPTION = """\
Run the sensor as a systemd service that starts with the machine, restarts when it fails, and sees
of the machine only what it needs: the microphones, its settings, its own state.

install  puts what runs here, with the same versions of all packages, into /opt/soundpost, writes
         the unit, and starts it; it is done when the sensor listens. Run it again to upgrade: where
         that fails, the version before runs on. Settings: /etc/soundpost/soundpost.toml, written
         where there are none.
status   what systemd knows of it
logs     what it said
remove   the reverse; settings and waiting alerts stay, unless --purge is given

examples:
  soundpost service install --dry-run           what would be done, and the unit; changes nothing
  sudo .venv/bin/soundpost service install      from the folder of the clone
  soundpost service status
  soundpost service logs --follow
  sudo soundpost service remove --purge
  sudo soundpost service install --wheels DIR   without a network; `pip wheel -w DIR ...` makes DIR
  sudo soundpost service install --root /mnt    into an image, for its next start

exit codes: 2 an option is wrong, or the user is not root; 11 a step failed, and the message says
which; status: systemd's own (0 it runs, 3 it does not)
"""


def _add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    install = actions.add_parser("install", help="install or upgrade, and start")
    install.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and the unit"
    )
    install.add_argument(
        "--python", metavar="FILE", help="interpreter for the service (default: this one's base)"
    )
    install.add_argument(
        "--wheels", type=Path, metavar="DIR", help="folder with all wheels, in place of a network"
    )
    install.add_argument("--no-start", action="store_true", help="do not start it now")
    remove = actions.add_parser("remove", help="stop and remove it")
    remove.add_argument("--dry-run", action="store_true", help="print what would be done")
    remove.add_argument(
        "--purge", action="store_true", help="settings, waiting alerts and other state too"
    )
    for action in (install, remove):
        action.add_argument(
            "--root",
            type=Path,
            default=Path("/"),
            metavar="DIR",
            help="an image's root folder, in place of this system",
        )
    actions.add_parser("status", help="what systemd knows of it")
    logs = actions.add_parser("logs", help="what it said")
    logs.add_argument("-f", "--follow", action="store_true", help="go on, until Ctrl-C")
    logs.add_argument("-n", "--lines", type=int, default=100, help="the last so many (100)")


def _run(arguments: argparse.Namespace) -> int:
    action = {"install": _install, "remove": _remove, "status": _status, "logs": _logs}
    return action[arguments.action](arguments)


def _layout(arguments: argparse.Namespace) -> Layout:
    root: Path = arguments.root.absolute()
    if not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")
    layout = Layout(root)
    if layout.live and not arguments.dry_run and os.geteuid() != 0:
        # sudo has a PATH of its own, in which an environment's commands are not found.
        command = shlex.join([str(Path(sys.executable).with_name("soundpost")), *sys.argv[1:]])
        raise UsageError(f"this changes the system, which only root may: sudo {command}")
    return layout


def _install(arguments: argparse.Namespace) -> int:
    layout = _layout(arguments)
    if arguments.wheels is not None and not any(arguments.wheels.glob("*.whl")):
        raise UsageError(f"--wheels {arguments.wheels}: no wheels there")
    installation = Installation(
        layout,
        find_python(arguments.python),
        wheels=arguments.wheels and arguments.wheels.absolute(),
        start=not arguments.no_start,
    )
    if arguments.dry_run:
        installation.check()
        for step in installation.steps():
            print(f"would {step.text}")
        print(f"\n{layout.unit}:\n\n{installation.unit}", end="")
        return 0
    installation.install(_tell)
    if not layout.live or not systemd_runs():
        print("installed; systemd does not run here: it starts with the machine")
    elif arguments.no_start:
        print("installed; sudo systemctl start soundpost starts it")
    else:
        print("installed; it listens")
    print(f"settings: {layout.settings}; after a change: sudo systemctl reload soundpost")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    layout = _layout(arguments)
    steps = removal(layout, arguments.purge)
    if not steps:
        print("nothing to remove")
    elif arguments.dry_run:
        for step in steps:
            print(f"would {step.text}")
    else:
        perform(steps, _tell)
    kept = [path for path in (layout.settings, layout.state[0]) if os.path.lexists(path)]
    if kept and not arguments.dry_run:
        print(f"kept: {', '.join(map(str, kept))} (--purge removes them)")
    return 0


def _status(_arguments: argparse.Namespace) -> int:
    version = Layout().current_version()
    print(f"installed: {version.name if version else 'nothing; sudo soundpost service install'}")
    return _systemd("systemctl", "status", "--no-pager", UNIT)


def _logs(arguments: argparse.Namespace) -> int:
    follow = ["--follow"] if arguments.follow else ["--no-pager"]
    return _systemd("journalctl", f"--unit={UNIT}", f"--lines={arguments.lines}", *follow)


def _systemd(*command: str) -> int:
    # What was printed so far comes first.
    sys.stdout.flush()
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError as error:
        raise ServiceError(f"{command[0]}: no such program: systemd is not here") from error


def _tell(text: str) -> None:
    print(f"- {text}", flush=True)


COMMAND = Command("install, watch and remove the systemd service", _DESCRIPTION, _add, _run)
