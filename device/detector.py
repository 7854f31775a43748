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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.device.detection import (
    ClassSettings,
    Detection,
    Handed,
    Leaving,
)
from soundpost.device.errors import InputError
from soundpost.device.score_tracks import CadenceTrack, FramePositions, ScoreTrack

FloatArray = NDArray[np.float32]


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
        self._tracks: list[ScoreTrack | CadenceTrack] = []
        self._frames: FramePositions | None = None
        self._frames_of = (frame_hop, frame_window)
        self._rate_hz = rate_hz
        self._tracks += [self._track(settings) for settings in self.classes]
        self._expected: int | None = None

    def _track(self, settings: ClassSettings) -> ScoreTrack | CadenceTrack:
        if settings.cadence is None:
            return ScoreTrack(settings, self._window, self._hop, self._rate_hz)
        if self._frames is None:
            self._frames = FramePositions(self._window, *self._frames_of)
        return CadenceTrack(settings, self._window, self._hop, self._rate_hz, self._frames)

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

    def _track_of(self, label: str) -> ScoreTrack | CadenceTrack:
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
