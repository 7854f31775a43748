"""One label's way from scores to detections: by the score alone, or by a cadence after it."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.alarms import TEMPORAL_PATTERNS
from soundpost.device.cadence import (
    FRAMES_PER_STEP,
    HISTORY_S,
    CadenceCheck,
    CadenceMatch,
    FrameHistory,
    Group,
)
from soundpost.device.detection import (
    UPDATE_INTERVAL_S,
    ClassSettings,
    Detection,
    Handed,
    OpenEvent,
)

FloatArray = NDArray[np.float32]


class FramePositions:
    """The frame history that all cadence labels share, with the stream's positions."""

    def __init__(self, window: int, frame_hop: int, frame_window: int) -> None:
        self._window = window
        self._frame_hop = frame_hop
        self._frame_window = frame_window
        self._step = FRAMES_PER_STEP * frame_hop
        self._origin = 0
        self._next: int | None = None
        self.history: FrameHistory | None = None
        # Changes with every clear: who keeps step numbers compares it.
        self.generation = 0

    def clear(self) -> None:
        """The stream has a gap."""
        self._next = None
        self.generation += 1

    def push(self, first_sample: int, frames: FloatArray) -> None:
        """Take the frames of a window, those that are known already left out."""
        end = first_sample + self._window - self._frame_window + self._frame_hop
        start = end - len(frames) * self._frame_hop
        if self._next is not None and start < self._next <= end:
            frames = frames[(self._next - start) // self._frame_hop :]
            start = end - len(frames) * self._frame_hop
        if self.history is None:
            self.history = FrameHistory(frames.shape[1])
        if self._next != start:
            self.history.clear()
            self._origin = start
            self.generation += 1
        self._next = end
        self.history.push(frames)

    def to_sample(self, step: float) -> int:
        """Position of the edge between the middles of two steps."""
        middle = (self._frame_hop + self._frame_window) // 2
        return self._origin + round(step * self._step) + middle - self._step // 2

    def to_step(self, sample: int) -> float:
        """The inverse of `to_sample`."""
        return (sample - self.to_sample(0)) / self._step


class _Smoothed:
    """Causal smoothing; shorter after a gap, when fewer scores are at hand."""

    def __init__(self, settings: ClassSettings) -> None:
        self._kind = settings.smoothing
        n_windows = 1 if settings.smoothing == "none" else settings.smoothing_windows
        self._last: deque[float] = deque(maxlen=n_windows)

    def push(self, score: float) -> float:
        last = self._last
        last.append(score)
        if len(last) == 1:
            return score
        if self._kind == "mean":
            return sum(last) / len(last)
        ordered = sorted(last)
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])

    def clear(self) -> None:
        self._last.clear()

    @property
    def delay_windows(self) -> int:
        """Windows from the middle of a full smoothing span to its end, doubled."""
        return (self._last.maxlen or 1) - 1


class Reports:
    """Detections of one label's event."""

    def __init__(self, settings: ClassSettings, rate_hz: int) -> None:
        self._settings = settings
        self._update_samples = round(UPDATE_INTERVAL_S * rate_hz)

    def of(self, event: OpenEvent, window_end: int, *, ended: bool = False) -> list[Detection]:
        """What is due for an event that lasts long enough to be one."""
        found = []
        if not event.reported:
            event.reported = True
            event.reported_at = window_end
            found.append(self._detection(event, "start", event.score, window_end))
            event.score_since = 0.0
        elif not ended and window_end - event.reported_at >= self._update_samples:
            event.reported_at = window_end
            found.append(self._detection(event, "update", event.score_since, window_end))
            event.score_since = 0.0
        if ended:
            found.append(self._detection(event, "end", event.score, window_end))
        return found

    def _detection(
        self,
        event: OpenEvent,
        phase: Literal["start", "update", "end"],
        score: float,
        window_end: int,
    ) -> Detection:
        return Detection(
            label=self._settings.label,
            phase=phase,
            score=score,
            threshold=self._settings.onset,
            onset_sample=event.onset,
            offset_sample=event.offset if phase == "end" else None,
            window_end_sample=window_end,
        )


class ScoreTrack:
    """A label whose score alone makes its events."""

    def __init__(self, settings: ClassSettings, window: int, hop: int, rate_hz: int) -> None:
        self._settings = settings
        self._window = window
        self._hop = hop
        self._smoothed = _Smoothed(settings)
        self._reports = Reports(settings, rate_hz)
        self._min_duration = round(settings.min_duration_s * rate_hz)
        self._min_gap = round(settings.min_gap_s * rate_hz)
        self._delay = self._smoothed.delay_windows * hop // 2
        # Start of the stream or of what followed its last gap: no event reaches further back.
        self._earliest: int | None = None
        self._rise: int | None = None
        self._event: OpenEvent | None = None
        self._window_end = 0

    def update(self, first_sample: int, score: float) -> list[Detection]:
        """Take the score of the next window."""
        if self._earliest is None:
            self._earliest = first_sample
        self._window_end = first_sample + self._window
        smoothed = self._smoothed.push(score)
        begin = first_sample + (self._window - self._hop) // 2 - self._delay
        end = max(begin + self._hop, self._earliest)
        begin = max(begin, self._earliest)
        event = self._event
        if smoothed >= self._settings.release:
            if self._rise is None:
                self._rise = begin
            if event is not None:
                event.extend(end, smoothed)
            elif smoothed >= self._settings.onset:
                event = self._event = OpenEvent(self._rise, end, smoothed, score_since=smoothed)
        else:
            self._rise = None
            if event is not None:
                event.add(smoothed)
                if end - event.offset >= self._min_gap:
                    return self._end(event)
        if event is not None and event.offset - event.onset >= self._min_duration:
            return self._reports.of(event, self._window_end)
        return []

    def handed(self) -> Handed:
        """What the next model's track goes on with."""
        settled = self._window_end - self._window + (self._window + self._hop) // 2 - self._delay
        return Handed(self._event, self._rise, max(0, settled))

    def adopt(self, handed: Handed) -> None:
        """Go on with an event of another model's."""
        self._event, self._rise, self._earliest = handed.event, handed.rise, handed.settled

    def interrupt(self, first_sample: int) -> list[Detection]:
        """Audio before first_sample was lost."""
        self._smoothed.clear()
        self._rise = None
        self._earliest = first_sample
        event = self._event
        if event is not None and first_sample - event.offset >= max(self._min_gap, self._window):
            return self._end(event)
        return []

    def flush(self) -> list[Detection]:
        """The stream has ended."""
        found = self._end(self._event) if self._event is not None else []
        self._smoothed.clear()
        self._rise = self._earliest = None
        return found

    def _end(self, event: OpenEvent) -> list[Detection]:
        self._event = None
        if not event.reported:
            return []
        return self._reports.of(event, self._window_end, ended=True)


class CadenceTrack:
    """A label whose events need a temporal pattern besides the score."""

    def __init__(
        self,
        settings: ClassSettings,
        window: int,
        hop: int,
        rate_hz: int,
        frames: FramePositions,
    ) -> None:
        assert settings.cadence is not None
        self._settings = settings
        self._window = window
        self._frames = frames
        self._check = CadenceCheck(TEMPORAL_PATTERNS[settings.cadence])
        self._smoothed = _Smoothed(settings)
        self._reports = Reports(settings, rate_hz)
        self._delay = self._smoothed.delay_windows * hop
        self._min_duration = round(settings.min_duration_s * rate_hz)
        self._release = round(max(self._check.release_s, settings.min_gap_s) * rate_hz)
        self._lookback = round(HISTORY_S * rate_hz)
        # (first sample, sample after the last, score) of windows at or above release.
        self._heard: deque[tuple[int, int, float]] = deque()
        self._candidate_until = -1
        self._generation = -1
        self._event: OpenEvent | None = None
        # Of an event that another model's track began: how long the pattern is waited for.
        self._unseen_until: int | None = None
        self._last_start = 0
        self._last_band = 0
        self._last_correlation = 0.0
        self._previous_offset = -1
        self._window_end = 0

    def update(self, first_sample: int, score: float) -> list[Detection]:
        """Take the score of the next window."""
        self._window_end = window_end = first_sample + self._window
        smoothed = self._smoothed.push(score)
        if smoothed >= self._settings.release:
            # A high mean may come from the earlier ones of its windows.
            self._heard.append((first_sample - self._delay, window_end, smoothed))
        while self._heard and self._heard[0][1] < window_end - self._lookback:
            self._heard.popleft()
        if smoothed >= self._settings.onset:
            self._candidate_until = window_end + self._lookback
        event = self._event
        if event is None and window_end > self._candidate_until:
            return []
        if self._generation != self._frames.generation:
            self._generation = self._frames.generation
            self._check.reset()
        history = self._frames.history
        assert history is not None
        self._check.scan(history)
        if event is None:
            match = self._check.match(history)
            return self._begin(match) if match is not None else []
        event.add(smoothed)
        if self._unseen_until is not None:
            return self._recognise(event, history)
        start = self._frames.to_step(self._last_start)
        group = self._check.continuation(start, self._last_band, self._last_correlation)
        if group is not None:
            self._follow(group)
            event.offset = self._frames.to_sample(group.end)
        elif window_end - event.offset > self._release:
            return self._end(event)
        return self._reports.of(event, window_end)

    def handed(self) -> Handed:
        """What the next model's track goes on with."""
        return Handed(self._event, None, self._window_end - self._window)

    def adopt(self, handed: Handed) -> None:
        """Go on with an event of another model's, until the pattern is seen here too, or not."""
        self._event = handed.event
        if handed.event is not None:
            self._unseen_until = max(handed.settled, handed.event.offset) + self._lookback

    def interrupt(self, first_sample: int) -> list[Detection]:
        """Audio before first_sample was lost."""
        self._smoothed.clear()
        event = self._event
        if event is not None and first_sample - event.offset > self._release:
            return self._end(event)
        return []

    def flush(self) -> list[Detection]:
        """The stream has ended."""
        found = self._end(self._event) if self._event is not None else []
        self._smoothed.clear()
        self._heard.clear()
        self._candidate_until = -1
        self._previous_offset = -1
        return found

    def _begin(self, match: CadenceMatch) -> list[Detection]:
        onset = self._frames.to_sample(match.first.start)
        offset = self._frames.to_sample(match.last.end)
        first, second = self._score_of(match.first), self._score_of(match.last)
        # Both groups must be heard as the label: one at the onset threshold, the other at release.
        if min(first, second) == 0.0 or max(first, second) < self._settings.onset:
            return []
        # An unusually slow chain of groups must not begin inside the event before it.
        if onset <= self._previous_offset or offset - onset < self._min_duration:
            return []
        score = max(first, second)
        self._event = event = OpenEvent(onset, offset, score, score_since=score)
        self._follow(match.last)
        return self._reports.of(event, self._window_end)

    def _recognise(self, event: OpenEvent, history: FrameHistory) -> list[Detection]:
        """Look for the pattern of an event that was begun by another model's track."""
        assert self._unseen_until is not None
        match = self._check.match(history)
        if match is not None:
            self._unseen_until = None
            self._follow(match.last)
            event.offset = max(event.offset, self._frames.to_sample(match.last.end))
        elif self._window_end > self._unseen_until:
            return self._end(event)
        return self._reports.of(event, self._window_end)

    def _score_of(self, group: Group) -> float:
        start, end = self._frames.to_sample(group.start), self._frames.to_sample(group.end)
        return max(
            (score for begin, stop, score in self._heard if begin < end and stop > start),
            default=0.0,
        )

    def _follow(self, group: Group) -> None:
        self._last_start = self._frames.to_sample(group.start)
        self._last_band = group.band
        self._last_correlation = group.correlation

    def _end(self, event: OpenEvent) -> list[Detection]:
        self._event = self._unseen_until = None
        self._previous_offset = event.offset
        return self._reports.of(event, self._window_end, ended=True)
