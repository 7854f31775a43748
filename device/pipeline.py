"""Blocks of sound to detections: what `run` does live and `replay` does to a file, one and same."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.device.audio import AudioBlock, Channel, StreamResampler, select_channel
from soundpost.device.bundle import AnyInterpreter, Bundle
from soundpost.device.detector import ClassSettings, Detection, EventDetector
from soundpost.device.features import FloatArray, LogMelStream
from soundpost.device.frame_detector import FrameDetector
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import Interpreter, sigmoid

# Frames that come out of the front end at once, at most: it holds no more than 64 back.
_MAX_GROUP = 50


@dataclass(frozen=True)
class ScoredWindow:
    """One window through the model.

    first_sample : of the window, at the front end's rate
    scores : (n_labels,) after the sigmoid, of frames the highest of the chunk; none, (0,), where
        the end of the stream closed events
    detections : what the detector made of it, in order
    seconds : compute time of features, model and detector since the last window
    """

    first_sample: int
    scores: FloatArray
    detections: tuple[Detection, ...]
    seconds: float


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
    bundle, interpreter, rate_hz, detector : as given and made
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
        manifest = bundle.manifest
        front_end = manifest.front_end
        self.bundle = bundle
        self.rate_hz = rate_hz
        self.interpreter = interpreter
        self._channel = channel
        self._n_frames = manifest.n_frames
        self._hop_frames = manifest.hop_samples // front_end.hop_length
        self._resampler = StreamResampler(rate_hz, front_end.sample_rate_hz)
        # A first window ends after n_frames, the next ones a hop later each: in groups of a divisor
        # of both, no window waits for a frame that it does not need.
        both = math.gcd(self._n_frames, self._hop_frames)
        group = max(n for n in range(1, _MAX_GROUP + 1) if both % n == 0)
        self._stream = LogMelStream(front_end, group)
        self._frames = np.zeros((0, front_end.n_mels), np.float32)
        self._first_frame = 0
        self._start = 0
        self._expected: int | None = None
        self._seconds = 0.0
        self.gaps = 0
        self.windows = 0
        self.samples = 0
        classes = classes if classes is not None else manifest.classes
        self.detector: EventDetector | FrameDetector
        self._model: _WindowModel | _FrameModel
        if isinstance(interpreter, FrameInterpreter):
            assert manifest.frames is not None
            self.detector = FrameDetector(classes, front_end, manifest.frames.look_ahead_frames)
            self._model = _FrameModel(interpreter, self.detector)
        else:
            self.detector = EventDetector(
                classes,
                manifest.window_samples,
                manifest.hop_samples,
                front_end.sample_rate_hz,
            )
            self._model = _WindowModel(interpreter, self.detector)

    def to_source_sample(self, sample: int) -> int:
        """Position at the source's rate of a position at the front end's rate."""
        front_end_rate = self.bundle.manifest.front_end.sample_rate_hz
        return round(sample * self.rate_hz / front_end_rate)

    @property
    def wanted(self) -> int:
        """Samples of the source that the next window still lacks, at least 1.

        What the resampler's filter holds back comes on top, a few hundredths of a second.
        """
        front_end = self.bundle.manifest.front_end
        n_there = len(self._frames) * front_end.hop_length + self._stream.n_held
        lacking = front_end.samples_of(self._n_frames) - n_there
        return max(1, math.ceil(lacking * self.rate_hz / front_end.sample_rate_hz))

    def push(self, block: AudioBlock) -> Iterator[ScoredWindow]:
        """Add a block; yield every window that it completes.

        A jump in the samples' numbers ends what was half heard: features, windows and smoothing
        start afresh after it, and positions keep counting the stream's own samples.
        """
        started = time.perf_counter()
        if block.first_sample != self._expected:
            self.gaps += self._expected is not None
            self._restart(block.first_sample)
        self._expected = block.first_sample + len(block.samples)
        self.samples += len(block.samples)
        mono = select_channel(block.samples, self._channel)
        yield from self._advance(self._resampler.push(mono), started)

    def finish(self) -> Iterator[ScoredWindow]:
        """End of the stream: windows of the resampler's rest, then the end of events still open."""
        yield from self._advance(self._resampler.flush(), time.perf_counter())
        if isinstance(self._model, _FrameModel):
            yield from self._last_chunk(self._model)
        ends = tuple(self.detector.flush())
        if ends:
            yield ScoredWindow(self._next_window, np.zeros(0, np.float32), ends, 0.0)

    @property
    def _next_window(self) -> int:
        return self._start + self._first_frame * self.bundle.manifest.front_end.hop_length

    def _restart(self, first_sample: int) -> None:
        rate = self.bundle.manifest.front_end.sample_rate_hz
        self._resampler = StreamResampler(self.rate_hz, rate)
        self._stream.reset()
        self._model.reset()
        self._frames = self._frames[:0]
        self._first_frame = 0
        self._start = round(first_sample * rate / self.rate_hz)

    def _last_chunk(self, model: _FrameModel) -> Iterator[ScoredWindow]:
        """Frames that fill no chunk any more: silence goes on after them, and is not judged."""
        started = time.perf_counter()
        front_end = self.bundle.manifest.front_end
        n_held = self._stream.n_held
        n_left = len(self._frames) + front_end.frames_of(n_held)
        if not n_left:
            return
        lacking = front_end.samples_of(self._n_frames - len(self._frames)) - n_held
        new = self._stream.push(np.zeros(max(0, lacking), np.float32))
        chunk = np.concatenate([self._frames, new])[: self._n_frames]
        chunk[n_left:] = front_end.clamp_low
        first = self._next_window
        scores, detections = model.hear(first, chunk, chunk, n_left)
        self.windows += 1
        yield ScoredWindow(first, scores, detections, time.perf_counter() - started)

    def _advance(self, samples: FloatArray, started: float) -> Iterator[ScoredWindow]:
        new = self._stream.push(samples)
        if len(new):
            self._frames = np.concatenate([self._frames, new])
        while len(self._frames) >= self._n_frames:
            # Frames that the detector has not seen: all at first, then one hop.
            fresh = (
                self._frames[self._n_frames - self._hop_frames : self._n_frames]
                if self._first_frame
                else self._frames[: self._n_frames]
            )
            first = self._next_window
            scores, detections = self._model.hear(first, self._frames[: self._n_frames], fresh)
            self._frames = self._frames[self._hop_frames :]
            self._first_frame += self._hop_frames
            self.windows += 1
            now = time.perf_counter()
            window = ScoredWindow(first, scores, detections, self._seconds + now - started)
            self._seconds, started = 0.0, now
            yield window
            started = time.perf_counter()
        self._seconds += time.perf_counter() - started


class _WindowModel:
    """Kind `window`: each patch is scored for itself."""

    def __init__(self, interpreter: Interpreter, detector: EventDetector) -> None:
        self._interpreter = interpreter
        self._detector = detector

    def reset(self) -> None:
        """There is nothing to forget."""

    def hear(
        self, first_sample: int, patch: FloatArray, fresh: FloatArray
    ) -> tuple[FloatArray, tuple[Detection, ...]]:
        scores = self._interpreter.run(patch).scores
        return scores, tuple(self._detector.update(first_sample, scores, fresh))


class _FrameModel:
    """Kind `frames`: chunk follows chunk, and the model's state goes along with them."""

    def __init__(self, interpreter: FrameInterpreter, detector: FrameDetector) -> None:
        self._interpreter = interpreter
        self._detector = detector
        self._state = interpreter.initial_state()

    def reset(self) -> None:
        """After a gap the model must not believe that one sound follows the other."""
        self._state = self._interpreter.initial_state()

    def hear(
        self, first_sample: int, chunk: FloatArray, _: FloatArray, n_frames: int | None = None
    ) -> tuple[FloatArray, tuple[Detection, ...]]:
        """Score a chunk; judge its first n_frames. A causal model's scores need no later ones."""
        outputs = self._interpreter.run(chunk, self._state)
        self._state = outputs.state
        scores = sigmoid(outputs.logits[:n_frames])
        detections = tuple(self._detector.update(first_sample, scores))
        highest: FloatArray = scores.max(axis=0)
        return highest, detections
