"""Samples of an array in, RTP packets of its streams out; and the description that goes with it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError, UsageError
from soundpost.firmware_bridge.rtcp_report import SenderReport, build_bye, build_report
from soundpost.firmware_bridge.rtp_packet import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    Encoding,
    build_packet,
    encode_samples,
    frame_bytes,
)
from soundpost.firmware_bridge.session_description import (
    Origin,
    SessionDescription,
    StreamDescription,
)

# AES67 covers streams of up to so many.
STREAM_CHANNELS: Final = 8
PAYLOAD_TYPE: Final = 98


class StreamStart(NamedTuple):
    """Numbers that a stream begins with; RFC 3550 wants them beyond guessing.

    ssrc : 0 to 2^32 - 1
    sequence : of the first packet, 0 to 65,535
    offset : RTP timestamp of the array's sample 0
    """

    ssrc: int
    sequence: int
    offset: int


class Datagram(NamedTuple):
    """One RTP packet to be sent.

    stream : index of its stream
    sequence : 0 to 65,535
    first_sample, n_samples : which of the array's samples it holds, counted from the start
    """

    stream: int
    sequence: int
    first_sample: int
    n_samples: int
    data: bytes


def random_starts(n_streams: int, seed: int) -> list[StreamStart]:
    """Starts of so many streams, no two of one SSRC; another seed gives others."""
    rng = random.Random(seed)
    ssrcs = rng.sample(range(1 << 32), n_streams)
    return [StreamStart(ssrc, rng.getrandbits(16), rng.getrandbits(32)) for ssrc in ssrcs]


def split_channels(n_channels: int, n_streams: int | None = None) -> list[int]:
    """Channels of each stream, as even as they can be.

    n_streams : by default as few as have at most 8 channels each, and these are filled up in turn

    Raises UsageError for more streams than channels.
    """
    if n_streams is None:
        return [
            min(STREAM_CHANNELS, n_channels - first)
            for first in range(0, n_channels, STREAM_CHANNELS)
        ]
    if not 1 <= n_streams <= n_channels:
        raise UsageError(
            f"{n_streams} streams for {n_channels} channels: expected 1 to {n_channels}"
        )
    each, more = divmod(n_channels, n_streams)
    return [each + (number < more) for number in range(n_streams)]


def packet_bytes(encoding: Encoding, n_channels: int, n_samples: int) -> int:
    """Bytes of a packet, header and all."""
    return HEADER_BYTES + n_samples * frame_bytes(encoding, n_channels)


def describe_array(
    rate_hz: int,
    channels: Sequence[int],
    starts: Sequence[StreamStart],
    *,
    address: str,
    port: int,
    packet_samples: int,
    encoding: Encoding = "L24",
    name: str = "soundpost",
    origin: Origin | None = None,
    clock_reference: str | None = None,
    media_clock: bool = True,
    ttl: int = 1,
) -> SessionDescription:
    """What receivers need to know of an array.

    Parameters
    ----------
    channels : of each stream
    starts : of each stream
    address, port : where the first stream goes; those after it have every second port
    clock_reference : the clock that counts the samples, as ts-refclk names it
    media_clock : False leaves the streams' offsets out; sender reports then have to tell them

    Raises InputError or UsageError where a stream cannot be: more channels than fit a datagram, a
    port beyond 65,535.
    """
    if not 1 <= port <= 65_535 - 2 * len(channels) + 1:
        raise UsageError(
            f"port {port}: {len(channels)} streams take every second port from it on; expected 1 "
            f"to {65_535 - 2 * len(channels) + 1}"
        )
    largest = packet_bytes(encoding, max(channels), packet_samples)
    if largest > MAX_DATAGRAM_BYTES:
        raise UsageError(
            f"{max(channels)} channels of {encoding} in packets of {packet_samples} samples are "
            f"{largest} bytes, and a datagram has at most {MAX_DATAGRAM_BYTES}: take more streams "
            "or shorter packets"
        )
    streams = []
    first_channel = 0
    for number, (n_channels, start) in enumerate(zip(channels, starts, strict=True)):
        streams.append(
            StreamDescription(
                address=address,
                port=port + 2 * number,
                payload_type=PAYLOAD_TYPE,
                encoding=encoding,
                rate_hz=rate_hz,
                n_channels=n_channels,
                packet_ms=1000 * packet_samples / rate_hz,
                media_clock_offset=start.offset if media_clock else None,
                clock_reference=clock_reference if media_clock else None,
                first_channel=first_channel,
                ttl=ttl,
            )
        )
        first_channel += n_channels
    return SessionDescription(name, origin or Origin("0.0.0.0"), tuple(streams))


class Packetiser:
    """Cuts an array's samples into packets; they are the same for any cut of what is pushed.

    Parameters
    ----------
    session : all its streams have the array's channels in order
    starts : of each stream
    packet_samples : samples of each channel in a packet
    """

    def __init__(
        self, session: SessionDescription, starts: Sequence[StreamStart], packet_samples: int
    ) -> None:
        if packet_samples < 1 or len(starts) != len(session.streams):
            raise InputError(
                f"packets of {packet_samples} samples, {len(starts)} starts for "
                f"{len(session.streams)} streams: expected at least 1, and a start for each stream"
            )
        self.session = session
        self.packet_samples = packet_samples
        self._starts = list(starts)
        self._n_packets = [0] * len(starts)
        self._n_bytes = [0] * len(starts)
        self._position = 0
        self._rest = np.empty((0, session.n_channels), np.float32)

    @property
    def position(self) -> int:
        """The array's sample that the next packets begin with."""
        return self._position

    def push(self, samples: FloatArray) -> Iterator[list[Datagram]]:
        """Packets that the next samples complete.

        samples : (n_samples, n_channels) float32, full scale ±1.0; beyond it they are clipped

        Yields a list for each packet's time: one packet of each stream, in the streams' order.
        """
        if samples.ndim != 2 or samples.shape[1] != self.session.n_channels:
            raise InputError(
                f"samples of shape {samples.shape}: expected (n_samples, "
                f"{self.session.n_channels}), a column for each channel of the streams"
            )
        if len(self._rest):
            samples = np.concatenate([self._rest, samples])
        whole = len(samples) // self.packet_samples * self.packet_samples
        # A copy: what was pushed may be a buffer that is written again.
        self._rest = samples[whole:].copy()
        yield from self._cut(samples[:whole], self.packet_samples)

    def flush(self) -> Iterator[list[Datagram]]:
        """What is left, in packets shorter than the others; none where nothing is."""
        rest, self._rest = self._rest, self._rest[:0]
        yield from self._cut(rest, max(1, len(rest)))

    def _cut(self, samples: FloatArray, length: int) -> Iterator[list[Datagram]]:
        payloads = [
            encode_samples(
                samples[:, stream.first_channel : stream.first_channel + stream.n_channels],
                stream.encoding,
            )
            for stream in self.session.streams
        ]
        for start in range(0, len(samples), length):
            packets = [
                self._packet(number, payload, start, length)
                for number, payload in enumerate(payloads)
            ]
            self._position += length
            yield packets

    def _packet(self, number: int, payload: bytes, start: int, length: int) -> Datagram:
        stream, at = self.session.streams[number], self._starts[number]
        size = stream.frame_bytes
        sequence = (at.sequence + self._n_packets[number]) & 0xFFFF
        self._n_packets[number] += 1
        self._n_bytes[number] += length * size
        return Datagram(
            number,
            sequence,
            self._position,
            length,
            build_packet(
                stream.payload_type,
                sequence,
                at.offset + self._position,
                at.ssrc,
                payload[start * size : (start + length) * size],
            ),
        )

    def reports(self, ntp: int, name: str = "soundpost", *, bye: bool = False) -> list[bytes]:
        """A sender report of each stream: when the next packets' first sample was taken.

        ntp : in 2^-32 s since 1900
        bye : the streams end here
        """
        return [
            build_report(
                SenderReport(
                    start.ssrc,
                    ntp,
                    (start.offset + self._position) & 0xFFFFFFFF,
                    n_packets & 0xFFFFFFFF,
                    n_bytes & 0xFFFFFFFF,
                ),
                name,
            )
            + (build_bye(start.ssrc) if bye else b"")
            for start, n_packets, n_bytes in zip(
                self._starts, self._n_packets, self._n_bytes, strict=True
            )
        ]
