"""The `soundpost` command; its sub-commands come from the entry points of every folder."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from soundpost.device import __version__
from soundpost.device.command import Command
from soundpost.device.errors import InputError, MissingExtraError, SoundpostError, UsageError
from soundpost.device.interrupt import handle_interrupts, interrupts_wait

GROUP = "soundpost.commands"
INTERRUPTED = 130

_EXIT_CODES = """\
exit codes:
  0    done
  1    a fault in soundpost itself (please report the log)
  2    an option or a setting is wrong
  3    a file, a folder or a bundle cannot be used
  4    the MQTT broker is absent, refuses or went away
  5    a sound device or a camera is absent, busy or ambiguous
  6    an exported model does not reproduce the trained one
  7    a package is missing; the message says which extra to install
  8    a sensor does not obey a command
  9    doctor: there are warnings
  10   doctor: there are faults
  11   service: a step of installing, starting or removing it failed
  12   an update waits, cannot be fetched or is not to be trusted
  13   fleet: a roll-out was stopped by one of its conditions
  124  alerts, command: --timeout passed
  130  interrupted with Ctrl-C
"""
_EXAMPLES = """\
examples:
  soundpost demo                           hear a first alert, without microphone or broker
  soundpost devices                        what microphones are here
  soundpost run                            listen and publish alerts
  soundpost doctor                         is this sensor well
  sudo soundpost service install           start it with the machine
  soundpost top                            what a sensor on this machine hears now
  soundpost alerts                         what the sensors of a broker hear
  soundpost replay street.wav              what the sensor would have heard in a file
  soundpost record --source mic: --out hall   record microphones and a camera
  soundpost COMMAND --help                 options and examples of a command
"""


def _commands() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def load_command(point: EntryPoint) -> Command:
    """Import a sub-command.

    Raises MissingExtraError naming the extra, where a package it needs is not installed.
    """
    try:
        command = point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("soundpost"):
            raise
        extra = point.extras[0] if point.extras else "device"
        raise MissingExtraError(
            f"soundpost {point.name}: needs the package {error.name}: "
            f"pip install 'soundpost[{extra}]'"
        ) from error
    if not isinstance(command, Command):
        raise UsageError(f"soundpost {point.name}: {point.value} is not a Command")
    return command


def _top_parser(points: dict[str, EntryPoint]) -> argparse.ArgumentParser:
    lines = []
    for name, point in sorted(points.items(), key=lambda item: _order(item[0])):
        try:
            summary = load_command(point).summary
        except MissingExtraError:
            summary = f"(pip install 'soundpost[{(point.extras or ['device'])[0]}]')"
        lines.append(f"  {name:<10} {summary}")
    return argparse.ArgumentParser(
        prog="soundpost",
        usage="soundpost [--version] [-v] COMMAND ...",
        description="Turns a computer with a microphone into a sound-event sensor.\n\n"
        "commands:\n" + "\n".join(lines),
        epilog=_EXAMPLES + "\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _order(name: str) -> tuple[int, str]:
    first = (
        *("demo", "run", "devices", "top", "doctor", "service", "alerts", "replay"),
        *("config", "command", "bundle", "repo", "fleet", "collect"),
        *("record", "session", "images", "calibrate", "array", "scene"),
        *("soundscapes", "dataset", "train", "distil", "evaluate", "export"),
    )
    return (first.index(name) if name in first else len(first), name)


def _unknown(name: str, points: dict[str, EntryPoint]) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, points, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(points))}"
    return UsageError(f"soundpost: no command '{name}'; {hint}")


def run(arguments: Sequence[str]) -> int:
    """Run one command; raises SoundpostError where it cannot go on."""
    points = _commands()
    rest = list(arguments)
    verbose = 0
    while rest and rest[0] in ("-v", "--verbose"):
        verbose += 1
        rest.pop(0)
    if not rest or rest[0] in ("-h", "--help"):
        _top_parser(points).print_help()
        return 0
    if rest[0] == "--version":
        print(f"soundpost {__version__}")
        return 0
    name = rest.pop(0)
    if name not in points:
        raise _unknown(name, points)
    logging.basicConfig(
        level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    with interrupts_wait():
        command = load_command(points[name])
    parser = argparse.ArgumentParser(
        prog=f"soundpost {name}",
        description=command.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    try:
        parse = parser.parse_intermixed_args if command.intermixed else parser.parse_args
        return command.run(parse(rest))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("soundpost"):
            raise
        extra = (points[name].extras or ["device"])[0]
        raise MissingExtraError(
            f"soundpost {name}: needs the package {error.name}: pip install 'soundpost[{extra}]'"
        ) from error


def main() -> None:
    """Entry point: one line on stderr for a person's mistake, a traceback only for ours."""
    # One thread each: half a second of log-mel took 28 ms with BLAS's default threads on a busy
    # two-core machine and 0.3 ms with one. A user's own choice stands.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    handle_interrupts(signal.SIGINT)
    code = 0
    try:
        code = _outcome(sys.argv[1:])
        # Now, while an error can still be told: at the interpreter's end it cannot.
        print(end="", flush=True)
    except BrokenPipeError:
        # The reader of our output went away (`soundpost alerts | head`): nobody is left to tell.
        _forget_output()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"soundpost: cannot write the output ({error.strerror}); free some space, then run "
            "the same command again",
            file=sys.stderr,
        )
        _forget_output()
        code = InputError.exit_code
    # What is left is Python's own end, in which a second Ctrl-C would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _outcome(arguments: Sequence[str]) -> int:
    try:
        return run(arguments)
    except SoundpostError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        # argparse has printed help, or which option is wrong.
        return end.code if isinstance(end.code, int) else 0


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
