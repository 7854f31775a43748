"""Roll-outs to real clients: MQTT, TUF and downloads; what the sensors hear alone is simulated."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_sensor import Ears
from signed_repository import PASSPHRASE, bundle_bytes

from soundpost.device.errors import RollOutStoppedError, UsageError
from soundpost.export.fleet import driver
from soundpost.export.fleet.roll_out import LOG_FILE, RollOut, read_roll_out, roll_out_lock
from soundpost.export.repository.settings import write_settings

QUICK = ("--hold", "0s", "--spread", "0s", "--waves", "1,3,100%")
PATIENCE_S = 240.0
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.05)
    monkeypatch.setattr(driver, "ASK_AGAIN_S", 2.0)


def words(fleet: Any, action: str, *more: object) -> list[str]:
    model = ["tiny-1.1.0"] if action == "roll-out" else []
    quick = QUICK if action == "roll-out" else ()
    broker = ["--port", fleet.port] if action in ("roll-out", "resume", "abort") else []
    return [*map(str, [action, *model, "--repo", fleet.repository, *broker, *quick, *more])]


def last(fleet: Any) -> RollOut:
    found = read_roll_out(fleet.repository)
    assert found is not None
    return found


def outcomes(fleet: Any) -> dict[str, str]:
    return {member.device: member.outcome for member in last(fleet).members}


def first_of(fleet: Any, run_fleet: Run) -> list[str]:
    """Sensors in the order of the waves."""
    plan = json.loads(run_fleet(*words(fleet, "roll-out", "--dry-run", "--json")).out)
    return [member["device"] for member in plan["members"]]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait(met: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def process(fleet: Any, *arguments: str, kill_at: int = -1) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("fleet_process.py")
    return subprocess.Popen(
        [sys.executable, program, str(kill_at), *arguments],
        env={**os.environ, "SOUNDPOST_REPO_PASSPHRASE": PASSPHRASE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# ------------------------------------------------------------------------------------ it goes well


def test_six_sensors_in_three_waves(fleet: Any, run_fleet: Run) -> None:
    """Each is asked once, has the model, and is told of in a line; the pins are gone."""
    plan = first_of(fleet, run_fleet)
    done = run_fleet(*words(fleet, "roll-out"))
    assert done.error is None
    assert set(fleet.versions().values()) == {"1.1.0"}
    assert fleet.offers() == {"tiny-1.1.0.bundle": (("canary", "stable"), (), False)}
    assert [(member.device, member.wave) for member in last(fleet).members] == list(
        zip(plan, (1, 2, 2, 3, 3, 3), strict=True)
    )
    assert set(outcomes(fleet).values()) == {"confirmed"}
    assert [len(sensor.commands) for sensor in fleet.sensors.values()] == [1] * 6
    log = (fleet.repository / LOG_FILE).read_text()
    for device in plan:
        assert f" {device}: wave {last(fleet).members[plan.index(device)].wave}\n" in log
        assert f" {device}: wave {last(fleet).members[plan.index(device)].wave}: confirmed\n" in log
    # No wave began before the one before it had confirmed.
    second, third = log.index(" wave 2 of 3: "), log.index(" wave 3 of 3: ")
    assert log.index(f"{plan[0]}: wave 1: confirmed") < second
    assert all(second < log.index(f"{one}: wave 2: confirmed") < third for one in plan[1:3])
    assert all(third < log.index(f"{one}: wave 3: asked") for one in plan[3:])
    said = run_fleet(*words(fleet, "status"))
    assert said.lines[1] == "done: all of 6 sensors asked"
    again = run_fleet(*words(fleet, "roll-out"))
    assert isinstance(again.error, UsageError)
    assert "channel 'stable' has tiny 1.1.0 already" in str(again.error)


def test_a_dry_run_says_all_and_changes_no_byte(fleet: Any, run_fleet: Run) -> None:
    """One line for each sensor; the same waves as the roll-out itself."""
    first, second = fleet.devices[:2]
    fleet.sensors[first].close()
    fleet.sensors[second].close()
    fleet.sensor(second, channel="canary")
    fleet.sensor("stranger")
    before = snapshot(fleet.repository)
    done = run_fleet(*words(fleet, "roll-out", "--dry-run"))
    assert done.error is None
    assert snapshot(fleet.repository) == before
    told = dict(line.split(": ", 1) for line in done.lines[1:])
    assert set(told) == {*fleet.devices, "stranger"}
    assert told[first].startswith("skipped: offline; it takes the model from 'stable' at the end")
    assert told[second] == "skipped: it follows channel 'canary'"
    assert told["stranger"].startswith("skipped: unknown to the repository (--new-devices")
    assert sorted(told[device] for device in fleet.devices[2:]) == [
        "wave 1",
        "wave 2",
        "wave 2",
        "wave 3",
    ]
    assert run_fleet(*words(fleet, "roll-out")).error is None
    assert {one.device: f"wave {one.wave}" for one in last(fleet).members} == {
        device: line for device, line in told.items() if line.startswith("wave")
    }
    assert fleet.versions()["stranger"] == "1.0.0"


def test_new_devices_are_made_known(make_fleet: Callable[[], Any], run_fleet: Run) -> None:
    fleet = make_fleet()
    fleet.sensor("stranger")
    done = run_fleet(*words(fleet, "roll-out"))
    assert "no sensor of channel 'stable' can be asked" in str(done.error)
    assert "stranger: unknown to the repository" in str(done.error)
    assert run_fleet(*words(fleet, "roll-out", "--new-devices")).error is None
    assert "stranger" in fleet.operator.folder.settings.devices
    assert fleet.versions() == {"stranger": "1.1.0"}


# ---------------------------------------------------------------------------------- it goes badly


def test_a_sensor_that_goes_back_stops_it(fleet: Any, run_fleet: Run) -> None:
    """Those after it are not asked; those who have the model keep it; the others are unpinned."""
    plan = first_of(fleet, run_fleet)
    bad = plan[1]
    fleet.sensors[bad].ears = Ears("bad")
    done = run_fleet(*words(fleet, "roll-out", "--stop-if", "rolled-back=1"))
    assert isinstance(done.error, RollOutStoppedError)
    assert f"(rolled-back=1 stops): {bad}: 4 times as many events as before" in str(done.error)
    assert "\n" not in str(done.error)
    assert outcomes(fleet)[bad] == "rolled-back"
    assert [outcomes(fleet)[device] for device in plan[3:]] == ["waiting"] * 3
    assert [len(fleet.sensors[device].commands) for device in plan[3:]] == [0] * 3
    kept = tuple(sorted(one.device for one in last(fleet).members if one.has_model))
    assert plan[0] in kept
    assert fleet.offers() == {
        "tiny-1.0.0.bundle": (("stable",), (), False),
        "tiny-1.1.0.bundle": (("canary",), kept, False),
    }

    refused = run_fleet(*words(fleet, "resume"))
    assert isinstance(refused.error, UsageError)
    assert "give --accept" in str(refused.error)
    second = run_fleet(*words(fleet, "roll-out"))
    assert "the roll-out of tiny 1.1.0 is stopped" in str(second.error)
    assert run_fleet(*words(fleet, "resume", "--accept")).error is None
    assert outcomes(fleet) == {**dict.fromkeys(plan, "confirmed"), bad: "rolled-back"}
    assert fleet.versions()[bad] == "1.0.0"
    assert fleet.offers() == {"tiny-1.1.0.bundle": (("canary", "stable"), (), False)}


def test_one_that_is_stuck_is_late(fleet: Any, run_fleet: Run) -> None:
    plan = first_of(fleet, run_fleet)
    fleet.sensors[plan[0]].ears = Ears("mute")
    done = run_fleet(*words(fleet, "roll-out", "--install-within", "4s"))
    assert isinstance(done.error, RollOutStoppedError)
    assert "(late=20% stops)" in str(done.error)
    assert outcomes(fleet)[plan[0]] == "late"
    log = (fleet.repository / LOG_FILE).read_text()
    assert f"{plan[0]}: wave 1: asked: does not obey, looks by itself: update: not among" in log
    # It was asked again, for the first message might have been lost.
    assert len(fleet.sensors[plan[0]].commands) >= 2
    assert fleet.offers()["tiny-1.1.0.bundle"] == (("canary",), (), False)


@pytest.mark.parametrize("kind", ["offline", "deaf", "drift"])
def test_what_goes_wrong_elsewhere_stops_it(fleet: Any, run_fleet: Run, kind: str) -> None:
    plan = first_of(fleet, run_fleet)
    victim = fleet.sensors[plan[0]]
    if kind == "drift":
        victim.ears = Ears(drift=0.4)
    running = process(fleet, *words(fleet, "roll-out", "--grace", "0s", "--hold", "10m"))
    try:
        wait(lambda: read_roll_out(fleet.repository) is not None, "it has begun")
        wait(lambda: outcomes(fleet)[plan[0]] == "confirmed", "the first one has confirmed")
        if kind == "offline":
            victim.close(goodbye=False)
        if kind == "deaf":
            victim.health("failed", "the microphone is gone")
        said = running.communicate(timeout=PATIENCE_S)[0]
    finally:
        running.kill()
    assert running.returncode == 13
    assert f"1 of 1 sensor {driver_words(kind)}" in said.splitlines()[-1]
    assert fleet.offers()["tiny-1.1.0.bundle"] == (("canary",), (plan[0],), False)


def driver_words(kind: str) -> str:
    return {
        "offline": "are away",
        "deaf": "have a source that does not hear",
        "drift": "have scores that have drifted",
    }[kind]


def test_abort_takes_the_model_back(fleet: Any, run_fleet: Run) -> None:
    """Sensors go back to an older version because the channel's model now allows it, signed."""
    plan = first_of(fleet, run_fleet)
    fleet.sensors[plan[1]].ears = Ears("bad")
    stopped = run_fleet(*words(fleet, "roll-out", "--stop-if", "rolled-back=1"))
    assert isinstance(stopped.error, RollOutStoppedError)
    assert "1.1.0" in fleet.versions().values()
    assert run_fleet(*words(fleet, "abort", "--take-back")).error is None
    wait(lambda: set(fleet.versions().values()) == {"1.0.0"}, "all are back")
    assert fleet.offers() == {
        "tiny-1.0.0.bundle": (("stable",), (), True),
        "tiny-1.1.0.bundle": (("canary",), (), False),
    }
    assert last(fleet).stage == "aborted"
    assert "is aborted; begin another" in str(run_fleet(*words(fleet, "resume")).error)


# ---------------------------------------------------------------------------- pauses and kills


def test_pause_and_abort_reach_the_process_at_work(fleet: Any, run_fleet: Run) -> None:
    running = process(fleet, *words(fleet, "roll-out", "--hold", "10m"))
    try:
        wait(lambda: read_roll_out(fleet.repository) is not None, "it has begun")
        wait(lambda: last(fleet).hold_until is not None, "the first wave is settled")
        second = run_fleet(*words(fleet, "roll-out"))
        assert f"a roll-out is at work here (process {running.pid})" in str(second.error)
        assert isinstance(second.error, UsageError)
        said = run_fleet(*words(fleet, "status")).lines[1]
        assert said.startswith("running: wave 1 of 3, settled, held for another ")
        paused = run_fleet(*words(fleet, "pause"))
        assert (paused.error, running.wait(PATIENCE_S)) == (None, 0)
    finally:
        running.kill()
        running.communicate()
    assert last(fleet).stage == "paused"
    (canary,) = [one for one in last(fleet).members if one.wave == 1]
    # What was pinned stays so while it rests.
    assert fleet.offers()["tiny-1.1.0.bundle"] == (("canary",), (canary.device,), False)
    assert "it is paused" in str(run_fleet(*words(fleet, "pause")).error)

    running = process(fleet, *words(fleet, "resume"))
    try:
        wait(lambda: last(fleet).stage == "running", "it goes on")
        assert run_fleet(*words(fleet, "abort")).error is None
        assert running.wait(PATIENCE_S) == 0
    finally:
        running.kill()
        running.communicate()
    assert last(fleet).stage == "aborted"
    # Without --take-back, who has the model keeps it.
    assert fleet.offers()["tiny-1.1.0.bundle"] == (("canary",), (canary.device,), False)
    assert fleet.versions()[canary.device] == "1.1.0"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_instants_it_ends_as_if_undisturbed(
    make_fleet: Callable[[], Any], run_fleet: Run, seed: int
) -> None:
    """Killed before changes of its disk drawn at random, again and again, and resumed each time."""
    undisturbed, fleet = make_fleet(), make_fleet()
    for one in (undisturbed, fleet):
        for device in one.devices:
            one.sensor(device)
    assert run_fleet(*words(undisturbed, "roll-out")).error is None
    rng = random.Random(seed)
    kills, action = 0, "roll-out"
    while True:
        kill_at = rng.randrange(60) if kills < 8 else -1
        running = process(fleet, *words(fleet, action), kill_at=kill_at)
        try:
            said = running.communicate(timeout=PATIENCE_S)[0]
        finally:
            running.kill()
        assert running.returncode in (0, -9), said
        if running.returncode == 0:
            break
        kills += 1
        assert fleet.offers(), "what is published can be read at any instant"
        action = "roll-out" if read_roll_out(fleet.repository) is None else "resume"
    assert kills >= 3
    assert fleet.offers() == undisturbed.offers()
    assert set(fleet.versions().values()) == {"1.1.0"}
    assert last(fleet).members == last(undisturbed).members
    assert last(fleet).stage == "done"
    assert fleet.operator.folder.staged_targets() is None


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--channel", "stabel"], "channel 'stabel' is not in repository.json; did you mean"),
        (["--device", "hal-1"], "no sensor 'hal-1' is known to the broker; did you mean hall-1?"),
        (["--where", "verson=1"], "did you mean version?"),
        (["--where", "version=2.*"], "can be asked to take tiny 1.1.0 (the broker knows none)"),
        (["--waves", "5%"], "the last one must be 100%"),
        (["--hold", "soon"], "--hold 'soon': expected a time such as 90s, 30m, 2h or 1d"),
        (["--stop-if", "rolled_back=1"], "did you mean rolled-back?"),
        (["--keys", "/nowhere"], "is the stick mounted?"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    fleet: Any, run_fleet: Run, more: list[str], told: str
) -> None:
    before = published(fleet)
    done = run_fleet(*words(fleet, "roll-out", *more))
    assert isinstance(done.error, UsageError)
    assert told in str(done.error)
    assert "\n" not in str(done.error)
    assert published(fleet) == before


def published(fleet: Any) -> dict[str, tuple[bytes, int]]:
    """All of a repository but the files of its locks."""
    return {
        name: content
        for name, content in snapshot(fleet.repository).items()
        if not name.endswith("lock")
    }


def test_an_operator_without_keys(fleet: Any, run_fleet: Run) -> None:
    (fleet.repository / "keys").rename(fleet.repository.parent / "stick")
    before = published(fleet)
    done = run_fleet(*words(fleet, "roll-out"))
    assert isinstance(done.error, UsageError)
    assert str(done.error).startswith("no targets key at hand: 0 of 1 that must sign")
    assert published(fleet) == before
    # With the stick in its place it goes on.
    assert (
        run_fleet(*words(fleet, "roll-out", "--keys", fleet.repository.parent / "stick")).error
        is None
    )


def test_what_waits_to_be_published_is_not_published_by_the_way(fleet: Any, run_fleet: Run) -> None:
    fleet.operator.add(bundle_bytes("1.2.0"), channel="canary")
    before = published(fleet)
    done = run_fleet(*words(fleet, "roll-out"))
    assert "a change waits there: `soundpost repo push" in str(done.error)
    assert published(fleet) == before


def test_a_model_that_is_not_there(fleet: Any, run_fleet: Run) -> None:
    done = run_fleet("roll-out", "tiny-9.0.0", "--repo", fleet.repository, "--port", fleet.port)
    assert isinstance(done.error, UsageError)
    assert "no model 'tiny-9.0.0' is in the repository; there is tiny-1.0.0, tiny-1.1.0" in str(
        done.error
    )


def test_nothing_to_go_back_to(make_fleet: Callable[[], Any], run_fleet: Run) -> None:
    """An empty channel can be filled, and not be gone back to."""
    fleet = make_fleet()
    settings = fleet.operator.folder.settings
    write_settings(fleet.repository, replace(settings, channels=(*settings.channels, "new")))
    fleet.sensor("hall-0", channel="new", ears=Ears("bad"))
    stopped = run_fleet(*words(fleet, "roll-out", "--channel", "new"))
    assert isinstance(stopped.error, RollOutStoppedError)
    before = published(fleet)
    done = run_fleet(*words(fleet, "abort", "--take-back"))
    assert "the channel was empty" in str(done.error)
    assert published(fleet) == before


def test_two_at_once_are_refused(fleet: Any, run_fleet: Run) -> None:
    before = published(fleet)
    with roll_out_lock(fleet.repository):
        for action in ("roll-out", "resume"):
            done = run_fleet(*words(fleet, action))
            assert isinstance(done.error, UsageError)
            assert f"a roll-out is at work here (process {os.getpid()})" in str(done.error)
    assert published(fleet) == before


def test_a_push_by_another_is_waited_for(fleet: Any, run_fleet: Run) -> None:
    """The daily push of the timestamp must end no roll-out."""
    with fleet.operator.folder.lock():
        running = process(fleet, *words(fleet, "roll-out"))
        try:
            wait(lambda: (fleet.repository / LOG_FILE).is_file(), "it has begun")
            log = fleet.repository / LOG_FILE
            wait(lambda: "waiting: " in log.read_text(), "it waits")
            assert "another `soundpost repo` is at work here" in log.read_text()
        except BaseException:
            running.kill()
            raise
    said = running.communicate(timeout=PATIENCE_S)[0]
    assert running.returncode == 0, said
    assert set(fleet.versions().values()) == {"1.1.0"}


# ---------------------------------------------------------------------------------- in a terminal


def test_a_picture_in_a_terminal(fleet: Any, terminal: Callable[..., Any], run_fleet: Run) -> None:
    """A bar, the waves, the sensors that are at work; when it ends, one line on how."""
    plan = first_of(fleet, run_fleet)
    fleet.sensors[plan[1]].ears = Ears("bad", probation_s=5.0)
    program = Path(__file__).with_name("fleet_process.py")
    screen = terminal(
        130,
        24,
        [sys.executable, str(program), "-1", *words(fleet, "roll-out")],
        SOUNDPOST_REPO_PASSPHRASE=PASSPHRASE,
    )
    rows = screen.wait(lambda rows: any(row.startswith(f"  {plan[1]} ") for row in rows))
    (bar,) = [row for row in rows if " of 6 confirmed" in row]
    assert bar.startswith("█")
    assert any(row.startswith("  wave 3      3  3 waiting") for row in rows)
    screen.wait(lambda rows: any("rolled-back" in row and "sensors" in row for row in rows))
    assert screen.end() == 13
