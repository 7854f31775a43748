"""Scores to events: smoothing, hysteresis, minimum duration and gap, cadence. Pure.

Each label goes its own way. Its scores are smoothed over the last windows; an event begins where
the smoothed score reaches the onset threshold, reaches back to where it rose above the lower
release threshold, and lasts until it has been below release for the minimum gap. What is shorter
than the minimum duration is never reported. A label with a cadence (T3, T4) is different: high
scores only make it a candidate, and its event begins when `CadenceCheck` has seen groups of
pulses, and ends when no further group comes.

Positions are samples of the stream. A smoothed score stands for the hop around the middle of the
windows that it was smoothed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

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
from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]

# A long event is reported again this often, with its highest score since the last report: proof
# that it goes on, at a rate that no broker minds.
UPDATE_INTERVAL_S = 10.0


@dataclass(frozen=True)
class ClassSettings:
    """How one label's scores become events.

    onset, release : thresholds on the smoothed score, 0 to 1, release not above onset
    smoothing : centre of the last `smoothing_windows` scores (fewer after a gap); on frames, of
        as many frames around each
    min_duration_s : shorter events are not reported
    min_gap_s : events closer than this are one; an event's end is known this much later
    cadence : temporal pattern that must be confirmed, or None
    """

    label: str
    onset: float = 0.5
    release: float = 0.3
    smoothing: Literal["median", "mean", "none"] = "mean"
    smoothing_windows: int = 3
    min_duration_s: float = 0.0
    min_gap_s: float = 1.0
    cadence: Literal["T3", "T4"] | None = None

    def __post_init__(self) -> None:
        def refuse(name: str, found: object, expected: str) -> None:
            raise InputError(
                f"settings of class {self.label!r}: {name} is {found!r}, expected {expected}"
            )

        if not 0.0 < self.onset <= 1.0:
            refuse("onset", self.onset, "a score above 0 and up to 1")
        if not 0.0 < self.release <= self.onset:
            refuse("release", self.release, f"above 0 and not above onset ({self.onset})")
        if self.smoothing not in ("median", "mean", "none"):
            refuse("smoothing", self.smoothing, "median, mean or none")
        if not 1 <= self.smoothing_windows <= 100:
            refuse("smoothing_windows", self.smoothing_windows, "1 to 100")
        if not 0.0 <= self.min_duration_s <= 3_600.0:
            refuse("min_duration_s", self.min_duration_s, "0 to 3600 s")
        if not 0.0 <= self.min_gap_s <= 3_600.0:
            refuse("min_gap_s", self.min_gap_s, "0 to 3600 s")
        if self.cadence is not None and self.cadence not in TEMPORAL_PATTERNS:
            refuse("cadence", self.cadence, f"one of {', '.join(TEMPORAL_PATTERNS)} or none")


@dataclass(frozen=True)
class Detection:
    """One phase of an event.

    phase : "start" once, "update" every `UPDATE_INTERVAL_S` while it lasts, "end" once
    score : smoothed; at the start the highest so far, at an update the highest since the last
        report, at the end the highest of all
    threshold : the label's onset threshold
    onset_sample, offset_sample : first sample and the one after the last; no offset before the end
    window_end_sample : sample after the window, or the last frame, that decided this
    """

    label: str
    phase: Literal["start", "update", "end"]
    score: float
    threshold: float
    onset_sample: int
    offset_sample: int | None
    window_end_sample: int


@dataclass
class OpenEvent:
    """An event that lasts, reported or not yet."""

    onset: int
    offset: int
    score: float
    reported: bool = False
    reported_at: int = 0
    score_since: float = 0.0

    def extend(self, offset: int, score: float) -> None:
        """Go on up to offset with this score."""
        self.offset = max(self.offset, offset)
        self.add(score)

    def add(self, score: float) -> None:
        """Take a score into account."""
        self.score = max(self.score, score)
        self.score_since = max(self.score_since, score)


@dataclass(frozen=True)
class Handed:
    """What the detector of one model leaves to that of the next one, of one label.

    event : that is open, reported or not yet
    rise : since when the score has been at release or above; None: it is below
    settled : up to where the label is decided
    """

    event: OpenEvent | None
    rise: int | None
    settled: int

    def at_rate(self, ratio: float) -> Handed:
        """The same with positions at another rate, that many times this one."""
        if ratio == 1.0:
            return self

        def scaled(sample: int) -> int:
            return round(sample * ratio)

        event = self.event
        if event is not None:
            event = replace(
                event,
                onset=scaled(event.onset),
                offset=scaled(event.offset),
                reported_at=scaled(event.reported_at),
            )
        return Handed(event, None if self.rise is None else scaled(self.rise), scaled(self.settled))


class Leaving(Protocol):
    """A detector whose model is about to be another."""

    @property
    def classes(self) -> Sequence[ClassSettings]:
        """Settings of its labels."""

    def hand_over(self, label: str) -> tuple[list[Detection], Handed]:
        """Decide what waits for more, and leave the rest to the next detector."""

    def end(self, label: str) -> list[Detection]:
        """Decide what waits for more, and end the label's event."""


class EventDetector:
    """Turns the scores of consecutive windows into detections.

    Parameters
    ----------
    classes : one per label, in the order of the scores
    window, hop : samples of a window and between the starts of two
    rate_hz : of the stream that samples count
    frame_hop, frame_window : samples between log-mel frames and of one frame

    Deterministic: the same updates give the same detections. Raises InputError for settings that
    make no sense together.
    """

    def __init__(
        self,
        classes: Sequence[ClassSettings],
        window: int,
        hop: int,
        rate_hz: int,
        *,
        frame_hop: int = 160,
        frame_window: int = 400,
    ) -> None:
        if hop <= 0 or window < hop:
            raise InputError(f"detector: window {window}, hop {hop}: expected 0 < hop <= window")
        labels = [settings.label for settings in classes]
        if len(set(labels)) != len(labels):
            raise InputError("detector: a label has settings twice")
        self.classes = tuple(classes)
        self._window = window
        self._hop = hop
        self._tracks: list[_ScoreTrack | _CadenceTrack] = []
        self._frames: _FramePositions | None = None
        self._frames_of = (frame_hop, frame_window)
        self._rate_hz = rate_hz
        self._tracks += [self._track(settings) for settings in self.classes]
        self._expected: int | None = None

    def _track(self, settings: ClassSettings) -> _ScoreTrack | _CadenceTrack:
        if settings.cadence is None:
            return _ScoreTrack(settings, self._window, self._hop, self._rate_hz)
        if self._frames is None:
            self._frames = _FramePositions(self._window, *self._frames_of)
        return _CadenceTrack(settings, self._window, self._hop, self._rate_hz, self._frames)

    def set_classes(self, classes: Sequence[ClassSettings]) -> list[Detection]:
        """Go on with other settings of the same labels, between two windows.

        A label whose settings change begins afresh; the end of its open event is returned. The
        others notice nothing. Raises InputError where the labels are not the same.
        """
        if [new.label for new in classes] != [old.label for old in self.classes]:
            raise InputError("detector: other settings must be of the same labels, in their order")
        found: list[Detection] = []
        for index, (old, new) in enumerate(zip(self.classes, classes, strict=True)):
            if new != old:
                found += self._tracks[index].flush()
                self._tracks[index] = self._track(new)
        self.classes = tuple(classes)
        return found

    def take_over(
        self, old: Leaving, first_sample: int, ratio: float, *, aligned: bool
    ) -> list[Detection]:
        """Go on where the detector of another model stops.

        An event of a label that both know stays open, and what comes decides how it goes on. What
        the old detector was unsure of is decided; ends of the other labels' events are returned.

        Parameters
        ----------
        first_sample : of the window that comes next
        ratio : of the rate of positions here to that of the old one's
        aligned : that window is the one that the old detector would have had next, of the same
            length, hop and front end
        """
        found: list[Detection] = []
        mine = {settings.label: index for index, settings in enumerate(self.classes)}
        kin = old if aligned and isinstance(old, EventDetector) else None
        if kin is not None and kin._frames is not None:
            self._frames = kin._frames
            self._tracks = [self._track(settings) for settings in self.classes]
        for place, before in enumerate(old.classes):
            index = mine.get(before.label)
            if index is None:
                found += old.end(before.label)
            elif kin is not None and before == self.classes[index]:
                self._tracks[index] = kin._tracks[place]
            else:
                more, handed = old.hand_over(before.label)
                found += more
                self._tracks[index].adopt(handed.at_rate(ratio))
        self._expected = first_sample
        return found

    def hand_over(self, label: str) -> tuple[list[Detection], Handed]:
        """Leave a label to the next detector."""
        return [], self._track_of(label).handed()

    def end(self, label: str) -> list[Detection]:
        """End a label's event."""
        return self._track_of(label).flush()

    def _track_of(self, label: str) -> _ScoreTrack | _CadenceTrack:
        return self._tracks[[known.label for known in self.classes].index(label)]

    def update(
        self, first_sample: int, scores: FloatArray, frames: FloatArray | None = None
    ) -> list[Detection]:
        """Add one window.

        Parameters
        ----------
        first_sample : position of the window; other than one hop after the last means that audio
            was lost: smoothing starts afresh, and events that lie too far back end
        scores : (n_labels,) 0 to 1
        frames : (n_frames, n_mels) log-mel frames up to the window's last: those since the previous
            window, or more; needed where a label has a cadence

        Returns
        -------
        list of Detection
            What this window decided, in the order of the labels; an end before a start.
        """
        if scores.shape != (len(self.classes),):
            raise ValueError(f"scores of shape {scores.shape}, expected ({len(self.classes)},)")
        found: list[Detection] = []
        if self._expected is not None and first_sample != self._expected:
            if first_sample < self._expected - self._hop:
                # The count went back: another stream.
                found += self.flush()
            for track in self._tracks:
                found += track.interrupt(first_sample)
        self._expected = first_sample + self._hop
        if self._frames is not None:
            if frames is None:
                raise ValueError("labels with a cadence need the window's log-mel frames")
            self._frames.push(first_sample, frames)
        for track, score in zip(self._tracks, scores.tolist(), strict=True):
            found += track.update(first_sample, score)
        return found

    def flush(self) -> list[Detection]:
        """End of the stream: ends every open event and forgets everything."""
        found = [detection for track in self._tracks for detection in track.flush()]
        if self._frames is not None:
            self._frames.clear()
        self._expected = None
        return found


class _FramePositions:
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
        self._next = None
        self.generation += 1

    def push(self, first_sample: int, frames: FloatArray) -> None:
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


class _ScoreTrack:
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
        found = self._end(self._event) if self._event is not None else []
        self._smoothed.clear()
        self._rise = self._earliest = None
        return found

    def _end(self, event: OpenEvent) -> list[Detection]:
        self._event = None
        if not event.reported:
            return []
        return self._reports.of(event, self._window_end, ended=True)


class _CadenceTrack:
    """A label whose events need a temporal pattern besides the score."""

    def __init__(
        self,
        settings: ClassSettings,
        window: int,
        hop: int,
        rate_hz: int,
        frames: _FramePositions,
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
