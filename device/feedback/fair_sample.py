"""A day's examples, shared among labels: no label fills the day, and within one all are equal.

Each label has a reservoir (J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 11, 1985,
algorithm R): of n candidates each is kept with the same chance, whenever it came. While the day has
room every candidate is kept. Then a label that has fewer than another takes a place of the one that
has most (max-min fairness), and among equals a candidate has a place of its own label or none.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """kept : whether the candidate has a place; out : id of the example that leaves it, if any."""

    kept: bool
    out: str | None = None


class FairSample:
    """The sample of one day. Pure, and the same for the same seed.

    Parameters
    ----------
    per_day : places
    ids : of the day's examples so far, by label
    seen : candidates of the day so far, by label; at least as many as there are examples
    taken : places by label whose examples are gone, collected by a person
    """

    def __init__(
        self,
        per_day: int,
        seed: str,
        ids: Mapping[str, Sequence[str]] | None = None,
        seen: Mapping[str, int] | None = None,
        taken: Mapping[str, int] | None = None,
    ) -> None:
        self._per_day = per_day
        self._ids = {label: list(some) for label, some in (ids or {}).items()}
        self._taken = Counter(taken or {})
        self._seen = Counter(seen or {})
        for label in {*self._ids, *self._taken}:
            self._seen[label] = max(self._seen[label], self._held(label))
        # Not the same numbers again after a restart.
        self._random = random.Random(f"{seed} {sum(self._seen.values())}")

    def _held(self, label: str) -> int:
        return len(self._ids.get(label, ())) + self._taken[label]

    def seen(self, label: str) -> int:
        """Candidates of this label so far."""
        return self._seen[label]

    def draw(self, label: str) -> Draw:
        """Whether a candidate of this label would have a place; nothing changes yet."""
        if self._per_day == 0:
            return Draw(False)
        labels = {*self._ids, *self._taken, label}
        if sum(self._held(known) for known in labels) < self._per_day:
            return Draw(True)
        most = max(self._held(known) for known in labels)
        own = self._held(label)
        if own < most - 1:
            donors = sorted(known for known in labels if self._held(known) == most)
            donors = [known for known in donors if self._ids.get(known)]
            if donors:
                return Draw(True, self._random.choice(self._ids[self._random.choice(donors)]))
        # Algorithm R: the n-th of them takes a random one of the places with chance places / n.
        place = self._random.randrange(self._seen[label] + 1)
        ids = self._ids.get(label, [])
        return Draw(True, ids[place]) if place < len(ids) else Draw(False)

    def pass_over(self, label: str) -> None:
        """Count a candidate that had no place."""
        self._seen[label] += 1

    def put(self, label: str, example_id: str) -> None:
        """Count a candidate that was kept; the one whose place it takes is forgotten before."""
        self._seen[label] += 1
        self._ids.setdefault(label, []).append(example_id)

    def forget(self, example_id: str, *, collected: bool = False) -> None:
        """An example is gone; one that a person has collected keeps its place of the day."""
        for label, ids in self._ids.items():
            if example_id in ids:
                ids.remove(example_id)
                self._taken[label] += collected
                return

    @property
    def taken(self) -> dict[str, int]:
        """Places by label whose examples were collected and are gone."""
        return {label: count for label, count in sorted(self._taken.items()) if count}
