"""`soundpost fleet roll-out`, `resume`, `pause` and `abort`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

from soundpost.device.broker_options import broker_settings
from soundpost.device.errors import RollOutStoppedError, UsageError
from soundpost.device.terminal import Screen, is_terminal, printable
from soundpost.export.fleet.driver import RollOutDriver
from soundpost.export.fleet.journal import Journal, utc_now
from soundpost.export.fleet.listening import FleetListener
from soundpost.export.fleet.placement import check_keys, published_offers
from soundpost.export.fleet.plan import find_offer, plan_roll_out
from soundpost.export.fleet.progress import (
    heading,
    name_of,
    plan_lines,
    roll_out_rows,
    stage_line,
    status_record,
)
from soundpost.export.fleet.requests import Request, clear_request, leave_request
from soundpost.export.fleet.roll_out import (
    UNFINISHED,
    RollOut,
    at_work,
    read_roll_out,
    roll_out_lock,
    write_roll_out,
)
from soundpost.export.fleet.sensors import Condition, Sensor, choose_sensors
from soundpost.export.fleet.settings import (
    RollOutSettings,
    parse_duration,
    parse_stops,
    parse_waves,
)
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import KeyRing, Passphrase
from soundpost.export.repository.settings import write_settings

_REQUEST_S: Final = 120.0


def _settings(arguments: argparse.Namespace) -> RollOutSettings:
    return RollOutSettings(
        waves=parse_waves(arguments.waves),
        hold_s=parse_duration(arguments.hold, "--hold"),
        spread_s=parse_duration(arguments.spread, "--spread"),
        install_s=parse_duration(arguments.install_within, "--install-within"),
        confirm_s=parse_duration(arguments.confirm_within, "--confirm-within"),
        grace_s=parse_duration(arguments.grace, "--grace"),
        stops=parse_stops(arguments.stop_if),
        allow_older=arguments.allow_older,
    )


def _ring(arguments: argparse.Namespace) -> KeyRing:
    for folder in arguments.keys:
        if not folder.is_dir():
            raise UsageError(f"--keys {folder}: is no folder; is the stick mounted?")
    return KeyRing([*arguments.keys, arguments.repo / "keys"], Passphrase())


def run_roll_out(arguments: argparse.Namespace) -> int:
    """Plan, and unless it is a dry run, begin and carry on."""
    settings = _settings(arguments)
    conditions = [Condition.parse(text) for text in arguments.where]
    repository = RepositoryFolder(arguments.repo)
    repository.settings.check_channels([arguments.channel])
    offers = published_offers(repository)
    offer = find_offer(offers, arguments.model)
    ring = _ring(arguments)
    if arguments.dry_run:
        with FleetListener(broker_settings(arguments), arguments.base) as fleet:
            fleet.settle(arguments.settle)
            sensors = choose_sensors(fleet.sensors, arguments.device, conditions)
        known = {*repository.settings.devices, *(sensors if arguments.new_devices else ())}
        plan = plan_roll_out(offers, offer, arguments.channel, sensors, known, settings, utc_now())
        _print_plan(plan, arguments.json)
        return 0
    with roll_out_lock(repository.path):
        _refuse_second(repository.path)
        check_keys(repository, ring)
        with FleetListener(broker_settings(arguments), arguments.base) as fleet:
            fleet.settle(arguments.settle)
            sensors = choose_sensors(fleet.sensors, arguments.device, conditions)
            known = {*repository.settings.devices, *(sensors if arguments.new_devices else ())}
            roll_out = plan_roll_out(
                offers, offer, arguments.channel, sensors, known, settings, utc_now()
            )
            if not roll_out.members:
                raise UsageError(_nobody(roll_out))
            repository = _know(repository, roll_out)
            journal = Journal(repository.path, None)
            journal.line(f"roll-out of {heading(roll_out)}")
            for line in plan_lines(roll_out):
                journal.line(line)
            write_roll_out(repository.path, roll_out)
            _print_plan(roll_out, False)
            return _carry_on(repository, ring, fleet, roll_out)


def _refuse_second(path: Path) -> None:
    last = read_roll_out(path)
    if last is not None and last.stage in UNFINISHED:
        raise UsageError(
            f"{path}: the roll-out of {name_of(last.model)} is {last.stage}: `soundpost fleet "
            f"resume --repo {path}` or `fleet abort` it first; nothing was changed"
        )


def _nobody(roll_out: RollOut) -> str:
    told = "; ".join(f"{device}: {why}" for device, why in roll_out.skipped[:3])
    more = f"; and {len(roll_out.skipped) - 3} more" if len(roll_out.skipped) > 3 else ""
    return (
        f"no sensor of channel {roll_out.channel!r} can be asked to take "
        f"{name_of(roll_out.model)} ({told or 'the broker knows none'}{more}); nothing was changed"
    )


def _know(repository: RepositoryFolder, roll_out: RollOut) -> RepositoryFolder:
    """Make the members known to the repository, as far as they are not."""
    settings = repository.settings
    new = [one.device for one in roll_out.members if one.device not in settings.devices]
    if not new:
        return repository
    with repository.lock():
        write_settings(
            repository.path, replace(settings, devices=(*settings.devices, *sorted(new)))
        )
    return RepositoryFolder(repository.path)


def _print_plan(plan: RollOut, as_json: bool) -> None:
    if as_json:
        print(json.dumps(status_record(plan, False), indent=1))
        return
    for line in [heading(plan), *plan_lines(plan)]:
        print(printable(line))
    sys.stdout.flush()


# ------------------------------------------------------------------------------- carrying it on


def _carry_on(
    repository: RepositoryFolder, ring: KeyRing, fleet: FleetListener, roll_out: RollOut
) -> int:
    """Run the driver, with a picture or with lines; the exit code."""
    drawing = is_terminal(sys.stdout)
    with Screen() if drawing else nullcontext() as screen:
        show: Callable[[RollOut, Mapping[str, Sensor]], None] | None = None
        if screen is not None:

            def show(now: RollOut, sensors: Mapping[str, Sensor]) -> None:
                screen.show(roll_out_rows(now, sensors, *screen.size, utc_now()))

        journal = Journal(repository.path, None if drawing else _tell)
        driver = RollOutDriver(repository, ring, fleet, journal, roll_out, show=show)
        try:
            roll_out = driver.run()
        except KeyboardInterrupt:
            journal.line(f"interrupted; `soundpost fleet resume --repo {repository.path}` goes on")
            raise
    line = stage_line(roll_out, False, utc_now())
    if roll_out.stage == "stopped":
        raise RollOutStoppedError(printable(line))
    if drawing:
        print(printable(line))
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _unfinished(path: Path) -> RollOut:
    roll_out = read_roll_out(path)
    if roll_out is None:
        raise UsageError(f"{path}: there was no roll-out here; see `soundpost fleet roll-out`")
    if roll_out.stage not in UNFINISHED:
        raise UsageError(
            f"{path}: the roll-out of {name_of(roll_out.model)} is {roll_out.stage}; begin "
            "another one with `soundpost fleet roll-out`; nothing was changed"
        )
    return roll_out


def run_resume(arguments: argparse.Namespace) -> int:
    """Carry an unfinished roll-out on."""
    repository = RepositoryFolder(arguments.repo)
    ring = _ring(arguments)
    with roll_out_lock(repository.path):
        roll_out = _unfinished(repository.path)
        if roll_out.stage == "stopped":
            if not arguments.accept:
                raise UsageError(
                    f"it was stopped: {roll_out.reason}; give --accept to go on all the same, or "
                    "`soundpost fleet abort` it; nothing was changed"
                )
            roll_out = _accepted(roll_out)
        if roll_out.stage == "paused":
            roll_out = replace(roll_out, stage="running", reason=None)
        check_keys(repository, ring)
        with FleetListener(broker_settings(arguments), arguments.base) as fleet:
            fleet.settle(arguments.settle)
            journal = Journal(repository.path, None)
            journal.line(f"resumed: {name_of(roll_out.model)}, {roll_out.stage}")
            write_roll_out(repository.path, roll_out)
            return _carry_on(repository, ring, fleet, roll_out)


def _accepted(roll_out: RollOut) -> RollOut:
    """Running again; the sensors that stopped it count for no condition any more."""
    members = tuple(
        replace(
            member,
            accepted=member.accepted
            or member.device in roll_out.blamed
            or member.outcome in ("rolled-back", "refused", "late"),
        )
        for member in roll_out.members
    )
    # Those who are still to be asked have their time from now on.
    return replace(
        roll_out,
        stage="running",
        reason=None,
        kept=(),
        blamed=(),
        members=members,
        began=utc_now(),
    )


# --------------------------------------------------------------------------- pause and abort


def run_pause(arguments: argparse.Namespace) -> int:
    """Let it rest: by the process that is at work, or here."""
    ends = ("paused", "stopped", "aborted", "done")
    if at_work(arguments.repo) and _ask(arguments.repo, Request("pause"), ends):
        return 0
    with roll_out_lock(arguments.repo):
        roll_out = _unfinished(arguments.repo)
        if roll_out.stage != "running":
            raise UsageError(f"{arguments.repo}: it is {roll_out.stage}; nothing was changed")
        write_roll_out(arguments.repo, replace(roll_out, stage="paused", reason="by an operator"))
        Journal(arguments.repo, _tell).line("paused by an operator")
    return 0


def run_abort(arguments: argparse.Namespace) -> int:
    """Give it up: by the process that is at work, or here."""
    repository = RepositoryFolder(arguments.repo)
    if arguments.take_back and _unfinished(repository.path).before is None:
        raise UsageError(
            f"{repository.path}: the channel was empty: there is nothing that its sensors could go "
            "back to; nothing was changed"
        )
    request = Request("abort", arguments.take_back)
    if at_work(arguments.repo) and _ask(arguments.repo, request, ("aborted", "done")):
        return 0
    ring = _ring(arguments)
    with roll_out_lock(repository.path):
        roll_out = _unfinished(repository.path)
        check_keys(repository, ring)
        kept = tuple(member.device for member in roll_out.members if member.has_model)
        roll_out = replace(
            roll_out,
            stage="aborting",
            reason="by an operator",
            kept=() if arguments.take_back else kept,
            take_back=arguments.take_back,
        )
        with FleetListener(broker_settings(arguments), arguments.base) as fleet:
            # Without --take-back there is nobody to ask, and no need of a broker.
            if arguments.take_back:
                fleet.settle(arguments.settle)
            write_roll_out(repository.path, roll_out)
            return _carry_on(repository, ring, fleet, roll_out)


def _ask(path: Path, request: Request, ends: tuple[str, ...]) -> bool:
    """Leave a request to the process at work, and wait until it has ended.

    ends : stages after which there is nothing left to do; False where it ended with another
    """
    leave_request(path, request)
    end_s = time.monotonic() + _REQUEST_S
    while at_work(path):
        if time.monotonic() > end_s:
            clear_request(path)
            raise UsageError(
                f"{path}: the roll-out at work did not {request.action} within {_REQUEST_S:g} s; "
                "end its process, then run the same command again"
            )
        time.sleep(0.1)
    clear_request(path)
    roll_out = read_roll_out(path)
    if roll_out is None or roll_out.stage not in ends:
        # It was killed, or stopped, before it came to that.
        return False
    print(printable(stage_line(roll_out, False, utc_now())))
    return True
