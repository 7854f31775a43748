"""Sender reports by the bytes of RFC 3550, 6.4.1, alone and among other packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.firmware_bridge.rtcp_report import (
    SenderReport,
    build_report,
    ntp_time,
    parse_reports,
)
from soundpost.firmware_bridge.rtp_packet import PacketError

# Version 2, no reception reports; type 200; 6 words follow the first.
REPORT = bytes.fromhex(
    "80 c8 0006 01020304"
    "83aa7e80 80000000"  # 1970-01-01, half a second later: RFC 868 has 2208988800 = 0x83aa7e80
    "deadbeef 00000010 00004800"
)
# Receiver report of one source (type 201), 7 words; goodbye (203).
OTHERS = bytes.fromhex("81 c9 0007 0000000b") + bytes(24) + bytes.fromhex("81 cb 0001 0000000b")


def test_the_bytes_of_the_standard() -> None:
    expected = SenderReport(0x01020304, 0x83AA7E80_80000000, 0xDEADBEEF, 16, 0x4800)
    assert parse_reports(REPORT) == [expected]
    assert ntp_time(0.5) == expected.ntp
    assert parse_reports(OTHERS + REPORT + OTHERS) == [expected]
    assert parse_reports(OTHERS) == []
    built = build_report(expected, "a")
    assert built.startswith(REPORT)
    # Description (202) with the name that RFC 3550, 6.1 wants in each: SSRC, item 1, length, text.
    assert built[len(REPORT) :] == bytes.fromhex("81 ca 0002 01020304 01 01 61 00")


@given(st.text(max_size=300), st.integers(0, 2**32 - 1))
def test_what_is_sent_is_received_whatever_the_name(name: str, ssrc: int) -> None:
    built = build_report(SenderReport(ssrc, 1, 2), name)
    assert len(built) % 4 == 0
    assert parse_reports(built) == [SenderReport(ssrc, 1, 2)]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (REPORT[:3], "3 bytes, fewer than the 4"),
        (REPORT[:20], "RTCP packet of 28 bytes where 20 are left"),
        (b"\x40" + REPORT[1:], "version 1 of RTCP"),
        (bytes.fromhex("80 c8 0001") + bytes(4), "sender report of 8 bytes"),
        (REPORT + b"\x80", "1 bytes, fewer"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(PacketError, match=problem):
        parse_reports(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_reports_or_refused(data: bytes) -> None:
    try:
        reports = parse_reports(data)
    except PacketError:
        return
    assert 28 * len(reports) <= len(data)
