"""What a sensor would report of a recording's frame scores, and how late it would begin to."""

from __future__ import annotations

from collections.abc import Sequence

from soundpost.device.detector import ClassSettings, Detection
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.frame_detector import detect_offline
from soundpost.train.sed.scenes import Event

# An event that the detector places this much too early is still the one that it heard: the collar
# of the event-based measures.
_EARLY_S = 0.2


def device_events(
    scores: FloatArray,
    classes: Sequence[ClassSettings],
    front_end: FrontEnd,
    look_ahead_frames: int,
) -> tuple[Event, ...]:
    """Events of frame scores (n_frames, n_labels), as the sensor's own detector finds them."""
    rate_hz = front_end.sample_rate_hz
    return tuple(
        Event(found.label, found.onset_sample / rate_hz, found.offset_sample / rate_hz)
        for found in detect_offline(scores, classes, front_end, look_ahead_frames)
        if found.offset_sample is not None
    )


def known_at_s(detection: Detection, front_end: FrontEnd, chunk_frames: int) -> float:
    """Time in the recording at which a sensor knows of a detection: its chunk has been heard.

    What the sound card and the resampler hold back comes on top, up to 0.1 s.
    """
    last = (detection.window_end_sample - front_end.window_length) // front_end.hop_length
    heard = front_end.samples_of((last // chunk_frames + 1) * chunk_frames)
    return heard / front_end.sample_rate_hz


def start_delays_s(
    detections: Sequence[Detection],
    events: Sequence[Event],
    front_end: FrontEnd,
    chunk_frames: int,
) -> list[float]:
    """Seconds from the onset of each event that was heard to the first `start` of it.

    Parameters
    ----------
    detections : of one recording, as `detect_offline` gives them
    events : of the same recording, as labelled

    Returns
    -------
    list of float
        In the events' order; those that nothing started in are left out.
    """
    rate_hz = front_end.sample_rate_hz
    found = []
    for event in events:
        known_s = [
            known_at_s(detection, front_end, chunk_frames)
            for detection in detections
            if detection.phase == "start"
            and detection.label == event.label
            and event.onset_s - _EARLY_S <= detection.onset_sample / rate_hz < event.offset_s
        ]
        if known_s:
            found.append(min(known_s) - event.onset_s)
    return found
