"""Packets over real sockets: unicast, multicast, IPv6; silence, restarts, busy readers."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time

import numpy as np
import pytest
from array_streams import (
    RATE_HZ,
    describe,
    free_ports,
    heard,
    packets_of,
    reference,
    scale,
    send,
    sender_for,
)

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError, DeviceBusyError, StreamStalledError
from soundpost.firmware_bridge.receiver import Receiver
from soundpost.firmware_bridge.rtp_packet import build_packet
from soundpost.firmware_bridge.session_description import SessionDescription, SourceFilter
from soundpost.firmware_bridge.stream_input import StreamRestartedError
from soundpost.firmware_bridge.udp_sockets import kernel_drops, open_rtp_sockets

OFFSETS = [11, 2**32 - 20_000]


def elsewhere(session: SessionDescription, address: str) -> SessionDescription:
    streams = [dataclasses.replace(stream, address=address) for stream in session.streams]
    return dataclasses.replace(session, streams=tuple(streams))


def collected(receiver: Receiver) -> tuple[list[AudioBlock], CaptureError]:
    blocks: list[AudioBlock] = []
    with pytest.raises(CaptureError) as ended:
        blocks.extend(receiver.blocks())
    return blocks, ended.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "239.77.1.2"])
def test_samples_arrive(address: str) -> None:
    """By unicast, over IPv6, in a multicast group; what was never sent is marked to the sample."""
    session = elsewhere(describe([3, 2], "L24", OFFSETS, free_ports(2)), address)
    samples = reference(RATE_HZ, 5, "L24")
    streams = [
        packets_of(session, index, samples, [48], 65_300, offset)
        for index, offset in enumerate(OFFSETS)
    ]
    lost = np.zeros((len(samples), 5), bool)
    for packets, columns in zip(streams, (slice(0, 3), slice(3, 5)), strict=True):
        for packet in packets[200::37]:
            packets.remove(packet)
            lost[packet.place : packet.place + packet.n_samples, columns] = True
    interface = "127.0.0.1" if address.startswith("239.") else None
    with Receiver(session, "test", interface=interface) as receiver, sender_for(address) as sender:
        began_s = time.monotonic()
        send(session, streams, sender, pace=2.0)
        blocks, error = collected(receiver)
        counted = receiver.statistics()
    assert isinstance(error, StreamStalledError)
    found, there = heard(blocks, 5)
    origin = len(samples) - len(found)
    # All that has come by its first round names the senders.
    assert origin < RATE_HZ // 3
    assert np.array_equal(there, ~lost[origin:])
    assert np.array_equal(found, np.where(there, scale(samples, "L24")[origin:], 0.0))
    assert counted.total.lost == lost[:, [0, 3]].sum() // 48
    assert (counted.total.late, counted.total.malformed, counted.blocks_dropped) == (0, 0, 0)
    assert (counted.kernel_drops, counted.missing_samples) == (0, (~there).sum())
    for block in blocks:
        assert block.time_s is not None
        assert began_s < block.time_s < time.monotonic()


def test_what_is_silent_is_said() -> None:
    session = describe([2], port=free_ports(1))
    with Receiver(session, "porch.sdp") as receiver:
        began_s = time.monotonic()
        blocks, error = collected(receiver)
    assert blocks == []
    assert 2.9 < time.monotonic() - began_s < 6
    place = f"127.0.0.1 port {session.streams[0].port}"
    assert str(error).startswith(f"porch.sdp: no packets on {place} for 3 s: see that the array")
    assert isinstance(error, StreamStalledError)


def test_what_does_not_fit_is_said() -> None:
    session = describe([2], port=free_ports(1))
    stream = session.streams[0]
    with Receiver(session, "porch.sdp") as receiver, sender_for("127.0.0.1") as sender:
        for number in range(50):
            data = build_packet(97, number, 48 * number, 1, bytes(48 * 6))
            sender.sendto(data, (stream.address, stream.port))
        _, error = collected(receiver)
    assert "for 3 s that fit the description, but 50 of another payload type" in str(error)


def test_only_the_senders_of_the_description_count() -> None:
    session = describe([1], "L16", port=free_ports(1))
    others = dataclasses.replace(session.streams[0], senders=SourceFilter(("192.0.2.1",)))
    session = dataclasses.replace(session, streams=(others,))
    samples = reference(4_800, 1, "L16")
    with Receiver(session, "test") as receiver, sender_for("127.0.0.1") as sender:
        send(session, [packets_of(session, 0, samples, [48])], sender)
        blocks, error = collected(receiver)
    assert blocks == []
    assert "but 100 from other senders" in str(error)


def test_a_sender_that_is_started_again_is_a_new_stream() -> None:
    session = describe([2], "L16", port=free_ports(1))
    samples = reference(RATE_HZ // 2, 2, "L16")
    with Receiver(session, "test") as receiver:
        with sender_for("127.0.0.1") as sender:
            send(session, [packets_of(session, 0, samples, [48], 5, 6, ssrc=1)], sender, 4.0)
        time.sleep(0.3)
        with sender_for("127.0.0.1") as sender:
            send(session, [packets_of(session, 0, samples, [48], 7, 8, ssrc=2)], sender, 4.0)
        blocks, error = collected(receiver)
    assert isinstance(error, StreamRestartedError)
    found, there = heard(blocks, 2)
    assert there.all()
    # All of the old stream but its beginning, and nothing of the new one.
    assert len(samples) // 3 < len(found) < len(samples)
    assert np.array_equal(found, scale(samples, "L16")[-len(found) :])


def test_a_reader_that_is_busy_misses_the_newest_and_is_told() -> None:
    session = describe([1], "L16", port=free_ports(1))
    samples = reference(2 * RATE_HZ, 1, "L16")
    packets = packets_of(session, 0, samples, [48])
    with (
        Receiver(session, "test", buffer_s=0.2) as receiver,
        sender_for("127.0.0.1") as sender,
    ):
        send(session, [packets[:1_000]], sender, 4.0)
        time.sleep(0.2)
        early = receiver.blocks()
        blocks = [next(early) for _ in range(10)]
        send(session, [packets[1_000:]], sender, 2.0)
        rest, _ = collected(receiver)
        overflows, n_samples = receiver.overflows, receiver.statistics().n_samples
    found, there = heard(blocks + rest, 1)
    start = len(samples) - n_samples
    assert np.array_equal(found, np.where(there, scale(samples[start:][: len(found)], "L16"), 0.0))
    missing = (~there).sum() + n_samples - len(found)
    # Two blocks are shorter: before the pause, and the last.
    assert 960 * (overflows - 2) < missing <= 960 * overflows
    assert overflows > 20


def test_a_stream_that_stops_is_named() -> None:
    session = describe([2, 2, 2], "L16", [1, 2, 3], free_ports(3))
    samples = reference(RATE_HZ * 5, 6, "L16")
    streams = [packets_of(session, index, samples, [480], 0, index + 1) for index in range(3)]
    with Receiver(session, "porch.sdp") as receiver, sender_for("127.0.0.1") as sender:
        reader = threading.Thread(target=lambda: list(receiver.blocks()))
        reader.start()
        stream = session.streams
        for number in range(480):
            for index in (0, 1, 2) if number < 50 else (0, 2):
                data = streams[index][number].data
                sender.sendto(data, (stream[index].address, stream[index].port))
            time.sleep(0.008)
            if number == 100:
                assert receiver.fault is None
        fault = receiver.fault
        receiver.close()
        reader.join()
    assert fault is not None
    assert fault.startswith("porch.sdp: stream 2 (channels 2 to 3) sends nothing for 3 s: zeros")


def test_a_close_ends_the_blocks_and_frees_the_port() -> None:
    session = describe([2], port=free_ports(1))
    for _ in range(3):
        receiver = Receiver(session, "test")
        threading.Timer(0.1, receiver.close).start()
        assert list(receiver.blocks()) == []
        receiver.close()


def test_a_port_is_one_receivers() -> None:
    session = describe([2], port=free_ports(1))
    with Receiver(session, "test"), pytest.raises(DeviceBusyError, match="is in use by another"):
        Receiver(session, "test")
    with pytest.raises(CaptureError, match=r"the address is not one of this machine's"):
        Receiver(elsewhere(session, "192.0.2.250"), "test")
    with pytest.raises(CaptureError, match=r"group 239\.77\.1\.2 cannot be joined on interface"):
        Receiver(elsewhere(session, "239.77.1.2"), "test", interface="192.0.2.250")


def test_the_kernels_losses_are_counted() -> None:
    """More than a socket holds, and nobody reads."""
    session = describe([1], "L16", port=free_ports(1))
    (opened,) = open_rtp_sockets(session, None, "test")
    with opened, sender_for("127.0.0.1") as sender:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        for _ in range(100):
            sender.sendto(bytes(1_000), opened.getsockname())
        taken = 0
        while True:
            try:
                opened.recv(2_000)
            except BlockingIOError:
                break
            taken += 1
        assert 0 < taken < 100
        assert kernel_drops([opened]) == 100 - taken
