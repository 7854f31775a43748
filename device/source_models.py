"""How the models of one source do: the one that runs, and one that hears along unreported."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import AnyInterpreter, Bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.features import FloatArray
from soundpost.device.pipeline import Pipeline
from soundpost.device.recogniser import ScoredWindow, span
from soundpost.device.updates.live_sensor import N_BINS, ShadowTally, Tally

logger = logging.getLogger(__name__)

# Health says for so long after the last one that a model's windows fail.
_FAULT_S = 60.0
# Sound that one model has scored waits for the other one so long beyond the length of their
# windows; then it is not compared. A model that scores nothing any more must not fill the memory.
_WAIT_S = 10.0


class ModelCounter:
    """Counts what one model makes of one source's sound."""

    def __init__(self, source: str, bundle: Bundle) -> None:
        self.bundle = bundle
        self._source = source
        self._labels = bundle.manifest.labels
        self._hop_s = bundle.manifest.hop_samples / bundle.manifest.front_end.sample_rate_hz
        self._windows = self._failed = 0
        self._compute_s = 0.0
        self._events: dict[str, int] = {}
        self._scores = np.zeros((len(self._labels), N_BINS), np.int64)
        self._rows = np.arange(len(self._labels))
        self._lowest = np.ones(len(self._labels), np.float32)
        self._highest = np.zeros(len(self._labels), np.float32)

    def count(self, window: ScoredWindow) -> None:
        """Count a window, and the events that it began."""
        for found in window.detections:
            if found.phase == "start":
                self._events[found.label] = self._events.get(found.label, 0) + 1
        if not len(window.scores):
            return
        self._windows += 1
        self._compute_s += window.processor_s
        if window.failure is not None:
            self._failed += 1
            return
        bins = np.minimum((window.scores * N_BINS).astype(np.intp), N_BINS - 1)
        self._scores[self._rows, bins] += 1
        np.minimum(self._lowest, window.scores, out=self._lowest)
        np.maximum(self._highest, window.scores, out=self._highest)

    def count_failure(self) -> None:
        """Count a window that could not even be scored."""
        self._windows += 1
        self._failed += 1

    def tally(self) -> Tally:
        """What was counted so far."""
        return Tally(
            self._source,
            heard_s=self._windows * self._hop_s,
            windows=self._windows,
            failed=self._failed,
            compute_s=self._compute_s,
            events=dict(self._events),
            scores=dict(zip(self._labels, map(tuple, self._scores.tolist()), strict=True)),
            spread=max(0.0, float((self._highest - self._lowest).max())),
        )


@dataclass(frozen=True)
class Difference:
    """One model hears a label where the other does not; at_s : second of the stream."""

    at_s: float
    label: str
    old_score: float
    new_score: float


@dataclass(frozen=True)
class _Span:
    """Sound that a window stands for, and the scores (n_labels,) of the labels that both know.

    heard, held : which of these are above onset, and above release
    failed : the model gave no usable score; the others say nothing
    """

    begin_s: float
    end_s: float
    scores: FloatArray
    heard: NDArray[np.bool_]
    held: NDArray[np.bool_]
    failed: bool


class Agreement:
    """Seconds in which two models said the same, by label that both know.

    Both hear a label where one is above its onset threshold and the other above its release: what
    lies near a threshold crosses it by chance, a moment apart.

    Windows of different length and hop are compared by the sound that they stand for. Sound for
    which either model has failed says nothing of the other one, and is left out.

    old, new : bundle and detector settings of each, which say from which score on a label is heard
    """

    def __init__(
        self,
        old: tuple[Bundle, Sequence[ClassSettings]],
        new: tuple[Bundle, Sequence[ClassSettings]],
    ) -> None:
        labels = old[0].manifest.labels
        self._labels = [label for label in new[0].manifest.labels if label in labels]
        self._bundles = old[0], new[0]
        self._places, self._onsets, self._releases = [], [], []
        for bundle, classes in (old, new):
            of_label = {known.label: known for known in classes}
            known = [of_label[label] for label in self._labels]
            self._places.append([bundle.manifest.labels.index(label) for label in self._labels])
            self._onsets.append(np.array([one.onset for one in known], np.float32))
            self._releases.append(np.array([one.release for one in known], np.float32))
        # Begin, end and what is heard, of windows that the other model has not come to yet.
        self._waiting: tuple[deque[_Span], deque[_Span]] = deque(), deque()
        # In the order of ShadowTally.agreement.
        self._seconds = np.zeros((len(self._labels), 4))
        manifests = [bundle.manifest for bundle in self._bundles]
        self._wait_s = _WAIT_S + max(
            known.window_samples / known.front_end.sample_rate_hz for known in manifests
        )

    def begin_stream(self) -> None:
        """Positions count from another beginning."""
        for spans in self._waiting:
            spans.clear()

    def add(self, which: int, window: ScoredWindow) -> list[Difference]:
        """Take a window of the old (0) or the new model (1); returns where both differ."""
        found: list[Difference] = []
        if not len(window.scores):
            return found
        begin, until = span(self._bundles[which], window)
        scores = window.scores[self._places[which]]
        above = scores >= self._onsets[which], scores >= self._releases[which]
        failed = window.failure is not None
        self._waiting[which].append(_Span(begin, until, scores, *above, failed))
        olds, news = self._waiting
        while olds and news:
            old, new = olds[0], news[0]
            begin, end = max(old.begin_s, new.begin_s), min(old.end_s, new.end_s)
            if end > begin and not (old.failed or new.failed):
                # Both, only the old, only the new, neither: 0 to 3.
                one = (old.heard & new.held) | (new.heard & old.held)
                column = np.where(one, 0, 3 - 2 * old.heard.astype(np.intp) - new.heard)
                self._seconds[np.arange(len(self._labels)), column] += end - begin
                for place in np.flatnonzero(old.heard != new.heard).tolist():
                    both = float(old.scores[place]), float(new.scores[place])
                    found.append(Difference((begin + end) / 2, self._labels[place], *both))
            for spans in (olds, news):
                if spans[0].end_s <= end:
                    spans.popleft()
        for spans in self._waiting:
            while spans and spans[0].end_s < until - self._wait_s:
                spans.popleft()
        return found

    def by_label(self) -> Mapping[str, tuple[float, float, float, float]]:
        """Seconds that both heard, only the old, only the new, neither."""
        found = {}
        for label, (both, only_old, only_new, neither) in zip(
            self._labels, self._seconds.tolist(), strict=True
        ):
            found[label] = (both, only_old, only_new, neither)
        return found


class Shadow:
    """A second model on the sound of one source; nothing of it is reported.

    Attributes
    ----------
    bundle, interpreter, classes : the model, what runs it, and its detector settings
    """

    def __init__(
        self,
        source: str,
        bundle: Bundle,
        interpreter: AnyInterpreter,
        classes: Sequence[ClassSettings],
    ) -> None:
        self._source = source
        self.bundle, self.interpreter, self.classes = bundle, interpreter, tuple(classes)
        self._new = ModelCounter(source, bundle)
        self._old: ModelCounter | None = None
        # Detector settings of the model that runs.
        self._old_classes: tuple[ClassSettings, ...] = ()
        self._agreement: Agreement | None = None
        self._pipeline: Pipeline | None = None
        self._broken = False
        # Not told yet.
        self.differences: list[Difference] = []

    def begin_stream(self) -> None:
        """What comes next is another stream."""
        self._pipeline = None
        if self._agreement is not None:
            self._agreement.begin_stream()

    def scored(
        self, window: ScoredWindow, bundle: Bundle, classes: Sequence[ClassSettings]
    ) -> None:
        """Learn what the model that runs made of the same sound."""
        if self._pipeline is None:
            # It has not heard this stream yet.
            return
        if self._old is None or not self._is_compared_with(bundle, classes):
            # Compared with another model, or with other settings of it, it begins anew.
            self._old, self._new = (
                ModelCounter(self._source, bundle),
                ModelCounter(self._source, self.bundle),
            )
            self._old_classes = tuple(classes)
            self._agreement = Agreement((bundle, classes), (self.bundle, self.classes))
        assert self._agreement is not None
        self._old.count(window)
        self.differences += self._agreement.add(0, window)

    def _is_compared_with(self, bundle: Bundle, classes: Sequence[ClassSettings]) -> bool:
        assert self._old is not None
        return self._old.bundle.sha256 == bundle.sha256 and self._old_classes == tuple(classes)

    def heard(self, block: AudioBlock, running: Pipeline) -> None:
        """Hear a block after the pipeline that runs; a fault of the model is counted."""
        try:
            if self._pipeline is None:
                # It begins with the next one.
                self._pipeline = running.beside(self.bundle, self.interpreter, self.classes)
                return
            for window in self._pipeline.push(block):
                self._new.count(window)
                if self._agreement is not None:
                    self.differences += self._agreement.add(1, window)
        except Exception:  # What is only tried must not end what runs.
            self._new.count_failure()
            if not self._broken:
                logger.exception("source %s: the model that is tried failed", self._source)
            self._broken = True

    def tally(self) -> ShadowTally:
        """What both made of it so far."""
        old = Tally(self._source) if self._old is None else self._old.tally()
        agreement = {} if self._agreement is None else self._agreement.by_label()
        return ShadowTally(old, self._new.tally(), agreement)


class SourceModels:
    """Counts for one source; `heard`, `scored` and `opened` are its thread's, the rest anyone's.

    on_difference : told in that thread where the model that runs and the tried one differ
    """

    def __init__(
        self,
        source: str,
        on_difference: Callable[[Difference], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._on_difference = on_difference
        self._clock = clock
        self._lock = threading.Lock()
        self._counter: ModelCounter | None = None
        self._shadow: Shadow | None = None
        self._failure: tuple[str, float] | None = None

    def opened(self) -> None:
        """A stream begins."""
        with self._lock:
            if self._shadow is not None:
                self._shadow.begin_stream()

    def scored(
        self, window: ScoredWindow, bundle: Bundle, classes: Sequence[ClassSettings]
    ) -> None:
        """Count a window of the model that runs."""
        with self._lock:
            if self._counter is None or self._counter.bundle.sha256 != bundle.sha256:
                self._counter, self._failure = ModelCounter(self._source, bundle), None
            self._counter.count(window)
            if window.failure is not None:
                about = f"{bundle.manifest.name} {bundle.manifest.version}: {window.failure}"
                self._failure = about, self._clock()
            if self._shadow is not None:
                self._shadow.scored(window, bundle, classes)

    def heard(self, block: AudioBlock, running: Pipeline) -> None:
        """Let the model that is tried hear a block, after the one that runs."""
        shadow = self._shadow
        if shadow is None:
            return
        with self._lock:
            shadow.heard(block, running)
            differences, shadow.differences = shadow.differences, []
        for difference in differences:
            self._on_difference(difference)

    def begin_shadow(
        self, bundle: Bundle, interpreter: AnyInterpreter, classes: Sequence[ClassSettings]
    ) -> None:
        """Let a second model hear what comes from now on."""
        shadow = Shadow(self._source, bundle, interpreter, classes)
        with self._lock:
            self._shadow = shadow

    def retune_shadow(self, classes: Sequence[ClassSettings]) -> None:
        """Let the second model go on with these detector settings.

        With others than before it begins anew: events that were decided otherwise do not compare.
        """
        with self._lock:
            shadow = self._shadow
            if shadow is not None and shadow.classes != tuple(classes):
                self._shadow = Shadow(self._source, shadow.bundle, shadow.interpreter, classes)

    @property
    def tried_with(self) -> AnyInterpreter | None:
        """What runs the second model; None while one alone hears."""
        with self._lock:
            return None if self._shadow is None else self._shadow.interpreter

    def end_shadow(self) -> None:
        """Let one model alone hear again."""
        with self._lock:
            self._shadow = None

    def shadow(self) -> ShadowTally | None:
        """What two models made of the same sound; None while one alone hears."""
        with self._lock:
            return None if self._shadow is None else self._shadow.tally()

    def tally(self) -> Tally:
        """Of the model that has scored the last window, since it began to."""
        with self._lock:
            return Tally(self._source) if self._counter is None else self._counter.tally()

    def tally_of(self, sha256: str) -> Tally | None:
        """Of this bundle; None where it is not the one that has scored the last window."""
        with self._lock:
            counter = self._counter
            return None if counter is None or counter.bundle.sha256 != sha256 else counter.tally()

    @property
    def scored_with(self) -> str | None:
        """sha256 of the bundle that the last window was scored with."""
        with self._lock:
            return None if self._counter is None else self._counter.bundle.sha256

    @property
    def fault(self) -> str | None:
        """Why the model that runs gives no usable scores, if it does not."""
        failure = self._failure
        if failure is None or self._clock() - failure[1] > _FAULT_S:
            return None
        return failure[0]
