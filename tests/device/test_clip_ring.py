"""The ring: what is read is what was pushed, sample by sample, and never across a gap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.clip_ring import FULL_SCALE, ClipRing


def sound(first: int, length: int, n_channels: int) -> np.ndarray:
    """Every sample tells its number and channel, exactly, in 16 bits."""
    numbers = (np.arange(first, first + length)[:, None] * 7 + np.arange(n_channels)) % 30_000
    return (numbers / FULL_SCALE).astype(np.float32)


def expected(first: int, length: int, n_channels: int) -> np.ndarray:
    return (
        (np.arange(first, first + length)[:, None] * 7 + np.arange(n_channels)) % 30_000
    ).astype(np.int16)


@given(
    blocks=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([0, 0, 0, 1, 17, 200])), min_size=1
    ),
    capacity=st.integers(1, 50),
    n_channels=st.integers(1, 3),
    begins=st.integers(0, 1_000),
    data=st.data(),
)
def test_any_cut_and_any_gap(blocks, capacity, n_channels, begins, data):
    ring = ClipRing(capacity, n_channels)
    at = run = begins
    for length, lost in blocks:
        if lost:
            at += lost
            run = at
        ring.push(at, sound(at, length, n_channels))
        at += length
    assert (ring.begin, ring.end) == (run, at)
    assert ring.first == max(run, at - capacity)
    first = data.draw(st.integers(ring.first, at))
    end = data.draw(st.integers(first, at))
    assert np.array_equal(ring.read(first, end), expected(first, end - first, n_channels))
    for outside in ((ring.first - 1, at), (ring.first, at + 1)):
        with pytest.raises(ValueError, match="are held"):
            ring.read(*outside)


def test_a_block_that_goes_back_is_a_gap():
    ring = ClipRing(100, 1)
    ring.push(0, sound(0, 50, 1))
    ring.push(20, sound(20, 10, 1))
    assert (ring.first, ring.begin, ring.end) == (20, 20, 30)


def test_beyond_full_scale_is_clipped_and_no_number_is_silence():
    ring = ClipRing(8, 1)
    values = np.array([1.0, -1.0, 2.0, -2.0, np.inf, -np.inf, np.nan, 0.5], np.float32)
    ring.push(0, values[:, None])
    full = FULL_SCALE
    assert ring.read(0, 8)[:, 0].tolist() == [full, -full, full, -full, full, -full, 0, 16_384]


def test_what_was_read_does_not_change_when_the_ring_goes_on():
    ring = ClipRing(10, 1)
    ring.push(0, sound(0, 10, 1))
    held = ring.read(2, 8)
    ring.push(10, sound(10, 10, 1))
    assert np.array_equal(held, expected(2, 6, 1))
