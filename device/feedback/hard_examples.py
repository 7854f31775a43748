"""Which moments of a stream are hard for its model: scores in, candidates out. Pure.

Of a label's scores only a peak counts: every clear sound passes the threshold on its way up and
down, and that says nothing. A run of scores above the lower edge of the margin is an excursion; it
is uncertain where its peak does not leave the margin (uncertainty sampling; D. Lewis, W. Gale, "A
sequential algorithm for training text classifiers", SIGIR 1994, on the logit scale, on which a
threshold of 0.05 has two sides as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.alarms import TEMPORAL_PATTERNS
from soundpost.device.detection import ClassSettings
from soundpost.device.events import SoundEvent
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import ScoredWindow

Reason = Literal["uncertain", "short", "disagreement"]
# From the one that says least to the one that says most.
REASONS: Final[tuple[Reason, ...]] = ("uncertain", "short", "disagreement")

# A score that stays in the margin is an example every so often.
MAX_EXCURSION_S: Final = 10.0
# Labels with the highest scores that an example names.
_N_TOP: Final = 5
# Two groups and a part begin an alarm.
_GROUPS: Final = 2.5


@dataclass(frozen=True)
class Candidate:
    """A moment that might become an example.

    sample : its middle in the stream, at the source's rate
    score, threshold : 0 to 1, of the label; the onset threshold
    new_score : of the model in shadow, None without one
    top : labels with the highest scores then, highest first
    """

    sample: int
    label: str
    reason: Reason
    score: float
    threshold: float
    new_score: float | None = None
    top: tuple[str, ...] = ()


def logit(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 - p)), finite."""
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    found: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return found


class HardExamples:
    """Finds the candidates of one stream; used by the thread of its source.

    rate_hz : of the source
    duplicates : candidates that were left out because one of their label was just before
    """

    def __init__(
        self,
        settings: FeedbackSettings,
        rate_hz: int,
        manifest: Manifest,
        classes: Sequence[ClassSettings],
    ) -> None:
        self._settings = settings
        self._rate_hz = rate_hz
        self._apart = round(settings.apart_s * rate_hz)
        self._longest = round(MAX_EXCURSION_S * rate_hz)
        self._last: dict[str, int] = {}
        self.duplicates = 0
        self.use(manifest, classes)

    def use(self, manifest: Manifest, classes: Sequence[ClassSettings]) -> None:
        """Go by another bundle or other thresholds from now on."""
        self._classes = tuple(classes)
        self._by_label = {known.label: known for known in classes}
        self._to_source = self._rate_hz / manifest.front_end.sample_rate_hz
        self._half = manifest.window_samples / 2
        self._hop = round(manifest.hop_samples * self._to_source)
        self._onset = np.array([known.onset for known in classes], np.float64)
        self._forget()

    def _forget(self) -> None:
        n = len(self._classes)
        self._until: int | None = None
        self._active = np.zeros(n, bool)
        self._clear = np.zeros(n, bool)
        self._since = np.zeros(n, np.int64)
        self._peak = np.full(n, -np.inf)
        self._peak_at = np.zeros(n, np.int64)
        # All scores at the peak of each label.
        self._scores: list[NDArray[np.float64] | None] = [None] * n

    def scored(self, window: ScoredWindow) -> list[Candidate]:
        """Candidates whose peak is known with this window."""
        scores = np.asarray(window.scores, np.float64)
        if len(scores) != len(self._classes):
            # None at the end of a stream; others where a bundle is being exchanged.
            return []
        middle = round((window.first_sample + self._half) * self._to_source)
        if self._until is not None and abs(middle - self._until) > 2 * self._hop:
            self._forget()
        self._until = middle
        margin = self._settings.margin
        distance = logit(scores) - logit(self._onset)
        # No number is above nothing.
        above = distance >= -margin
        begins = above & ~self._active
        self._since[begins] = middle
        self._peak[begins] = -np.inf
        self._clear[begins] = False
        higher = above & (distance > self._peak)
        self._peak[higher], self._peak_at[higher] = distance[higher], middle
        for index in np.flatnonzero(higher):
            self._scores[index] = scores
        self._clear |= above & (distance > margin)
        over = self._active & ~above
        long = above & (middle - self._since >= self._longest)
        found = []
        for index in np.flatnonzero((over | long) & ~self._clear):
            at_peak = self._scores[index]
            assert at_peak is not None
            found += self._candidate(
                int(self._peak_at[index]), index, "uncertain", float(at_peak[index]), at_peak
            )
        self._since[long] = middle
        self._peak[long] = -np.inf
        self._active = above
        return found

    def ended(self, event: SoundEvent) -> list[Candidate]:
        """The candidate that an event is which was over so soon that it may have been none."""
        known = self._by_label.get(event.label)
        if event.offset is None or known is None or self._settings.short_s == 0:
            return []
        lasted_s = (event.offset - event.onset).total_seconds()
        limit_s = self._settings.short_s
        if known.cadence is not None:
            limit_s = _GROUPS * TEMPORAL_PATTERNS[known.cadence].period_s
        if lasted_s > limit_s:
            return []
        middle = event.sample + round(lasted_s * self._rate_hz / 2)
        index = self._classes.index(known)
        return self._candidate(middle, index, "short", event.score, None)

    def compared(self, sample: int, label: str, score: float, new_score: float) -> list[Candidate]:
        """The candidate that two models' disagreement is; see Observer.compared."""
        known = self._by_label.get(label)
        if not self._settings.shadow or known is None:
            return []
        index = self._classes.index(known)
        return self._candidate(sample, index, "disagreement", score, None, new_score)

    def _candidate(
        self,
        sample: int,
        index: int,
        reason: Reason,
        score: float,
        scores: NDArray[np.float64] | None,
        new_score: float | None = None,
    ) -> list[Candidate]:
        known = self._classes[index]
        last = self._last.get(known.label)
        if last is not None and abs(sample - last) < self._apart:
            self.duplicates += 1
            return []
        self._last[known.label] = sample
        top: tuple[str, ...] = (known.label,)
        if scores is not None:
            # A score that is no number stands last.
            order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")[:_N_TOP]
            top = tuple(self._classes[at].label for at in order)
        return [Candidate(sample, known.label, reason, score, known.onset, new_score, top)]
