"""Odd is not bad: what differs from before is compared with the old model, and that decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soundpost.device.updates.comparison import Verdict
from soundpost.device.updates.live_sensor import N_BINS, Tally
from soundpost.device.updates.probation import enough, judge
from soundpost.device.updates.update_settings import UpdateSettings

LIMITS = UpdateSettings()
DAY_S = LIMITS.probation_s
USUAL = Tally(
    "",
    heard_s=36_000.0,
    windows=36_000,
    compute_s=144.0,
    events={"dog": 40},
    scores={"dog": [35_800] + [0] * 18 + [200]},
    spread=0.95,
)
SAME = Tally(
    "yard",
    heard_s=3_600.0,
    windows=3_600,
    compute_s=14.4,
    events={"dog": 4},
    scores={"dog": [3_580] + [0] * 18 + [20]},
    spread=0.95,
)
ODD = {
    "flood": replace(SAME, events={"dog": 400}),
    "slow": replace(SAME, compute_s=144.0),
    "late": replace(SAME, compute_s=3_000.0),
    "deaf": replace(SAME, spread=0.0005),
    "constant": replace(SAME, scores={"dog": [0] * 10 + [3_600] + [0] * 9}),
}
ALIKE = Verdict("alike", "hears the same")
WORSE = Verdict("worse", "hears otherwise")
UNDECIDED = Verdict("undecided", "too little was heard")


def test_one_like_the_old_waits_and_is_kept_after_its_time() -> None:
    assert judge([SAME], USUAL, DAY_S - 1, LIMITS).decision == "wait"
    assert judge([SAME], USUAL, DAY_S, LIMITS).decision == "keep"
    assert judge([SAME], None, DAY_S, LIMITS).decision == "keep"


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_compared_and_not_condemned(odd: str) -> None:
    """Even when its time is over."""
    for heard_s in (3_600.0, DAY_S):
        assert judge([ODD[odd]], USUAL, heard_s, LIMITS).decision == "suspect"
        assert judge([ODD[odd]], USUAL, heard_s, LIMITS, WORSE).decision == "roll_back"
    assert judge([ODD[odd]], USUAL, 3_600.0, LIMITS, UNDECIDED).decision == "wait"
    assert judge([ODD[odd]], USUAL, DAY_S, LIMITS, ALIKE).decision == "keep"
    # Nobody is kept undecided before it was compared for a while.
    assert judge([ODD[odd]], USUAL, DAY_S, LIMITS, UNDECIDED).decision == "wait"
    long = replace(UNDECIDED, figures={"heard_s": 0.05 * DAY_S})
    assert judge([ODD[odd]], USUAL, DAY_S, LIMITS, long).decision == "keep"


@pytest.mark.parametrize("odd", ODD)
def test_where_nothing_is_there_to_compare_with_it_is_condemned(odd: str) -> None:
    judgement = judge([ODD[odd]], USUAL, 3_600.0, LIMITS, comparable=False)
    assert judgement.decision == "roll_back"
    assert "\n" not in judgement.reason


@pytest.mark.parametrize("failed", [40, 3_600])
def test_a_model_that_fails_is_condemned_at_once(failed: int) -> None:
    judgement = judge([replace(SAME, failed=failed)], None, 3_600.0, LIMITS, ALIKE)
    assert judgement.decision == "roll_back"
    assert f"{failed} of 3600 windows" in judgement.reason


def test_a_quiet_night_is_not_odd() -> None:
    """No event where there were four an hour, and every score low."""
    quiet = replace(SAME, heard_s=28_800.0, windows=28_800, compute_s=115.2, events={})
    quiet = replace(quiet, scores={"dog": [28_800] + [0] * (N_BINS - 1)})
    assert judge([quiet], USUAL, 28_800.0, LIMITS).decision == "wait"


def test_what_was_odd_before_a_restart_is_compared_before_it_is_kept() -> None:
    """Nothing is odd yet about the first windows of this start, and the time is over."""
    few = replace(SAME, heard_s=30.0, windows=30)
    assert judge([few], USUAL, DAY_S, LIMITS).decision == "wait"
    assert judge([SAME], USUAL, DAY_S, LIMITS, suspected=True).decision == "suspect"
    waiting = judge([SAME], USUAL, DAY_S, LIMITS, UNDECIDED, suspected=True)
    assert waiting.decision == "wait"
    assert judge([SAME], USUAL, DAY_S, LIMITS, ALIKE, suspected=True).decision == "keep"


@pytest.mark.parametrize(("compared_s", "decision"), [(4_319.0, "wait"), (4_321.0, "keep")])
def test_enough_is_the_shadow_or_a_twentieth_of_the_probation(
    compared_s: float, decision: str
) -> None:
    paired = replace(UNDECIDED, figures={"heard_s": compared_s})
    assert judge([ODD["flood"]], USUAL, DAY_S, LIMITS, paired).decision == decision
    assert enough(replace(LIMITS, shadow_s=9_000.0)) == 9_000.0


@pytest.mark.parametrize(
    ("events", "share", "decision"),
    [(135.0, 0.14, "roll_back"), (135.0, 0.16, "keep"), (29.0, 0.02, "keep")],
)
def test_at_the_end_many_events_decide_without_a_margin(
    events: float, share: float, decision: str
) -> None:
    figures = {"heard_s": DAY_S, "events_compared": events, "agreement": share}
    paired = replace(UNDECIDED, figures=figures)
    assert judge([SAME], USUAL, DAY_S - 1, LIMITS, paired).decision == "wait"
    assert judge([SAME], USUAL, DAY_S, LIMITS, paired).decision == decision


@pytest.mark.parametrize(("times", "decision"), [(3.9, "wait"), (4.1, "suspect")])
def test_slow_is_more_than_four_times_the_usual(times: float, decision: str) -> None:
    slow = replace(SAME, compute_s=times * SAME.compute_s)
    assert judge([slow], USUAL, 3_600.0, LIMITS).decision == decision


def test_nothing_is_said_of_a_few_windows() -> None:
    few = Tally("yard", 10.0, 10, 0, 9.0, {"dog": 10}, {"dog": [0] * 19 + [10]})
    assert judge([few], USUAL, 10.0, LIMITS).decision == "wait"
    assert judge([], USUAL, 0.0, LIMITS).decision == "wait"
