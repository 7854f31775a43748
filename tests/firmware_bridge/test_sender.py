"""What both senders send, as GStreamer, FFmpeg and a plain socket hear it."""

import ctypes
import socket
import threading
import time

import numpy as np
import pytest
from array_streams import free_ports
from c_library import INT32, Stream
from hypothesis import given
from hypothesis import strategies as st
from receivers import GSTREAMER_ORDER, FFmpeg, GStreamer

from soundpost import device
from soundpost.device.errors import InputError, UsageError
from soundpost.firmware_bridge.impairments import Impairments, ImpairmentSettings
from soundpost.firmware_bridge.packetiser import (
    Packetiser,
    describe_array,
    random_starts,
    split_channels,
)
from soundpost.firmware_bridge.rtcp_report import NTP_TO_UNIX_S, parse_reports
from soundpost.firmware_bridge.rtp_packet import decode_samples, encode_samples, parse_packet
from soundpost.firmware_bridge.sender import ArraySender, UdpLink, local_address
from soundpost.firmware_bridge.session_description import parse_sdp

RATE_HZ = 48_000
PACKET = 48


def noise(n_samples, n_channels, encoding="L24", seed=0):
    """Whole numbers of the encoding's width, full scale included, and the same as float32."""
    bits = 16 if encoding == "L16" else 24
    half = 1 << bits - 1
    whole = np.random.default_rng(seed).integers(-half, half, (n_samples, n_channels), np.int32)
    whole[0], whole[1] = -half, half - 1
    return whole, (whole / half).astype(np.float32)


def described(n_channels, port=5_004, encoding="L24", n_streams=None, seed=1, **more):
    channels = split_channels(n_channels, n_streams)
    starts = random_starts(len(channels), seed)
    session = describe_array(
        RATE_HZ,
        channels,
        starts,
        address="127.0.0.1",
        port=port,
        packet_samples=PACKET,
        encoding=encoding,
        **more,
    )
    return session, starts


def send_by_python(session, starts, samples):
    with UdpLink(session) as link:
        ArraySender(Packetiser(session, starts, PACKET), link).send([samples])


def send_by_c(library, session, starts, whole):
    """What firmware would do: a packet of each stream by the millisecond, reports, the end."""
    shift = 32 - 8 * (2 if session.streams[0].encoding == "L16" else 3)
    words = np.ascontiguousarray(whole << shift)
    block = library.sp_interleaved(words.ctypes.data, INT32, whole.shape[1], len(whole))
    streams = [
        Stream(
            start.ssrc,
            start.offset,
            start.offset,
            sequence=start.sequence,
            first_channel=described.first_channel,
            n_channels=described.n_channels,
            payload_type=described.payload_type,
            bytes_per_sample=described.frame_bytes // described.n_channels,
        )
        for start, described in zip(starts, session.streams, strict=True)
    ]
    out = ctypes.create_string_buffer(1_500)
    with UdpLink(session) as link:
        begun_s = time.monotonic()
        for first in range(0, len(whole), PACKET):
            length = min(PACKET, len(whole) - first)
            time.sleep(max(0.0, begun_s + first / RATE_HZ - time.monotonic()))
            for number, stream in enumerate(streams):
                size = library.sp_packet(stream, block, first, length, out, 1_500)
                link.send(number, out.raw[:size])
        time.sleep(0.1)
        for number, stream in enumerate(streams):
            size = library.sp_report(stream, 1, 0, b"array", True, out, 1_500)
            link.send_report(number, out.raw[:size])


def columns(session, whole):
    return [
        whole[:, stream.first_channel : stream.first_channel + stream.n_channels]
        for stream in session.streams
    ]


def test_the_tree_under_test_is_this_one():
    from pathlib import Path

    assert Path(device.__file__).resolve().parents[1] == Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------ real receivers


@pytest.mark.parametrize("sender", ["python", "c"])
@pytest.mark.parametrize("encoding", ["L16", "L24"])
def test_gstreamer_hears_every_bit(tmp_path, library, sender, encoding):
    """Ten channels in two streams; the last packet is a short one."""
    whole, samples = noise(24_000 + 7, 10, encoding)
    port = free_ports(2)
    session, starts = described(10, port, encoding)
    expected = [
        encode_samples(part[:, GSTREAMER_ORDER.get(part.shape[1], slice(None))], encoding)
        for part in columns(session, whole)
    ]
    receiver = GStreamer(tmp_path, port, [8, 2], encoding, RATE_HZ)
    try:
        if sender == "python":
            send_by_python(session, starts, samples)
        else:
            send_by_c(library, session, starts, whole)
        heard = receiver.heard([len(part) for part in expected])
    finally:
        receiver.close()
    assert [len(part) for part in heard] == [len(part) for part in expected]
    assert heard == expected


@pytest.mark.parametrize("sender", ["python", "c"])
@pytest.mark.parametrize(("encoding", "sample"), [("L16", "s16le"), ("L24", "s32le")])
def test_ffmpeg_hears_every_bit_by_the_description(tmp_path, library, sender, encoding, sample):
    """It takes the first packet of one stream to find out what comes, and keeps all that follow."""
    whole, samples = noise(24_000 + 7, 10, encoding)
    port = free_ports(2)
    session, starts = described(10, port, encoding, clock_reference="localmac=00-00-00-00-00-01")
    sdp = tmp_path / "array.sdp"
    sdp.write_bytes(session.to_sdp().encode())
    receiver = FFmpeg(tmp_path, sdp, port, 2, sample)
    if sender == "python":
        send_by_python(session, starts, samples)
    else:
        send_by_c(library, session, starts, whole)
    heard = receiver.heard()
    n_missing = 0
    for part, raw in zip(columns(session, whole), heard, strict=True):
        found = np.frombuffer(raw, "<i2" if encoding == "L16" else "<i4").astype(np.int32)
        found = found.reshape(-1, part.shape[1]) >> (0 if encoding == "L16" else 8)
        missing = len(part) - len(found)
        assert missing in (0, PACKET)
        assert np.array_equal(found, part[missing:])
        n_missing += missing
    assert n_missing <= PACKET


# ------------------------------------------------------------------------------ a plain socket


class Ear(threading.Thread):
    """Takes in what comes to the ports of a session, with the time of each."""

    def __init__(self, session, until_s):
        super().__init__(daemon=True)
        self.packets = [[] for _ in session.streams]
        self.reports = [[] for _ in session.streams]
        self._sockets = []
        for number, stream in enumerate(session.streams):
            for port, into in ((stream.port, self.packets), (stream.rtcp_port, self.reports)):
                one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                one.bind(("127.0.0.1", port))
                one.setblocking(False)
                self._sockets.append((one, into[number]))
        self._until_s = time.monotonic() + until_s
        self._enough = threading.Event()
        self.start()

    def run(self):
        while not self._enough.is_set() and time.monotonic() < self._until_s:
            time.sleep(0.001)
            self._drain()
        self._drain()

    def _drain(self):
        for one, into in self._sockets:
            while True:
                try:
                    into.append((time.monotonic(), time.time(), one.recv(65_536)))
                except BlockingIOError:
                    break

    def stop(self):
        self._enough.set()
        self.join()
        for one, _ in self._sockets:
            one.close()


@pytest.mark.parametrize("drift_ppm", [0.0, -50_000.0, 100_000.0])
def test_the_pace_is_that_of_a_drifting_clock_and_the_reports_say_so(drift_ppm):
    """1.5 s of sound take 1.5 s less the drift; NTP and RTP of the reports lie on that line."""
    whole, samples = noise(72_000, 3)
    session, starts = described(3, free_ports(1))
    ear = Ear(session, 60.0)
    with UdpLink(session) as link:
        before_s = time.time()
        sender = ArraySender(Packetiser(session, starts, PACKET), link, drift_ppm=drift_ppm)
        sender.send([samples[:30_000], samples[30_000:]])
    ear.stop()
    (packets,), (reports,) = ear.packets, ear.reports
    parsed = [parse_packet(data) for _, _, data in packets]
    assert np.array_equal(
        np.concatenate([decode_samples(one.payload, "L24", 3) for one in parsed]), whole
    )
    assert [one.sequence for one in parsed] == [
        (starts[0].sequence + number) & 0xFFFF for number in range(1_500)
    ]
    assert {(one.ssrc, one.marker, one.payload_type) for one in parsed} == {
        (starts[0].ssrc, False, 98)
    }
    positions = [(one.timestamp - starts[0].offset) & 0xFFFFFFFF for one in parsed]
    assert positions == list(range(0, 72_000, PACKET))

    rate_hz = RATE_HZ * (1 + drift_ppm * 1e-6)
    # A packet may be late on a busy machine, and none is early: those of each half that are least
    # late lie on the clock's line. Between the halves' middles a drift of 5 % is 37 ms.
    late_s = [
        at_s - position / rate_hz for (at_s, _, _), position in zip(packets, positions, strict=True)
    ]
    assert abs(min(late_s[:750]) - min(late_s[750:])) < 0.015
    told = [report for _, _, data in reports for report in parse_reports(data)]
    assert len(told) == 3
    at_s = [report.ntp / 2**32 - NTP_TO_UNIX_S for report in told]
    at_sample = [(report.timestamp - starts[0].offset) & 0xFFFFFFFF for report in told]
    assert at_sample[0] == PACKET
    assert at_sample[2] == 72_000
    assert np.diff(at_sample) / np.diff(at_s) == pytest.approx(rate_hz, rel=1e-5)
    assert 0 <= at_s[0] - PACKET / rate_hz - before_s < 10
    assert [report.n_packets for report in told] == [sample // PACKET for sample in at_sample]
    assert [report.n_bytes for report in told] == [9 * sample for sample in at_sample]
    # The last datagram ends with BYE (RFC 3550, 6.6): type 203 and the SSRC.
    assert reports[-1][2][-8:] == bytes([0x81, 203, 0, 1]) + starts[0].ssrc.to_bytes(4, "big")
    assert sender.sent.n_samples == 72_000
    assert sender.sent.n_packets == 1_500


def test_a_bad_network_delivers_what_it_told(tmp_path):
    """Loss, order and copies that a receiver sees on the wire are those of the truth."""
    whole, samples = noise(48_000, 10)
    session, starts = described(10, free_ports(2))
    ear, told = Ear(session, 60.0), []
    settings = ImpairmentSettings(loss=0.02, reorder=0.05, duplicate=0.03, jitter_ms=3.0)
    with UdpLink(session) as link:
        network = Impairments(settings, 7, told.append)
        ArraySender(Packetiser(session, starts, PACKET), link, network).send([samples])
    ear.stop()
    for number, part in enumerate(columns(session, whole)):
        arrived = [parse_packet(data) for _, _, data in ear.packets[number]]
        firsts = [(one.timestamp - starts[number].offset) & 0xFFFFFFFF for one in arrived]
        lost = {one.first_sample for one in told if one.what == "lost" and one.stream == number}
        twice = [
            one.first_sample for one in told if one.what == "duplicate" and one.stream == number
        ]
        assert set(firsts) == set(range(0, 48_000, PACKET)) - lost
        assert sorted(firsts) == sorted([*set(firsts), *twice])
        once = list(dict.fromkeys(firsts))
        overtaken = {
            first: sum(other > first for other in once[:place]) for place, first in enumerate(once)
        }
        assert {first: count for first, count in overtaken.items() if count} == {
            one.first_sample: one.places
            for one in told
            if one.what == "reordered" and one.stream == number
        }
        for first, packet in zip(firsts, arrived, strict=True):
            found = decode_samples(packet.payload, "L24", part.shape[1])
            assert np.array_equal(found, part[first : first + PACKET])


def test_the_streams_end_with_goodbye_when_the_sender_is_stopped():
    _, samples = noise(480, 2)
    session, starts = described(2, free_ports(1))
    ear = Ear(session, 60.0)

    def blocks():
        yield samples
        raise KeyboardInterrupt

    with UdpLink(session) as link, pytest.raises(KeyboardInterrupt):
        ArraySender(Packetiser(session, starts, PACKET), link).send(blocks())
    ear.stop()
    assert len(ear.packets[0]) == 10
    assert ear.reports[0][-1][2][-8:-4] == bytes([0x81, 203, 0, 1])


# ---------------------------------------------------------------------------------- packetiser


@given(
    st.integers(1, 20),
    st.integers(1, 60),
    st.lists(st.integers(0, 100), max_size=8),
    st.sampled_from(["L16", "L24"]),
    st.integers(0, 2**32),
    st.data(),
)
def test_packets_are_the_same_for_any_cut(n_channels, packet, cuts, encoding, seed, data):
    """Joined again they are the samples; sequence and timestamp run on from where they began."""
    n_streams = data.draw(st.none() | st.integers(1, n_channels))
    session, starts = described(n_channels, encoding=encoding, n_streams=n_streams, seed=seed)
    n_samples = sum(cuts) + 5
    whole, samples = noise(n_samples, n_channels, encoding)
    packetiser = Packetiser(session, starts, packet)
    moments, at = [], 0
    for cut in [*cuts, 5]:
        moments += packetiser.push(samples[at : at + cut])
        at += cut
        assert packetiser.position == at // packet * packet
    moments += packetiser.flush()
    assert packetiser.position == n_samples
    assert list(packetiser.flush()) == []
    at_once = Packetiser(session, starts, packet)
    assert moments == [*at_once.push(samples), *at_once.flush()]
    for number, part in enumerate(columns(session, whole)):
        mine = [moment[number] for moment in moments]
        parsed = [parse_packet(one.data) for one in mine]
        joined = b"".join(bytes(one.payload) for one in parsed)
        assert np.array_equal(decode_samples(joined, encoding, part.shape[1]), part)
        for count, (one, datagram) in enumerate(zip(parsed, mine, strict=True)):
            assert one.sequence == datagram.sequence == (starts[number].sequence + count) & 0xFFFF
            assert datagram.first_sample == count * packet
            assert one.timestamp == (starts[number].offset + count * packet) & 0xFFFFFFFF
            assert one.ssrc == starts[number].ssrc


@given(st.integers(1, 1_024), st.integers(0, 2**32))
def test_starts_and_channels_of_streams(n_channels, seed):
    channels = split_channels(n_channels)
    assert sum(channels) == n_channels
    assert set(channels[:-1]) <= {8}
    assert 1 <= channels[-1] <= 8
    starts = random_starts(len(channels), seed)
    assert len({start.ssrc for start in starts}) == len(channels)
    assert starts == random_starts(len(channels), seed)
    assert starts != random_starts(len(channels), seed + 1)
    n_streams = 1 + seed % n_channels
    spread = split_channels(n_channels, n_streams)
    assert (sum(spread), len(spread), max(spread) - min(spread) <= 1) == (
        n_channels,
        n_streams,
        True,
    )


def test_the_description_says_where_each_stream_began():
    session, starts = described(128, clock_reference="localmac=00-04-A3-12-34-56")
    read = parse_sdp(session.to_sdp(), "array.sdp")
    assert [stream.media_clock_offset for stream in read.streams] == [
        start.offset for start in starts
    ]
    assert [stream.port for stream in read.streams] == list(range(5_004, 5_036, 2))
    bare, _ = described(128, media_clock=False, clock_reference="localmac=00-04-A3-12-34-56")
    assert "clk" not in bare.to_sdp()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: split_channels(4, 5), UsageError, "5 streams for 4 channels: expected 1 to 4"),
        (lambda: described(128, 65_510), UsageError, "port 65510: 16 streams"),
        (lambda: described(500, n_streams=1), UsageError, "72012 bytes.*more streams or shorter"),
        (
            lambda: ArraySender(
                Packetiser(*described(2), PACKET), UdpLink(described(2)[0]), drift_ppm=2e5
            ),
            UsageError,
            "drift 200000 ppm: expected at most 100000",
        ),
        (
            lambda: list(Packetiser(*described(2), PACKET).push(noise(4, 3)[1])),
            InputError,
            r"shape \(4, 3\): expected \(n_samples, 2\)",
        ),
        (lambda: Packetiser(*described(2), 0), InputError, "packets of 0 samples"),
        (lambda: UdpLink(described(2)[0], "203.0.113.9"), UsageError, "interface 203.0.113.9"),
        (
            lambda: local_address("255.255.255.255"),
            UsageError,
            r"255\.255\.255\.255: cannot be sent to \(Permission denied\)",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
