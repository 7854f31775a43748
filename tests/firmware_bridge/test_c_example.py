"""The example of the C sender on a board of this computer: DMA halves, overruns, reports."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_library import FOLDER
from receivers import need

from soundpost.firmware_bridge.rtcp_report import NTP_TO_UNIX_S, parse_reports
from soundpost.firmware_bridge.rtp_packet import decode_samples, parse_packet
from soundpost.firmware_bridge.session_description import parse_sdp

N_CHANNELS, FRAMES, REPORT_HALVES = 128, 48, 5_000


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The example linked with a board whose converter counts."""
    need("gcc", "gcc")
    program = tmp_path_factory.mktemp("board") / "board"
    sources = [FOLDER / name for name in ("soundpost_rtp.c", "soundpost_sdp.c", "example_dma.c")]
    subprocess.run(
        [
            *("gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", f"-I{FOLDER}"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover", "-o", program),
            *(*sources, Path(__file__).with_name("board.c")),
        ],
        check=True,
    )
    return program


def sent_by(board, halves, overrun_after, overrun):
    """Description, packets and reports of each stream."""
    raw = subprocess.run(
        [board, str(halves), str(overrun_after), str(overrun)], check=True, capture_output=True
    ).stdout
    datagrams, at = {}, 0
    while at < len(raw):
        port, length = struct.unpack_from("!HH", raw, at)
        datagrams.setdefault(port, []).append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    session = parse_sdp(datagrams.pop(0)[0].decode(), "array.sdp")
    packets = [list(map(parse_packet, datagrams.pop(stream.port))) for stream in session.streams]
    reports = [
        [report for data in datagrams.pop(stream.rtcp_port, []) for report in parse_reports(data)]
        for stream in session.streams
    ]
    assert datagrams == {}
    return session, packets, reports


@pytest.mark.parametrize("overrun", [0, 1, 2, 5])
def test_each_half_is_sent_once_and_overruns_leave_a_gap(board, overrun):
    """What is heard is what the converter counted, at its place on the media clock."""
    session, packets, _ = sent_by(board, 41, 10, overrun)
    assert session.n_channels == N_CHANNELS
    for stream, of_stream in zip(session.streams, packets, strict=True):
        places = [
            (packet.timestamp - stream.media_clock_offset) & 0xFFFFFFFF for packet in of_stream
        ]
        # While it was late, all but the last half were written over.
        lost = range(9, 9 + overrun)
        assert places == [FRAMES * half for half in range(41) if half not in lost]
        assert set(np.diff([packet.sequence for packet in of_stream]) % 65_536) == {1}
        channels = stream.first_channel + np.arange(stream.n_channels)
        for place, packet in zip(places, of_stream, strict=True):
            frames = place + np.arange(FRAMES)
            assert np.array_equal(
                decode_samples(packet.payload, "L24", stream.n_channels),
                frames[:, None] * N_CHANNELS + channels,
            )


def test_reports_tell_when_the_next_frame_was_taken(board):
    """By the board's clock frame n is taken n / 48000 s after second 1000."""
    session, packets, reports = sent_by(board, 2 * REPORT_HALVES + 5, 7, 3)
    for stream, of_stream, told in zip(session.streams, packets, reports, strict=True):
        assert len(told) == 2
        assert {report.ssrc for report in told} == {of_stream[0].ssrc}
        for number, report in enumerate(told, 1):
            frame = (report.timestamp - stream.media_clock_offset) & 0xFFFFFFFF
            assert frame == number * REPORT_HALVES * FRAMES
            taken_s = report.ntp / 2**32 - NTP_TO_UNIX_S
            assert taken_s == pytest.approx(1_000 + frame / 48_000, abs=1e-6)
            # Three halves were lost.
            assert report.n_packets == number * REPORT_HALVES - 3
            assert report.n_bytes == report.n_packets * FRAMES * 3 * stream.n_channels
