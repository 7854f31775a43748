"""Two models on the same sound: what is worse is called so, and a quiet night decides nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.updates.comparison import (
    LEAST_WINDOWS,
    compare,
    deaf,
    merge,
    rate_differs,
    score_shift,
    stability_index,
)
from soundpost.device.updates.live_sensor import N_BINS, ShadowTally, Tally
from soundpost.device.updates.update_settings import UpdateSettings

LIMITS = UpdateSettings()
HISTOGRAMS = st.lists(st.integers(0, 10_000), min_size=N_BINS, max_size=N_BINS)


def low(n_windows: int) -> list[int]:
    """Scores of a room in which nothing happens."""
    return [n_windows] + [0] * (N_BINS - 1)


def heard(n_windows: int, n_sure: int) -> list[int]:
    """The same room, and some windows that are sure of themselves."""
    return [n_windows - n_sure] + [0] * (N_BINS - 2) + [n_sure]


def tally(n_events: int = 0, n_windows: int = 600, label: str = "dog", **more: object) -> Tally:
    base = Tally(
        "yard",
        heard_s=float(n_windows),
        windows=n_windows,
        compute_s=0.004 * n_windows,
        events={label: n_events},
        scores={label: heard(n_windows, n_events)},
        spread=0.9,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def pair(old: Tally, new: Tally, both: float, only_old: float, only_new: float) -> ShadowTally:
    return ShadowTally(old, new, {"dog": (both, only_old, only_new, 600.0)})


# ------------------------------------------------------------------------------- score shift


@given(one=HISTOGRAMS, other=HISTOGRAMS)
def test_the_index_is_the_divergence_in_both_directions(one: list[int], other: list[int]) -> None:
    p, q = (np.array(counts) + 0.5 for counts in (one, other))
    expected = scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)
    found = stability_index(one, other)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found == pytest.approx(stability_index(other, one))


@given(counts=HISTOGRAMS)
def test_the_same_scores_have_not_shifted(counts: list[int]) -> None:
    assert stability_index(counts, counts) == pytest.approx(0.0, abs=1e-12)


def test_only_labels_that_both_know_count() -> None:
    old = tally(scores={"dog": low(600), "cat": low(600)})
    middle = [0] * 10 + [600] + [0] * 9
    new = tally(scores={"dog": low(600), "bird": middle})
    assert score_shift(old, new) == pytest.approx(0.0, abs=1e-12)
    assert score_shift(old, tally(scores={"bird": middle})) is None


# ------------------------------------------------------------------------------- event rates


@given(
    n_old=st.integers(0, 200),
    n_new=st.integers(0, 200),
    old_s=st.floats(60, 1e5),
    new_s=st.floats(60, 1e5),
    ratio=st.floats(1.5, 20),
)
def test_rates_differ_where_the_exact_test_says_so(
    n_old: int, n_new: int, old_s: float, new_s: float, ratio: float
) -> None:
    """Against scipy.stats.binomtest, one-sided at one in a thousand."""
    total = n_old + n_new
    told = rate_differs(n_old, old_s, n_new, new_s, ratio)
    if total == 0:
        assert told == ""
        return
    above = ratio * new_s / (old_s + ratio * new_s)
    below = new_s / (ratio * old_s + new_s)
    p_above = scipy.stats.binomtest(n_new, total, above, "greater").pvalue
    p_below = scipy.stats.binomtest(n_new, total, below, "less").pvalue
    if min(abs(p_above - 0.001), abs(p_below - 0.001)) > 1e-9:
        assert ("too many" in told) == (p_above < 0.001)
        assert ("too few" in told) == (p_above >= 0.001 and p_below < 0.001)


@given(n_old=st.integers(0, 7), hours=st.floats(0.1, 12))
def test_a_quiet_night_condemns_nobody(n_old: int, hours: float) -> None:
    """So few events say nothing about a rate a fifth of what it was."""
    assert rate_differs(n_old, 3600 * hours, 0, 3600 * hours, 5.0) == ""


# ------------------------------------------------------------------------------- verdicts


def test_silence_is_undecided() -> None:
    verdict = compare([pair(tally(), tally(), 0.0, 0.0, 0.0)], LIMITS)
    assert verdict.outcome == "undecided"
    assert compare([], LIMITS).outcome == "undecided"


def test_those_that_hear_the_same_are_alike() -> None:
    verdict = compare([pair(tally(20), tally(22), 60.0, 15.0, 20.0)], LIMITS)
    assert verdict.outcome == "alike"
    assert verdict.figures["agreement"] == pytest.approx(60 / 95)


def test_those_that_never_hear_the_same_are_not() -> None:
    verdict = compare([pair(tally(20), tally(20), 0.0, 60.0, 60.0)], LIMITS)
    assert verdict.outcome == "worse"
    assert "hears the same as the old model in 0% of the time" in verdict.reason


def test_a_few_events_do_not_decide() -> None:
    verdict = compare([pair(tally(3), tally(3), 0.0, 9.0, 9.0)], LIMITS)
    assert verdict.outcome == "undecided"
    assert "too little was heard to compare" in verdict.reason


def test_what_hardly_crosses_a_threshold_does_not_decide() -> None:
    """A quiet house: each model believes now and then to hear something, at times of its own."""
    scores = {"dog": [500] + [0] * 9 + [100] + [0] * 9}
    old, new = tally(100, scores=scores), tally(100, scores=scores)
    assert compare([pair(old, new, 0.0, 100.0, 100.0)], LIMITS).outcome == "undecided"


def test_a_long_sound_does_not_decide_alone() -> None:
    """A fan that one of the models calls a dog for an hour, and ten labels on which they agree."""
    labels = [f"label{number}" for number in range(10)]
    scores = {label: heard(3600, 15) for label in labels} | {"dog": heard(3600, 3600)}
    old = tally(1, 3600, events={"dog": 1, **dict.fromkeys(labels, 5)}, scores=scores)
    new = replace(old)
    parts = dict.fromkeys(labels, (15.0, 3.0, 3.0, 3500.0))
    agreement = {"dog": (0.0, 3600.0, 0.0, 0.0), **parts}
    assert compare([ShadowTally(old, new, agreement)], LIMITS).outcome == "alike"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"failed": 600}, "600 of 600 windows have no usable score"),
        ({"failed": 7}, "7 of 600 windows have no usable score"),
        ({"compute_s": 24.0}, "computes 10.0 times as long as the old model"),
        ({"scores": {"dog": [0] * 10 + [600] + [0] * 9}}, "are of another kind"),
        ({"events": {"dog": 200}}, "far too many"),
        ({"spread": 0.0}, "the same whatever it hears: the old model reports 20 events"),
        ({"failed": 10, "windows": 6_000, "heard_s": 6_000.0}, "10 of 6000 windows"),
    ],
)
def test_what_is_worse_is_told(changes: dict[str, object], told: str) -> None:
    new = tally(20, **changes)
    verdict = compare([pair(tally(20), new, 60.0, 5.0, 5.0)], LIMITS)
    assert verdict.outcome == "worse"
    assert told in verdict.reason
    assert "\n" not in verdict.reason


def test_a_model_that_is_slow_only_because_the_machine_is_busy_is_not_worse() -> None:
    """Both were held up: 0.4 s a window where 4 ms were usual."""
    old, new = (tally(20, compute_s=240.0), tally(20, compute_s=250.0))
    assert compare([pair(old, new, 60.0, 5.0, 5.0)], LIMITS).outcome == "alike"


def test_where_nothing_was_to_be_heard_the_same_scores_are_no_fault() -> None:
    """A switch turned the microphone off: one model is as steady as the other."""
    still = tally(spread=0.0)
    assert compare([pair(still, still, 0.0, 0.0, 0.0)], LIMITS).outcome == "undecided"
    few = tally(0, LEAST_WINDOWS - 1, spread=0.0)
    assert compare([pair(tally(), few, 0.0, 0.0, 0.0)], LIMITS).outcome == "undecided"


def test_one_that_knows_less_is_not_deaf_where_the_old_one_heard_what_it_does_not_know() -> None:
    """Of the label that both know there was next to nothing."""
    old = tally(2, events={"dog": 2, "car": 50})
    assert compare([pair(old, tally(0, spread=9e-4), 0.0, 2.0, 0.0)], LIMITS).outcome != "worse"
    moved = tally(20)
    assert compare([pair(moved, tally(0, spread=2e-3), 0.0, 0.0, 0.0)], LIMITS).outcome != "worse"


def test_what_cannot_keep_up_is_worse_though_hardly_slower_than_the_old() -> None:
    old, new = tally(20, compute_s=200.0), tally(20, compute_s=320.0)
    verdict = compare([pair(old, new, 60.0, 5.0, 5.0)], LIMITS)
    assert verdict.outcome == "worse"
    assert "computes for 0.53 s per second of sound: expected at most 0.5" in verdict.reason


@pytest.mark.parametrize("fault", [{"failed": 40}, {"spread": 0.0}])
def test_what_repairs_a_broken_model_is_not_measured_by_it(fault: dict[str, object]) -> None:
    old = tally(0, **fault)
    verdict = compare([pair(old, tally(20), 0.0, 0.0, 60.0)], LIMITS)
    assert verdict.outcome == "undecided"
    assert "nothing to compare with" in verdict.reason


def test_one_event_makes_no_two_models_alike() -> None:
    verdict = compare([pair(tally(1), tally(1), 4.0, 1.0, 0.0)], LIMITS)
    assert verdict.outcome == "undecided"
    assert compare([pair(tally(5), tally(5), 20.0, 5.0, 0.0)], LIMITS).outcome == "alike"


def test_sources_hear_at_the_same_time() -> None:
    """Two that heard for ten minutes are ten minutes, and not twenty."""
    pairs = [pair(tally(), tally(), 0.0, 0.0, 0.0)] * 2
    assert compare(pairs, LIMITS).figures["heard_s"] == 600.0


def test_windows_that_failed_say_nothing_of_those_that_did_not() -> None:
    assert deaf(tally(n_windows=LEAST_WINDOWS, spread=0.0))
    assert not deaf(tally(n_windows=LEAST_WINDOWS, failed=1, spread=0.0))


def test_what_takes_next_to_nothing_is_not_slow() -> None:
    old, new = tally(20, compute_s=0.06), tally(20, compute_s=0.54)
    assert compare([pair(old, new, 60.0, 5.0, 5.0)], LIMITS).outcome == "alike"


@pytest.mark.parametrize(("number", "outcome"), [(14, "undecided"), (15, "worse")])
def test_sure_is_a_score_of_three_quarters(number: int, outcome: str) -> None:
    scores = {"dog": [500] + [0] * (number - 1) + [100] + [0] * (N_BINS - 1 - number)}
    old, new = tally(100, scores=scores), tally(100, scores=scores)
    assert compare([pair(old, new, 0.0, 100.0, 100.0)], LIMITS).outcome == outcome


def test_a_label_that_comes_and_goes_does_not_decide_alone() -> None:
    """200 times one model heard a dog and the other did not; on 20 cats they agree."""
    scores = {"dog": heard(3600, 300), "cat": heard(3600, 60)}
    old = tally(0, 3600, events={"dog": 200, "cat": 20}, scores=scores)
    agreement = {"dog": (0.0, 300.0, 300.0, 3000.0), "cat": (60.0, 0.0, 0.0, 3540.0)}
    assert compare([ShadowTally(old, old, agreement)], LIMITS).outcome == "alike"


def test_a_share_that_chance_explains_is_undecided() -> None:
    """A quarter of the time of six events: more than what is asked for, but not surely."""
    verdict = compare([pair(tally(6), tally(6), 10.0, 15.0, 15.0)], LIMITS)
    assert verdict.figures["agreement"] == pytest.approx(0.25)
    assert verdict.outcome == "undecided"


def test_two_windows_without_a_score_are_no_fault() -> None:
    new = tally(20, failed=2)
    assert compare([pair(tally(20), new, 60.0, 5.0, 5.0)], LIMITS).outcome == "alike"


def test_before_enough_windows_nothing_is_said_of_pace_and_scores() -> None:
    few = LEAST_WINDOWS - 1
    new = tally(0, few, compute_s=100.0, scores={"dog": [0] * 10 + [few] + [0] * 9})
    assert compare([pair(tally(0, few), new, 0.0, 0.0, 0.0)], LIMITS).outcome == "undecided"
    # Nor that they are alike: the new one hears the same, and may take ten times as long.
    agreeing = pair(tally(20, few), tally(20, few, compute_s=100.0), 60.0, 5.0, 5.0)
    assert compare([agreeing], LIMITS).outcome == "undecided"


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
        min_size=1,
        max_size=4,
    ),
    data=st.data(),
)
def test_sources_count_together_in_any_order(
    parts: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    pairs = [pair(tally(n), tally(n), float(a), float(b), float(c)) for n, a, b, c in parts]
    shuffled = data.draw(st.permutations(pairs))
    one, other = compare(pairs, LIMITS), compare(shuffled, LIMITS)
    assert (one.outcome, one.reason) == (other.outcome, other.reason)
    merged = merge([each.new for each in pairs])
    assert merged.heard_s == 600.0 * len(parts)
    moving = merge([tally(), tally(spread=0.0), tally(spread=0.4)])
    assert (moving.spread, merge([]).spread) == (0.9, 0.0)
    assert sum(merged.scores["dog"]) == 600 * len(parts)
