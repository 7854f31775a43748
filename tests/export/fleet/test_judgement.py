"""What becomes of a sensor by what it says, and what a fleet bears."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fleet_examples import NEW, NOW, OLD, rolling, sensor, with_health
from hypothesis import given
from hypothesis import strategies as st

from soundpost.export.fleet.judgement import Troubles, judge, why_stop
from soundpost.export.fleet.plan import result_of
from soundpost.export.fleet.roll_out import Member
from soundpost.export.fleet.sensors import Sensor, so_many
from soundpost.export.fleet.settings import STOP_KINDS, Amount, RollOutSettings

SOON = NOW + timedelta(seconds=10)
OFFERED = {"offered": NEW}
ON_TRIAL = {"installed": NEW, "previous": OLD, "confirmed": False, "phase": "probation"}


def steps(*states: Sensor | None, now: Any = SOON, **fields: Any) -> list[str]:
    """Outcomes of one member that has been asked, as its sensor goes through these states."""
    member, found = Member("hall", 1, "asked", **fields), []
    for state in states:
        member = judge(member, state, rolling(member), now)
        found.append(member.outcome)
    return found


def test_an_update_that_goes_well() -> None:
    phases = ["idle", "refresh", "download", "check", "self_test", "shadow", "swap"]
    states = [sensor(phase=phase, **OFFERED) for phase in phases]
    confirmed = sensor(installed=NEW, result="confirmed", result_time=SOON)
    assert steps(*states, sensor(**ON_TRIAL), confirmed, confirmed) == [
        "asked",
        *["installing"] * 6,
        *["probation", "confirmed", "confirmed"],
    ]


def test_one_that_looks_and_finds_nothing_is_asked_again() -> None:
    assert steps(sensor(phase="refresh"), sensor(), sensor(phase="waiting")) == [
        "installing",
        "asked",
        "asked",
    ]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ("rolled_back", "rolled-back"),
        ("refused", "refused"),
        ("rejected", "refused"),
        ("failed", "refused"),
        ("deferred", "asked"),
        ("unreachable", "asked"),
        ("up_to_date", "asked"),
    ],
)
def test_an_update_that_does_not(result: str, outcome: str) -> None:
    """What the sensor tries again by itself is no end; what ended badly stays so."""
    ended = sensor(result=result, reason="because", result_time=SOON, **OFFERED)
    again = sensor(phase="refresh", result=result, result_time=SOON, **OFFERED)
    assert steps(ended)[0] == outcome
    if outcome != "asked":
        assert steps(ended, again, None) == [outcome] * 3
        member = judge(Member("hall", 1, "asked"), ended, rolling(), SOON)
        assert "because" in (member.reason or "")


def test_a_result_from_before_is_not_ours() -> None:
    """Whatever the sensor's clock says: only another result than before counts."""
    before = sensor(result="rolled_back", result_time=SOON + timedelta(days=400))
    known = result_of(before)
    assert steps(before, before, result_before=known) == ["asked"] * 2
    later = sensor(result="rolled_back", result_time=NOW - timedelta(days=4_000))
    assert steps(before, later, result_before=known) == ["asked", "rolled-back"]


def test_a_result_about_another_model_is_not_ours() -> None:
    other = replace(NEW, sha256="9" * 64)
    assert steps(sensor(result="refused", result_time=SOON, offered=other)) == ["asked"]


def test_who_loses_the_model_went_back() -> None:
    """Also where the result is no longer told, or comes a message later."""
    back = sensor(result="up_to_date", result_time=SOON)
    rolling_back = sensor(phase="roll_back")
    assert steps(sensor(**ON_TRIAL), rolling_back, back) == [
        "probation",
        "probation",
        "rolled-back",
    ]
    assert steps(sensor(installed=NEW), back) == ["confirmed", "rolled-back"]


def test_who_was_given_another_model_says_which() -> None:
    reason = "mine 1.1.0: gives way to mine 1.2.0 before it has proved itself"
    back = sensor(result="superseded", reason=reason, result_time=SOON)
    member = judge(Member("hall", 1, "probation", has_model=True), back, rolling(), SOON)
    assert (member.outcome, member.has_model) == ("rolled-back", False)
    assert reason in (member.reason or "")
    # Of the model before this one, it is none of ours.
    assert steps(sensor(phase="check", result="superseded", result_time=SOON, **OFFERED)) == [
        "installing"
    ]


def test_late() -> None:
    settings = RollOutSettings()
    in_time = NOW + timedelta(seconds=settings.install_s - 1)
    too_late = NOW + timedelta(seconds=settings.install_s)
    assert steps(sensor(), None, now=in_time) == ["asked"] * 2
    for state in (sensor(), None, sensor(phase="download", **OFFERED)):
        assert steps(state, now=too_late) == ["late"]
    assert steps(sensor(**ON_TRIAL), now=too_late) == ["probation"]
    much = NOW + timedelta(seconds=settings.confirm_s)
    assert steps(sensor(**ON_TRIAL), sensor(installed=NEW), now=much) == ["late", "confirmed"]


OUTCOMES = st.sampled_from(["asked", "probation", "confirmed", "rolled-back", "refused", "late"])


@given(st.lists(st.tuples(OUTCOMES, st.booleans()), min_size=1, max_size=40), st.integers(1, 100))
def test_a_share_of_those_who_were_asked_stops_it(
    drawn: list[tuple[Any, bool]], percent: int
) -> None:
    """The oracle counts; later waves and accepted sensors do not count."""
    members = [
        Member(f"hall-{n}", 1, outcome, accepted=accepted)
        for n, (outcome, accepted) in enumerate(drawn)
    ]
    waiting = [Member(f"later-{n}", 2, "refused") for n in range(50)]
    for kind in ("rolled-back", "refused", "late"):
        settings = RollOutSettings(stops={kind: Amount(share=percent / 100)})
        stop = why_stop(rolling(*members, *waiting, settings=settings), {})
        n = sum(outcome == kind and not accepted for outcome, accepted in drawn)
        assert (stop is not None) is (n > 0 and 100 * n >= percent * len(drawn))
        if stop is not None:
            assert stop.reason.startswith(f"{n} of {so_many(len(drawn))} {STOP_KINDS[kind]}")
            assert len(stop.devices) == n
            assert "\n" not in stop.reason


def test_troubles_that_pass_stop_nothing() -> None:
    members = [Member("hall", 1, "confirmed", has_model=True)]
    well = sensor(installed=NEW)
    away, deaf = replace(well, online=False), with_health(well, "failed", "unplugged")
    for bad, kind in ((away, "offline"), (deaf, "deaf")):
        troubles = Troubles()
        found = []
        for at_s, state in ((0, bad), (299, bad), (300, well), (301, bad), (600, bad), (601, bad)):
            found.append(bool(troubles.of(members, {"hall": state}, at_s, 300.0)[kind]))
        assert found == [False, False, False, False, False, True]
    # One of which the broker has forgotten all is as good as away.
    assert Troubles().of(members, {}, 0.0, 0.0)["offline"] == {"hall": "offline"}


def test_drift_counts_where_the_model_may_have_caused_it() -> None:
    drifted = {"hall": sensor(installed=NEW, drift=0.26)}
    usual = {"hall": sensor(installed=NEW, drift=0.25)}

    def found(sensors: dict[str, Sensor], **fields: Any) -> bool:
        member = Member("hall", 1, "confirmed", **{"has_model": True, **fields})
        return bool(Troubles().of([member], sensors, 0.0, 300.0)["drift"])

    assert found(drifted)
    assert not found(usual)
    assert not found(drifted, drifted_before=True)
    assert not found(drifted, has_model=False)
