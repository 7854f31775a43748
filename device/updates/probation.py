"""A model that runs: is it to be kept, taken back, or listened to beside the old one?

What differs from before may be the sound's doing: a storm, a feast, a busy processor. So nothing
but a model that fails is condemned by what it does alone; what looks odd is a suspicion, and makes
the sensor hear with the old model too, on the same sound (`comparison.compare`), which decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from soundpost.device.updates.comparison import (
    LEAST_WINDOWS,
    MANY_EVENTS,
    NEGLIGIBLE_SHARE,
    SAME_SCORES,
    Verdict,
    deaf,
    failing,
    merge,
    rate_differs,
    score_shift,
)
from soundpost.device.updates.live_sensor import Tally
from soundpost.device.updates.update_settings import UpdateSettings

# Of the probation, for which what is odd is compared before it may be kept undecided.
_COMPARED = 0.05

Decision = Literal["keep", "wait", "suspect", "roll_back"]


@dataclass(frozen=True)
class Judgement:
    """What is to be done, and why in one line."""

    decision: Decision
    reason: str


def judge(
    tallies: Sequence[Tally],
    usual: Tally | None,
    heard_s: float,
    limits: UpdateSettings,
    paired: Verdict | None = None,
    *,
    comparable: bool = True,
    suspected: bool = False,
) -> Judgement:
    """Judge a model on probation.

    Parameters
    ----------
    tallies : of the model, since it began to run or the sensor started
    usual : what the model before it made of other sound, earlier; None: not known
    heard_s : sound that it was heard with, earlier starts included
    paired : of the same sound with both models, so far; None: not compared now
    comparable : the old model is there to compare with; else suspicions condemn
    suspected : something was odd before, and no comparison has settled it
    """
    now = merge(tallies)
    fault = failing(now)
    if fault:
        return Judgement("roll_back", fault)
    if paired is not None and paired.outcome == "worse":
        return Judgement("roll_back", paired.reason)
    odd = suspicion(now, usual, limits)
    if odd and not comparable:
        return Judgement("roll_back", odd)
    if not odd and suspected and comparable:
        odd = "it was odd before"
    # What has been compared on the same sound is above suspicion.
    if odd and paired is None:
        return Judgement("suspect", odd)
    if odd and paired is not None and paired.outcome == "undecided":
        compared_s, enough_s = paired.figures.get("heard_s", 0.0), enough(limits)
        if compared_s < enough_s:
            return Judgement("wait", f"{odd}; {compared_s:.0f} of {enough_s:.0f} s compared")
    # A start just before the end must not let pass what is seen only after some windows.
    if heard_s < limits.probation_s or now.windows < LEAST_WINDOWS:
        return Judgement("wait", f"{heard_s:.0f} of {limits.probation_s:.0f} s heard")
    if paired is None:
        return Judgement("keep", "nothing spoke against it")
    events, share = (paired.figures.get(name, 0.0) for name in ("events_compared", "agreement"))
    if paired.outcome == "undecided" and events >= MANY_EVENTS and share < limits.min_agreement:
        return Judgement(
            "roll_back",
            f"hears the same as the old model in {share:.0%} of the time in which either hears "
            f"something, over {events:.0f} events: expected at least {limits.min_agreement:.0%}",
        )
    return Judgement("keep", paired.reason)


def enough(limits: UpdateSettings) -> float:
    """Seconds for which two models are compared before what that tells is the last word."""
    return max(limits.shadow_s, _COMPARED * limits.probation_s)


def suspicion(now: Tally, usual: Tally | None, limits: UpdateSettings) -> str:
    """What is odd about a model beside what was usual before it, one line; empty: nothing."""
    if now.windows < LEAST_WINDOWS or now.heard_s <= 0.0:
        return ""
    if deaf(now):
        return SAME_SCORES
    share = now.compute_s / now.heard_s
    if share > limits.latency_share:
        return (
            f"computes for {share:.2f} s per second of sound: expected at most "
            f"{limits.latency_share:g}"
        )
    if usual is None or usual.windows < LEAST_WINDOWS or usual.heard_s <= 0.0:
        return ""
    before = usual.compute_s / usual.heard_s
    if before > 0.0 and share > max(NEGLIGIBLE_SHARE, limits.slowdown * before):
        return f"computes {share / before:.1f} times as long as the old model did"
    shift = score_shift(usual, now)
    if shift is not None and shift > limits.max_score_shift:
        return f"its scores are of another kind than the old model's were: shift {shift:.2f}"
    common = set(usual.scores) & set(now.scores)
    counts = [sum(tally.events.get(label, 0) for label in common) for tally in (usual, now)]
    return rate_differs(
        counts[0], usual.heard_s, counts[1], now.heard_s, 2 * limits.max_event_ratio
    )
