"""`soundpost fleet list`, as text, for a program, and in a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_sensor import Ears

from soundpost.device.errors import UsageError
from soundpost.device.updates.model_state import ModelState


@pytest.fixture
def mixed(make_fleet: Callable[[], Any]) -> Any:
    """One that is away, one that is deaf, one that has drifted, one that is well."""
    fleet = make_fleet()
    for device in ("away", "deaf", "drifted", "well"):
        fleet.sensor(device, ears=Ears())
    fleet.sensors["away"].close(goodbye=False)
    fleet.sensors["deaf"].health("failed", "the microphone is gone")
    fleet.sensors["drifted"].show(drift=0.31)
    return fleet


def test_a_line_for_each_the_worst_first(mixed: Any, run_fleet: Callable[..., Any]) -> None:
    done = run_fleet("list", "--port", mixed.port)
    assert done.error is None
    head, names, *rows = done.lines
    assert head == "4 sensors: 1 offline, 1 deaf, 1 drifted, 1 well"
    assert names.split("  ")[0] == "SENSOR"
    assert [row.split()[0] for row in rows] == ["away", "deaf", "drifted", "well"]
    assert rows[0].endswith("  offline")
    assert rows[1].endswith("  mic0 does not hear: the microphone is gone")
    assert rows[2].split()[-5:] == ["0.31", "its", "scores", "have", "drifted"]
    assert rows[3].split() == ["well", "tiny", "1.0.0", "stable", "idle", "ok", "-", "-"]


def test_the_same_for_a_program(mixed: Any, run_fleet: Callable[..., Any]) -> None:
    done = run_fleet("list", "--port", mixed.port, "--json")
    records = {record["device"]: record for record in json.loads(done.out)}
    assert [records[name]["trouble"] for name in ("away", "deaf", "drifted", "well")] == [
        "offline",
        "deaf",
        "drifted",
        "well",
    ]
    assert records["well"]["online"] is True
    assert records["well"]["note"] is None
    # The state is passed on as it came.
    state = ModelState.from_json(json.dumps(records["drifted"]["model"]))
    assert (state.drift, state.installed) == (0.31, mixed.installed)
    assert records["deaf"]["health"]["mic0"]["state"] == "failed"


def test_some_of_them(mixed: Any, run_fleet: Callable[..., Any]) -> None:
    done = run_fleet("list", "d*", "--where", "health=ok", "--port", mixed.port, "--json")
    assert [record["device"] for record in json.loads(done.out)] == ["drifted"]
    wrong = run_fleet("list", "wel", "--port", mixed.port)
    assert isinstance(wrong.error, UsageError)
    assert "did you mean well?" in str(wrong.error)


def test_in_a_terminal(mixed: Any, terminal: Callable[..., Any]) -> None:
    program = Path(__file__).with_name("fleet_process.py")
    words = ["-1", "list", "--watch", "--port", str(mixed.port)]
    screen = terminal(
        120, 12, [sys.executable, str(program), *words], PYTHONPATH=os.environ.get("PYTHONPATH", "")
    )
    screen.wait(lambda rows: any(row.startswith("well ") for row in rows))
    mixed.sensors["well"].health("failed", "unplugged")
    rows = screen.wait(lambda rows: any("unplugged" in row for row in rows))
    assert rows[0].endswith("4 sensors: 1 offline, 2 deaf, 1 drifted")
    screen.type("q")
    assert screen.end() == 0
