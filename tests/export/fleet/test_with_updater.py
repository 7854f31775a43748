"""Roll-outs to sensors that have the real updater: it takes the model, proves it, or goes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from updater_sensor import UpdaterSensor

from soundpost.device.errors import RollOutStoppedError
from soundpost.export.fleet import driver
from soundpost.export.fleet.roll_out import read_roll_out

WORDS = ("--hold", "0s", "--spread", "0s", "--waves", "1,100%")


@pytest.fixture
def fleet(make_fleet: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(driver, "TICK_S", 0.1)
    one = make_fleet()
    one._make = UpdaterSensor
    return one


def roll_out(fleet: Any, run_fleet: Callable[..., Any], *words: object) -> Any:
    return run_fleet(
        "roll-out", "tiny-1.1.0", "--repo", fleet.repository, "--port", fleet.port, *WORDS, *words
    )


def test_good_models_are_confirmed(fleet: Any, run_fleet: Callable[..., Any]) -> None:
    for number, device in enumerate(fleet.devices[:3]):
        fleet.sensor(device, seed=number)
    done = roll_out(fleet, run_fleet)
    assert done.error is None
    assert set(fleet.versions().values()) == {"1.1.0"}
    assert fleet.offers() == {"tiny-1.1.0.bundle": (("canary", "stable"), (), False)}
    # Its channel has what it runs: nothing more is fetched, nor changed.
    for sensor in fleet.sensors.values():
        sensor._updater.request(True)
    time.sleep(2.0)
    assert set(fleet.versions().values()) == {"1.1.0"}


@pytest.mark.parametrize(
    ("kind", "shadow_s", "outcome"), [("slow", 600.0, "refused"), ("constant", 0.0, "rolled-back")]
)
def test_a_bad_model_stops_it(
    fleet: Any, run_fleet: Callable[..., Any], kind: str, shadow_s: float, outcome: str
) -> None:
    """Found out in the shadow it is rejected; without one, in its probation."""
    for device in fleet.devices[:3]:
        fleet.sensor(device, kind=kind, shadow_s=shadow_s)
    done = roll_out(fleet, run_fleet)
    assert isinstance(done.error, RollOutStoppedError)
    state = read_roll_out(fleet.repository)
    assert state is not None
    assert [member.outcome for member in state.members] == [outcome, "waiting", "waiting"]
    assert set(fleet.versions().values()) == {"1.0.0"}
    assert fleet.offers() == {
        "tiny-1.0.0.bundle": (("stable",), (), False),
        "tiny-1.1.0.bundle": (("canary",), (), False),
    }


def test_taking_back(fleet: Any, run_fleet: Callable[..., Any]) -> None:
    """To an older version, which is fetched, tried and proved as any other."""
    devices = fleet.devices[:2]
    for device in devices:
        fleet.sensor(device)
    words = ("--repo", fleet.repository, "--port", fleet.port)
    plan = run_fleet("roll-out", "tiny-1.1.0", *words, *WORDS, "--dry-run", "--json")
    first, second = (member["device"] for member in json.loads(plan.out)["members"])
    fleet.sensors[second].close()
    fleet.sensor(second, kind="slow")
    stopped = roll_out(fleet, run_fleet)
    assert isinstance(stopped.error, RollOutStoppedError)
    assert fleet.versions() == {first: "1.1.0", second: "1.0.0"}
    assert run_fleet("abort", "--take-back", *words).error is None
    end_s = time.monotonic() + 240.0
    while (fleet.versions()[first], fleet.sensors[first].state.confirmed) != ("1.0.0", True):
        assert time.monotonic() < end_s, fleet.sensors[first].state
        time.sleep(0.1)
