"""A model on probation gives way to another that the repository has by now, and not to nothing.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from update_bench import ENDS, SETTINGS, Bench

from soundpost.device.bundle import read_bundle
from soundpost.device.errors import (
    BundleError,
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
    # All of its tests and of its probation, and not the rest of it.
    again = bench.phases[len(bench.phases) - bench.phases[::-1].index("download") :]
    assert again[:5] == ["check", "self_test", "shadow", "swap", "probation"]
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
    state = bench.until_result("superseded")
    assert (state.installed.version, state.confirmed) == ("1.1.0", True)
    assert bench.late_s - began_s < 120.0 < SETTINGS.shadow_s
    # There is nothing to fetch, and nothing to try again.
    assert bench.until_result("up_to_date").offered is None
    assert [model.version for model in bench.sensor.loaded] == ["1.0.0", "1.1.0", "1.2.0", "1.1.0"]


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


def test_it_stays_until_the_other_has_arrived(bench: Bench) -> None:
    on_probation(bench)
    bench.offer("1.2.0")
    download = bench.repository.download

    def withheld(*_arguments: object) -> object:
        raise UpdateUnreachableError("the server does not send it")

    bench.repository.download = withheld  # type: ignore[method-assign]
    bench.updater.request(install=True)
    # Who asked for it is told.
    state = bench.until_result("unreachable")
    assert (state.phase, state.installed.version) == ("probation", "1.1.0")
    bench.repository.download = download  # type: ignore[method-assign]
    bench.until_result("superseded")
    assert bench.until_result("confirmed").installed.version == "1.2.0"
    assert bench.late_s < 1.5 * SETTINGS.interval_s + SETTINGS.probation_s


def test_one_that_was_taken_back_and_is_pushed_again_shows_all_of_it_again(bench: Bench) -> None:
    """No other was tried since: what it has shown is known, but not what has changed here since."""
    older = bench.offer("1.0.0")
    back = replace(bench.repository.offers[0], allow_older=True)
    bench.bundle.write_bytes(bench.repository.contents[older.sha256])
    on_probation(bench)
    again = bench.repository.offers
    bench.repository.offers = (back,)
    bench.until_result("superseded")
    bench.repository.offers = again
    count = len(bench.phases)
    bench.until(lambda state: state.phase == "probation")
    assert [phase for phase in bench.phases[count:] if phase in ("self_test", "shadow")] == [
        "self_test",
        "shadow",
    ]


def test_what_was_asked_for_comes_as_soon_as_it_can(bench: Bench) -> None:
    """Also where a person is asked, and sooner than after the interval; every time anew."""
    bench.settings = replace(SETTINGS, install="ask", interval_s=86_400.0, probation_s=86_400.0 * 3)
    bench.offer("1.1.0")
    bench.start()
    bench.updater.request(install=True)
    bench.until(lambda state: state.phase == "probation")
    for version in ("1.2.0", "1.3.0"):
        bench.offer(version)
        bench.repository.error = UpdateUnreachableError("the server does not answer")
        bench.updater.request(install=True)
        bench.until_result("unreachable")
        # Not the first attempt that fails.
        looks = bench.repository.looks
        bench.until(lambda _, looks=looks: bench.repository.looks >= looks + 3)
        bench.repository.error = None
        began_s = bench.late_s
        bench.until_result("superseded")
        assert bench.late_s - began_s < 60.0 * 2.0**4 * 1.5 + 60.0
        bench.until(lambda state: state.phase == "probation")


def test_after_a_good_look_it_is_tried_soon_again(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, interval_s=86_400.0, probation_s=86_400.0 * 30)
    on_probation(bench)
    bench.repository.error = UpdateUnreachableError("the server does not answer")
    bench.updater.request(install=False)
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks >= looks + 6)
    bench.repository.error = None
    bench.until(lambda _: bench.repository.looks >= looks + 7)
    bench.repository.error = UpdateUnreachableError("the server does not answer")
    bench.updater.request(install=False)
    bench.until(lambda _: bench.repository.looks >= looks + 8)
    assert 30.0 <= bench.updater._next_look_s - bench.late_s + 60.0 <= 150.0


def test_what_is_refused_is_forgotten_after_the_next_good_look(bench: Bench) -> None:
    on_probation(bench)
    bench.repository.error = UpdateRefusedError("is not to be trusted")
    bench.until_result("refused")
    bench.repository.error = None
    assert bench.until_result("installed", *ENDS).result == "installed"


@pytest.mark.parametrize("full", [False, True])
def test_a_bad_model_is_taken_back_while_another_arrives(
    bench: Bench, disk: SimpleNamespace, full: bool
) -> None:
    """Over a slow link: for longer than it takes to see that the model is no good.

    On a disk that takes the download but not the note that it was no good, it is not heard again.
    """
    bench.settings = replace(SETTINGS, shadow_s=0.0)
    bench.offer("1.1.0", "slow")
    bench.start()
    bench.until(lambda state: state.phase == "swap")
    other = bench.offer("1.2.0")
    versions: list[str] = []
    download = bench.repository.download

    def slow(offer: object, store: object, progress: Callable[[int], None]) -> object:
        disk.full = full
        for n_bytes in range(40):
            bench.late_s += 15.0
            bench.sensor.hear(15.0)
            progress(n_bytes)
            versions.append(bench.sensor.running.version)
        return download(offer, store, progress)

    bench.repository.download = slow  # type: ignore[method-assign]
    while not bench.updater._trial.proof.interruptible:
        bench.step(1.0)
    bench.updater._next_look_s = bench.late_s
    bench.until(lambda _: bool(versions))
    assert (versions[0], versions[-1]) == ("1.1.0", "1.0.0")
    for _ in range(5):
        bench.step()
    if full:
        assert [model.version for model in bench.sensor.loaded] == ["1.0.0", "1.1.0", "1.0.0"]
    disk.full = False
    bench.repository.download = download  # type: ignore[method-assign]
    state = bench.until_result("confirmed")
    assert state.installed.sha256 == other.sha256
    assert len(bench.updater._store.state.rejected) == 1


def test_it_does_not_go_back_to_what_the_other_could_not_follow(bench: Bench) -> None:
    """2.0.0 was taken back to 1.1.0; 1.2.0 mends that, and is older than 2.0.0."""
    bench.offer("2.0.0")
    bench.start()
    bench.until_result("confirmed")
    bench.offer("1.1.0")
    bench.repository.offers = (replace(bench.repository.offers[0], allow_older=True),)
    bench.until(lambda state: state.phase == "probation" and state.installed.version == "1.1.0")
    bench.offer("1.2.0")
    bench.updater.request(install=True)
    bench.until(lambda state: state.installed.version == "1.2.0" and state.confirmed)
    heard = [model.version for model in bench.sensor.loaded]
    assert heard == ["1.0.0", "2.0.0", "1.1.0", "1.2.0"]


def test_releases_that_come_too_often_do_not_keep_all_from_proving_themselves(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, interval_s=600.0, spread_s=0.0)
    bench.start()
    confirmed, since_s = [], 0.0
    for number in range(1, 25):
        bench.offer(f"1.{number}.0")
        until_s = bench.late_s + SETTINGS.probation_s / 2
        while bench.late_s < until_s:
            if bench.step().result == "confirmed" and bench.state.installed not in confirmed:
                confirmed.append(bench.state.installed)
                assert bench.late_s - since_s < 5 * SETTINGS.probation_s
                since_s = bench.late_s
    assert len(confirmed) >= 4
    # Once one has proved itself, the next may give way again.
    bench.until(lambda state: state.phase == "idle" and state.result == "confirmed")
    for number in (25, 26, 27):
        bench.offer(f"1.{number}.0")
        if number > 25:
            assert bench.until_result("superseded", *ENDS).result == "superseded"
        bench.until(lambda state, number=number: str(state.reason).count(f"1.{number}.0 is on") > 0)
    # A person who asks for it does not wait.
    for number in range(30, 34):
        bench.offer(f"1.{number}.0")
        bench.updater.request(install=True)
        bench.until(lambda state, number=number: str(state.reason).count(f"1.{number}.0 is on") > 0)


@pytest.mark.parametrize("fault", ["cannot be loaded", "cannot be removed"])
def test_what_is_heard_with_is_what_the_store_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The model before cannot be loaded any more; the model that goes cannot be removed."""
    on_probation(bench)
    bench.offer("1.2.0")
    old, unlink = bench.sensor.loaded[0], Path.unlink

    def stubborn(path: Path, **more: bool) -> None:
        if path.suffix == ".bundle":
            raise OSError(5, "Input/output error")
        unlink(path, **more)

    if fault == "cannot be loaded":
        bench.sensor.unloadable[old.sha256] = BundleError("no memory left")
    else:
        monkeypatch.setattr(Path, "unlink", stubborn)
    looks = bench.repository.looks
    bench.until(lambda _: bench.repository.looks > looks)
    state = bench.step()
    store = bench.updater._store.state
    if fault == "cannot be loaded":
        assert (state.phase, state.installed.version, state.confirmed) == (
            "probation",
            "1.1.0",
            False,
        )
        assert store.current == bench.sensor.running
        assert bench.until_result(*ENDS).installed.version == "1.1.0"
    else:
        assert (store.current, bench.sensor.running.version, state.confirmed) == (
            None,
            "1.0.0",
            True,
        )
        monkeypatch.undo()
        assert bench.until_result("confirmed").installed.version == "1.2.0"


def test_requests_that_come_and_come_do_not_hide_a_bad_model(bench: Bench) -> None:
    bench.settings = replace(SETTINGS, shadow_s=0.0)
    bench.offer("1.1.0", "nan")
    bench.start()
    bench.until(lambda state: state.phase == "swap")
    began_s, refresh = bench.late_s, bench.repository.refresh

    def slow() -> tuple[object, ...]:
        bench.late_s += 26.0
        bench.sensor.hear(26.0)
        bench.updater.request(install=True)
        bench.updater._next_look_s = bench.late_s
        return refresh()

    bench.repository.refresh = slow  # type: ignore[method-assign]
    bench.updater._next_look_s = bench.late_s
    bench.until_result("rolled_back")
    assert bench.late_s - began_s < 400.0


def test_a_kill_after_it_gave_way_is_not_its_crash(bench: Bench) -> None:
    on_probation(bench)
    bench.sensor.begin_shadow(read_bundle(bench.bundle))
    bench.updater._trial.evidence._beside = ""
    bench.offer("1.2.0")
    bench.until_result("superseded")
    assert bench.sensor.shadow() == ()
    assert bench.boot.record is not None
    assert (bench.boot.record.record.running, bench.boot.record.record.crashes) == (False, 0)


def test_it_does_not_give_way_before_it_is_heard_with(bench: Bench, disk: SimpleNamespace) -> None:
    """Its crashes could not be counted at the start, or it could not be noted that it went."""
    on_probation(bench)
    bench.end()
    disk.full = True
    bench.start()
    assert bench.sensor.running.version == "1.0.0"
    assert not bench.updater._trial.proof.interruptible
    disk.full = False
    bench.until(lambda state: state.phase == "probation")
    assert bench.updater._trial.proof.interruptible
    bench.kinds[bench.sensor.running.sha256] = "nan"
    bench.end()
    bench.start()
    bench.until(lambda state: state.phase == "probation")
    disk.full = True
    bench.until_result("rolled_back")
    assert not bench.updater._trial.proof.interruptible


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
