"""A newer model arrives by itself, proves itself, and goes again where it is no good.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from simulated_sensor import behaviour
from update_bench import ENDS, SETTINGS, Bench

from soundpost.device.errors import (
    BundleError,
    ConfigError,
    InputError,
    UpdateDeferredError,
    UpdateRefusedError,
    UpdateUnreachableError,
)
from soundpost.device.updates.live_sensor import N_BINS, Tally
from soundpost.device.updates.model_state import PHASES, ModelState
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.updater import Updater


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
