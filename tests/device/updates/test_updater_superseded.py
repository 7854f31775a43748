"""A model on probation gives way to another that the repository has by now, and not to nothing.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest
from update_bench import ENDS, SETTINGS, Bench

from soundpost.device.errors import (
    InputError,
    SoundpostError,
    UpdateDeferredError,
    UpdateRefusedError,
    UpdateUnreachableError,
)


def on_probation(bench: Bench, version: str = "1.1.0") -> None:
    """Start the sensor and step until a release is on probation."""
    bench.offer(version)
    bench.start()
    bench.until(lambda state: state.phase == "probation")


def test_a_newer_one_takes_the_place_of_one_on_probation(bench: Bench) -> None:
    on_probation(bench)
    began_s = bench.late_s
    bench.offer("1.2.0")
    state = bench.until_result("superseded")
    # Within the interval of looks, not after the probation.
    assert bench.late_s - began_s < 1.3 * SETTINGS.interval_s < SETTINGS.probation_s
    assert state.reason is not None
    assert state.reason.endswith("1.1.0: gives way to tiny 1.2.0 before it has proved itself")
    # Compared with the one that has proved itself, which is heard with meanwhile.
    assert bench.sensor.running.version == state.installed.version == "1.0.0"
    assert bench.until(lambda state: state.phase == "shadow").installed.version == "1.0.0"
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("confirmed", "1.2.0")
    assert bench.updater._store.state.rejected == ()


def test_what_gave_way_may_come_again(bench: Bench) -> None:
    on_probation(bench)
    bench.offer("1.2.0", "constant")
    bench.until_result("superseded")
    assert bench.until_result("rejected", "rolled_back").installed.version == "1.0.0"
    bench.offer("1.1.0")
    state = bench.until_result("confirmed")
    assert state.installed.version == "1.1.0"
    # All of its probation, and not the rest of it.
    assert bench.updater._trial.proof._heard_s >= SETTINGS.probation_s


def test_an_operator_takes_it_back_at_once(bench: Bench) -> None:
    """As `soundpost fleet abort --take-back`: the older model is offered again, to all."""
    bench.offer("1.1.0")
    older = replace(bench.repository.offers[0], allow_older=True)
    bench.start()
    bench.until_result("confirmed")
    bench.offer("1.2.0")
    bench.until(lambda state: state.phase == "probation")
    began_s = bench.late_s
    bench.repository.offers = (older,)
    assert bench.updater.request(install=True) == (
        "looks at the repository and installs what it offers"
    )
    state = bench.until_result("up_to_date")
    assert (state.installed.version, state.confirmed) == ("1.1.0", True)
    assert bench.late_s - began_s < 120.0 < SETTINGS.shadow_s


def test_where_a_person_is_asked_it_waits_for_the_command(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, install="ask")
    bench.offer("1.1.0")
    bench.start()
    bench.updater.request(install=True)
    bench.until(lambda state: state.phase == "probation")
    bench.offer("1.2.0")
    state = bench.until(lambda state: state.offered is not None)
    assert state.offered is not None
    assert (state.offered.version, state.installed.version) == ("1.2.0", "1.1.0")
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    assert (bench.state.phase, bench.state.result) == ("probation", "installed")
    bench.updater.request(install=True)
    bench.until_result("superseded")
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("confirmed", "1.2.0")


def test_it_gives_way_in_the_hours_of_updates_alone(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, hours="02:00-05:00", probation_s=86_400.0 * 7)
    bench.noon = datetime(2026, 11, 30, 2)
    on_probation(bench)
    bench.noon = datetime(2026, 11, 30, 12)
    bench.offer("1.2.0")
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    assert (bench.state.phase, bench.state.installed.version) == ("probation", "1.1.0")
    wait_s = bench.updater._next_look_s - bench.late_s
    assert wait_s + 60.0 >= 14 * 3600
    assert wait_s <= 14 * 3600 + 5_400


@pytest.mark.parametrize(
    "error",
    [
        UpdateUnreachableError("the server does not answer"),
        UpdateDeferredError("updates wait for the clock"),
        InputError("the disk is full"),
    ],
)
def test_what_is_in_the_way_of_a_look_leaves_the_probation_alone(
    bench: Bench, error: SoundpostError
) -> None:
    on_probation(bench)
    bench.repository.error = error
    looks = bench.repository.looks
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("confirmed", "1.1.0")
    assert bench.repository.looks > looks
    told = {state.result for state in bench.sensor.shown if state.phase == "probation"}
    assert told == {"installed"}


def test_what_is_not_to_be_trusted_is_told_and_the_probation_goes_on(bench: Bench) -> None:
    on_probation(bench)
    bench.repository.error = UpdateRefusedError("is not to be trusted")
    state = bench.until_result("refused")
    assert (state.reason, state.installed.version) == ("is not to be trusted", "1.1.0")
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("confirmed", "1.1.0")


def test_on_a_full_disk_the_probation_goes_on_until_it_can_give_way(
    bench: Bench, disk: SimpleNamespace
) -> None:
    on_probation(bench)
    bench.offer("1.2.0")
    disk.full = True
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    for _ in range(5):
        assert (bench.step().phase, bench.sensor.running.version) == ("probation", "1.1.0")
    disk.full = False
    bench.until_result("superseded")
    state = bench.until_result(*ENDS)
    assert (state.result, state.installed.version) == ("confirmed", "1.2.0")


def test_it_stays_where_the_one_before_cannot_be_read(bench: Bench) -> None:
    on_probation(bench)
    bench.offer("1.2.0")
    content = bench.bundle.read_bytes()
    bench.bundle.write_bytes(b"damaged")
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    assert (bench.step().phase, bench.sensor.running.version) == ("probation", "1.1.0")
    bench.bundle.write_bytes(content)
    assert bench.until_result("superseded", *ENDS).result == "superseded"


def test_it_does_not_give_way_while_it_is_taken_back_or_not_heard_with_yet(bench: Bench) -> None:
    bench.offer("1.1.0")
    bench.start()
    interruptible: Callable[[], bool] = lambda: bench.updater._trial.proof.interruptible  # noqa: E731
    seen: dict[str, set[bool]] = {}

    def note(state: object) -> bool:
        seen.setdefault(bench.state.phase, set()).add(interruptible())
        return bench.state.result in ENDS

    bench.until(note)
    assert seen.pop("probation") == {True}
    assert all(values == {False} for values in seen.values())
