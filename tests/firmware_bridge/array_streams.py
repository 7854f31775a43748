"""Arrays of made-up samples as packets, and what a receiver must make of them."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.rtp_packet import Encoding, build_packet, encode_samples
from soundpost.firmware_bridge.session_description import (
    Origin,
    SessionDescription,
    StreamDescription,
)

RATE_HZ = 48_000
SENDER = ("192.0.2.7", 40_000)
PTP = "ptp=IEEE1588-2008:39-A7-94-FF-FE-07-CB-D0:0"


class Packet(NamedTuple):
    """place : of its first sample in the reference."""

    index: int
    place: int
    n_samples: int
    data: bytes


def describe(
    channels: list[int],
    encoding: Encoding = "L24",
    offsets: list[int] | None = None,
    port: int = 5_004,
    packet_ms: float | None = 1.0,
    rate_hz: int = RATE_HZ,
) -> SessionDescription:
    """Streams of so many channels each; offsets are those of their media clocks."""
    streams = [
        StreamDescription(
            address="127.0.0.1",
            port=port + 2 * index,
            payload_type=96,
            encoding=encoding,
            rate_hz=rate_hz,
            n_channels=n_channels,
            packet_ms=packet_ms,
            media_clock_offset=None if offsets is None else offsets[index],
            clock_reference=None if offsets is None else PTP,
            first_channel=sum(channels[:index]),
        )
        for index, n_channels in enumerate(channels)
    ]
    return SessionDescription("test", Origin("127.0.0.1"), tuple(streams))


def reference(n_samples: int, n_channels: int, encoding: Encoding) -> NDArray[np.int32]:
    """Samples of which none is 0 and no two instants are alike, with the extremes among them."""
    bits = 16 if encoding == "L16" else 24
    high = (1 << bits - 1) - 1
    samples = np.random.default_rng(3).integers(1, high + 1, (n_samples, n_channels))
    samples *= np.where(np.arange(n_samples)[:, None] % 2, 1, -1)
    samples[0], samples[1] = -high - 1, high
    return samples.astype(np.int32)


def packets_of(
    session: SessionDescription,
    index: int,
    samples: NDArray[np.int32],
    lengths: list[int],
    sequence: int = 0,
    timestamp: int = 0,
    ssrc: int = 1,
) -> list[Packet]:
    """One stream's packets in order, of the lengths in turn; the counters may wrap around."""
    stream = session.streams[index]
    own = samples[:, stream.first_channel : stream.first_channel + stream.n_channels]
    packets, place = [], 0
    while place < len(own):
        number = len(packets)
        part = own[place : place + lengths[number % len(lengths)]]
        payload = encode_samples(part, stream.encoding)
        data = build_packet(96, sequence + number, timestamp + place, ssrc, payload)
        packets.append(Packet(index, place, len(part), data))
        place += len(part)
    return packets


def scale(samples: NDArray[np.int32], encoding: Encoding) -> NDArray[np.float64]:
    """Full scale 1.0."""
    return samples / (1 << (15 if encoding == "L16" else 23))


def heard(
    blocks: list[AudioBlock], n_channels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """All sound from sample 0 to the end, zeros where blocks jump; and which of it was there."""
    end = blocks[-1].first_sample + len(blocks[-1].samples) if blocks else 0
    samples = np.zeros((end, n_channels), np.float32)
    there = np.zeros((end, n_channels), bool)
    last = 0
    for block in blocks:
        assert block.first_sample >= last, "blocks overlap"
        first, last = block.first_sample, block.first_sample + len(block.samples)
        samples[first:last] = block.samples
        there[first:last] = True
        for gap in block.missing:
            assert first <= gap.first_sample < gap.first_sample + gap.length <= last
            marked = there[
                gap.first_sample : gap.first_sample + gap.length,
                gap.first_channel : gap.first_channel + gap.n_channels,
            ]
            assert marked.all(), "marked twice"
            marked[:] = False
    return samples, there


def started(
    session: SessionDescription, first: list[Packet], **options: float
) -> tuple[Assembler, list[int]]:
    """An assembler that has begun with these packets; the reference's sample 0 of each stream."""
    assembler = Assembler(session, "test", **options)
    for packet in first:
        assembler.push(packet.index, packet.data, SENDER, 0.0)
    assert list(assembler.ready(0.0)) == []
    origins = [assembler.origin(index) for index in range(len(session.streams))]
    assert None not in origins
    return assembler, [origin for origin in origins if origin is not None]


def free_ports(n_streams: int) -> int:
    """First of so many even ports that are free, and the odd ones above them, for RTCP."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port % 2 or port + 2 * n_streams > 65_535:
                continue
            try:
                for other in range(port + 1, port + 2 * n_streams):
                    probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    probe.bind(("127.0.0.1", other))
            except OSError:
                continue
        return port


def sender_for(address: str) -> socket.socket:
    """A socket that sends to such an address, to a group on the loopback interface."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    if address.startswith("239."):
        loopback = socket.inet_aton("127.0.0.1")
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
    return sender


def send(
    session: SessionDescription,
    streams: list[list[Packet]],
    sender: socket.socket,
    pace: float = 1.0,
    stop: threading.Event | None = None,
) -> None:
    """Send the packets of all streams side by side, at a multiple of the pace of sound."""
    began_s = time.monotonic()
    for number in range(len(streams[0])):
        if stop is not None and stop.is_set():
            return
        for packets in streams:
            if number < len(packets):
                stream = session.streams[packets[number].index]
                sender.sendto(packets[number].data, (stream.address, stream.port))
        ahead_s = number / 1_000 / pace - (time.monotonic() - began_s)
        if ahead_s > 0.002:
            time.sleep(ahead_s)
