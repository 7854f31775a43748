"""A newer model arrives by itself, proves itself, and goes again where it is no good.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real. Attacks come from real repositories, made by the operator's own commands.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from kill_points import killed_at
from signed_repository import bundle_bytes
from simulated_sensor import behaviour
from update_bench import ENDS, SETTINGS, Bench, passed

from soundpost.device.bundle import open_bundle, read_bundle
from soundpost.device.errors import (
    BundleError,
    ConfigError,
    InputError,
    UpdateDeferredError,
    UpdateRefusedError,
    UpdateUnreachableError,
)
from soundpost.device.updates.boot import boot
from soundpost.device.updates.bounded_fetch import Pace
from soundpost.device.updates.live_sensor import N_BINS, Tally
from soundpost.device.updates.model_state import PHASES, ModelState
from soundpost.device.updates.model_store import StoreState
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.device.updates.updater import Updater, _EndingError


@pytest.fixture
def bench(memory_path: Path) -> Bench:
    return Bench(memory_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Of the models and the state of updates: `full` says whether it takes anything."""
    from soundpost.device.updates import model_store, update_record

    found = SimpleNamespace(full=False)
    write = model_store.write_atomically

    def limited(path: Path, content: bytes, mode: int = 0o644) -> None:
        if found.full:
            raise InputError(f"{path}: cannot be written (No space left on device)")
        write(path, content, mode)

    for module in (model_store, update_record):
        monkeypatch.setattr(module, "write_atomically", limited)
    return found


def test_a_release_arrives_step_by_step(bench: Bench) -> None:
    new = bench.offer("1.1.0")
    bench.start()
    state = bench.until_result(*ENDS)
    assert state.result == "confirmed"
    assert (state.installed.sha256, state.confirmed) == (new.sha256, True)
    assert bench.sensor.running.version == "1.1.0"
    assert bench.phases == ["idle", *PHASES[3:-1], "idle"]
    # Every state is one that can be published, and bars only rise.
    for shown in bench.sensor.shown:
        assert ModelState.from_json(shown.to_json()) == shown
    for before, after in pairwise(bench.sensor.shown):
        if before.phase == after.phase and None not in (before.progress, after.progress):
            assert before.progress <= after.progress  # type: ignore[operator]
    on_probation = [shown for shown in bench.sensor.shown if not shown.confirmed]
    assert {shown.previous.version for shown in on_probation if shown.previous} == {"1.0.0"}
    # It takes as long as it was told to.
    times = SETTINGS.spread_s + SETTINGS.shadow_s + SETTINGS.probation_s
    assert SETTINGS.probation_s <= bench.late_s <= times + 200
    # And then there is nothing to do.
    looks = bench.repository.looks
    state = bench.until(lambda _: bench.repository.looks > looks)
    assert (state.phase, state.result, state.offered) == ("idle", "up_to_date", None)


def test_where_a_person_is_asked_it_waits_for_the_command(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, install="ask")
    new = bench.offer("1.1.0")
    bench.start()
    state = bench.until(lambda state: state.offered is not None)
    assert state.offered is not None
    assert (state.offered.sha256, state.phase) == (new.sha256, "idle")
    for _ in range(200):
        assert bench.step().installed.version == "1.0.0"
    assert bench.updater.request(install=False) == "looks at the repository"
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    assert bench.state.installed.version == "1.0.0"
    assert "installs what it offers" in bench.updater.request(install=True)
    assert bench.until_result(*ENDS).installed.sha256 == new.sha256


@pytest.mark.parametrize("fails", [True, False])
def test_a_request_during_a_look_is_not_lost(bench: Bench, fails: bool) -> None:
    """It comes while the repository answers, or while it does not."""
    bench.settings = replace(SETTINGS, install="ask")
    bench.offer("1.1.0")
    bench.start()
    refresh = bench.repository.refresh

    def interrupted() -> tuple[object, ...]:
        bench.repository.refresh = refresh  # type: ignore[method-assign]
        bench.updater.request(install=True)
        if fails:
            raise UpdateUnreachableError("the server does not answer")
        return refresh()

    bench.repository.refresh = interrupted  # type: ignore[method-assign]
    assert bench.until_result(*ENDS).installed.version == "1.1.0"
    assert bench.late_s < SETTINGS.spread_s + SETTINGS.shadow_s + SETTINGS.probation_s + 300


def test_a_request_while_an_update_goes_on_is_answered(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "shadow")
    assert bench.updater.request(install=True) == "an update is going on: shadow"


def test_an_update_begins_in_its_hours_alone(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, hours="02:00-05:00")
    bench.offer("1.1.0")
    bench.start()
    state = bench.until(lambda state: state.phase == "waiting")
    assert state.offered is not None
    assert bench.updater._next_look_s - bench.late_s >= 14 * 3600
    bench.noon = datetime(2026, 11, 30, 2)
    bench.late_s = bench.updater._next_look_s
    assert bench.until_result(*ENDS).result == "confirmed"


# ------------------------------------------------------------------------------- repositories


@pytest.mark.parametrize(
    ("error", "result", "phase"),
    [
        (UpdateUnreachableError("the server does not answer"), "unreachable", "idle"),
        (UpdateDeferredError("updates wait for the clock"), "deferred", "waiting"),
        (InputError("the disk is full"), "deferred", "waiting"),
    ],
)
def test_what_passes_is_tried_again_less_and_less_often(
    bench: Bench, error: Exception, result: str, phase: str
) -> None:
    bench.offer("1.1.0")
    bench.repository.error = error
    bench.start()
    times: list[float] = []
    while len(times) < 12:
        looks = bench.repository.looks
        state = bench.step(1e9)
        if bench.repository.looks > looks:
            times.append(bench.late_s)
            assert (state.result, state.reason, state.phase) == (result, str(error), phase)
    pauses = np.diff([0.0, *times])[1:]
    expected = np.minimum(60.0 * 2.0 ** np.arange(1, 12), SETTINGS.interval_s)
    assert (0.5 * expected <= pauses).all()
    assert (pauses <= 1.5 * expected).all()
    bench.repository.error = None
    assert bench.until_result(*ENDS).result == "confirmed"


def test_what_is_refused_is_told_and_looked_at_again_after_the_interval(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.repository.error = UpdateRefusedError("is not to be trusted")
    bench.start()
    state = bench.until_result("refused")
    assert (state.reason, state.phase) == ("is not to be trusted", "idle")
    wait_s = bench.updater._next_look_s - bench.late_s
    assert 0.5 * SETTINGS.interval_s < wait_s < 1.5 * SETTINGS.interval_s


def test_an_empty_channel_is_told(bench: Bench) -> None:
    bench.start()
    state = bench.until_result("failed")
    assert "channel 'stable' is empty" in str(state.reason)


def test_sensors_that_start_together_do_not_come_together(memory_path: Path) -> None:
    """First looks of 200 of them, and what a command to all of them brings."""
    bench = Bench(memory_path)
    bench.start()
    firsts, asked = [], []
    for seed in range(200):
        updater = Updater(
            SETTINGS,
            f"sensor{seed}",
            bench.boot,
            bench.repository,
            bench.sensor,
            now=lambda: 0.0,
            rng=random.Random(seed),
        )
        firsts.append(updater._next_look_s)
        updater.request(install=True)
        asked.append(updater._next_look_s)
    for times, spread_s in ((firsts, SETTINGS.spread_s), (asked, 5.0)):
        assert scipy.stats.kstest(times, "uniform", (0.0, spread_s)).pvalue > 0.01


# ------------------------------------------------------------------------------- bad models


def test_one_that_fails_its_self_test_is_not_heard_with_and_not_fetched_again(
    bench: Bench,
) -> None:
    bench.self_test = lambda *_arguments, **_more: SelfTestResult(False, "self-test: crashes")
    new = bench.offer("1.1.0")
    bench.start()
    state = bench.until_result(*ENDS)
    assert (state.result, state.reason) == ("rejected", "tiny 1.1.0: self-test: crashes")
    bench.repository.contents.clear()
    looks = bench.repository.looks
    state = bench.until(lambda _: bench.repository.looks > looks + 2)
    assert (state.result, state.reason) == ("rejected", "tiny 1.1.0: self-test: crashes")
    assert {model.sha256 for model in bench.sensor.loaded} == {bench.sensor.running.sha256}
    assert new.sha256 != bench.sensor.running.sha256


@pytest.mark.parametrize("shadow_s", [600.0, 0.0])
def test_one_that_the_sensor_cannot_load_is_rejected(bench: Bench, shadow_s: float) -> None:
    bench.settings = replace(SETTINGS, shadow_s=shadow_s)
    new = bench.offer("1.1.0")
    bench.unloadable[new.sha256] = BundleError("the model cannot be loaded")
    bench.start()
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("rejected", "1.0.0")
    assert "cannot be loaded" in str(state.reason)


@pytest.mark.parametrize("shadow_s", [600.0, 0.0])
def test_one_that_the_settings_do_not_go_with_is_welcome_when_they_do(
    bench: Bench, shadow_s: float
) -> None:
    bench.settings = replace(SETTINGS, shadow_s=shadow_s)
    new = bench.offer("1.1.0")
    bench.unloadable[new.sha256] = ConfigError("[class.siren]: the bundle has no such label")
    bench.start()
    state = bench.until_result("refused")
    assert (state.installed.version, state.confirmed) == ("1.0.0", True)
    assert "no such label" in str(state.reason)
    bench.unloadable.clear()
    assert bench.until_result(*ENDS).installed.sha256 == new.sha256


@pytest.mark.parametrize("kind", ["permuted", "constant", "slow", "nan"])
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_model_is_taken_back_within_its_probation(bench: Bench, kind: str, seed: int) -> None:
    """Without a shadow that finds it out before (tests/benchmarks/bad_models.py: 100 of each)."""
    bench.settings = replace(SETTINGS, shadow_s=0.0)
    bench.seed = seed
    bench.offer("1.1.0", kind)
    bench.start()
    bench.sensor.hear(3_600.0)
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version, state.confirmed) == (
        "rolled_back",
        "1.0.0",
        True,
    )
    assert bench.late_s < SETTINGS.spread_s + SETTINGS.probation_s
    assert bench.sensor.running.version == "1.0.0"
    assert bench.phases[-2:] == ["roll_back", "idle"]
    # A newer one is welcome all the same.
    bench.offer("1.2.0")
    assert bench.until_result("confirmed").installed.version == "1.2.0"


@pytest.mark.parametrize("odd", ["busy machine", "storm", "silence"])
def test_a_good_model_is_kept_in_odd_times(bench: Bench, odd: str) -> None:
    """What differs from before is the sound, or the machine."""
    bench.settings = replace(SETTINGS, shadow_s=0.0)
    bench.offer("1.1.0")
    bench.start()
    bench.sensor.hear(3_600.0)
    bench.until(lambda state: not state.confirmed)
    if odd == "busy machine":
        bench.sensor.load = 30.0
    elif odd == "storm":
        bench.world.rates *= 20.0
        bench.world.background += 2.0
    else:
        bench.world.rates *= 0.0
    state = bench.until_result(*ENDS)
    assert state.result == "confirmed", state.reason


def test_a_good_model_is_kept_where_the_old_one_cannot_hear_beside_it(bench: Bench) -> None:
    """The settings have come to speak of a label that it lacks; and then the machine is busy."""
    bench.settings = replace(SETTINGS, shadow_s=0.0)
    bench.offer("1.1.0")
    bench.start()
    old = bench.sensor.running.sha256
    bench.sensor.hear(3_600.0)
    bench.until(lambda state: not state.confirmed)
    bench.unloadable[old] = ConfigError("[class.siren]: the bundle has no such label")
    bench.sensor.load = 30.0
    state = bench.until_result(*ENDS)
    assert state.result == "confirmed"
    assert "not compared" in str(state.reason)


def test_a_pause_is_no_probation(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "probation")
    bench.sensor.paused = True
    for _ in range(500):
        assert not bench.step().confirmed
    bench.sensor.paused = False
    assert bench.until_result(*ENDS).result == "confirmed"


def test_a_fault_of_the_drift_does_not_keep_it_from_looking(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    bench.until(lambda _: bench.repository.looks == 1)

    def fault() -> tuple[Tally, ...]:
        raise ValueError("math domain error")

    bench.sensor.tally = fault  # type: ignore[method-assign]
    until_s = bench.late_s + 86_400.0
    # As the thread goes on: where a step fails, that would be a failed look.
    while bench.late_s < until_s:
        bench.step()
    # Every hour, give or take a quarter.
    assert 24 / 1.25 - 1 <= bench.repository.looks - 1 <= 24 / 0.75 + 1
    assert bench.state.drift is None
    assert caplog.text.count("the drift of the model is not known") == 1


def test_a_source_that_begins_anew_does_not_keep_it_from_looking(bench: Bench) -> None:
    """Of two, the other of which has heard more by then than both had when the span began."""

    def told(source: str, n_low: int, n_high: int) -> Tally:
        n_windows = n_low + n_high
        counts = [n_low, *[0] * (N_BINS - 2), n_high]
        return Tally(source, float(n_windows), n_windows, 0, 1.0, {}, {"dog": counts}, 0.9)

    bench.start()
    bench.sensor.tally = lambda: (  # type: ignore[method-assign]
        told("a", 10_400, 500),
        told("b", 10_900, 0),
    )
    bench.until(lambda state: state.drift is not None)
    bench.sensor.tally = lambda: (  # type: ignore[method-assign]
        told("a", 300, 0),
        told("b", 23_000, 0),
    )
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks >= looks + 3)
    assert bench.state.drift is not None


def test_the_simulated_sensor_compares_from_the_same_sound_on(bench: Bench) -> None:
    """As a real one does: what one model heard before the other came is no part of it."""
    new = bench.offer("1.1.0")
    bench.start()
    bench.sensor.hear(3_600.0)
    assert bench.sensor.tally()[0].spread > 0.5
    bench.sensor._running.how = behaviour("constant", 0)
    bench.sensor.begin_shadow(new)
    bench.sensor.hear(600.0)
    (pair,) = bench.sensor.shadow()
    assert (pair.old.spread, pair.old.heard_s) == (0.0, 600.0)
    assert pair.new.spread > 0.1
    assert bench.sensor.tally()[0].spread > 0.5


# ------------------------------------------------------------------------------- ends and starts


def test_probation_goes_on_after_a_start(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "probation" and (state.progress or 0.0) > 0.5)
    bench.end()
    began_s = bench.late_s
    bench.start()
    assert bench.sensor.running.version == "1.1.0"
    assert bench.until_result(*ENDS).result == "confirmed"
    left_s = bench.late_s - began_s
    assert 0.3 * SETTINGS.probation_s < left_s < 0.55 * SETTINGS.probation_s


def test_a_fetched_model_goes_on_with_its_shadow(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "shadow")
    bench.end(orderly=False)
    bench.self_test = lambda *_arguments, **_more: pytest.fail("it was tested before")
    bench.repository.error = UpdateUnreachableError("the repository is gone")
    bench.start()
    assert bench.until_result(*ENDS).result == "confirmed"


def test_one_that_crashes_the_sensor_beside_the_present_model_is_rejected(bench: Bench) -> None:
    """A crash in each start, as from sound that always comes."""
    new = bench.offer("1.1.0")
    for _ in range(2):
        bench.start()
        bench.until(lambda state: state.phase == "shadow" and (state.progress or 0.0) > 0.5)
        bench.end(orderly=False)
    bench.start()
    state = bench.state
    assert (state.result, state.installed.version, state.confirmed) == ("rejected", "1.0.0", True)
    assert state.reason == bench.boot.notices[0]
    assert re.fullmatch("tiny 1.1.0 .* 2 times .*", str(state.reason))
    # It is not fetched again, and a newer one is welcome.
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks + 2)
    assert [model.version for model in bench.sensor.loaded] == ["1.0.0"]
    assert bench.boot.store is not None
    assert bench.boot.store.state.rejected == (new.sha256,)
    bench.offer("1.2.0")
    assert bench.until_result("confirmed").installed.version == "1.2.0"


def test_ends_in_order_during_the_shadow_are_no_crashes(bench: Bench) -> None:
    bench.offer("1.1.0")
    for _ in range(6):
        bench.start()
        bench.until(lambda state: state.phase == "shadow")
        bench.end()
    bench.start()
    assert bench.until_result(*ENDS).result == "confirmed"


def test_crashes_outside_of_the_shadow_are_not_the_candidates(bench: Bench) -> None:
    """During the self-test, which has a process of its own; and after the shadow has ended."""
    bench.self_test = lambda *_arguments, **_more: SelfTestResult(False, "off", broken_off=True)
    new = bench.offer("1.1.0")
    for _ in range(3):
        bench.start()
        bench.until(lambda state: state.phase == "self_test")
        bench.end(orderly=False)
    bench.self_test = passed
    for error in (ConfigError("no such label"), BundleError("the model cannot be loaded")):
        bench.start()
        bench.unloadable[new.sha256] = error
        bench.until_result("refused" if isinstance(error, ConfigError) else "rejected")
        assert bench.boot.record is not None
        assert (bench.boot.record.record.sha256, bench.boot.record.record.running) == (
            new.sha256,
            False,
        )
        bench.end(orderly=False)
    bench.start()
    assert (bench.boot.notices, bench.boot.record.record.crashes) == ([], 0)
    bad = bench.offer("1.2.0", "nan")
    bench.until(lambda state: "1.2.0" in str(state.reason) and state.result in ENDS)
    known = bench.boot.record.record
    assert (known.sha256, known.running) == (bad.sha256, False)


def test_nothing_hears_along_while_its_crashes_could_not_be_counted(
    bench: Bench, disk: SimpleNamespace
) -> None:
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda _: bench.boot.record is not None and bench.boot.record.record.tested)
    disk.full = True
    for _ in range(5):
        assert "No space" in str(bench.step().reason)
        assert bench.sensor.shadow() == ()
    disk.full = False
    assert bench.until_result(*ENDS).result == "confirmed"


def test_one_that_a_full_disk_kept_from_being_rejected_is_rejected_when_it_can_be(
    bench: Bench, disk: SimpleNamespace
) -> None:
    bench.offer("1.1.0")
    for _ in range(2):
        bench.start()
        bench.until(lambda state: state.phase == "shadow")
        bench.end(orderly=False)
    disk.full = True
    bench.start()
    bench.sensor.begin_shadow = lambda _: pytest.fail("loaded")  # type: ignore[method-assign]
    for _ in range(3):
        assert bench.step().result not in ENDS
    disk.full = False
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("rejected", "1.0.0")
    assert "2 times" in str(state.reason)


@pytest.mark.parametrize(
    ("powered_s", "result"), [(2_400.0, "confirmed"), (300.0, "rolled_back")], ids=["timer", "bad"]
)
def test_a_sensor_on_a_timer_keeps_a_good_model(
    bench: Bench, powered_s: float, result: str
) -> None:
    """Its power is cut again and again; where that comes soon after each start, it may be the
    model that takes the machine down.
    """
    bench.settings = replace(SETTINGS, probation_s=16_000.0)
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "probation")
    cuts = 0
    while bench.state.result not in ENDS:
        until_s = bench.late_s + powered_s
        while bench.late_s < until_s and bench.state.result not in ENDS:
            bench.step()
        if bench.state.result in ENDS:
            break
        bench.end(orderly=False)
        assert bench.boot.record is not None
        bench.boot.record.change(boot_id=f"the boot before {cuts}")
        cuts += 1
        bench.start()
    assert (bench.state.result, cuts >= 5) == (result, True)


def test_an_end_breaks_a_self_test_off_and_the_next_start_does_it_again(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.self_test = lambda *_arguments, **_more: SelfTestResult(False, "off", broken_off=True)
    bench.start()
    bench.until(lambda state: state.phase == "self_test")
    assert bench.updater.step() > 0.0
    assert bench.state.result != "rejected"
    bench.end()
    bench.self_test = passed
    bench.start()
    assert bench.until_result(*ENDS).result == "confirmed"


def test_a_bundle_chosen_by_hand_wins_over_what_is_installed_or_tried(bench: Bench) -> None:
    for phase in ("shadow", "probation", "idle"):
        bench.offer("1.1.0")
        bench.start()
        bench.until(
            lambda state, phase=phase: (
                (state.phase == phase and state.result is not None)
                or state.phase == phase != "idle"
            )
        )
        bench.updater.choose_by_hand(bench.bundle)
        bench.step()
        assert bench.boot.store is not None
        assert bench.boot.store.state.current is None
        assert bench.boot.store.state.candidate is None
        bench.end()


def test_a_bundle_chosen_in_the_middle_of_a_step_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step has seen another model than the one on probation, and brings that back."""
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "probation")
    chosen = bench.folder / "chosen.bundle"
    chosen.write_bytes(bundle_bytes("7.0.0"))
    sensor, waiting = bench.sensor, [True]
    usual = type(sensor).running

    def running(self: Any) -> Any:
        if waiting:
            waiting.clear()
            sensor.swap(read_bundle(chosen))
            bench.updater.choose_by_hand(chosen)
        return usual.fget(self)  # type: ignore[attr-defined]

    monkeypatch.setattr(type(sensor), "running", property(running))
    bench.step()
    assert not waiting
    assert sensor.running.version == "1.1.0"
    bench.step()
    assert sensor.running.version == "7.0.0"
    assert bench.boot.store is not None
    assert bench.boot.store.state.current is None


def test_a_suspicion_survives_a_restart(bench: Bench) -> None:
    """Until then it was odd; nothing is yet, of the few windows since."""
    bench.settings = replace(SETTINGS, shadow_s=600.0, probation_s=900.0)
    bench.offer("1.1.0")
    bench.start()
    bench.until(lambda state: state.phase == "probation")
    assert bench.boot.record is not None
    bench.boot.record.change(suspected=True, heard_s=971.0, agreed=False)
    bench.end()
    bench.start()
    before_s = bench.late_s
    assert bench.until_result(*ENDS).result == "confirmed"
    # Compared for as long as a shadow takes, whatever was heard before.
    assert bench.late_s - before_s >= 300.0
    bench.end()


def test_a_full_disk_is_told_and_the_update_goes_on_afterwards(
    bench: Bench, disk: SimpleNamespace
) -> None:
    """At every step of it there is a time when nothing can be written."""
    bench.offer("1.1.0")
    bench.start()
    told = False
    for _ in range(1_000):
        disk.full = not disk.full
        state = bench.step()
        told = told or (state.result == "deferred" and "No space" in str(state.reason))
        assert bench.sensor.running.version in ("1.0.0", "1.1.0")
        if state.result == "confirmed" and not disk.full:
            break
    assert told
    bench.end()
    disk.full = False
    bench.start()
    assert bench.until_result("confirmed", "up_to_date").installed.version == "1.1.0"


def test_the_thread_does_it_all_by_itself_and_ends_when_told(bench: Bench) -> None:
    """In real time, with small settings; the sensor hears in a thread of its own."""
    import threading

    bench.settings = replace(SETTINGS, spread_s=0.1, shadow_s=120.0, probation_s=240.0)
    bench.offer("1.1.0")
    bench.start()
    updater = Updater(
        bench.settings,
        "attic",
        bench.boot,
        bench.repository,
        bench.sensor,
        self_test=passed,
    )
    ending = threading.Event()

    def hear() -> None:
        while not ending.wait(0.02):
            bench.sensor.hear(10.0)

    listening = threading.Thread(target=hear)
    listening.start()
    updater.start()
    try:
        until_s = time.monotonic() + 300.0
        while updater.state.result not in ENDS and time.monotonic() < until_s:
            time.sleep(0.05)
        assert updater.state.result == "confirmed", updater.state
    finally:
        updater.close()
        ending.set()
        listening.join()
    assert not updater._thread.is_alive()


# ------------------------------------------------------------------------------- kills


def lived(folder: Path, seed: int, versions: dict[str, str], steps: int) -> None:
    """A life of the sensor, which ends without a word; every bundle's kind is known by version."""
    bench = Bench(folder, seed, QUICK)
    for version, kind in versions.items():
        bench.offer(version, kind)
    bench.start()
    for _ in range(steps):
        if bench.updater.step() > 0.0:
            bench.late_s += 30.0
            bench.sensor.hear(30.0)


QUICK = replace(SETTINGS, spread_s=0.0, shadow_s=90.0, probation_s=300.0, max_crashes=1_000)


def state_of(folder: Path) -> StoreState:
    """As the next start will find it, and that it finds a model that can be loaded."""
    copy = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        shutil.copytree(folder, copy / "device")
        found = boot(copy / "device" / "models", copy / "device" / "settings.bundle")
        open_bundle(found.path)
        assert found.store is not None
        state = found.store.state
        files = {path.name for path in (copy / "device" / "models" / "models").iterdir()}
        assert files == {f"{sha256}.bundle" for sha256 in state.kept}
        found.ended()
    finally:
        shutil.rmtree(copy)
    return state


def good(state: StoreState) -> str:
    """The last model that has proved itself; empty: the settings' own."""
    model = state.current if state.confirmed else state.previous
    return "" if model is None else model.version


@pytest.mark.parametrize("first", range(4))
def test_an_update_that_is_killed_before_one_of_its_writes_comes_to_its_end(
    memory_path: Path, first: int
) -> None:
    """Between the writes of one whole update, every sixteenth beginning with `first` times four."""
    number, killed = 4 * first, True
    while killed:
        folder = Path(tempfile.mkdtemp(dir=memory_path)) / "device"
        folder.mkdir()
        Bench(folder)
        killed = killed_at(number, lambda folder=folder: lived(folder, 0, {"1.1.0": "good"}, 30))
        state = state_of(folder)
        assert good(state) in ("", "1.1.0")
        assert not killed_at(10**9, lambda folder=folder: lived(folder, 0, {"1.1.0": "good"}, 30))
        state = state_of(folder)
        assert (good(state), state.rejected, state.candidate) == ("1.1.0", (), None)
        shutil.rmtree(folder.parent)
        number += 16
    assert number > 48


class Lives(RuleBasedStateMachine):
    """Releases, good and bad, and lives of the sensor that end before any of its writes."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.folder = self.root / "device"
        self.folder.mkdir()
        Bench(self.folder)
        self.versions: dict[str, str] = {}
        self.before = state_of(self.folder)

    @rule(kind=st.sampled_from(["good", "good", "nan", "slow"]))
    def release(self, kind: str) -> None:
        if len(self.versions) < 6:
            self.versions[f"1.{len(self.versions) + 1}.0"] = kind

    @precondition(lambda self: self.versions)
    @rule(steps=st.integers(1, 40), kill=st.none() | st.integers(0, 40))
    def live(self, steps: int, kill: int | None) -> None:
        def life() -> None:
            lived(self.folder, len(self.versions), self.versions, steps)

        killed_at(10**9 if kill is None else kill, life)
        state = state_of(self.folder)
        # One update at a time.
        assert state.candidate is None or state.confirmed
        # What has proved itself is replaced by what has proved itself, and by nothing else.
        now = good(state)
        assert now == good(self.before) or self.versions[now] == "good"
        for model in (state.current, state.candidate):
            assert model is None or model.sha256 not in state.rejected
        self.before = state

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=6, stateful_step_count=8, deadline=None)


# ------------------------------------------------------------------------------- attacks


@pytest.fixture
def attacked(memory_path: Path, serve: Callable[..., Any]) -> Any:
    """A device that has 1.1.0 from a real repository, over a web server that may misbehave."""
    from signed_repository import Operator

    class Attacked(Bench):
        def __init__(self) -> None:
            (memory_path / "device").mkdir()
            super().__init__(memory_path / "device", settings=QUICK)
            self.operator = Operator(memory_path / "repository")
            self.web = serve(self.operator.public)
            self.late_clock_s, self.synchronised = 0.0, True
            self.real = TrustedRepository(
                self.web.address,
                self.operator.root,
                self.folder / "metadata",
                Pace(gap_s=1.0, least_bytes_s=1_000.0, window_s=1.0),
                refresh_s=60.0,
                download_s=60.0,
                synchronised=lambda: self.synchronised,
                utc_s=lambda: time.time() + self.late_clock_s,
            )

        def told(self, result: str, reason: str) -> None:
            """The next look ends so, published in one line, and the model stays."""
            assert self.updater.request(install=True)
            running = self.sensor.running
            looks, before = len(self.sensor.shown), self.state.reason
            self.late_s += 10.0
            self.updater.step()
            assert len(self.sensor.shown) > looks
            shown = ModelState.from_json(self.sensor.shown[-1].to_json())
            assert shown.result == result, shown
            assert re.search(reason, str(shown.reason)), shown.reason
            assert shown.reason != before
            assert "\n" not in str(shown.reason)
            assert (shown.installed, shown.confirmed) == (running, True)
            assert not self.updater._trial.going_on

    made = Attacked()
    made.operator.release("1.1.0")
    made.start()
    assert made.until_result(*ENDS).installed.version == "1.1.0"
    return made


def test_attacks_are_named_in_what_the_sensor_publishes(attacked: Any, memory_path: Path) -> None:
    """One after the other on one device, each of which would have installed 1.2.0, or 1.0.0."""
    from signed_repository import Operator
    from web import send

    operator, web = attacked.operator, attacked.web
    before = memory_path / "before"
    shutil.copytree(operator.public, before)
    content = operator.release("1.2.0")

    old = (before / "metadata" / "2.targets.json").read_bytes()
    web.misdeeds["/3.targets"] = lambda request: send(request, old)
    attacked.told("refused", "is not to be trusted: .*(hash|version|length)")
    web.misdeeds.clear()

    altered = bytearray(content)
    altered[len(altered) // 2] ^= 1
    web.misdeeds["/targets/"] = lambda request: send(request, bytes(altered))
    attacked.told("refused", "is not to be trusted: .*hash")
    web.misdeeds.clear()

    signed = (operator.public / "metadata" / "timestamp.json").read_bytes()
    web.misdeeds["/timestamp"] = lambda request: send(request, signed.replace(b"2", b"3"))
    attacked.told("refused", "is not to be trusted")
    web.misdeeds.clear()

    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(65_536))

    web.misdeeds["/targets/"] = endless
    attacked.told("refused", "expected at most .*; nothing of it is used")

    def drip(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.ending.wait(0.02):
            request.wfile.write(b"{")

    web.misdeeds["/targets/"] = drip
    attacked.told("unreachable", "bytes per second: expected at least")
    web.misdeeds.clear()

    other = Operator(memory_path / "other")
    for version in ("1.0.0", "1.1.0", "9.0.0"):
        other.release(version)
    web.folder = other.public
    attacked.told("refused", "is not to be trusted: .*sign")
    web.folder = operator.public

    attacked.synchronised = False
    attacked.told("deferred", "updates wait for the clock")
    attacked.synchronised = True
    attacked.late_clock_s = -10 * 365 * 86_400
    attacked.told("deferred", "updates wait for the clock: it says")
    attacked.late_clock_s = 0.0

    web.misdeeds["/"] = lambda request: request.send_error(503)
    attacked.told("unreachable", "the web server answers 503")
    web.misdeeds.clear()

    # A refresh makes the newer versions known; what was published before is then refused.
    attacked.real.refresh()
    web.folder = before
    attacked.told("refused", "is not to be trusted: New timestamp version 2 must be >= 3")
    web.folder = operator.public
    assert attacked.updater.request(install=True)
    attacked.until(lambda state: state.installed.version == "1.2.0")
    assert attacked.until_result("confirmed").confirmed


def test_a_download_that_is_broken_off_by_an_end_goes_on_at_the_next_start(attacked: Any) -> None:
    attacked.operator.release("1.2.0")
    shown = attacked.sensor.show

    def end_there(state: ModelState) -> None:
        shown(state)
        if state.phase == "download":
            attacked.updater._ending.set()

    attacked.sensor.show = end_there
    attacked.updater.request(install=True)
    attacked.late_s += 10.0
    with pytest.raises(_EndingError):
        attacked.updater.step()
    parts = list((attacked.folder / "models" / "downloads").iterdir())
    assert len(parts) == 1
    attacked.end()
    attacked.start()
    attacked.until(lambda state: state.installed.version == "1.2.0")
