"""Sender reports of RTCP (RFC 3550, section 6.4.1): which RTP timestamp belongs to which instant.

Of all the packets that RTCP knows, an array needs only these: they put streams with random
timestamps on one clock. Reception reports and descriptions that come with them are passed over.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from soundpost.firmware_bridge.rtp_packet import Bytes, PacketError

SENDER_REPORT: Final = 200
_SOURCE_DESCRIPTION: Final = 202
_BYE: Final = 203
# 1900, where NTP begins to count, to 1970.
NTP_TO_UNIX_S: Final = 2_208_988_800

_HEADER = struct.Struct("!BBH")
_REPORT = struct.Struct("!IQIII")


class SenderReport(NamedTuple):
    """What a sender says of its clock.

    ssrc : of the stream's packets
    ntp : the instant by the sender's clock, in 2^-32 s since 1900
    timestamp : RTP timestamp of the same instant
    n_packets, n_bytes : sent so far, modulo 2^32
    """

    ssrc: int
    ntp: int
    timestamp: int
    n_packets: int = 0
    n_bytes: int = 0


def parse_reports(data: Bytes) -> list[SenderReport]:
    """Sender reports of a datagram, which may hold several packets of RTCP; others are skipped.

    Raises PacketError where its bytes are no RTCP.
    """
    reports = []
    start = 0
    while start < len(data):
        left = len(data) - start
        if left < _HEADER.size:
            raise PacketError(f"{left} bytes, fewer than the {_HEADER.size} of an RTCP header")
        first, kind, n_words = _HEADER.unpack_from(data, start)
        length = 4 * (n_words + 1)
        if first >> 6 != 2:
            raise PacketError(f"version {first >> 6} of RTCP, expected 2")
        if length > left:
            raise PacketError(f"RTCP packet of {length} bytes where {left} are left")
        if kind == SENDER_REPORT:
            if length < _HEADER.size + _REPORT.size:
                raise PacketError(f"sender report of {length} bytes, expected at least 28")
            reports.append(SenderReport(*_REPORT.unpack_from(data, start + _HEADER.size)))
        start += length
    return reports


def build_report(report: SenderReport, name: str = "soundpost") -> bytes:
    """A compound packet as RFC 3550 (section 6.1) wants it: the report, and who sends it.

    report : its counters are taken modulo the size of their fields, as they run over
    name : canonical name (CNAME) of the sender, the same for all its streams; at most 255 bytes
    """
    text = name.encode()[:255]
    # A chunk: SSRC, item CNAME (1), a zero that ends the items, zeros to a whole word.
    chunk = struct.pack("!IBB", report.ssrc, 1, len(text)) + text
    chunk += bytes(4 - len(chunk) % 4)
    n_words = (_HEADER.size + _REPORT.size) // 4 - 1
    return b"".join(
        [
            _HEADER.pack(0x80, SENDER_REPORT, n_words),
            _REPORT.pack(
                report.ssrc,
                report.ntp % (1 << 64),
                report.timestamp % (1 << 32),
                report.n_packets % (1 << 32),
                report.n_bytes % (1 << 32),
            ),
            _HEADER.pack(0x81, _SOURCE_DESCRIPTION, len(chunk) // 4),
            chunk,
        ]
    )


def build_bye(ssrc: int) -> bytes:
    """A packet that says that a stream ends (section 6.6), to be put behind its last report."""
    return _HEADER.pack(0x81, _BYE, 1) + ssrc.to_bytes(4, "big")


def ntp_time(unix_s: float) -> int:
    """Seconds since 1970 in 2^-32 s since 1900, modulo 2^64 as the field is."""
    whole = int(unix_s // 1)
    return ((whole + NTP_TO_UNIX_S) << 32 | int((unix_s - whole) * (1 << 32))) & (1 << 64) - 1
