"""Who watches a sensor: hard examples, metrics, the watchdog, `soundpost top`.

A watcher never changes what is heard or reported, and a fault in one never ends a source.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import SoundpostError
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.level_record import LevelRecord
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan

logger = logging.getLogger(__name__)


class Observer:
    """What can be watched; a watcher overrides what it needs.

    Each method is called in the thread of its source, between two blocks: it must return at once.
    """

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        """A source was opened; the samples of this stream count from 0."""

    def tuned(self, source: str, plan: SourcePlan) -> None:
        """The plan's bundle and thresholds are those of all windows from now on."""

    def heard(self, source: str, block: AudioBlock) -> None:
        """A block arrived, before it is scored."""

    def scored(self, source: str, window: ScoredWindow) -> None:
        """A window went through model and detector."""

    def compared(
        self, source: str, sample: int, label: str, score: float, new_score: float
    ) -> None:
        """Two models on the same sound disagree: one is above its onset threshold, one is not.

        sample : middle of the window, at the source's rate
        score, new_score : of the model that reports, and of the one that is tried beside it
        """

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        """An event was handed to the publisher.

        decided_s : monotonic time at which the window that decided it ended
        """

    def measured(self, level: LevelRecord) -> None:
        """The levels of an interval."""

    def health(self, health: Health) -> None:
        """The health of a source was published."""

    def lost(self, source: str, error: SoundpostError) -> None:
        """A source ended or could not be opened; it is tried again."""


def tell_all(observers: Iterable[Observer]) -> Observer:
    """One that tells several; a watcher that fails is told no more, and the log says why."""
    return _Several(observers)


class _Several(Observer):
    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def _tell(self, name: str, *values: object) -> None:
        for observer in tuple(self._observers):
            try:
                getattr(observer, name)(*values)
            except Exception:  # A watcher's fault must not end what it watches.
                logger.exception("%s failed and watches no more", type(observer).__name__)
                self._observers = [other for other in self._observers if other is not observer]

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        self._tell("opened", source, stream, rate_hz, n_channels)

    def tuned(self, source: str, plan: SourcePlan) -> None:
        self._tell("tuned", source, plan)

    def heard(self, source: str, block: AudioBlock) -> None:
        self._tell("heard", source, block)

    def scored(self, source: str, window: ScoredWindow) -> None:
        self._tell("scored", source, window)

    def compared(
        self, source: str, sample: int, label: str, score: float, new_score: float
    ) -> None:
        self._tell("compared", source, sample, label, score, new_score)

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        self._tell("reported", event, decided_s)

    def measured(self, level: LevelRecord) -> None:
        self._tell("measured", level)

    def health(self, health: Health) -> None:
        self._tell("health", health)

    def lost(self, source: str, error: SoundpostError) -> None:
        self._tell("lost", source, error)
