"""Whose packets count, and how they are numbered and counted."""

from __future__ import annotations

import random

import pytest
from array_streams import SENDER, describe
from hypothesis import given
from hypothesis import strategies as st

from soundpost.firmware_bridge.rtp_packet import build_packet
from soundpost.firmware_bridge.stream_input import RESTART_S, StreamInput, StreamRestartedError

STREAM = describe([1], "L16").streams[0]


def packet(number: int, ssrc: int = 1, timestamp: int | None = None) -> bytes:
    place = 48 * number if timestamp is None else timestamp
    return build_packet(96, number, place, ssrc, bytes(96))


@given(
    st.integers(0, 65_535),
    st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 2)), max_size=300),
)
def test_losses_repeats_and_order_are_counted(
    start: int, fates: list[tuple[bool, int, int]]
) -> None:
    """Against a count of the numbers themselves, over the wrap-around at 65,536."""
    stream = StreamInput(STREAM, "test")
    for number in (0, 1):
        stream.take(packet(start + number), SENDER, 0.0)
    arrivals = []
    for number, (lost, late, again) in enumerate(fates, 2):
        if not lost:
            arrivals += [(number + late, number)] + [(number + late + 5, number)] * again
    order = [1] + [number for _, number in sorted(arrivals, key=lambda arrival: arrival[0])]
    taken = 1
    for number in order[1:]:
        taken += stream.take(packet(start + number), SENDER, 0.0) is not None
    counted = stream.count()
    numbers = set(order)
    assert counted.received == taken == len(numbers)
    assert counted.duplicates == len(order) - len(numbers)
    assert counted.lost == max(numbers) - min(numbers) + 1 - len(numbers)
    first_times = [number for at, number in enumerate(order) if number not in order[:at]]
    overtaken = sum(
        number < max(first_times[:at], default=number) for at, number in enumerate(first_times)
    )
    assert counted.reordered == overtaken


def test_numbers_that_begin_anew_are_no_loss() -> None:
    """RFC 3550, A.1: what is more than 3,000 away is not lost in between."""
    stream = StreamInput(STREAM, "test")
    for number in [*range(100), *range(30_000, 30_100), *range(50)]:
        stream.take(packet(number), SENDER, 0.0)
    counted = stream.count()
    assert (counted.received, counted.lost, counted.sequence_jumps) == (249, 0, 2)


def test_a_stream_belongs_to_the_first_who_sends_twice() -> None:
    stream = StreamInput(STREAM, "test")
    other = ("203.0.113.1", 9)
    assert stream.take(packet(5), SENDER, 0.0) is None
    assert stream.take(packet(500, ssrc=2), other, 0.0) is None
    assert stream.sender is None
    placed = stream.take(packet(6), SENDER, 0.0)
    assert placed is not None
    assert (placed.sequence, placed.timestamp, placed.n_samples) == (6, 288, 48)
    assert (stream.sender, stream.ssrc) == (SENDER, 1)
    assert stream.take(packet(501, ssrc=2), other, 0.0) is None
    assert stream.count().other_senders == 1


def test_senders_at_random_do_not_crowd_it_out() -> None:
    """A good packet among thirty of others, which are from everywhere, never two from one place."""
    stream, rng = StreamInput(STREAM, "test"), random.Random(1)
    for number in range(10):
        stream.take(packet(number), SENDER, 0.0)
        for _ in range(30):
            other = (f"203.0.113.{rng.randrange(256)}", rng.randrange(65_536))
            stream.take(packet(rng.randrange(65_536), rng.randrange(1 << 32)), other, 0.0)
    assert stream.sender == SENDER


@pytest.mark.parametrize("silent_s", [0.0, 0.9 * RESTART_S, 1.1 * RESTART_S])
def test_another_is_heard_only_after_silence(silent_s: float) -> None:
    stream = StreamInput(STREAM, "test")
    for number in range(10):
        stream.take(packet(number), SENDER, 0.0)
    restarted = ""
    try:
        for number in range(2):
            stream.take(packet(7_000 + number, ssrc=5), SENDER, silent_s)
    except StreamRestartedError as error:
        restarted = str(error)
    if silent_s < RESTART_S:
        assert restarted == ""
        assert stream.count().other_senders == 2
    else:
        assert restarted.startswith("test: its sender has begun anew (192.0.2.7 port 40000 was")


def test_a_packet_without_samples_keeps_the_stream_alive() -> None:
    """RFC 6263: so that a router forgets no stream that pauses."""
    stream = StreamInput(STREAM, "test")
    for number in range(3):
        stream.take(packet(number), SENDER, 0.0)
    empty = build_packet(96, 3, 144, 1, b"")
    assert stream.take(empty, SENDER, 5.0) is None
    assert stream.last_arrival_s == 5.0
    counted = stream.count()
    assert (counted.received, counted.malformed, counted.lost) == (3, 0, 0)
