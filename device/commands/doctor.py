"""`soundpost doctor`: is this sensor well, and what to do where it is not."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from soundpost.device.board import Board
from soundpost.device.board_bench import bench, table
from soundpost.device.bundle import starter_bundle_path
from soundpost.device.checks import check_all, check_board, check_clock, check_models
from soundpost.device.command import Command
from soundpost.device.config import load_settings
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import SoundpostError
from soundpost.device.files import nearest_folder
from soundpost.device.findings import Finding, State, worst
from soundpost.device.service import Layout
from soundpost.device.settings import Settings

SCHEMA: Final = "soundpost.doctor/1"
EXIT_CODES: Final[dict[State, int]] = {"ok": 0, "warning": 9, "fault": 10}

_DESCRIPTION = """\
Check this sensor: settings, model, microphone, clock, disk, broker, heat, supply. Each line says
ok, warning or fault, and what to do. It changes nothing; it hears each source for a second, and
publishes one empty message on BASE/DEVICE/doctor. It looks at the settings given, else at those of
the service where it is installed, else at the defaults.

A sensor that runs may hold its microphone: to check that too, stop it first.

examples:
  soundpost doctor
  soundpost doctor --config soundpost.toml
  sudo soundpost doctor                       the service's, whose password only root can read
  soundpost doctor --json                     for a program: {"schema", "worst", "findings": [...]}
  soundpost doctor --bench                    this board's figures, as a table for hardware.md

exit codes: 0 all is well; 9 there are warnings; 10 there are faults
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--bench", action="store_true", help="measure this board instead, for half a minute"
    )


def _load(given: Path | None) -> tuple[Settings | None, Finding, Path | None]:
    """Settings, what there is to say of them, and the service's folder where they are its own."""
    layout = Layout()
    environment = dict(os.environ)
    path, state = given, None
    if given is None and layout.settings.exists():
        path = layout.settings
        # The service's state, not that of who asks.
        state = layout.state[0]
        environment["STATE_DIRECTORY"] = str(state)
    try:
        settings = load_settings(path, environment=environment)
    except SoundpostError as error:
        remedy = "mend it; the checks that need it were left out"
        if isinstance(error.__context__, PermissionError):
            remedy = "only root can read it: run the same command with sudo"
        return None, Finding("settings", "fault", str(error), remedy), state
    return settings, Finding("settings", "ok", str(path) if path else "none: the defaults"), state


def _findings(settings: Settings | None, first: Finding, state: Path | None) -> Iterator[Finding]:
    yield first
    if settings is not None:
        yield from check_all(settings, state=state)
        return
    yield from check_models(Settings("doctor", OutboxSettings(Path("outbox.sqlite3"))))
    yield check_clock()
    yield from check_board(Board())


def _run(arguments: argparse.Namespace) -> int:
    settings, first, folder = _load(arguments.config)
    if arguments.bench:
        return _bench(settings, arguments.json)
    found = []
    for finding in _findings(settings, first, folder):
        found.append(finding)
        if not arguments.json:
            print(f"{finding.state:<8} {finding.area:<12} {finding.text}", flush=True)
            if finding.remedy:
                print(f"{'':<21} -> {finding.remedy}", flush=True)
    state = worst(found)
    if arguments.json:
        findings = [asdict(finding) for finding in found]
        print(
            json.dumps({"schema": SCHEMA, "worst": state, "findings": findings}, ensure_ascii=False)
        )
    return EXIT_CODES[state]


def _bench(settings: Settings | None, as_json: bool) -> int:
    model = settings.model if settings is not None else None
    path = (model.bundle if model is not None else None) or starter_bundle_path()
    there = Path()
    if settings is not None:
        # Another's folder cannot be measured: this user's own disk is.
        with contextlib.suppress(PermissionError):
            there = nearest_folder(settings.outbox.path)
    figures = []
    for figure in bench(
        path, model.runtime if model else "auto", model.threads if model else 1, there
    ):
        figures.append(figure)
        print(f"{figure.name}: {figure.text}", file=sys.stderr, flush=True)
    if as_json:
        print(
            json.dumps(
                {
                    "schema": "soundpost.bench/1",
                    "board": Board().name,
                    "figures": [asdict(figure) for figure in figures],
                }
            )
        )
    else:
        print(table(figures, Board()))
    return 0


COMMAND = Command("check this sensor and say what to do", _DESCRIPTION, _add, _run)
