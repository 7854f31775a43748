"""An update goes on after the sensor's end, whatever ended it and whatever was chosen meanwhile.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from signed_repository import bundle_bytes
from update_bench import ENDS, SETTINGS, Bench, passed

from soundpost.device.bundle import read_bundle
from soundpost.device.errors import (
    BundleError,
    ConfigError,
    UpdateUnreachableError,
)
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.updater import Updater


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
    ("kind", "orderly", "shadow_s", "result"),
    [
        ("good", True, 1_500.0, "confirmed"),
        ("nan", True, 1_500.0, "rejected"),
        # Its power is cut: often, but seldom for the sound that it hears.
        ("good", False, 8 * 3_600.0, "confirmed"),
    ],
)
def test_a_sensor_that_is_never_on_for_the_shadow_comes_to_its_end(
    bench: Bench, kind: str, orderly: bool, shadow_s: float, result: str
) -> None:
    bench.settings = replace(SETTINGS, spread_s=0.0, shadow_s=shadow_s, probation_s=3_000.0)
    bench.offer("1.1.0", kind)
    lives = 0
    bench.start()
    while bench.state.result not in ENDS:
        until_s = bench.late_s + shadow_s / 8
        while bench.late_s < until_s and bench.state.result not in ENDS:
            bench.step()
        bench.end(orderly=orderly)
        assert bench.boot.record is not None
        bench.boot.record.change(boot_id=f"the boot before {lives}")
        lives += 1
        assert lives < 30
        bench.start()
    assert bench.state.result == result
    assert lives >= (8 if result == "confirmed" else 1)


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
