"""One RTP stream of an array: where it is sent to, what is in it, and whose clock counts it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from soundpost.device.audio import MAX_RATE_HZ, MIN_RATE_HZ
from soundpost.device.errors import InputError
from soundpost.firmware_bridge.rtp_packet import (
    MAX_DATAGRAM_BYTES,
    SAMPLE_BYTES,
    Encoding,
    frame_bytes,
)

# Eight times the published sensor's microphones, as array.json; in streams of one channel.
MAX_CHANNELS: Final = 1_024
_MAX_PACKET_MS: Final = 1_000.0


class Origin(NamedTuple):
    """Who made a description; id and version tell a new one from a repeated one."""

    address: str
    session_id: int = 1
    version: int = 1
    user: str = "-"


@dataclass(frozen=True)
class SourceFilter:
    """Which senders count: those of these addresses, or (include False) all but those."""

    addresses: tuple[str, ...]
    include: bool = True

    def admits(self, address: str) -> bool:
        """Whether packets from this address count."""
        return (address in self.addresses) == self.include


@dataclass(frozen=True)
class StreamDescription:
    """One RTP stream.

    address, port : where its packets are sent to; an address of this machine, or a multicast group
    payload_type : 0 to 127, of its packets
    packet_ms : sound in a packet, where that is said
    media_clock_offset : RTP timestamp at which the media clock stands at 0, where that is said
    clock_reference : the clock that the media clock follows, as ts-refclk names it
    first_channel : the array's channel that is the stream's first
    senders : whose packets count, where that is said
    rtcp_port : where its sender reports are sent to; 0: one above `port`, as RFC 3550 has it
    ttl : routers that multicast may pass, where that is said

    Raises InputError for what no stream can be.
    """

    address: str
    port: int
    payload_type: int
    encoding: Encoding
    rate_hz: int
    n_channels: int
    packet_ms: float | None = None
    media_clock_offset: int | None = None
    clock_reference: str | None = None
    first_channel: int = 0
    senders: SourceFilter | None = None
    rtcp_port: int = 0
    ttl: int | None = None

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise InputError(f"stream of {self.address} port {self.port}: {problem}")
        if not self.rtcp_port:
            # Port 65,535 has none above it, and then no reports.
            object.__setattr__(self, "rtcp_port", min(self.port + 1, 65_535))

    @property
    def is_multicast(self) -> bool:
        """Whether a group has to be joined."""
        return ipaddress.ip_address(self.address).is_multicast

    @property
    def frame_bytes(self) -> int:
        """Bytes that all its channels take at one instant."""
        return frame_bytes(self.encoding, self.n_channels)


def _problems(stream: StreamDescription) -> Iterator[str]:
    if not is_address(stream.address):
        yield f"address {stream.address[:60]!r}: expected an IPv4 or IPv6 address, not a name"
    for name, port in (("port", stream.port), ("rtcp port", stream.rtcp_port or 1)):
        if not 1 <= port <= 65_535:
            yield f"{name} {port}: expected 1 to 65535"
    if not 0 <= stream.payload_type <= 127:
        yield f"payload type {stream.payload_type}: expected 0 to 127"
    if stream.encoding not in SAMPLE_BYTES:
        yield f"encoding {stream.encoding!r}: expected L16 or L24"
    if not MIN_RATE_HZ <= stream.rate_hz <= MAX_RATE_HZ:
        yield f"rate {stream.rate_hz} Hz: expected {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
    if stream.n_channels < 1 or stream.first_channel < 0:
        yield f"{stream.n_channels} channels from {stream.first_channel}: expected 1 from 0 or more"
    if stream.first_channel + stream.n_channels > MAX_CHANNELS:
        yield f"channels up to {stream.first_channel + stream.n_channels}, more than {MAX_CHANNELS}"
    if stream.packet_ms is not None:
        if not 0 < stream.packet_ms <= _MAX_PACKET_MS:
            yield f"packets of {stream.packet_ms:g} ms: expected up to {_MAX_PACKET_MS:g} ms"
        # Less than the whole second: a header and a sample must fit into a datagram.
        n_bytes = stream.packet_ms / 1_000 * stream.rate_hz * stream.frame_bytes
        if n_bytes > MAX_DATAGRAM_BYTES:
            yield f"packets of {stream.packet_ms:g} ms are {n_bytes:.0f} bytes: no datagram"
    if not (stream.clock_reference or "-").isprintable():
        yield f"clock reference {stream.clock_reference!r:.60}: expected text on one line"
    if stream.media_clock_offset is not None and not 0 <= stream.media_clock_offset < 1 << 32:
        yield f"media clock offset {stream.media_clock_offset}: expected 0 to 2^32 - 1"


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address in numbers."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def family_of(address: str) -> str:
    """IP4 or IP6, as SDP calls them."""
    return "IP6" if ":" in address else "IP4"
