"""Frames against time: the grid's own arithmetic, and sound whose times are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.sed.frame_grid import frame_edges_s, frame_targets, frames_of_event
from soundpost.train.sed.scenes import Event

FRONT_END = FrontEnd()
N_FRAMES = 998


def test_edges_by_hand():
    """Window 25 ms, hop 10 ms: frame 0 is centred at 12.5 ms and covers 7.5 to 17.5 ms."""
    edges = frame_edges_s(FRONT_END, 3)
    np.testing.assert_allclose(edges, [0.0075, 0.0175, 0.0275, 0.0375])


@pytest.mark.parametrize(
    ("onset", "offset", "frames"),
    [
        (0.0, 10.0, (0, 998)),
        (0.0, 0.0225, (0, 1)),  # the centre of frame 1 is the offset, which is outside
        (0.0125, 0.0325, (0, 2)),  # the centre of frame 0 is the onset, which is inside
        (1.0, 2.0, (99, 199)),  # centres 1.0025 to 1.9925
        (1.0030, 1.0110, (99, 100)),  # between two centres: the frame of its middle
        (0.0, 0.004, (0, 0)),  # before the first frame
    ],
)
def test_frames_by_hand(onset, offset, frames):
    assert frames_of_event(Event("x", onset, offset), FRONT_END, N_FRAMES) == frames


@given(st.floats(0, 9.9), st.floats(0.0101, 5))
def test_frames_give_the_event_back_to_half_a_hop(onset, length):
    offset = min(onset + length, 10.0)
    first, stop = frames_of_event(Event("x", onset, offset), FRONT_END, N_FRAMES)
    edges = frame_edges_s(FRONT_END, N_FRAMES)
    if first == stop:
        assert offset < edges[0] + 0.005 or onset > edges[-1] - 0.005
    else:
        assert abs(edges[first] - max(onset, edges[0])) <= 0.005 + 1e-7
        assert abs(edges[stop] - min(offset, edges[-1])) <= 0.005 + 1e-7


@given(st.floats(0.01, 9.95), st.floats(1e-4, 0.0099))
def test_no_event_within_the_frames_is_lost(onset, length):
    """One shorter than a hop has one frame, at most half a hop from its middle."""
    first, stop = frames_of_event(Event("x", onset, onset + length), FRONT_END, N_FRAMES)
    assert stop == first + 1
    centre = frame_edges_s(FRONT_END, N_FRAMES)[first] + 0.005
    assert abs(centre - (onset + length / 2)) <= 0.005 + 1e-7


def test_targets_are_where_the_front_end_hears_the_sound():
    """A tone from 2.0 to 3.5 s: the frames above half its level are those of the target."""
    n = np.arange(160_000)
    sound = np.where((n >= 32_000) & (n < 56_000), np.sin(2 * np.pi * 1_000 * n / 16_000), 0)
    frames = log_mel(sound.astype(np.float32), FRONT_END)
    loud = np.exp(frames).max(axis=1)
    heard = np.flatnonzero(loud > loud.max() / 2)
    events = (Event("tone", 2.0, 3.5), Event("other", 4.0, 5.0))
    targets = frame_targets(events, ("other", "tone"), FRONT_END, len(frames))
    target = np.flatnonzero(targets[:, 1])
    assert abs(heard[0] - target[0]) <= 1
    assert abs(heard[-1] - target[-1]) <= 1
    assert targets[:, 0].sum() == 100
    assert targets.shape == (N_FRAMES, 2)
