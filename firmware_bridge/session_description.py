"""Session descriptions (SDP, RFC 8866) of an array: where its streams come from and what they hold.

    v=0
    o=- 1 1 IN IP4 192.168.1.40
    s=porch array
    c=IN IP4 239.1.2.3/32
    t=0 0
    a=ts-refclk:ptp=IEEE1588-2008:39-A7-94-FF-FE-07-CB-D0:0
    a=source-filter: incl IN IP4 239.1.2.3 192.168.1.40
    m=audio 5004 RTP/AVP 96
    a=rtpmap:96 L24/48000/8
    a=ptime:1
    a=mediaclk:direct=963214424

Read are the lines that say where samples come from, how they are coded and whose clock counts them
(RFC 7273: ts-refclk, mediaclk; RFC 4570: source-filter; RFC 3605: rtcp); all others are passed
over. Media other than sound are, too, and so is sound on port 0, which is switched off. Streams are
the array's channels in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from soundpost.device.errors import InputError
from soundpost.firmware_bridge.sdp_reader import SdpReader
from soundpost.firmware_bridge.stream_description import (
    MAX_CHANNELS,
    Origin,
    SourceFilter,
    StreamDescription,
    family_of,
)

__all__ = [
    "MAX_CHANNELS",
    "MAX_TEXT",
    "Origin",
    "SessionDescription",
    "SourceFilter",
    "StreamDescription",
    "parse_sdp",
]

MAX_TEXT: Final = 256 * 1024


@dataclass(frozen=True)
class SessionDescription:
    """All streams of an array, which are its channels in their order.

    Raises InputError where there is no stream, rates differ, channels leave gaps or overlap, or two
    streams have one address and port.
    """

    name: str
    origin: Origin
    streams: tuple[StreamDescription, ...]

    def __post_init__(self) -> None:
        what = f"session {self.name[:60]!r}"
        if not self.name.isprintable():
            raise InputError(f"{what}: its name has control characters; expected text on one line")
        if not self.streams:
            raise InputError(f"{what}: no stream; expected at least one")
        expected = 0
        places: set[tuple[str, int]] = set()
        for number, stream in enumerate(self.streams, 1):
            if stream.rate_hz != self.streams[0].rate_hz:
                raise InputError(
                    f"{what}: stream {number} has {stream.rate_hz} Hz and the first "
                    f"{self.streams[0].rate_hz} Hz; expected one rate"
                )
            if stream.first_channel != expected:
                raise InputError(
                    f"{what}: stream {number} begins with channel {stream.first_channel}; expected "
                    f"{expected}, the next one"
                )
            if (stream.address, stream.port) in places:
                raise InputError(
                    f"{what}: two streams are sent to {stream.address} port {stream.port}; "
                    "expected a port for each"
                )
            places.add((stream.address, stream.port))
            expected += stream.n_channels

    @property
    def rate_hz(self) -> int:
        """Sample rate of every stream."""
        return self.streams[0].rate_hz

    @property
    def n_channels(self) -> int:
        """Channels of all streams together."""
        return sum(stream.n_channels for stream in self.streams)

    def to_sdp(self) -> str:
        """Text of the description, lines ended by CR LF as RFC 8866 wants it."""
        origin = self.origin
        lines = [
            "v=0",
            f"o={origin.user} {origin.session_id} {origin.version} IN {family_of(origin.address)} "
            f"{origin.address}",
            # RFC 8866, 5.3: a session without a meaningful name is called by a single dash.
            f"s={self.name or '-'}",
            "t=0 0",
        ]
        for stream in self.streams:
            lines += _media_lines(stream)
        return "".join(f"{line}\r\n" for line in lines)


def _media_lines(stream: StreamDescription) -> Iterator[str]:
    family = family_of(stream.address)
    # RFC 8866, 5.7: IPv4 multicast must state a TTL.
    ttl = stream.ttl if stream.ttl is not None else 1
    reach = f"/{ttl}" if stream.is_multicast and family == "IP4" else ""
    yield f"m=audio {stream.port} RTP/AVP {stream.payload_type}"
    yield f"c=IN {family} {stream.address}{reach}"
    if stream.rtcp_port != stream.port + 1:
        yield f"a=rtcp:{stream.rtcp_port}"
    if stream.senders is not None:
        mode = "incl" if stream.senders.include else "excl"
        yield (
            f"a=source-filter: {mode} IN {family} {stream.address} "
            f"{' '.join(stream.senders.addresses)}"
        )
    yield (f"a=rtpmap:{stream.payload_type} {stream.encoding}/{stream.rate_hz}/{stream.n_channels}")
    if stream.packet_ms is not None:
        yield f"a=ptime:{stream.packet_ms:.6g}"
    if stream.clock_reference is not None:
        yield f"a=ts-refclk:{stream.clock_reference}"
    if stream.media_clock_offset is not None:
        yield f"a=mediaclk:direct={stream.media_clock_offset}"


def parse_sdp(text: str, where: str) -> SessionDescription:
    """Read a description.

    where : the file's name, for messages

    Raises InputError naming `where` and the line.
    """
    if len(text) > MAX_TEXT:
        raise InputError(
            f"{where}: {len(text)} characters, more than {MAX_TEXT}; expected a session description"
        )
    reader = SdpReader(where)
    streams = reader.read(text)
    try:
        return SessionDescription(reader.name, reader.origin, streams)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
