"""Two models that heard the same sound: is the new one worse?

What each made of it is counted by the sensor (`live_sensor.ShadowTally`). A new model may well hear
otherwise than the old one: it was trained because the old one was not good enough. It is worse
where it fails, takes far longer, hears things at other times altogether, reports many times as
many events or as few, or gives scores of another kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import scipy.special

from soundpost.device.updates.live_sensor import N_BINS, ShadowTally, Tally
from soundpost.device.updates.update_settings import UpdateSettings

Outcome = Literal["alike", "worse", "undecided"]

# Share of windows without a usable score that is a fault, and how many it takes to say so; so many
# are one whatever their share: they may be the very windows in which there is something to report.
MAX_FAILED, LEAST_FAILED, MOST_FAILED = 0.01, 3, 10
# Windows before anything is said of scores and compute time: overlapping windows say little anew.
LEAST_WINDOWS = 60
# A model that takes less than this share of a core is not slow, whatever the old one took.
NEGLIGIBLE_SHARE = 0.001
# Scores that move by less, whatever is heard, are no scores. So many events of the old model say
# that there was something to hear, and to agree on.
LEAST_SPREAD, LEAST_EVENTS = 1e-3, 5
# Events after which too little agreement is no chance any more, though a stricter bound is not met.
MANY_EVENTS = 30
# A label's events count for no more than so many: one that comes and goes must not decide alone.
_MOST_EVENTS = 20
# One-sided confidence of what condemns: a sensor asks again and again while it listens.
_CHANCE = 0.001
SAME_SCORES = "its scores are the same whatever it hears"
# The normal quantile of 0.95, for the share of time in which both hear the same: models of one kind
# are far from the bound.
_Z = 1.645
# Scores from here on are sure of themselves. What is heard near a threshold is heard by chance, and
# in a quiet house there is nothing else.
_SURE_BIN = 15


@dataclass(frozen=True)
class Verdict:
    """Of a comparison.

    reason : one line for a person
    figures : what it rests on, by name
    """

    outcome: Outcome
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def compare(pairs: Sequence[ShadowTally], limits: UpdateSettings) -> Verdict:
    """Whether the new model of each pair is worse than the old one.

    `alike` only where both have heard enough of the same events; a quiet night decides nothing.
    """
    old, new = merge([pair.old for pair in pairs]), merge([pair.new for pair in pairs])
    heard_s = max((pair.new.heard_s for pair in pairs), default=0.0)
    figures: dict[str, float] = {"heard_s": heard_s, "windows": new.windows}
    fault = failing(new)
    if fault:
        return Verdict("worse", fault, figures | {"failed": new.failed})
    scored = min(old.windows, new.windows) >= LEAST_WINDOWS
    pace = _pace(old, new, limits, figures) if scored else ""
    if pace:
        return Verdict("worse", pace, figures)
    if failing(old) or (scored and deaf(old)):
        # It may be what the new one was made to replace.
        return Verdict("undecided", "the old model gives nothing to compare with", figures)
    common = set(old.scores) & set(new.scores)
    counts = [sum(tally.events.get(label, 0) for label in common) for tally in (old, new)]
    figures |= {"events_old": counts[0], "events_new": counts[1]}
    if scored and deaf(new) and counts[0] >= LEAST_EVENTS:
        told = f"{SAME_SCORES}: the old model reports {counts[0]} events of the same sound"
        return Verdict("worse", told, figures | {"spread": new.spread})
    shift = score_shift(old, new) if scored else None
    if shift is not None:
        figures["score_shift"] = shift
        if shift > limits.max_score_shift:
            return Verdict(
                "worse",
                f"its scores on the same sound are of another kind: shift {shift:.2f}, expected at "
                f"most {limits.max_score_shift:g}",
                figures,
            )
    told = rate_differs(counts[0], old.heard_s, counts[1], new.heard_s, limits.max_event_ratio)
    if told:
        return Verdict("worse", told, figures)
    verdict = _agreement(pairs, old, new, limits, figures)
    if verdict.outcome == "alike" and not scored:
        # A slow model says the same as the one before, only later.
        few = f"too little was heard to compare ({min(old.windows, new.windows)} windows)"
        return Verdict("undecided", few, verdict.figures)
    return verdict


def _pace(old: Tally, new: Tally, limits: UpdateSettings, figures: dict[str, float]) -> str:
    """Why the new model takes too long, one line; empty where it does not."""
    if not (old.compute_s > 0 and old.heard_s > 0 and new.heard_s > 0):
        return ""
    before, now = old.compute_s / old.heard_s, new.compute_s / new.heard_s
    figures["slower"] = now / before
    if now / before > limits.slowdown and now > NEGLIGIBLE_SHARE:
        return (
            f"computes {now / before:.1f} times as long as the old model: expected at most "
            f"{limits.slowdown:g} times"
        )
    if now > limits.latency_share >= before:
        return (
            f"computes for {now:.2f} s per second of sound: expected at most "
            f"{limits.latency_share:g}"
        )
    return ""


def _agreement(
    pairs: Sequence[ShadowTally],
    old: Tally,
    new: Tally,
    limits: UpdateSettings,
    figures: dict[str, float],
) -> Verdict:
    """Share of the time in which either hears a label that both do, weighted by sure events."""
    seconds: dict[str, list[float]] = {}
    for pair in pairs:
        for label, parts in pair.agreement.items():
            sums = seconds.setdefault(label, [0.0] * 4)
            for number, part in enumerate(parts):
                sums[number] += part
    weight = agreed = 0.0
    for label, (both, only_old, only_new, _) in seconds.items():
        either = both + only_old + only_new
        if either <= 0.0:
            continue
        n_events = max(old.events.get(label, 0), new.events.get(label, 0), 1)
        sure = max(sum(tally.scores.get(label, ())[_SURE_BIN:]) for tally in (old, new))
        n_events = min(n_events, sure, _MOST_EVENTS)
        weight += n_events
        agreed += n_events * both / either
    if not weight:
        return Verdict("undecided", "nothing was heard that could be compared", figures)
    share = agreed / weight
    figures |= {"agreement": share, "events_compared": weight}
    low, high = _wilson(share, weight)
    needed = limits.min_agreement
    if high < needed:
        return Verdict(
            "worse",
            f"hears the same as the old model in {share:.0%} of the time in which either hears "
            f"something: expected at least {needed:.0%}",
            figures,
        )
    if low >= needed and weight >= LEAST_EVENTS:
        return Verdict(
            "alike", f"hears the same as the old model in {share:.0%} of that time", figures
        )
    return Verdict(
        "undecided",
        f"too little was heard to compare: {weight:.0f} events, {share:.0%} of that time the same",
        figures,
    )


def failing(tally: Tally) -> str:
    """Why a model fails, one line; empty where it does not."""
    many = tally.failed >= LEAST_FAILED and tally.failed > MAX_FAILED * tally.windows
    if many or tally.failed >= MOST_FAILED:
        return (
            f"{tally.failed} of {tally.windows} windows have no usable score: it fails, or its "
            "scores are no numbers"
        )
    return ""


def deaf(tally: Tally) -> bool:
    """Whether all of its scores stayed as they were, whatever there was to hear."""
    return tally.windows - tally.failed >= LEAST_WINDOWS and tally.spread < LEAST_SPREAD


def merge(tallies: Sequence[Tally]) -> Tally:
    """All sources as one."""
    events: dict[str, int] = {}
    scores: dict[str, list[int]] = {}
    for tally in tallies:
        for label, count in tally.events.items():
            events[label] = events.get(label, 0) + count
        for label, counts in tally.scores.items():
            sums = scores.setdefault(label, [0] * N_BINS)
            scores[label] = [one + more for one, more in zip(sums, counts, strict=True)]
    return Tally(
        source="",
        heard_s=sum(tally.heard_s for tally in tallies),
        windows=sum(tally.windows for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        compute_s=sum(tally.compute_s for tally in tallies),
        events=events,
        scores=scores,
        spread=max((tally.spread for tally in tallies), default=0.0),
    )


def difference(now: Tally, before: Tally) -> Tally:
    """What a tally has counted since it stood at `before`."""
    return replace(
        now,
        heard_s=now.heard_s - before.heard_s,
        windows=now.windows - before.windows,
        failed=now.failed - before.failed,
        compute_s=now.compute_s - before.compute_s,
        events={label: count - before.events.get(label, 0) for label, count in now.events.items()},
        scores={
            label: [
                count - earlier
                for count, earlier in zip(
                    counts, before.scores.get(label, [0] * len(counts)), strict=True
                )
            ]
            for label, counts in now.scores.items()
        },
    )


def stability_index(expected: Sequence[int], found: Sequence[int]) -> float:
    """Population stability index of two histograms, 0 where they have the same shape.

    The sum over bins of (q - p) ln(q / p), which is the Kullback-Leibler divergence in both
    directions (J. Lin, "Divergence measures based on the Shannon entropy", 1991, calls it J). Half
    a count is added to each bin, so that an empty one is rare and not impossible.
    """
    n_expected, n_found = sum(expected) + len(expected) / 2, sum(found) + len(found) / 2
    index = 0.0
    for one, other in zip(expected, found, strict=True):
        p, q = (one + 0.5) / n_expected, (other + 0.5) / n_found
        index += (q - p) * math.log(q / p)
    return index


def score_shift(old: Tally, new: Tally) -> float | None:
    """Mean stability index of the labels that both know; None where there are none."""
    common = [
        label for label in old.scores if sum(old.scores[label]) and sum(new.scores.get(label, ()))
    ]
    if not common:
        return None
    return sum(stability_index(old.scores[one], new.scores[one]) for one in common) / len(common)


def rate_differs(
    n_old: int, old_s: float, n_new: int, new_s: float, ratio: float, chance: float = _CHANCE
) -> str:
    """Why the new rate of events is surely beyond `ratio` times the old one or below a part of it.

    Given both counts' sum, the new one is binomial where both are Poisson (J. Przyborowski and H.
    Wilenski, 1940). Empty where it is not beyond doubt: no events, no doubt is overcome.
    """
    total = n_old + n_new
    if not total or old_s <= 0.0 or new_s <= 0.0:
        return ""
    exposure = new_s / old_s
    most = ratio * exposure / (1.0 + ratio * exposure)
    least = exposure / (ratio + exposure)
    # P(X >= n_new) and P(X <= n_new); bdtrc(k, n, p) is P(X > k).
    above = 1.0 if n_new == 0 else float(scipy.special.bdtrc(n_new - 1, total, most))
    below = float(scipy.special.bdtr(n_new, total, least))
    hours = (f"{n_new / new_s * 3600:.1f}", f"{n_old / old_s * 3600:.1f}")
    if above < chance:
        return f"reports {hours[0]} events an hour, the old model {hours[1]}: far too many"
    if below < chance:
        return f"reports {hours[0]} events an hour, the old model {hours[1]}: far too few"
    return ""


def _wilson(share: float, number: float) -> tuple[float, float]:
    """Bounds on a share that was seen in so many trials (E. B. Wilson, 1927)."""
    z2 = _Z * _Z
    centre = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = (
        _Z
        * math.sqrt(share * (1 - share) / number + z2 / (4 * number * number))
        / (1 + z2 / number)
    )
    return max(0.0, centre - half), min(1.0, centre + half)
