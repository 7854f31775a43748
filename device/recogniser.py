"""Sound at the front end's rate to scored windows: log-mel, patches or chunks, model, detector."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.device.bundle import AnyInterpreter, Bundle
from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.detector import EventDetector
from soundpost.device.features import FloatArray, LogMelStream
from soundpost.device.frame_detector import FrameDetector
from soundpost.device.frame_interpreter import FrameInterpreter, State
from soundpost.device.interpreter import Interpreter, sigmoid

# Frames that come out of the front end at once, at most: it holds no more than 64 back.
_MAX_GROUP = 50
# What a model with a state hears before its scores count, where it takes over from another: the
# published streaming students forget how they began within a second.
_WARM_UP_S = 1.0


@dataclass(frozen=True)
class ScoredWindow:
    """One window through the model.

    first_sample : of the window, at the front end's rate
    scores : (n_labels,) after the sigmoid, of frames the highest of the chunk; none, (0,), where
        the end of the stream, or of a model, closed events
    detections : what the detector made of it, in order
    seconds : compute time of features, model and detector since the last window
    failure : why the model gave no usable score; the scores are then 0. None: it did
    processor_s : of `seconds`, what this thread had the processor for: a busy machine adds little
    """

    first_sample: int
    scores: FloatArray
    detections: tuple[Detection, ...]
    seconds: float
    failure: str | None = None
    processor_s: float = 0.0


class Recogniser:
    """One model on one stream, from any of its samples on.

    Parameters
    ----------
    bundle, interpreter : the model and what runs it
    classes : detector settings, one per label in the bundle's order
    first_sample : of its first window, at the front end's rate

    Attributes
    ----------
    windows : scored so far
    """

    def __init__(
        self,
        bundle: Bundle,
        interpreter: AnyInterpreter,
        classes: Sequence[ClassSettings],
        first_sample: int = 0,
    ) -> None:
        manifest = bundle.manifest
        front_end = manifest.front_end
        self.bundle = bundle
        self.interpreter = interpreter
        self.windows = 0
        self._n_frames = manifest.n_frames
        self._hop_frames = manifest.hop_samples // front_end.hop_length
        # A first window ends after n_frames, the next ones a hop later each: in groups of a divisor
        # of both, no window waits for a frame that it does not need.
        both = math.gcd(self._n_frames, self._hop_frames)
        group = max(n for n in range(1, _MAX_GROUP + 1) if both % n == 0)
        self._stream = LogMelStream(front_end, group)
        self._frames = np.zeros((0, front_end.n_mels), np.float32)
        self._seconds = self._processor_s = 0.0
        # Behind another recogniser: before which its windows end, and the first one here.
        self._limit = self._first = 0
        self.detector: EventDetector | FrameDetector
        self._model: _WindowModel | _FrameModel
        if isinstance(interpreter, FrameInterpreter):
            assert manifest.frames is not None
            self.detector = FrameDetector(classes, front_end, manifest.frames.look_ahead_frames)
            self._model = _FrameModel(interpreter, self.detector)
        else:
            self.detector = EventDetector(
                classes, manifest.window_samples, manifest.hop_samples, front_end.sample_rate_hz
            )
            self._model = _WindowModel(interpreter, self.detector)
        self.restart(first_sample)

    @property
    def rate_hz(self) -> int:
        """Of the front end."""
        return self.bundle.manifest.front_end.sample_rate_hz

    @property
    def next_window(self) -> int:
        """First sample of the next window."""
        return self._start + self._first_frame * self.bundle.manifest.front_end.hop_length

    @property
    def heard_until(self) -> int:
        """Sample after the last one that it was given."""
        front_end = self.bundle.manifest.front_end
        n_there = len(self._frames) * front_end.hop_length + self._stream.n_held
        return self.next_window + n_there - self._ahead

    @property
    def lacking(self) -> int:
        """Samples that the next window still lacks, at least 1."""
        front_end = self.bundle.manifest.front_end
        end = self.next_window + front_end.samples_of(self._n_frames)
        return max(1, end - self.heard_until)

    def restart(self, first_sample: int) -> None:
        """Forget what was half heard; the next window begins here."""
        self._stream.reset()
        self._model.reset()
        self._frames = self._frames[:0]
        self._first_frame = 0
        self._start = first_sample
        # Whether the detector has seen the frames of the window before the next one.
        self._seen = False
        # Samples that are still to come before the first that is of interest.
        self._ahead = 0

    def hear(self, samples: FloatArray, since_s: float | None = None) -> None:
        """Add sound (n_samples,) at the front end's rate.

        since_s : time of `perf_counter` at which the work on it began; now unless told
        """
        started = time.perf_counter() if since_s is None else since_s
        began = time.thread_time()
        if self._ahead:
            skipped = min(self._ahead, len(samples))
            self._ahead -= skipped
            samples = samples[skipped:]
        new = self._stream.push(samples)
        if len(new):
            self._frames = np.concatenate([self._frames, new])
        self._seconds += time.perf_counter() - started
        self._processor_s += time.thread_time() - began

    def score(self, before: int | None = None, *, judge: bool = True) -> Iterator[ScoredWindow]:
        """Every window that is complete.

        before : only those that begin before this sample
        judge : False: the model hears them, the detector does not
        """
        while len(self._frames) >= self._n_frames and (before is None or self.next_window < before):
            started = time.perf_counter()
            # Frames that the detector has not seen: all at first, then one hop.
            fresh = (
                self._frames[self._n_frames - self._hop_frames : self._n_frames]
                if self._seen
                else self._frames[: self._n_frames]
            )
            patch = self._frames[: self._n_frames]
            window = self._window(patch, fresh, self._n_frames, judge=judge, started=started)
            self._frames = self._frames[self._hop_frames :]
            self._first_frame += self._hop_frames
            yield window

    def finish(self) -> Iterator[ScoredWindow]:
        """End of the stream: frames that fill no chunk any more, then the end of open events."""
        if isinstance(self._model, _FrameModel):
            yield from self._last_chunk()
        ends = tuple(self.detector.flush())
        if ends:
            yield ScoredWindow(self.next_window, np.zeros(0, np.float32), ends, 0.0)

    def _window(
        self,
        patch: FloatArray,
        fresh: FloatArray,
        n_frames: int,
        *,
        judge: bool,
        started: float,
    ) -> ScoredWindow:
        first, began = self.next_window, time.thread_time()
        scores, failure = _scores_of(self._model, patch)
        detections: tuple[Detection, ...] = ()
        if judge:
            scores, detections = self._model.judge(first, scores, fresh, n_frames)
            self.windows += 1
            self._seen = True
        seconds = self._seconds + time.perf_counter() - started
        processor_s = self._processor_s + time.thread_time() - began
        self._seconds = self._processor_s = 0.0
        return ScoredWindow(first, scores, detections, seconds, failure, processor_s)

    def _last_chunk(self) -> Iterator[ScoredWindow]:
        """Silence goes on after them, and is not judged."""
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
        yield self._window(chunk, chunk, n_left, judge=True, started=started)

    def begin_behind(self, old: Recogniser, here: int) -> None:
        """Wait for the first window that can follow one of `old`.

        A model with a state that is not the old one's begins earlier, to warm up.

        here : the first sample that it will hear
        """
        ahead = 0
        if isinstance(self._model, _FrameModel) and not self._is_of_model(old):
            hop = self.bundle.manifest.hop_samples
            ahead = math.ceil(_WARM_UP_S * self.rate_hz / hop) * hop
        self._limit = old.next_window
        while (first := self._first_behind(old, self._limit)) < here + ahead:
            self._limit += old.bundle.manifest.hop_samples
        self.restart(first - ahead)
        self._ahead = first - ahead - here
        self._first = first

    def _first_behind(self, old: Recogniser, limit: int) -> int:
        """First sample of the window that goes on where those of `old` before a limit end."""
        settled = limit + _margin(old.bundle)
        return round(settled * self.rate_hz / old.rate_hz) - _margin(self.bundle)

    def follow(self, old: Recogniser) -> Iterator[ScoredWindow]:
        """Windows of the old model up to the first one here; `follows` tells when that is so."""
        yield from old.score(self._limit)
        for _ in self.score(self._first, judge=False):
            pass

    def follows(self, old: Recogniser) -> bool:
        """Whether the old model has scored its last window before the first one here."""
        return old.next_window >= self._limit and self.next_window >= self._first

    def waits_for(self, old: Recogniser) -> bool:
        """Whether the next window is one of its own: of its sound before the first, or that."""
        return old.next_window >= self._limit

    def take_over(self, old: Recogniser) -> list[Detection]:
        """Go on with the events that are open, and where it is the same model, with its state.

        What the old one was unsure of is decided now; the ends of events of labels that this one
        lacks are returned.
        """
        if old.windows == 0:
            return []
        aligned = _shape(self.bundle) == _shape(old.bundle) and (
            self.next_window == old.next_window
        )
        if aligned:
            self._seen = old._seen
            if self._is_of_model(old):
                self._model.state = old._model.state
        return self.detector.take_over(
            old.detector, self.next_window, self.rate_hz / old.rate_hz, aligned=aligned
        )

    def take_over_at_gap(self, old: Recogniser, first_sample: int) -> list[Detection]:
        """As `take_over`, where sound was lost; the first window begins here."""
        self.restart(self._first_behind(old, old.next_window))
        ends = self.take_over(old)
        self.restart(first_sample)
        return ends

    def _is_of_model(self, other: Recogniser) -> bool:
        ours, theirs = self.bundle.manifest.sha256, other.bundle.manifest.sha256
        return ours.get("model.tflite") == theirs.get("model.tflite")


def _margin(bundle: Bundle) -> int:
    """Samples of a window before the hop around its middle.

    A window stands for that hop: those of one model tile the sound, and so do those of the next
    one that goes on where they end.
    """
    manifest = bundle.manifest
    return (manifest.window_samples - manifest.hop_samples) // 2


def _shape(bundle: Bundle) -> tuple[object, ...]:
    """What two models share whose windows are of the same frames."""
    manifest = bundle.manifest
    look_ahead = None if manifest.frames is None else manifest.frames.look_ahead_frames
    return (
        manifest.kind,
        manifest.front_end,
        manifest.window_samples,
        manifest.hop_samples,
        look_ahead,
    )


def span(bundle: Bundle, window: ScoredWindow) -> tuple[float, float]:
    """Seconds of the stream that a window stands for: the hop around its middle."""
    manifest = bundle.manifest
    rate_hz = manifest.front_end.sample_rate_hz
    begin = window.first_sample + _margin(bundle)
    return begin / rate_hz, (begin + manifest.hop_samples) / rate_hz


class _WindowModel:
    """Kind `window`: each patch is scored for itself."""

    state: State = ()

    def __init__(self, interpreter: Interpreter, detector: EventDetector) -> None:
        self._interpreter = interpreter
        self._detector = detector

    def reset(self) -> None:
        """There is nothing to forget."""

    def scores(self, patch: FloatArray) -> FloatArray:
        return self._interpreter.run(patch).scores

    def judge(
        self, first_sample: int, scores: FloatArray, fresh: FloatArray, _: int
    ) -> tuple[FloatArray, tuple[Detection, ...]]:
        return scores, tuple(self._detector.update(first_sample, scores, fresh))

    def nothing(self) -> FloatArray:
        return np.zeros(self._interpreter.n_labels, np.float32)


class _FrameModel:
    """Kind `frames`: chunk follows chunk, and the model's state goes along with them."""

    def __init__(self, interpreter: FrameInterpreter, detector: FrameDetector) -> None:
        self._interpreter = interpreter
        self._detector = detector
        self.state: State = interpreter.initial_state()

    def reset(self) -> None:
        """After a gap the model must not believe that one sound follows the other."""
        self.state = self._interpreter.initial_state()

    def scores(self, chunk: FloatArray) -> FloatArray:
        outputs = self._interpreter.run(chunk, self.state)
        self.state = outputs.state
        return sigmoid(outputs.logits)

    def judge(
        self, first_sample: int, scores: FloatArray, _: FloatArray, n_frames: int
    ) -> tuple[FloatArray, tuple[Detection, ...]]:
        """Judge the first n_frames of a chunk. A causal model's scores need no later ones."""
        scores = scores[:n_frames]
        detections = tuple(self._detector.update(first_sample, scores))
        highest: FloatArray = scores.max(axis=0)
        return highest, detections

    def nothing(self) -> FloatArray:
        return np.zeros((self._interpreter.input_shape[0], self._interpreter.n_labels), np.float32)


def _scores_of(
    model: _WindowModel | _FrameModel, patch: FloatArray
) -> tuple[FloatArray, str | None]:
    """Scores of a patch or chunk; 0 and the reason where the model gives none that can be used.

    A model that fails must not take the sensor's other sources and its levels with it.
    """
    try:
        scores = model.scores(patch)
    except Exception as error:  # The runtime's: what a model makes it raise is not documented.
        failure = f"the model failed: {' '.join(str(error).split())[:160] or type(error).__name__}"
    else:
        if np.isfinite(scores).all():
            return scores, None
        failure = "the model gave scores that are no numbers"
    # A state that is spoilt would spoil all that follows.
    model.reset()
    return model.nothing(), failure
