"""A ring against a dictionary: any writes within its capacity, any reads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from array_streams import describe
from hypothesis import given
from hypothesis import strategies as st

from soundpost.firmware_bridge.rtp_packet import encode_samples
from soundpost.firmware_bridge.sample_ring import SampleRing

CAPACITY = 37


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 36), st.integers(1, 37)), max_size=4),
            st.integers(1, 37),
        ),
        max_size=30,
    )
)
def test_what_was_written_is_read_and_the_rest_is_missing(
    rounds: list[tuple[list[tuple[int, int]], int]],
) -> None:
    """In each round some stretches are written, ahead of the place that is read next."""
    ring = SampleRing(describe([2]).streams[0], CAPACITY)
    known: dict[int, tuple[int, int]] = {}
    place, value = 0, 0
    for writes, length in rounds:
        for ahead, wanted in writes:
            n_samples = min(wanted, CAPACITY - ahead)
            samples = np.arange(value + 1, value + 1 + 2 * n_samples).reshape(-1, 2)
            value += 2 * n_samples
            ring.write(place + ahead, encode_samples(samples, "L24"), n_samples)
            for offset, pair in enumerate(samples.tolist()):
                known[place + ahead + offset] = tuple(pair)
        span = range(place, place + length)
        lacks = [number not in known for number in span]
        assert ring.is_complete(place, place + length) == (not any(lacks))
        assert ring.is_empty(place, place + length) == all(lacks)
        assert ring.end == max(known, default=-1) + 1
        out = np.full((length, 2), np.nan, np.float32)
        missing = ring.read(place, out)
        expected = np.array([known.get(number, (0, 0)) for number in span])
        assert np.array_equal(out, expected / (1 << 23))
        told = [number for first, count in missing for number in range(first, first + count)]
        assert told == [number for number in span if number not in known]
        # Each stretch is told as one.
        assert all(sum(a) < b[0] for a, b in pairwise(missing))
        place += length
