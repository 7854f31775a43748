"""Reads session descriptions line by line; session_description.py says which lines count."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from soundpost.device.errors import InputError
from soundpost.firmware_bridge.rtp_packet import Encoding
from soundpost.firmware_bridge.stream_description import (
    MAX_CHANNELS,
    Origin,
    SourceFilter,
    StreamDescription,
    family_of,
    is_address,
)

_ENCODINGS: Final[dict[str, Encoding]] = {"L16": "L16", "L24": "L24"}
# RFC 3551, table 4: L16 at 44.1 kHz has payload types of its own, which need no rtpmap.
_STATIC: Final = {10: ("L16", 44_100, 2), 11: ("L16", 44_100, 1)}
_PROFILES: Final = ("RTP/AVP", "RTP/AVPF")
_LETTERS = "vosiuepcbtrzkam"
_LINE = re.compile(rf"([{_LETTERS}])=(.*)")
_ORIGIN = re.compile(r"(\S+) ([0-9]{1,20}) ([0-9]{1,20}) IN IP[46] (\S+)")
_CONNECTION = re.compile(r"IN (IP[46]) ([^/\s]+)(?:/([0-9]{1,3}))?(?:/([0-9]{1,3}))?")
_MEDIA = re.compile(r"(\w+) ([0-9]{1,5})(?:/([0-9]{1,5}))? (\S+) (\S.*)")
_MAP = re.compile(r"([0-9]{1,3}) ([\w.-]+)/([0-9]{1,7})(?:/([0-9]{1,4}))?")
_MEDIA_CLOCK = re.compile(
    r"(?:id=\S+ )?direct(?:=([0-9]{1,20}))?(?: rate=([0-9]{1,9})/([0-9]{1,9}))?"
)
_FILTER = re.compile(r"(incl|excl) IN (?:IP[46]|\*) (\S+) (\S.*)")


@dataclass
class _Part:
    """Lines of the session, or of one medium; of a medium's the session's stand in for missing."""

    number: int
    media: re.Match[str] | None = None
    address: tuple[str, int | None] | None = None
    packet_ms: float | None = None
    maps: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    has_media_clock: bool = False
    media_clock_offset: int | None = None
    clock_reference: str | None = None
    filters: list[tuple[str, SourceFilter]] = field(default_factory=list)
    rtcp_port: int = 0


class SdpReader:
    """Reads the lines of one description, one after the other.

    name, origin : of the session, once it is read
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._number = 0
        self.name = ""
        self.origin = Origin("0.0.0.0")
        self._session = self._part = _Part(0)
        self._media: list[_Part] = []

    def _fail(self, problem: str, number: int | None = None) -> InputError:
        return InputError(f"{self._where}:{number or self._number}: {problem}")

    def read(self, text: str) -> tuple[StreamDescription, ...]:
        """The streams, at least one; raises InputError naming the line."""
        lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
        # `ffmpeg -f rtp` prints this line before the description.
        first = 1 if lines[0].strip() == "SDP:" else 0
        seen_version = False
        for self._number, line in enumerate(lines[first:], first + 1):
            if not line.strip():
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                raise self._fail(
                    f"found {_short(line)}, expected a letter of SDP, = and a value (RFC 8866)"
                )
            letter, value = found[1], found[2].strip()
            if letter == "v":
                if value != "0" or seen_version:
                    raise self._fail(f"found {_short(line)}, expected v=0, once")
                seen_version = True
            elif not seen_version:
                raise self._fail(f"found {_short(line)}, expected v=0 first: not SDP")
            else:
                self._take(letter, value)
        if not seen_version:
            raise InputError(f"{self._where}: no v=0: expected a session description (SDP)")
        return self._streams()

    def _take(self, letter: str, value: str) -> None:
        if letter == "m":
            self._take_media(value)
        elif letter == "c":
            self._part.address = self._connection(value)
        elif letter == "a":
            self._take_attribute(value)
        elif letter == "s" and self._part is self._session:
            self.name = "" if value == "-" else value
        elif letter == "o":
            found = _ORIGIN.fullmatch(value)
            if found is None:
                raise self._fail(
                    f"origin {_short(value)}: expected a user, id, version, IN, IP4 or IP6 and an "
                    "address"
                )
            self.origin = Origin(found[4], int(found[2]), int(found[3]), found[1])

    def _take_media(self, value: str) -> None:
        found = _MEDIA.fullmatch(value)
        if found is None:
            raise self._fail(f"media {_short(value)}: expected such as audio 5004 RTP/AVP 96")
        self._part = _Part(self._number, found)
        self._media.append(self._part)
        if len(self._media) > MAX_CHANNELS:
            raise self._fail(f"more than {MAX_CHANNELS} media; expected fewer")

    def _connection(self, value: str) -> tuple[str, int | None]:
        found = _CONNECTION.fullmatch(value)
        if found is None:
            raise self._fail(f"connection {_short(value)}: expected such as IN IP4 239.1.2.3/32")
        family, address, second, third = found.groups()
        if not is_address(address) or family_of(address) != family:
            raise self._fail(
                f"connection {_short(value)}: expected an {family} address in numbers; look the "
                "name up and write its address"
            )
        # IPv6 has no TTL: there the first number is the count of groups.
        ttl, count = (second, third) if family == "IP4" else (None, second)
        if count not in (None, "1"):
            raise self._fail(f"connection {_short(value)}: {count} groups, expected one")
        return address, int(ttl) if ttl is not None else None

    def _take_attribute(self, value: str) -> None:
        name, _, rest = value.partition(":")
        rest = rest.strip()
        part = self._part
        if name == "rtpmap":
            self._take_map(rest)
        elif name == "ptime":
            part.packet_ms = self._packet_ms(rest)
        elif name == "ts-refclk":
            # Where several are given they tell the same time: the first will do.
            part.clock_reference = part.clock_reference or rest
        elif name == "mediaclk":
            self._take_media_clock(rest)
        elif name == "source-filter":
            self._take_filter(rest)
        elif name == "rtcp" and part is not self._session:
            port = rest.partition(" ")[0]
            if not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65_535):
                raise self._fail(f"rtcp {_short(rest)}: expected a port from 1 to 65535")
            part.rtcp_port = int(port)

    def _take_map(self, value: str) -> None:
        found = _MAP.fullmatch(value)
        if found is None:
            # Of a medium that is passed over anyway it may be anything.
            if self._part.media is None or self._part.media[1] != "audio":
                return
            raise self._fail(f"rtpmap {_short(value)}: expected such as 96 L24/48000/8")
        # RFC 8866, 6.6: one channel where none is said.
        self._part.maps[int(found[1])] = (found[2].upper(), int(found[3]), int(found[4] or 1))

    def _packet_ms(self, value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,12})?", value) or float(value) == 0:
            raise self._fail(f"ptime {_short(value)}: expected milliseconds, such as 1")
        return float(value)

    def _take_media_clock(self, value: str) -> None:
        found = _MEDIA_CLOCK.fullmatch(value)
        # Other kinds (sender, IEEE1722) give no offset: reports of the sender have to.
        if found is None:
            if value.startswith("direct"):
                raise self._fail(
                    f"mediaclk {_short(value)}: expected such as direct=963214424 (RFC 7273)"
                )
            return
        if found[2] is not None and int(found[2]) != int(found[3]):
            raise self._fail(
                f"mediaclk {_short(value)}: a rate pulled up or down is not supported; expected 1/1"
            )
        if found[1] is not None and int(found[1]) >= 1 << 32:
            raise self._fail(f"mediaclk {_short(value)}: expected an offset of 0 to 2^32 - 1")
        self._part.has_media_clock = True
        self._part.media_clock_offset = None if found[1] is None else int(found[1])

    def _take_filter(self, value: str) -> None:
        found = _FILTER.fullmatch(value)
        if found is None:
            raise self._fail(
                f"source-filter {_short(value)}: expected such as incl IN IP4 239.1.2.3 192.168.1.4"
            )
        addresses = tuple(found[3].split())
        wrong = [address for address in addresses if not is_address(address)]
        if wrong or len(addresses) > MAX_CHANNELS:
            raise self._fail(
                f"source-filter {_short(' '.join(wrong))}: expected addresses in numbers"
            )
        self._part.filters.append((found[2], SourceFilter(addresses, found[1] == "incl")))

    def _streams(self) -> tuple[StreamDescription, ...]:
        streams: list[StreamDescription] = []
        n_channels = 0
        for part in self._media:
            media = part.media
            assert media is not None
            if media[1] != "audio" or int(media[2]) == 0:
                continue
            stream = self._stream(part, media, n_channels)
            streams.append(stream)
            n_channels += stream.n_channels
        if not streams:
            raise InputError(
                f"{self._where}: no stream of sound: expected a line such as "
                "m=audio 5004 RTP/AVP 96"
            )
        return tuple(streams)

    def _stream(self, part: _Part, media: re.Match[str], first_channel: int) -> StreamDescription:
        if media[3] not in (None, "1"):
            raise self._fail(f"{media[3]} ports; expected a medium for each stream", part.number)
        if media[4] not in _PROFILES:
            raise self._fail(
                f"transport {_short(media[4])}: expected RTP/AVP; encrypted or other transports "
                "are not supported",
                part.number,
            )
        connection = part.address or self._session.address
        if connection is None:
            raise self._fail(
                "no address: expected a line such as c=IN IP4 239.1.2.3/32", part.number
            )
        payload_type, encoding, rate_hz, n_channels = self._format(part, media[5])
        # RFC 7273: the media's own line in place of the session's.
        clock = part if part.has_media_clock else self._session
        address, ttl = connection
        try:
            return StreamDescription(
                address=address,
                port=int(media[2]),
                payload_type=payload_type,
                encoding=encoding,
                rate_hz=rate_hz,
                n_channels=n_channels,
                packet_ms=part.packet_ms or self._session.packet_ms,
                media_clock_offset=clock.media_clock_offset,
                clock_reference=part.clock_reference or self._session.clock_reference,
                first_channel=first_channel,
                senders=self._filter(part, address),
                rtcp_port=part.rtcp_port,
                ttl=ttl,
            )
        except InputError as error:
            raise self._fail(str(error), part.number) from error

    def _format(self, part: _Part, formats: str) -> tuple[int, Encoding, int, int]:
        """The first payload type that is L16 or L24, and what it means."""
        found = []
        for text in formats.split()[:128]:
            if not re.fullmatch(r"[0-9]{1,3}", text):
                raise self._fail(f"format {_short(text)}: expected a payload type", part.number)
            known = part.maps.get(int(text)) or _STATIC.get(int(text))
            if known is not None and known[0] in _ENCODINGS:
                return int(text), _ENCODINGS[known[0]], known[1], known[2]
            found.append(f"{text} {known[0] if known else 'without rtpmap'}")
        raise self._fail(
            f"payload {_short(', '.join(found))}: expected L16 or L24, as in a=rtpmap:96 "
            "L24/48000/8; set the sender to uncompressed samples",
            part.number,
        )

    def _filter(self, part: _Part, address: str) -> SourceFilter | None:
        """The filter for an address: the media's, else the session's."""
        for filters in (part.filters, self._session.filters):
            for target, chosen in filters:
                if target in ("*", address):
                    return chosen
        return None


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
