"""A day's places: never too many, shared as evenly as there are candidates, and by chance."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.feedback.fair_sample import FairSample


def offer(sample: FairSample, kept: dict[str, str], label: str, name: str) -> bool:
    """As the writer does: draw, then put; kept is label by id."""
    drawn = sample.draw(label)
    if not drawn.kept:
        sample.pass_over(label)
        return False
    if drawn.out is not None:
        sample.forget(drawn.out)
        del kept[drawn.out]
    sample.put(label, name)
    kept[name] = label
    return True


def shares(demand: dict[str, int], places: int) -> dict[str, int]:
    """Max-min fair shares by hand: one place to each in turn, to whoever still wants one."""
    got = dict.fromkeys(demand, 0)
    while places and any(got[label] < demand[label] for label in demand):
        for label in demand:
            if places and got[label] < demand[label]:
                got[label] += 1
                places -= 1
    return got


LABELS = st.lists(st.sampled_from("aaaabcd"), max_size=120)


@given(LABELS, st.integers(0, 12), st.integers(0, 99))
def test_places_are_never_exceeded_and_evenly_shared(
    labels: list[str], places: int, seed: int
) -> None:
    sample = FairSample(places, str(seed))
    kept: dict[str, str] = {}
    for number, label in enumerate(labels):
        offer(sample, kept, label, f"{label}{number}")
        assert len(kept) <= places
    wanted = shares(dict(Counter(labels)), places)
    found = Counter(kept.values())
    assert sum(found.values()) == sum(wanted.values())
    # Who came last may have the place that is one too few for all.
    assert all(abs(found[label] - wanted[label]) <= 1 for label in wanted)
    assert {label: sample.seen(label) for label in wanted} == Counter(labels)


@given(LABELS, st.integers(1, 8), st.integers(0, 120))
def test_a_restart_goes_on_with_the_places_that_there_are(
    labels: list[str], places: int, at: int
) -> None:
    sample = FairSample(places, "x")
    kept: dict[str, str] = {}
    for number, label in enumerate(labels):
        if number == at:
            by_label: dict[str, list[str]] = {}
            for name, known in kept.items():
                by_label.setdefault(known, []).append(name)
            seen = {known: sample.seen(known) for known in set(labels)}
            sample = FairSample(places, "x", by_label, seen)
        offer(sample, kept, label, f"{label}{number}")
        assert len(kept) <= places
    assert all(sample.seen(label) == n for label, n in Counter(labels).items())


@pytest.mark.parametrize("noise", [0, 200])
def test_each_candidate_of_a_label_has_the_same_chance(noise: int) -> None:
    """Of 40 dogs 5 are kept, or 4 beside a label that never ends: each as often as any other."""
    n, runs = 40, 2_000
    often: Counter[str] = Counter()
    for seed in range(runs):
        sample = FairSample(5 if not noise else 8, str(seed))
        kept: dict[str, str] = {}
        for number in range(n):
            for more in range(noise // n):
                offer(sample, kept, "fan", f"fan{number}-{more}")
            offer(sample, kept, "dog", f"{number}")
        dogs = [name for name, label in kept.items() if label == "dog"]
        assert len(dogs) == 5 if not noise else len(dogs) in (3, 4, 5)
        often.update(dogs)
    share = sum(often.values()) / (n * runs)
    # Chi-squared over 39 degrees of freedom: beyond 80 once in ten thousand.
    expected = share * runs
    spread = sum((often[str(number)] - expected) ** 2 for number in range(n)) / expected
    assert spread / (1 - share) < 80


def test_a_collected_example_keeps_its_place() -> None:
    sample = FairSample(2, "x")
    kept: dict[str, str] = {}
    assert offer(sample, kept, "dog", "1")
    assert offer(sample, kept, "dog", "2")
    for name in ("1", "2"):
        sample.forget(name, collected=True)
    assert sample.taken == {"dog": 2}
    assert not any(offer(sample, {}, "dog", f"more{n}") for n in range(50))
    # Nor after a restart; another label cannot take what a person already has.
    again = FairSample(2, "x", {}, {"dog": 52}, sample.taken)
    assert not any(offer(again, {}, "cat", f"cat{n}") for n in range(50))


def test_what_is_deleted_gives_its_place_back() -> None:
    sample = FairSample(1, "x")
    offer(sample, {}, "dog", "1")
    sample.forget("1")
    assert sample.draw("cat").kept


def test_the_same_seed_keeps_the_same() -> None:
    def run(seed: str) -> set[str]:
        sample, kept = FairSample(5, seed), {}
        for number in range(200):
            offer(sample, kept, "dog", str(number))
        return set(kept)

    assert run("a") == run("a") != run("b")
