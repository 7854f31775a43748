"""Frame scores to events: median filter, hysteresis, minimum duration and gap. Pure.

The published post-processing (Liang et al., liang2021, eq 7) filters the frames of a whole clip by
a centred median of a window of its own for each class, and shuts out classes that the clip's tag
denies. A sensor has no clip and cannot wait: there is no gate, and a median window holds at most
`look_ahead_frames` of the future. Around frame t it holds frames t - n // 2 up to
t + min((n - 1) // 2, look_ahead_frames), as far as the stream has them; n is the label's
`smoothing_windows`.

Each label is decided as soon as the frames of its own window are there, so that a label without
smoothing waits for nothing. What is decided depends on the scores alone, never on how they were
cut into chunks: the detector run over a whole recording at once says the same.

Frame i stands for one hop around the middle of its samples, `window` of them from i hop on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings, Detection, Handed, Leaving, OpenEvent
from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.device.manifest import check_frame_class
from soundpost.device.score_tracks import Reports

FloatArray = NDArray[np.float32]

# Windows of one pass whose places are kept in a table: a chunk has fewer.
_MOST_PLACES = 100


def median_span(settings: ClassSettings, look_ahead_frames: int) -> tuple[int, int]:
    """Frames before and after the one in the middle that its median holds."""
    n_frames = 1 if settings.smoothing == "none" else settings.smoothing_windows
    return n_frames // 2, min((n_frames - 1) // 2, look_ahead_frames)


class FrameDetector:
    """Turns the scores of consecutive frames into detections.

    Parameters
    ----------
    classes : one per label, in the order of the scores
    front_end : its rate, hop and window place the frames
    look_ahead_frames : of the future in a median window, at most

    Deterministic: the same frames give the same detections, in any cut. Raises InputError for
    settings that make no sense together, or ask for a mean or a cadence.
    """

    def __init__(
        self, classes: Sequence[ClassSettings], front_end: FrontEnd, look_ahead_frames: int
    ) -> None:
        if look_ahead_frames < 0:
            raise InputError(f"detector: look_ahead_frames {look_ahead_frames}: expected >= 0")
        labels = [settings.label for settings in classes]
        if len(set(labels)) != len(labels):
            raise InputError("detector: a label has settings twice")
        for settings in classes:
            check_frame_class(settings)
        self.classes = tuple(classes)
        self._front_end = front_end
        self._look_ahead = look_ahead_frames
        # Frames are counted from the last beginning or gap; _first_sample is where that was.
        self._first_sample: int | None = None
        self._n_frames = 0
        # The last frames, those from number _n_frames - len(_scores) on.
        self._scores: FloatArray = np.zeros((0, len(labels)), np.float32)
        self._tracks = [self._track(settings) for settings in classes]
        self._measure()

    def _track(self, settings: ClassSettings) -> _FrameTrack:
        track = _FrameTrack(settings, self._front_end, self._look_ahead)
        track.begin(self._first_sample or 0, self._n_frames)
        return track

    def _measure(self) -> None:
        """What depends on all labels' settings."""
        self._kept = max((track.behind + track.ahead for track in self._tracks), default=0)
        self._release = np.array([known.release for known in self.classes], np.float32)

    def set_classes(self, classes: Sequence[ClassSettings]) -> list[Detection]:
        """Go on with other settings of the same labels, between two chunks.

        A label whose settings change begins afresh with the next frame; the end of its open event
        is returned. The others notice nothing. Raises InputError where the labels are not the same
        or settings cannot be used.
        """
        if [new.label for new in classes] != [old.label for old in self.classes]:
            raise InputError("detector: other settings must be of the same labels, in their order")
        for settings in classes:
            check_frame_class(settings)
        found: list[Detection] = []
        for index, (old, new) in enumerate(zip(self.classes, classes, strict=True)):
            if new != old:
                found += self._catch_up(index, at_end=True)
                found += self._tracks[index].end()
                self._tracks[index] = self._track(new)
        self.classes = tuple(classes)
        self._measure()
        return found

    def take_over(
        self, old: Leaving, first_sample: int, ratio: float, *, aligned: bool
    ) -> list[Detection]:
        """Go on where the detector of another model stops; as `EventDetector.take_over`.

        first_sample : of the chunk that comes next
        """
        found: list[Detection] = []
        mine = {settings.label: index for index, settings in enumerate(self.classes)}
        kin = old if aligned and isinstance(old, FrameDetector) else None
        if kin is None:
            self._begin(first_sample)
        else:
            self._first_sample, self._n_frames = kin._first_sample, kin._n_frames
            self._scores = np.zeros((len(kin._scores), len(self.classes)), np.float32)
            self._tracks = [self._track(settings) for settings in self.classes]
        for place, before in enumerate(old.classes):
            index = mine.get(before.label)
            if index is None:
                found += old.end(before.label)
            elif kin is not None and before == self.classes[index]:
                self._scores[:, index] = kin._scores[:, place]
                self._tracks[index] = kin._tracks[place]
            else:
                more, handed = old.hand_over(before.label)
                found += more
                self._tracks[index].adopt(handed.at_rate(ratio))
        return found

    def hand_over(self, label: str) -> tuple[list[Detection], Handed]:
        """Decide a label's frames that wait for later ones, and leave it to the next detector."""
        index = [known.label for known in self.classes].index(label)
        found = self._catch_up(index, at_end=True)
        return found, self._tracks[index].handed()

    def end(self, label: str) -> list[Detection]:
        """Decide a label's frames that wait for later ones, and end its event."""
        index = [known.label for known in self.classes].index(label)
        return self._catch_up(index, at_end=True) + self._tracks[index].end()

    def update(self, first_sample: int, scores: FloatArray) -> list[Detection]:
        """Add frames.

        Parameters
        ----------
        first_sample : position of the first frame; other than one hop after the last one means that
            audio was lost: smoothing starts afresh, and events that lie too far back end
        scores : (n_frames, n_labels) 0 to 1

        Returns
        -------
        list of Detection
            What these frames decided, in the order in which single frames would have.
        """
        if scores.ndim != 2 or scores.shape[1] != len(self.classes):
            raise ValueError(f"scores {scores.shape}: expected (n_frames, {len(self.classes)})")
        found: list[Detection] = []
        hop = self._front_end.hop_length
        if self._first_sample is None:
            self._begin(first_sample)
        else:
            expected = self._first_sample + self._n_frames * hop
            if first_sample != expected:
                found += self._interrupt(first_sample, another=first_sample < expected - hop)
        self._scores = np.concatenate([self._scores, np.asarray(scores, np.float32)])
        self._n_frames += len(scores)
        found += self._decide()
        if len(self._scores) > self._kept:
            self._scores = self._scores[len(self._scores) - self._kept :]
        return found

    def flush(self) -> list[Detection]:
        """End of the stream: decides what waits for more, ends every event, forgets everything."""
        found: list[Detection] = []
        for index, track in enumerate(self._tracks):
            found += self._catch_up(index, at_end=True) + track.end()
        self._first_sample = None
        return found

    def _begin(self, first_sample: int) -> None:
        self._first_sample = first_sample
        self._n_frames = 0
        self._scores = self._scores[:0]
        for track in self._tracks:
            track.begin(first_sample)

    def _interrupt(self, first_sample: int, *, another: bool) -> list[Detection]:
        """Audio before first_sample was lost, or another stream began with it."""
        found: list[Detection] = []
        for index, track in enumerate(self._tracks):
            found += self._catch_up(index, at_end=True)
            if another or track.is_over(first_sample):
                found += track.end()
        self._begin(first_sample)
        return found

    def _decide(self) -> list[Detection]:
        if not len(self._scores):
            return []
        # While every score that a label's windows can hold is below release, so are their medians.
        loud = self._scores.max(axis=0) >= self._release
        found: list[Detection] = []
        for index, track in enumerate(self._tracks):
            if loud[index] or track.is_open:
                found += self._catch_up(index)
            else:
                track.skip(self._n_frames)
        found.sort(key=lambda detection: detection.window_end_sample)
        return found

    def _catch_up(self, index: int, *, at_end: bool = False) -> list[Detection]:
        """Decide a label's frames whose windows are there; at the end, all of them."""
        track = self._tracks[index]
        stop = self._n_frames if at_end else self._n_frames - track.ahead
        if track.next_frame >= stop:
            return []
        first_kept = self._n_frames - len(self._scores)
        smoothed = _medians(
            self._scores[:, index],
            track.next_frame - first_kept,
            stop - first_kept,
            track.first_frame - first_kept,
            track.behind,
            track.ahead,
        )
        return track.update(smoothed, self._n_frames)


def _medians(
    scores: FloatArray, start: int, stop: int, first: int, behind: int, ahead: int
) -> list[float]:
    """Medians around scores[start:stop]; windows end with the scores and begin at first or later.

    Parameters
    ----------
    scores : (n_frames,) of one label
    """
    if behind == ahead == 0:
        values: list[float] = scores[start:stop].tolist()
        return values
    low = min(max(start, first + behind), stop)
    high = max(low, min(stop, len(scores) - ahead))
    found = [_median(scores[max(first, t - behind, 0) : t + ahead + 1]) for t in range(start, low)]
    if high > low:
        found += _median(_windows(scores[low - behind : high + ahead], behind + ahead + 1)).tolist()
    found += [_median(scores[max(first, t - behind, 0) :]) for t in range(high, stop)]
    return list(map(float, found))


def _windows(values: FloatArray, width: int) -> FloatArray:
    """All windows (n - width + 1, width) of values (n,)."""
    n_windows = len(values) - width + 1
    # numpy's view costs more than all the rest of a chunk; a table for whole recordings is large.
    if n_windows > _MOST_PLACES:
        return sliding_window_view(values, width)
    return values[_places(n_windows, width)]


@lru_cache(maxsize=256)
def _places(n_windows: int, width: int) -> NDArray[np.intp]:
    return np.arange(n_windows)[:, None] + np.arange(width)


def _median(values: FloatArray) -> FloatArray:
    """Median along the last axis. numpy's own takes five times as long on so few values."""
    n = values.shape[-1]
    ordered = np.sort(values, axis=-1)
    upper = ordered[..., n // 2]
    if n % 2:
        middle: FloatArray = upper
        return middle
    mean = 0.5 * (ordered[..., n // 2 - 1].astype(np.float64) + upper)
    return np.asarray(mean, np.float32)


class _FrameTrack:
    """A label: how far its frames are decided, and the event that lasts."""

    def __init__(self, settings: ClassSettings, front_end: FrontEnd, look_ahead: int) -> None:
        rate_hz = front_end.sample_rate_hz
        self.behind, self.ahead = median_span(settings, look_ahead)
        self.first_frame = self.next_frame = 0
        self._settings = settings
        self._front_end = front_end
        self._reports = Reports(settings, rate_hz)
        self._min_duration = round(settings.min_duration_s * rate_hz)
        self._min_gap = round(settings.min_gap_s * rate_hz)
        self._rise: int | None = None
        self._event: OpenEvent | None = None
        self._first_sample = 0
        self._decided_at = 0

    @property
    def is_open(self) -> bool:
        return self._event is not None

    def begin(self, first_sample: int, frame: int = 0) -> None:
        """Go on with this frame and know of none before it; frame 0 is at first_sample."""
        self._first_sample = first_sample
        self.first_frame = self.next_frame = frame
        self._rise = None

    def skip(self, n_frames: int) -> None:
        """All of n_frames are below release, and so is what waits for more."""
        stop = n_frames - self.ahead
        if stop > self.next_frame:
            self.next_frame = stop
            self._rise = None

    def update(self, smoothed: Sequence[float], n_frames: int) -> list[Detection]:
        """Decide the next frames; n_frames are known."""
        hop, window = self._front_end.hop_length, self._front_end.window_length
        release, onset = self._settings.release, self._settings.onset
        begin = self._first_sample + self.next_frame * hop + (window - hop) // 2
        found: list[Detection] = []
        for frame, score in enumerate(smoothed, self.next_frame):
            last_heard = min(frame + self.ahead, n_frames - 1)
            self._decided_at = self._first_sample + last_heard * hop + window
            end = begin + hop
            event = self._event
            ended = False
            if score >= release:
                if self._rise is None:
                    self._rise = begin
                if event is not None:
                    event.extend(end, score)
                elif score >= onset:
                    event = self._event = OpenEvent(self._rise, end, score, score_since=score)
            else:
                self._rise = None
                if event is not None:
                    event.add(score)
                    ended = end - event.offset >= self._min_gap
            if ended:
                found += self.end()
            elif event is not None and event.offset - event.onset >= self._min_duration:
                found += self._reports.of(event, self._decided_at)
            begin = end
        self.next_frame += len(smoothed)
        return found

    def handed(self) -> Handed:
        """What the next model's track goes on with."""
        hop, window = self._front_end.hop_length, self._front_end.window_length
        settled = self._first_sample + self.next_frame * hop + (window - hop) // 2
        return Handed(self._event, self._rise, settled)

    def adopt(self, handed: Handed) -> None:
        """Go on with an event of another model's."""
        self._event, self._rise = handed.event, handed.rise

    def is_over(self, first_sample: int) -> bool:
        """Whether the open event lies too far before sound that follows a gap."""
        event = self._event
        return event is not None and first_sample - event.offset >= self._min_gap

    def end(self) -> list[Detection]:
        event, self._event, self._rise = self._event, None, None
        if event is None or not event.reported:
            return []
        return self._reports.of(event, self._decided_at, ended=True)


def detect_offline(
    scores: FloatArray,
    classes: Sequence[ClassSettings],
    front_end: FrontEnd,
    look_ahead_frames: int,
) -> list[Detection]:
    """What the sensor would report of a recording's frame scores (n_frames, n_labels)."""
    detector = FrameDetector(classes, front_end, look_ahead_frames)
    return detector.update(0, scores) + detector.flush()


def smooth(
    scores: FloatArray, classes: Sequence[ClassSettings], look_ahead_frames: int
) -> FloatArray:
    """What the detector compares with its thresholds: a recording's scores, filtered.

    Parameters
    ----------
    scores : (n_frames, n_labels)

    Returns
    -------
    Same shape
        Each frame's median over its label's window (see above), in which the recording's ends
        lack what lies beyond them.
    """
    filtered = scores.astype(np.float32)
    for index, settings in enumerate(classes):
        behind, ahead = median_span(settings, look_ahead_frames)
        if behind or ahead:
            filtered[:, index] = _medians(
                scores[:, index].astype(np.float32), 0, len(scores), 0, behind, ahead
            )
    return filtered
