"""Where a bundle's own labels say that someone speaks, whatever the speech detector says."""

from __future__ import annotations

from collections import deque

from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import ScoredWindow


class SpokenSpans:
    """Spans of one stream in which a label of speech reached its lower threshold.

    rate_hz : of the source, in whose samples spans are
    """

    def __init__(self, rate_hz: int, manifest: Manifest) -> None:
        self._rate_hz = rate_hz
        self._spans: deque[tuple[int, int]] = deque()
        self.use(manifest)

    def use(self, manifest: Manifest) -> None:
        """Take the labels of speech from this bundle from now on."""
        # Position and lower threshold of each.
        self._labels = [
            (at, known.release)
            for at, known in enumerate(manifest.classes)
            if known.label in manifest.speech_labels
        ]
        self._to_source = self._rate_hz / manifest.front_end.sample_rate_hz
        self._window = round(manifest.window_samples * self._to_source)

    def scored(self, window: ScoredWindow, oldest: int) -> None:
        """Learn of a window; spans that end before the sample `oldest` are forgotten."""
        if len(window.scores) and any(window.scores[at] >= low for at, low in self._labels):
            first = round(window.first_sample * self._to_source)
            self._spans.append((first, first + self._window))
        while self._spans and self._spans[0][1] < oldest:
            self._spans.popleft()

    def within(self, first: int, end: int) -> bool:
        """Whether anyone speaks in samples first to end."""
        return any(a < end and first < b for a, b in self._spans)
