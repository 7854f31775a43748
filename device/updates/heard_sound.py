"""How much sound several sources have heard, which hear at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from soundpost.device.updates.live_sensor import Tally

# Between writes of how much was heard: an SD card is spared, and what was heard since is heard
# again after a crash.
SAVE_S = 60.0


class HeardSound:
    """Adds up what tallies have come to have heard from look to look.

    A source that is opened again, and a model that is heard with anew, count from 0.
    """

    def __init__(self) -> None:
        self._by_source: dict[str, float] = {}

    def more_s(self, tallies: Sequence[Tally]) -> float:
        """Seconds since the last look, of the source that has heard most since then."""
        most_s = 0.0
        for tally in tallies:
            before_s = self._by_source.get(tally.source, 0.0)
            if tally.heard_s < before_s:
                before_s = 0.0
            most_s = max(most_s, tally.heard_s - before_s)
            self._by_source[tally.source] = tally.heard_s
        return most_s


def poll_s(whole_s: float) -> float:
    """After how long to look again at how much of this time has been heard."""
    return min(10.0, max(0.05, whole_s / 50))
