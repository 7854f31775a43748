"""Whether the scores of a model that has proved itself are still what was usual for it.

A fleet's operator sees by it that a microphone has changed, a place has, or a model fits it less
and less. It is published and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from soundpost.device.updates.comparison import LEAST_WINDOWS, difference, merge, score_shift
from soundpost.device.updates.live_sensor import Tally

# What is compared with the usual: sound of this length, anew after each.
SPAN_S = 21_600.0
# Less sound says little about a place.
_LEAST_S = 600.0


class Drift:
    """Shift of the scores of one model, from its usual ones to the latest."""

    def __init__(self) -> None:
        self._sha256 = ""
        # By source, at the look before and where the span began; one that began since has no mark.
        self._seen: dict[str, Tally] = {}
        self._marks: dict[str, Tally] = {}
        self._last: float | None = None

    def update(self, sha256: str, tallies: Sequence[Tally], usual: Tally | None) -> float | None:
        """The latest shift, a population stability index; None: not known yet.

        Parameters
        ----------
        sha256, tallies : of the model that runs, by source, since it began to run there; a source
            may go, come, and begin again at nothing
        usual : of the same model, earlier; None: not known
        """
        if sha256 != self._sha256:
            self._sha256, self._seen, self._marks, self._last = sha256, {}, {}, None
        now = {tally.source: tally for tally in tallies}
        self._marks = {
            source: mark
            for source, mark in self._marks.items()
            if source in now and not _fell(now[source], self._seen[source])
        }
        self._seen = now
        if usual is None:
            return None
        recent = merge(
            [difference(tally, self._marks.get(source, Tally(""))) for source, tally in now.items()]
        )
        if recent.heard_s >= _LEAST_S and recent.windows >= LEAST_WINDOWS:
            shift = score_shift(usual, recent)
            self._last = None if shift is None else max(0.0, shift)
        if recent.heard_s >= SPAN_S:
            self._marks = now
        return self._last


def _fell(now: Tally, before: Tally) -> bool:
    """Whether a source has begun to count anew since: a count only rises."""
    left = difference(now, before)
    counts = (count for counts in left.scores.values() for count in counts)
    return left.heard_s < 0.0 or left.windows < 0 or any(count < 0 for count in counts)
