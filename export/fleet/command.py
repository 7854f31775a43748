"""`soundpost fleet`.

python-tuf is imported when a roll-out runs, not when `soundpost --help` lists the command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from soundpost.device.broker_options import add_broker_options
from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interrupt import interrupts_wait
from soundpost.device.terminal import print_anything, printable
from soundpost.device.topics import DEFAULT_BASE_TOPIC
from soundpost.export.fleet.settings import STOP_KINDS

_KINDS = "\n".join(f"  {kind:<12} sensors that {what}" for kind, what in STOP_KINDS.items())
_DESCRIPTION = f"""\
Shows the sensors of a broker, and brings a model to them in waves.

list      a line for each sensor, the worst first: model, channel, phase of an update, health, last
          event that came while it listens, drift of its scores (above 0.25 they have changed)
roll-out  brings a model of the repository to the sensors of a channel: pins those of a wave to it,
          publishes that, asks them to update, waits until each has confirmed the model or gone
          back, holds, and goes on with the next. At the end the channel has the model, and the
          pins are gone. It runs until then; Ctrl-C or a crash stops nothing but the next step.
status    how a roll-out stands, a line for each sensor
pause     lets it end after the step that it is in; what sensors do meanwhile goes on
resume    carries it on, after `pause`, a crash, or (--accept) a condition that stopped it
abort     gives it up: sensors that have the model keep it, pinned; with --take-back they go back
          to their channel's

Who is asked first is drawn by the model: other sensors for another model, the same for the same.
A sensor that is offline, deaf, pinned elsewhere or unknown is left out, and said so; it takes the
model from its channel later. --dry-run says all that and changes nothing. Each decision is a line
in REPO/roll-out.log; where it stands is in REPO/roll-out.json.

It signs with the targets, snapshot and timestamp keys (--keys, SOUNDPOST_REPO_PASSPHRASE; see
`soundpost repo --help`), and publishes a fresh timestamp while it runs.

A condition of --stop-if KIND=AMOUNT (a count or a share of the sensors asked so far, or off) stops
it once it is reached:
{_KINDS}

examples:
  soundpost fleet list --host broker.local
  soundpost fleet list --where health=failed --where channel=stable
  soundpost fleet list 'porch-*' --json
  soundpost fleet list --watch
  soundpost fleet roll-out mine-1.1.0 --repo models --waves 5%,25%,100% --hold 30m --dry-run
  soundpost fleet roll-out mine-1.1.0 --repo models --host broker.local
  soundpost fleet roll-out mine-1.1.0 --repo models --waves 1,10,100% --stop-if rolled-back=1
  soundpost fleet status --repo models
  soundpost fleet pause --repo models
  soundpost fleet resume --repo models --host broker.local
  soundpost fleet abort --repo models --take-back --host broker.local

exit codes:
  0    done, paused or aborted as asked
  2    an option is wrong, a key is missing, or another roll-out is at work; nothing was changed
  3    the repository cannot be used
  4    the broker is absent or refused us
  13   the roll-out was stopped by one of its conditions
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(
        name: str, summary: str, *, repository: bool, broker: bool, keys: bool
    ) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=summary, description=summary)
        if repository:
            one.add_argument("--repo", metavar="DIR", type=Path, required=True, help="repository")
        if keys:
            one.add_argument(
                "--keys",
                metavar="DIR",
                type=Path,
                action="append",
                default=[],
                help="another folder with keys; may be repeated (default: DIR/keys)",
            )
        if broker:
            one.add_argument("--base", metavar="TOPIC", default=DEFAULT_BASE_TOPIC)
            one.add_argument(
                "--settle", metavar="S", type=float, default=15.0, help="for the broker's answer"
            )
            add_broker_options(one)
        one.add_argument("--json", action="store_true", help="print JSON")
        return one

    listing = action("list", "how the sensors are", repository=False, broker=True, keys=False)
    listing.add_argument("device", metavar="PATTERN", nargs="*", help="ids, such as 'porch-*'")
    listing.add_argument("--watch", action="store_true", help="go on, until Ctrl-C")
    rolling = action("roll-out", "bring a model to them", repository=True, broker=True, keys=True)
    rolling.add_argument("model", metavar="NAME-VERSION", help="in the repository")
    rolling.add_argument("--channel", metavar="NAME", default="stable", help="(default: stable)")
    rolling.add_argument(
        "--device", metavar="PATTERN", action="append", default=[], help="these sensors only"
    )
    for one in (listing, rolling):
        one.add_argument(
            "--where",
            metavar="NAME=PATTERN",
            action="append",
            default=[],
            help="these only, such as version=1.*, health!=ok; may be repeated",
        )
    rolling.add_argument(
        "--waves", default="5%,25%,100%", help="asked by the end of each (default: 5%%,25%%,100%%)"
    )
    for option, default, what in (
        ("--hold", "30m", "after a wave has settled"),
        ("--spread", "60s", "over which the sensors of a wave are asked"),
        ("--install-within", "1h", "until a sensor has the model on probation; then it is late"),
        ("--confirm-within", "26h", "until it has confirmed the model; then it is late"),
        ("--grace", "5m", "that a sensor may be away, or deaf"),
    ):
        rolling.add_argument(option, metavar="TIME", default=default, help=f"{what} ({default})")
    rolling.add_argument(
        "--stop-if",
        metavar="KIND=AMOUNT",
        action="append",
        default=[],
        help="default: rolled-back=5%%,refused=5%%,late=20%%,offline=20%%,deaf=5%%,drift=20%%",
    )
    rolling.add_argument("--allow-older", action="store_true", help="sensors may go back to it")
    rolling.add_argument(
        "--new-devices", action="store_true", help="make the sensors known to the repository"
    )
    rolling.add_argument("--dry-run", action="store_true", help="say what would be done")
    action("status", "how a roll-out stands", repository=True, broker=False, keys=False)
    action("pause", "let it rest", repository=True, broker=False, keys=False)
    resume = action("resume", "carry it on", repository=True, broker=True, keys=True)
    resume.add_argument(
        "--accept", action="store_true", help="what stopped it has been seen, and counts no more"
    )
    abort = action("abort", "give it up", repository=True, broker=True, keys=True)
    abort.add_argument(
        "--take-back", action="store_true", help="sensors go back to the model of their channel"
    )


def _run(arguments: argparse.Namespace) -> int:
    print_anything()
    if arguments.action == "list":
        from soundpost.export.fleet.list_command import run_list

        return run_list(arguments)
    with interrupts_wait():
        import tuf.api.metadata  # noqa: F401

        from soundpost.export.fleet import roll_out_command
    if arguments.action == "roll-out":
        return roll_out_command.run_roll_out(arguments)
    if not arguments.repo.is_dir():
        raise InputError(f"{arguments.repo}: is no folder; give that of the repository")
    if arguments.action == "resume":
        return roll_out_command.run_resume(arguments)
    if arguments.action == "abort":
        return roll_out_command.run_abort(arguments)
    if arguments.action == "pause":
        return roll_out_command.run_pause(arguments)
    return _status(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from soundpost.export.fleet.journal import utc_now
    from soundpost.export.fleet.progress import status_lines, status_record
    from soundpost.export.fleet.roll_out import at_work, read_roll_out

    roll_out = read_roll_out(arguments.repo)
    if roll_out is None:
        raise UsageError(f"{arguments.repo}: there was no roll-out here")
    working = at_work(arguments.repo)
    if arguments.json:
        print(json.dumps(status_record(roll_out, working), indent=1))
        return 0
    for line in status_lines(roll_out, working, utc_now()):
        print(printable(line))
    return 0


COMMAND = Command(
    summary="show many sensors, and bring a model to them in waves",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
