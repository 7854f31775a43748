"""Blocks of sound to detections: what `run` does live and `replay` does to a file, one and same."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from soundpost.device.audio import AudioBlock, Channel, StreamResampler, select_channel
from soundpost.device.bundle import AnyInterpreter, Bundle
from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.detector import EventDetector
from soundpost.device.frame_detector import FrameDetector
from soundpost.device.recogniser import Recogniser, ScoredWindow

__all__ = ["Pipeline", "ScoredWindow"]


class Pipeline:
    """Channel choice, resampling, log-mel, windows or chunks, model and detector of one source.

    Parameters
    ----------
    bundle, interpreter : the model and what runs it
    classes : detector settings, one per label in the bundle's order (the bundle's own by default)
    rate_hz : of the blocks that will come
    channel : index, or "mix" for the mean of all

    Attributes
    ----------
    rate_hz : as given
    samples, gaps, windows : samples pushed, jumps in their numbers, windows scored
    """

    def __init__(
        self,
        bundle: Bundle,
        interpreter: AnyInterpreter,
        rate_hz: int,
        *,
        classes: Sequence[ClassSettings] | None = None,
        channel: Channel = "mix",
    ) -> None:
        self.rate_hz = rate_hz
        self._channel = channel
        classes = classes if classes is not None else bundle.manifest.classes
        self._recogniser = Recogniser(bundle, interpreter, classes)
        self._resampler = StreamResampler(rate_hz, self._recogniser.rate_hz)
        self._expected: int | None = None
        # Of the model that is to take over; its own resampler where its front end needs another.
        self._next: Recogniser | None = None
        self._next_resampler: StreamResampler | None = None
        self.gaps = 0
        self.windows = 0
        self.samples = 0

    @property
    def bundle(self) -> Bundle:
        """Of the model that has scored the last window."""
        return self._recogniser.bundle

    @property
    def interpreter(self) -> AnyInterpreter:
        """What runs that model."""
        return self._recogniser.interpreter

    @property
    def detector(self) -> EventDetector | FrameDetector:
        """What makes events of its scores."""
        return self._recogniser.detector

    @property
    def next_bundle(self) -> Bundle | None:
        """Of the model that is to take over."""
        return None if self._next is None else self._next.bundle

    def to_source_sample(self, sample: int) -> int:
        """Position at the source's rate of a position at the front end's rate."""
        return round(sample * self.rate_hz / self._recogniser.rate_hz)

    @property
    def wanted(self) -> int:
        """Samples of the source that the next window still lacks, at least 1.

        What the resampler's filter holds back comes on top, a few hundredths of a second.
        """
        recogniser = self._recogniser
        if self._next is not None and self._next.waits_for(recogniser):
            recogniser = self._next
        return max(1, math.ceil(recogniser.lacking * self.rate_hz / recogniser.rate_hz))

    def retune(
        self, bundle: Bundle, interpreter: AnyInterpreter, classes: Sequence[ClassSettings]
    ) -> list[Detection]:
        """Go on with another model, or with other detector settings of the same; between blocks.

        Another model hears along from the next block on, until its first window can follow the
        last one of the old: the hops around the middles of their windows tile the sound. An event
        whose label both know goes on; of the others `push` tells the end. Of a model that goes on,
        the ends of events whose settings have changed are returned.
        """
        if interpreter is self._recogniser.interpreter:
            self._next = self._next_resampler = None
            return self.detector.set_classes(classes)
        if self._next is not None and interpreter is self._next.interpreter:
            self._next.detector.set_classes(classes)
            return []
        self._next, self._next_resampler = Recogniser(bundle, interpreter, classes), None
        here = self._recogniser.heard_until
        if self._next.rate_hz != self._recogniser.rate_hz:
            self._next_resampler = StreamResampler(self.rate_hz, self._next.rate_hz)
            here = round((self._expected or 0) * self._next.rate_hz / self.rate_hz)
        self._next.begin_behind(self._recogniser, here)
        return []

    def beside(
        self, bundle: Bundle, interpreter: AnyInterpreter, classes: Sequence[ClassSettings]
    ) -> Pipeline:
        """A pipeline of its own for another model, which hears the same from the next block on.

        Its windows stand for sound that begins where that of a window here does: the same model
        would say the same.
        """
        made = Pipeline(bundle, interpreter, self.rate_hz, classes=classes, channel=self._channel)
        if self._expected is not None:
            made._expected = self._expected
            here = round(self._expected * made._recogniser.rate_hz / self.rate_hz)
            made._recogniser.begin_behind(self._recogniser, here)
        return made

    def push(self, block: AudioBlock) -> Iterator[ScoredWindow]:
        """Add a block; yield every window that it completes.

        A jump in the samples' numbers ends what was half heard: features, windows and smoothing
        start afresh after it, and positions keep counting the stream's own samples.
        """
        started_s = time.perf_counter()
        if block.first_sample != self._expected:
            self.gaps += self._expected is not None
            yield from self._restart(block.first_sample)
        self._expected = block.first_sample + len(block.samples)
        self.samples += len(block.samples)
        mono = select_channel(block.samples, self._channel)
        samples = self._resampler.push(mono)
        self._recogniser.hear(samples, started_s)
        if self._next is not None:
            resampler = self._next_resampler
            self._next.hear(samples if resampler is None else resampler.push(mono))
            yield from self._counted(self._next.follow(self._recogniser))
            if not self._next.follows(self._recogniser):
                return
            yield from self._take_over(self._next.take_over(self._recogniser))
        yield from self._counted(self._recogniser.score())

    def finish(self) -> Iterator[ScoredWindow]:
        """End of the stream: windows of the resampler's rest, then the end of events still open."""
        self._recogniser.hear(self._resampler.flush())
        yield from self._counted(self._recogniser.score())
        yield from self._counted(self._recogniser.finish())

    def _counted(self, windows: Iterator[ScoredWindow]) -> Iterator[ScoredWindow]:
        for window in windows:
            self.windows += len(window.scores) > 0
            yield window

    def _take_over(self, ends: Sequence[Detection]) -> Iterator[ScoredWindow]:
        """Tell the ends of events that the next model does not know, and go on with it."""
        assert self._next is not None
        if ends:
            nothing = np.zeros(0, np.float32)
            yield ScoredWindow(self._recogniser.next_window, nothing, tuple(ends), 0.0)
        self._recogniser, self._next = self._next, None
        self._resampler = self._next_resampler or self._resampler
        self._next_resampler = None

    def _restart(self, first_sample: int) -> Iterator[ScoredWindow]:
        if self._next is not None:
            begin = round(first_sample * self._next.rate_hz / self.rate_hz)
            yield from self._take_over(self._next.take_over_at_gap(self._recogniser, begin))
        recogniser = self._recogniser
        self._resampler = StreamResampler(self.rate_hz, recogniser.rate_hz)
        recogniser.restart(round(first_sample * recogniser.rate_hz / self.rate_hz))
