"""Times of front-end frames, and events as targets on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.device.features import FloatArray, FrontEnd
from soundpost.train.sed.scenes import Event


def frame_edges_s(front_end: FrontEnd, n_frames: int) -> NDArray[np.float64]:
    """Bounds between frames: frame i stands for [edges[i], edges[i + 1]).

    Its window is centred at i * hop + window / 2, and it covers half a hop to either side.

    Returns
    -------
    (n_frames + 1,) seconds
    """
    first = (front_end.window_length - front_end.hop_length) / 2
    samples = first + np.arange(n_frames + 1) * front_end.hop_length
    return samples / front_end.sample_rate_hz


def frames_of_event(event: Event, front_end: FrontEnd, n_frames: int) -> tuple[int, int]:
    """(first, stop) of the frames whose centre lies in [onset, offset).

    An event between two centres gets the frame that its middle lies in; one outside the frames'
    span, before the first or after the last, gets none (first = stop).
    """
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    centre_s = front_end.window_length / 2 / front_end.sample_rate_hz
    # Times in tables are decimal and hops are not always: a centre at the onset belongs to it.
    first = math.ceil((event.onset_s - centre_s) / hop_s - 1e-6)
    stop = math.ceil((event.offset_s - centre_s) / hop_s - 1e-6)
    if first >= stop:
        middle_s = (event.onset_s + event.offset_s) / 2
        first = math.floor((middle_s - centre_s) / hop_s + 0.5)
        stop = first + 1
    first, stop = max(first, 0), min(stop, n_frames)
    return (first, stop) if first < stop else (0, 0)


def frame_targets(
    events: Sequence[Event], labels: Sequence[str], front_end: FrontEnd, n_frames: int
) -> FloatArray:
    """(n_frames, n_labels) float32: one where the label's event sounds, else zero."""
    targets = np.zeros((n_frames, len(labels)), np.float32)
    for event in events:
        first, stop = frames_of_event(event, front_end, n_frames)
        targets[first:stop, labels.index(event.label)] = 1.0
    return targets
