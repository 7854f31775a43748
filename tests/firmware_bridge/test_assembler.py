"""Whatever the network does: each sample is at its place, or marked as missing there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_streams import (
    RATE_HZ,
    SENDER,
    Packet,
    describe,
    heard,
    packets_of,
    reference,
    scale,
    started,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import soundpost.device
from soundpost.device.errors import CaptureError
from soundpost.device.gaps import GapLog, Missing
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.rtp_packet import Encoding, build_packet, encode_samples
from soundpost.firmware_bridge.stream_input import StreamRestartedError

# The fate of a packet: lost, so many places late, and how many later it comes again (0: never).
FATES = st.tuples(st.booleans(), st.integers(0, 20), st.sampled_from([0, 0, 0, 1, 9]))


def test_this_tree_is_tested() -> None:
    assert soundpost.device.__file__ is not None
    root = Path(__file__).resolve().parents[2]
    assert Path(soundpost.device.__file__).resolve().is_relative_to(root)


@settings(max_examples=100)
@given(
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    encoding=st.sampled_from(["L16", "L24"]),
    lengths=st.lists(st.integers(1, 48), min_size=1, max_size=5),
    sequence=st.sampled_from([0, 65_500, 65_535, 30_000]),
    clock=st.sampled_from([0, 2**32 - 100, 2**32 - 1_500, 2**31 - 700]),
    offsets=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    fates=st.lists(FATES, min_size=1, max_size=60),
    block=st.integers(7, 300),
    looks=st.integers(1, 40),
    within=st.booleans(),
)
def test_every_sample_is_at_its_place_or_marked(
    channels: list[int],
    encoding: Encoding,
    lengths: list[int],
    sequence: int,
    clock: int,
    offsets: list[int],
    fates: list[tuple[bool, int, int]],
    block: int,
    looks: int,
    within: bool,
) -> None:
    """For any order, losses and repeats, over both wrap-arounds, streams of random offsets.

    Within the window exactly the lost samples are marked; beyond it others may be, but never is a
    sample anywhere else than at its place.
    """
    offsets = offsets[: len(channels)]
    session = describe(channels, encoding, offsets)
    n_channels = session.n_channels
    samples = reference(3_000, n_channels, encoding)
    window = 21 * max(lengths) if within else 1
    streams = [
        packets_of(session, index, samples, lengths, sequence, clock + offset)
        for index, offset in enumerate(offsets)
    ]
    assembler, origins = started(
        session,
        [packet for packets in streams for packet in packets[:2]],
        window_s=window / RATE_HZ,
        block_s=block / RATE_HZ,
    )
    origin = streams[0][2].place
    assert origins == [(offset + clock + origin) % 2**32 for offset in offsets]
    arrivals: list[tuple[int, Packet]] = []
    came = np.zeros((len(samples) - origin, n_channels), bool)
    for packets, stream in zip(streams, session.streams, strict=True):
        columns = slice(stream.first_channel, stream.first_channel + stream.n_channels)
        for number, packet in enumerate(packets[2:]):
            lost, late, again = fates[(number + stream.first_channel) % len(fates)]
            if lost:
                continue
            arrivals.append((number + late, packet))
            if again:
                arrivals.append((number + late + again, packet))
            start = packet.place - origin
            came[start : start + packet.n_samples, columns] = True
    arrivals.sort(key=lambda arrival: arrival[0])
    blocks = []
    for number, (_, packet) in enumerate(arrivals):
        assembler.push(packet.index, packet.data, SENDER, 0.0)
        if number % looks == 0:
            blocks += assembler.ready(0.0)
    blocks += assembler.flush()
    found, there = heard(blocks, n_channels)
    end = len(found)
    wanted = scale(samples[origin:], encoding)[:end]
    assert np.array_equal(found, np.where(there, wanted, 0.0))
    # What lies behind the last that came is not yet known to be missing.
    assert not came[end:].any()
    counted = assembler.statistics()
    if within:
        assert np.array_equal(there, came[:end])
        assert counted.total.late == 0
    else:
        assert not (there & ~came[:end]).any()
    assert counted.missing_samples == (~there).sum()
    # The first packet of each sender only names it, and the second is the first that counts.
    n_streams = len(channels)
    assert counted.total.received + counted.total.duplicates == len(arrivals) + n_streams


def test_of_a_packet_that_is_late_in_part_the_rest_counts() -> None:
    session = describe([2])
    samples = reference(1_000, 2, "L24")
    packets = packets_of(session, 0, samples, [100])
    assembler, _ = started(session, packets[:2], block_s=50 / RATE_HZ, window_s=1 / RATE_HZ)
    for packet in packets[2:4]:
        assembler.push(0, packet.data, SENDER, 0.0)
    blocks = list(assembler.ready(0.0))
    # 200 samples are given out when the sender goes back by 50: of its next packet, which begins
    # with the 150th, 50 are too late. The one after it agrees that it has gone back.
    for number, first in ((4, 350), (5, 450)):
        payload = encode_samples(samples[first : first + 100], "L24")
        assembler.push(0, build_packet(96, number, first, 1, payload), SENDER, 0.0)
    blocks += assembler.flush()
    found, there = heard(blocks, 2)
    assert there.all()
    assert np.array_equal(found, scale(samples, "L24")[200:550])


@pytest.mark.parametrize("silent_s", [0.3, 1.7, 2.9])
def test_a_break_of_all_streams_is_a_jump_of_its_length(silent_s: float) -> None:
    offsets = [7, 2**32 - 9]
    session = describe([2, 2], "L16", offsets)
    samples = reference(RATE_HZ * 4, 4, "L16")
    streams = [
        packets_of(session, index, samples, [48], 65_000, offset)
        for index, offset in enumerate(offsets)
    ]
    assembler, _ = started(session, [packet for packets in streams for packet in packets[:2]])
    blocks = []
    resumes = 500 + round(silent_s * 1_000)
    for number in [*range(2, 500), *range(resumes, 3_900)]:
        for packets in streams:
            assembler.push(packets[0].index, packets[number].data, SENDER, number / 1_000)
        blocks += assembler.ready(number / 1_000)
    blocks += assembler.flush()
    found, there = heard(blocks, 4)
    missing = np.zeros(len(found), bool)
    missing[498 * 48 : (resumes - 2) * 48] = True
    assert np.array_equal(there, np.broadcast_to(~missing[:, None], there.shape))
    assert np.array_equal(found, np.where(there, scale(samples, "L16")[96 : 96 + len(found)], 0))
    log = GapLog()
    for block in blocks:
        log.add(block)
    lengths = sum(gap.length for gap in log.gaps if gap.first_channel == 0)
    assert lengths == round(silent_s * RATE_HZ)
    # The end of each block is heard when its packet has come, and no break moves that.
    for block in blocks:
        assert block.time_s == pytest.approx(
            (block.first_sample + len(block.samples)) / RATE_HZ + 0.001, abs=2e-3
        )


def test_sockets_that_are_read_one_after_the_other_lose_nothing() -> None:
    """The thread that reads them may be held up between two: what one has then is far ahead."""
    offsets = [3, 4]
    session = describe([1, 1], "L16", offsets)
    samples = reference(RATE_HZ, 2, "L16")
    streams = [
        packets_of(session, index, samples, [48], 0, offset) for index, offset in enumerate(offsets)
    ]
    assembler, _ = started(session, [packet for packets in streams for packet in packets[:2]])
    blocks, read, now = [], [2, 2], 0
    for number in range(40):
        now += 10
        head = assembler.head
        for index in range(2):
            # In every fourth round 80 ms pass between the two.
            now += 80 * (index == 1 and number % 4 == 0)
            for packet in streams[index][read[index] : now]:
                assembler.push(index, packet.data, SENDER, now / 1_000)
            read[index] = max(read[index], now)
        blocks += assembler.ready(now / 1_000, head)
    for packet in streams[0][read[0] : read[1]]:
        assembler.push(0, packet.data, SENDER, now / 1_000)
    blocks += assembler.flush()
    _, there = heard(blocks, 2)
    assert len(there) > 0.9 * RATE_HZ
    assert there.all()
    assert assembler.statistics().total.late == 0


@pytest.mark.parametrize(("pause_s", "whole"), [(0.1, True), (0.4, True), (0.6, False)])
def test_a_pause_of_the_sender_costs_only_what_is_out_of_order_for_long(
    pause_s: float, whole: bool
) -> None:
    """The packet that others have overtaken comes when its sender goes on."""
    session = describe([1], "L16")
    samples = reference(RATE_HZ, 1, "L16")
    packets = packets_of(session, 0, samples, [48])
    assembler, _ = started(session, packets[:2])
    order = [*packets[2:100], *packets[101:105], None, packets[100], *packets[105:]]
    blocks, now_s = [], 0.0
    for packet in order:
        for _ in range(round(pause_s * 1_000) if packet is None else 1):
            now_s += 0.001
            blocks += assembler.ready(now_s)
        if packet is not None:
            assembler.push(0, packet.data, SENDER, now_s)
    blocks += assembler.flush()
    _, there = heard(blocks, 1)
    assert there.all() == whole
    assert (~there).sum() == (0 if whole else 48)


def test_a_stream_that_is_silent_is_zeros_and_one_that_joins_is_in_step() -> None:
    """The others do not wait longer than for the window; the mark says that nothing is sent."""
    offsets = [5, 2**31]
    session = describe([3, 1], "L24", offsets)
    samples = reference(RATE_HZ, 4, "L24")
    first, second = (
        packets_of(session, index, samples, [48], 0, offset) for index, offset in enumerate(offsets)
    )
    assembler = Assembler(session, "test", start_s=0.1, window_s=0.01, block_s=0.01)
    blocks = []
    for number, packet in enumerate(first):
        now_s = number / 1_000
        assembler.push(0, packet.data, SENDER, now_s)
        if number >= 600:
            assembler.push(1, second[number].data, SENDER, now_s)
        blocks += assembler.ready(now_s)
    blocks += assembler.flush()
    began = assembler.origin(0)
    assert began is not None
    start = began - offsets[0]
    assert RATE_HZ // 10 <= start < RATE_HZ // 8
    found, there = heard(blocks, 4)
    assert there[:, :3].all()
    # Its first two packets tell whose it is.
    joins = 601 * 48 - start
    assert np.array_equal(there[:, 3], np.arange(len(found)) >= joins)
    assert np.array_equal(found, np.where(there, scale(samples, "L24")[start:], 0.0))
    assert {gap.cause for block in blocks[:20] for gap in block.missing} == {"silent"}
    assert blocks[0].missing == (Missing(0, 480, 3, 1, "silent"),)


def test_a_stream_that_lags_by_more_than_the_window_is_named() -> None:
    offsets = [0, 9]
    session = describe([1, 1], "L16", offsets)
    samples = reference(RATE_HZ, 2, "L16")
    first, second = (
        packets_of(session, index, samples, [48], 0, offset) for index, offset in enumerate(offsets)
    )
    for lag, named in ((40, []), (80, [2])):
        assembler = Assembler(session, "test", window_s=0.05)
        missing = 0
        for number in range(lag, 1_000):
            assembler.push(0, first[number].data, SENDER, number / 1_000)
            assembler.push(1, second[number - lag].data, SENDER, number / 1_000)
            for block in assembler.ready(number / 1_000):
                missing += sum(gap.length for gap in block.missing)
        assert assembler.lagging() == named
        assert (missing == 0) == (named == [])


@pytest.mark.parametrize("change", ["ssrc", "port", "timestamp"])
def test_a_sender_that_begins_anew_ends_the_stream(change: str) -> None:
    session = describe([2])
    samples = reference(RATE_HZ, 2, "L24")
    packets = packets_of(session, 0, samples, [48], 0, 1_000)
    again = packets_of(
        session,
        0,
        samples,
        [48],
        sequence=40_000,
        timestamp=1_000 if change != "timestamp" else 2**31,
        ssrc=2 if change == "ssrc" else 1,
    )
    sender = ("192.0.2.7", 40_001) if change == "port" else SENDER
    assembler, _ = started(session, packets[:2])
    for number, packet in enumerate(packets[2:100]):
        assembler.push(0, packet.data, SENDER, number / 1_000)
    n_before = sum(len(block.samples) for block in assembler.ready(0.1))
    assembler.push(0, again[0].data, sender, 0.5)
    with pytest.raises(StreamRestartedError, match=r"test, stream 1: .* a new stream begins"):
        assembler.push(0, again[1].data, sender, 0.501)
    # Nothing of the new stream is in what is left of the old.
    rest = list(assembler.flush())
    assert n_before + sum(len(block.samples) for block in rest) == 98 * 48


@settings(max_examples=60)
@given(
    n_streams=st.integers(1, 2),
    length=st.integers(1, 40),
    fates=st.lists(FATES, min_size=1, max_size=60),
    which=st.integers(2, 200),
    error=st.integers(-(2**31), 2**31 - 1)
    | st.integers(-30_000, 30_000)
    | st.integers(-64, 64).map(lambda packets: 40 * packets),
    per_packet=st.booleans(),
    looks=st.integers(1, 12),
    sequence=st.sampled_from([0, 65_450]),
    clock=st.sampled_from([0, 2**32 - 1_500]),
)
def test_a_wrong_timestamp_costs_its_own_packet_alone(
    n_streams: int,
    length: int,
    fates: list[tuple[bool, int, int]],
    which: int,
    error: int,
    per_packet: bool,
    looks: int,
    sequence: int,
    clock: int,
) -> None:
    """Whatever is lost or out of order besides, once the lengths of packets are known."""
    error = error // 40 * length if per_packet and error % 40 == 0 else error
    session = describe([1] * n_streams, "L16", [0] * n_streams if n_streams > 1 else None)
    samples = reference(210 * length, n_streams, "L16")
    streams = [
        packets_of(session, index, samples, [length], sequence, clock) for index in range(n_streams)
    ]
    # As long as packets may be late, and held back.
    window = 60 * length
    assembler, _ = started(
        session,
        [packet for packets in streams for packet in packets[:2]],
        window_s=window / RATE_HZ,
        block_s=3 * length / RATE_HZ,
    )
    origin = 2 * length
    came = np.zeros((len(samples) - origin, n_streams), bool)
    own = np.zeros_like(came)
    arrivals = []
    for packets in streams:
        for number, packet in enumerate(packets[2:], 2):
            calm = number < 70 or number > 205
            lost, late, again = (False, 0, 0) if calm else fates[number % len(fates)]
            place = slice(packet.place - origin, packet.place - origin + length)
            if packet.index == 0 and number == which:
                payload = encode_samples(-samples[packet.place :][:length, :1], "L16")
                wrong = clock + packet.place + error
                data = build_packet(96, sequence + number, wrong, 1, payload)
                packet = packet._replace(data=data)
                own[place, 0] = True
            elif lost:
                continue
            else:
                came[place, packet.index] = True
            arrivals.append((number + late, packet))
            if again:
                arrivals.append((number + late + again, packet))
    arrivals.sort(key=lambda arrival: arrival[0])
    blocks = []
    for number, (_, packet) in enumerate(arrivals):
        assembler.push(packet.index, packet.data, SENDER, 0.0)
        if number % looks == 0:
            blocks += assembler.ready(0.0)
    blocks += assembler.flush()
    found, there = heard(blocks, n_streams)
    wanted = scale(samples[origin:], "L16")
    assert len(found) <= len(wanted)
    came, own = came[: len(found)], own[: len(found)]
    assert np.array_equal(there[~own], came[~own])
    right = np.where(there, wanted[: len(found)], 0.0)
    assert np.array_equal(found[~own], right[~own])


def test_what_the_kernel_drops_while_we_are_held_up_is_a_gap() -> None:
    """It keeps the oldest packets: those of a second later come at once after them."""
    session = describe([1], "L16")
    samples = reference(RATE_HZ * 2, 1, "L16")
    packets = packets_of(session, 0, samples, [48])
    assembler, _ = started(session, packets[:2])
    blocks = []
    for number in [*range(2, 300), *range(1_400, 2_000)]:
        # The thread that reads wakes at 1.4 s.
        now_s = number / 1_000 if number < 150 else max(1.4, number / 1_000)
        assembler.push(0, packets[number].data, SENDER, now_s)
        blocks += assembler.ready(now_s)
    blocks += assembler.flush()
    found, there = heard(blocks, 1)
    lost = np.zeros(len(found), bool)
    lost[(300 - 2) * 48 : (1_400 - 2) * 48] = True
    assert np.array_equal(there[:, 0], ~lost)
    assert np.array_equal(found, np.where(there, scale(samples, "L16")[96:], 0.0))


@pytest.mark.parametrize("skipped", [-300, -7, 5, 480, 25_000, 40_000])
@settings(max_examples=20)
@given(lost=st.lists(st.booleans(), min_size=1, max_size=60), at=st.integers(2, 190))
def test_a_stream_that_jumps_is_followed(skipped: int, lost: list[bool], at: int) -> None:
    """A sender that repeats what it has sent, or leaves some out, or has made a break."""
    session = describe([1], "L16")
    length = 48
    samples = reference(210 * length + 40_000, 1, "L16")
    packets = packets_of(session, 0, samples, [length])
    assembler, _ = started(session, packets[:2], window_s=10 * length / RATE_HZ)
    came = np.zeros(len(samples), bool)
    blocks = []
    for number in range(2, 210):
        # Two packets after the jump agree with each other.
        if 70 <= number <= 200 and lost[number % len(lost)] and not at <= number < at + 2:
            continue
        first = number * length + (skipped if number >= at else 0)
        # Time passes while a sender makes a break.
        now_s = max(first, number * length) / RATE_HZ
        payload = encode_samples(samples[first : first + length], "L16")
        assembler.push(0, build_packet(96, number, first, 1, payload), SENDER, now_s)
        came[first : first + length] = True
        blocks += assembler.ready(now_s, assembler.head)
    blocks += assembler.flush()
    found, there = heard(blocks, 1)
    came = came[2 * length : 2 * length + len(found)]
    wanted = scale(samples[2 * length :], "L16")[: len(found)]
    assert np.array_equal(found, np.where(there, wanted[: len(found)], 0.0))
    assert np.array_equal(there[:, 0], came)
    assert len(found) > (190 * length if skipped < 0 else 190 * length + skipped)


def test_a_single_wrong_timestamp_moves_nothing() -> None:
    session = describe([1])
    samples = reference(9_600, 1, "L16")
    packets = packets_of(session, 0, samples, [48])
    assembler, _ = started(session, packets[:2])
    blocks = []
    for number, packet in enumerate(packets[2:]):
        assembler.push(0, packet.data, SENDER, number / 1_000)
        wrong = build_packet(96, number + 30_000, 77_777_777 * number, 1, bytes(6 * 48))
        if number % 50 == 7:
            assembler.push(0, wrong, SENDER, number / 1_000)
        blocks += assembler.ready(number / 1_000)
    blocks += assembler.flush()
    found, there = heard(blocks, 1)
    assert there.all()
    assert np.array_equal(found, scale(samples, "L24")[96:])
    assert assembler.statistics().total.strays == 4


def test_packets_of_others_change_nothing() -> None:
    """Another address, SSRC, payload type, version or length, all of the time."""
    session = describe([2])
    samples = reference(9_600, 2, "L24")
    packets = packets_of(session, 0, samples, [48], 10, 20)
    others = packets_of(session, 0, -samples, [48], 10, 20, ssrc=9)
    assembler, _ = started(session, packets[:2])
    blocks = []
    for number, (packet, other) in enumerate(zip(packets[2:], others[2:], strict=True)):
        now_s = number / 1_000
        assembler.push(0, other.data, ("203.0.113.9", 5_004), now_s)
        assembler.push(0, other.data, SENDER, now_s)
        assembler.push(0, packet.data, SENDER, now_s)
        assembler.push(0, packet.data, ("203.0.113.9", 5_004), now_s)
        assembler.push(0, packet.data[:1] + b"\x61" + packet.data[2:], SENDER, now_s)
        assembler.push(0, packet.data[:-1], SENDER, now_s)
        assembler.push(0, packet.data[:11], SENDER, now_s)
        assembler.push(0, b"\x40" + packet.data[1:], SENDER, now_s)
        blocks += assembler.ready(now_s)
    blocks += assembler.flush()
    found, there = heard(blocks, 2)
    assert there.all()
    assert np.array_equal(found, scale(samples, "L24")[96:])
    counted = assembler.statistics().total
    n = len(packets) - 2
    assert (counted.other_senders, counted.wrong_type, counted.malformed) == (3 * n, n, 3 * n)
    assert (counted.received, counted.lost, counted.duplicates) == (n + 1, 0, 0)


def test_streams_of_other_clocks_are_refused() -> None:
    """Offsets that put streams hours apart are not of one clock."""
    session = describe([1, 1], offsets=[0, 1_000_000_000])
    samples = reference(96, 2, "L24")
    assembler = Assembler(session, "porch.sdp")
    for index in range(2):
        for packet in packets_of(session, index, samples, [48]):
            assembler.push(index, packet.data, SENDER, 0.0)
    message = r"porch\.sdp: streams 2 and 1 are 20833 s apart by their clocks"
    with pytest.raises(CaptureError, match=message):
        list(assembler.ready(0.0))


def test_a_repeat_that_comes_late_is_no_late_packet() -> None:
    session = describe([1])
    packets = packets_of(session, 0, reference(RATE_HZ, 1, "L24"), [48], 65_530)
    assembler, _ = started(session, packets[:2])
    for number, packet in enumerate(packets[2:]):
        assembler.push(0, packet.data, SENDER, 0.0)
        if number >= 300:
            assembler.push(0, packets[number - 290].data, SENDER, 0.0)
        list(assembler.ready(0.0))
    counted = assembler.statistics().total
    assert (counted.late, counted.duplicates) == (0, len(packets) - 2 - 300)
