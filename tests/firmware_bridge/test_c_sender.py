"""The C sender: builds without a warning, needs nothing, and gives Python's packets to the byte."""

import ctypes
import json
import re
import struct
import subprocess

import numpy as np
import pytest
from c_library import FOLDER, INT16, INT24, INT32, LOW24, Session, Stream, make
from hypothesis import given
from hypothesis import strategies as st
from receivers import need

from soundpost.firmware_bridge.rtcp_report import SenderReport, build_bye, build_report
from soundpost.firmware_bridge.rtp_packet import build_packet, encode_samples, frame_bytes
from soundpost.firmware_bridge.session_description import (
    Origin,
    SessionDescription,
    StreamDescription,
    parse_sdp,
)

README = (FOLDER / "README.md").read_text(encoding="utf-8")
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
WIDTHS = {"L16": 2, "L24": 3}
# One page of a datagram, as firmware would have; nothing may be written beyond its capacity.
CAPACITY = 1_500
GUARD = 0xA5
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """Folder of the objects for a Cortex-M7, and what `make arm` printed."""
    need("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    build = tmp_path_factory.mktemp("arm")
    return build / "arm", make("arm", build)


def filled(call, capacity):
    """Bytes that a function wrote, after a look at what it must not touch."""
    out = ctypes.create_string_buffer(bytes([GUARD]) * (capacity + 16), capacity + 16)
    length = call(out, capacity)
    assert length <= capacity
    # Where it refuses, nothing at all is written.
    assert set(out.raw[length:] if length else out.raw[capacity:]) == {GUARD}
    return out.raw[:length]


def in_memory(samples, memory_format, planar):
    """Samples of 24 bits as a DMA controller would leave them."""
    laid = samples.T if planar else samples
    if memory_format == INT16:
        return laid.astype("=i2").tobytes()
    if memory_format == LOW24:
        # What converters leave in the upper 8 bits is not the sign's business.
        return (laid & 0xFFFFFF | 0x5A000000).astype("=i4").tobytes()
    words = laid.astype("<i4")
    if memory_format == INT24:
        return np.ascontiguousarray(words).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return (laid << 8).astype("=i4").tobytes()


def stream_of(vector, n_channels, first_channel=0):
    return Stream(
        ssrc=int(vector["ssrc"], 16),
        timestamp=vector["timestamp"],
        sequence=vector.get("sequence", 0),
        n_packets=vector.get("n_packets", 0),
        n_octets=vector.get("n_octets", 0),
        first_channel=first_channel,
        n_channels=n_channels,
        payload_type=vector.get("payload_type", 96),
        bytes_per_sample=WIDTHS[vector.get("encoding", "L24")],
    )


def named(vectors):
    return [pytest.param(vector, id=vector["what"].partition(":")[0]) for vector in vectors]


# ------------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize("vector", named(VECTORS["packets"]))
def test_both_give_the_packets_worked_out_by_hand(library, vector):
    expected = bytes.fromhex(vector["hex"])
    samples = np.array(vector["samples"], np.int32)
    n_frames, n_channels = samples.shape
    ours = build_packet(
        vector["payload_type"],
        vector["sequence"],
        vector["timestamp"],
        int(vector["ssrc"], 16),
        encode_samples(samples, vector["encoding"]),
    )
    assert ours == expected
    words = np.ascontiguousarray(samples << (32 - 8 * WIDTHS[vector["encoding"]]))
    block = library.sp_interleaved(words.ctypes.data, INT32, n_channels, n_frames)
    stream = stream_of(vector, n_channels)
    found = filled(
        lambda out, capacity: library.sp_packet(stream, block, 0, n_frames, out, capacity),
        len(expected),
    )
    assert found == expected


@pytest.mark.parametrize("vector", named(VECTORS["reports"]))
def test_both_give_the_reports_worked_out_by_hand(library, vector):
    expected = bytes.fromhex(vector["hex"])
    ssrc = int(vector["ssrc"], 16)
    ntp = vector["ntp_seconds"] << 32 | vector["ntp_fraction"]
    report = SenderReport(ssrc, ntp, vector["timestamp"], vector["n_packets"], vector["n_octets"])
    ours = build_report(report, vector["cname"]) + (build_bye(ssrc) if vector["bye"] else b"")
    assert ours == expected
    stream = stream_of(vector, 8)
    found = filled(
        lambda out, capacity: library.sp_report(
            stream,
            vector["ntp_seconds"],
            vector["ntp_fraction"],
            vector["cname"].encode(),
            vector["bye"],
            out,
            capacity,
        ),
        len(expected),
    )
    assert found == expected


@pytest.mark.parametrize("vector", named(VECTORS["descriptions"]))
def test_both_give_the_descriptions_worked_out_by_hand(library, vector):
    text = "".join(f"{line}\r\n" for line in vector["lines"])
    channels = [min(8, vector["n_channels"] - first) for first in range(0, vector["n_channels"], 8)]
    ours = SessionDescription(
        vector["name"],
        Origin(vector["origin"], vector["id"]),
        tuple(
            StreamDescription(
                vector["destination"],
                vector["port"] + 2 * number,
                vector["payload_type"],
                vector["encoding"],
                vector["rate_hz"],
                n_channels,
                vector["packet_us"] / 1000,
                vector["clock_offsets"][number],
                vector["reference_clock"],
                first_channel=8 * number,
                ttl=vector["ttl"],
            )
            for number, n_channels in enumerate(channels)
        ),
    )
    assert ours.to_sdp() == text
    session = Session(
        vector["name"].encode(),
        vector["origin"].encode(),
        vector["destination"].encode(),
        vector["reference_clock"] and vector["reference_clock"].encode(),
        vector["id"],
        vector["rate_hz"],
        vector["packet_us"],
        vector["port"],
        vector["ttl"],
    )
    random = (ctypes.c_uint32 * (3 * len(channels)))()
    random[1::3] = vector["clock_offsets"]
    streams = (Stream * len(channels))()
    encoding, payload_type = WIDTHS[vector["encoding"]], vector["payload_type"]
    n_streams = library.sp_split(
        streams, len(channels), vector["n_channels"], encoding, payload_type, random
    )
    assert n_streams == len(channels)

    def describe(out, capacity):
        return library.sp_describe(session, streams, n_streams, out, capacity)

    out = ctypes.create_string_buffer(4096)
    for capacity in (4096, len(text)):
        length = describe(out, capacity)
        assert out.raw[:length] == text.encode()
    assert all(describe(out, capacity) == 0 for capacity in range(len(text)))


# ---------------------------------------------------------------------------------- any samples


@given(data=st.data())
def test_any_samples_in_any_memory_give_the_same_packets(library, data):
    """Any array, cut into streams and packets: the bytes are those of Python's packetiser.

    Python is given what the wire has room for; the C cuts the rest off.
    """
    n_channels = data.draw(st.integers(1, 40), "channels")
    n_frames = data.draw(st.integers(1, 30), "frames")
    memory_format = data.draw(st.sampled_from([INT16, INT24, INT32, LOW24]), "format")
    planar = data.draw(st.booleans(), "planar")
    encoding = data.draw(st.sampled_from(["L16", "L24"]), "encoding")
    payload_type = data.draw(st.integers(96, 127), "payload type")
    n_streams = -(-n_channels // 8)
    numbers = st.lists(st.integers(0, 2**32 - 1), min_size=3 * n_streams, max_size=3 * n_streams)
    random = data.draw(numbers, "random")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    bits = 16 if memory_format == INT16 else 24
    half = 1 << bits - 1
    samples = rng.integers(-half, half, (n_frames, n_channels), np.int32)
    samples[rng.random(samples.shape) < 0.1] = half - 1
    samples[rng.random(samples.shape) < 0.1] = -half

    # Python's whole numbers are as wide as the wire's; an arithmetic shift cuts, as the C does.
    wire = samples << 24 - bits >> (8 if encoding == "L16" else 0)
    memory = in_memory(samples, memory_format, planar)
    buffer = ctypes.create_string_buffer(memory, len(memory))
    if planar:
        block = library.sp_planar(
            ctypes.addressof(buffer), memory_format, n_channels, n_frames, n_frames
        )
    else:
        block = library.sp_interleaved(
            ctypes.addressof(buffer), memory_format, n_channels, n_frames
        )
    streams = (Stream * n_streams)()
    assert n_streams == library.sp_split(
        streams,
        n_streams,
        n_channels,
        WIDTHS[encoding],
        payload_type,
        (ctypes.c_uint32 * (3 * n_streams))(*random),
    )
    lengths = []
    while sum(lengths) < n_frames:
        left = n_frames - sum(lengths)
        lengths.append(data.draw(st.integers(1, left), "packet"))

    for number, stream in enumerate(streams):
        ssrc, timestamp, sequence = random[3 * number : 3 * number + 3]
        of_stream = slice(8 * number, min(8 * number + 8, n_channels))
        first = n_octets = 0
        for n_packet, length in enumerate(lengths):
            part = wire[first : first + length, of_stream]
            expected = build_packet(
                payload_type,
                (sequence + n_packet) & 0xFFFF,
                (timestamp + first) & 0xFFFFFFFF,
                ssrc,
                encode_samples(part, encoding),
            )
            assert library.sp_packet_bytes(stream, length) == len(expected)
            found = filled(
                lambda out, capacity, stream=stream, first=first, length=length: library.sp_packet(
                    stream, block, first, length, out, capacity
                ),
                CAPACITY,
            )
            assert found == expected
            first += length
            n_octets += len(expected) - 12
            assert (stream.n_packets, stream.n_octets) == (n_packet + 1, n_octets)
        assert stream.clock_offset == timestamp
        assert stream.timestamp == (timestamp + n_frames) & 0xFFFFFFFF


@given(st.binary(max_size=300).filter(lambda name: b"\0" not in name), st.booleans(), st.data())
def test_reports_of_any_name_are_pythons(library, name, bye, data):
    number = st.integers(0, 2**32 - 1)
    ssrc, timestamp, packets, octets, seconds, fraction = (data.draw(number) for _ in range(6))
    stream = Stream(ssrc=ssrc, timestamp=timestamp, n_packets=packets, n_octets=octets)
    capacity = data.draw(st.integers(0, 304))
    found = filled(
        lambda out, capacity: library.sp_report(
            stream, seconds, fraction, name, bye, out, capacity
        ),
        capacity,
    )
    report = SenderReport(ssrc, seconds << 32 | fraction, timestamp, packets, octets)
    # Names of ours are text; Latin-1 has a character for every byte, UTF-8 not.
    text = "x" * len(name)
    expected = build_report(report, text) + (build_bye(ssrc) if bye else b"")
    expected = expected.replace(text.encode(), name[:255]) if name else expected
    fits = len(name) <= 255 and len(expected) <= capacity
    assert found == (expected if fits else b"")


@given(st.integers(0, 999_999))
def test_fractions_of_a_second_are_right_to_a_nanosecond(library, microseconds):
    exact = microseconds * 2**32 / 1_000_000
    assert abs(library.sp_ntp_fraction(microseconds) - exact) <= 1


# ------------------------------------------------------------------------------- one array, parts


def test_buffers_of_several_converters_are_parts_of_one_array(library):
    """Stream 1 is channels 8 to 15, in a buffer of 16 or in one of their own."""
    rng = np.random.default_rng(3)
    samples = rng.integers(-(2**31), 2**31, (6, 16), np.int64).astype(np.int32)
    whole = library.sp_interleaved(samples.ctypes.data, INT32, 16, 6)
    second_half = np.ascontiguousarray(samples[:, 8:])
    own = library.sp_interleaved(second_half.ctypes.data, INT32, 8, 6)
    own.first_channel = 8
    packets = []
    for block in (whole, own):
        stream = Stream(first_channel=8, n_channels=8, payload_type=96, bytes_per_sample=3)
        packets.append(
            filled(lambda out, size: library.sp_packet(stream, block, 0, 6, out, size), CAPACITY)  # noqa: B023
        )
    assert packets[0] == packets[1]
    assert packets[0][12:] == encode_samples(samples[:, 8:] >> 8, "L24")


def test_the_second_half_of_a_planar_circular_buffer(library):
    """Each channel has 2 halves of 5 frames; the stride from channel to channel is the whole's."""
    samples = np.arange(3 * 10, dtype=np.int32).reshape(3, 10) << 8
    half = library.sp_planar(samples.ctypes.data + 5 * 4, INT32, 3, 5, 10)
    stream = Stream(n_channels=3, payload_type=96, bytes_per_sample=3)
    found = filled(lambda out, size: library.sp_packet(stream, half, 0, 5, out, size), CAPACITY)
    assert found[12:] == encode_samples(np.arange(30).reshape(3, 10)[:, 5:].T, "L24")


def test_what_does_not_fit_is_refused_and_spends_nothing(library):
    samples = np.zeros((10, 8), np.int32)
    block = library.sp_interleaved(samples.ctypes.data, INT32, 8, 10)
    block.first_channel = 8
    fits = {"first_channel": 8, "n_channels": 8, "payload_type": 96, "bytes_per_sample": 3}
    for changes, first, length, capacity in [
        ({}, 0, 0, CAPACITY),
        ({}, 0, 11, CAPACITY),
        ({}, 10, 1, CAPACITY),
        ({}, 2**64 - 1, 2, CAPACITY),
        ({}, 1, 2**64 - 1, CAPACITY),
        ({}, 0, 10, 12 + 240 - 1),
        ({}, 0, 1, 11),
        ({}, 0, 1, 0),
        ({"first_channel": 0}, 0, 1, CAPACITY),
        ({"first_channel": 9}, 0, 1, CAPACITY),
        ({"first_channel": 16}, 0, 1, CAPACITY),
        ({"n_channels": 0}, 0, 1, CAPACITY),
    ]:
        stream = Stream(**(fits | changes))
        before = bytes(stream)
        found = filled(
            lambda out, size: library.sp_packet(stream, block, first, length, out, size),  # noqa: B023
            capacity,
        )
        assert (found, bytes(stream)) == (b"", before)
    stream = Stream(**fits)
    assert len(filled(lambda o, n: library.sp_packet(stream, block, 0, 10, o, n), 252)) == 252
    streams, random = (Stream * 2)(), (ctypes.c_uint32 * 6)()
    assert library.sp_split(streams, 2, 17, 3, 96, random) == 0
    assert library.sp_split(streams, 2, 16, 3, 95, random) == 0
    assert library.sp_split(streams, 2, 16, 3, 128, random) == 0
    assert bytes(streams) == bytes(ctypes.sizeof(streams))


def test_frames_lost_in_an_overrun_leave_a_gap_of_their_length(library):
    samples = np.zeros((4, 1), np.int32)
    block = library.sp_interleaved(samples.ctypes.data, INT32, 1, 4)
    stream = Stream(timestamp=2**32 - 6, n_channels=1, payload_type=96, bytes_per_sample=2)
    heads = []
    for lost in (48, 0):
        packet = filled(lambda o, n: library.sp_packet(stream, block, 0, 4, o, n), CAPACITY)
        heads.append(struct.unpack("!HI", packet[2:8]))
        library.sp_skip(stream, lost)
    assert heads == [(0, 2**32 - 6), (1, 46)]


def test_frames_that_fit_an_ethernet_packet(library):
    """The README's arithmetic: 1,500 bytes less IPv4's 20, UDP's 8 and RTP's 12."""
    for n_channels, encoding, mtu, frames in [
        (8, 3, 1500, 60),
        (8, 2, 1500, 91),
        (2, 3, 1500, 243),
        (8, 3, 40, 0),
        (8, 3, 39, 0),
    ]:
        stream = Stream(n_channels=n_channels, bytes_per_sample=encoding)
        assert library.sp_max_frames(stream, mtu) == frames
        if frames:
            assert f"| {n_channels} | L{8 * encoding} | {frames} |" in README


# ------------------------------------------------------------------------------------- the builds


def test_the_library_builds_without_a_warning(c_build):
    assert all(flag in c_build[1].split() for flag in FLAGS)


def test_the_objects_for_the_target_need_nothing_and_hold_no_ram(arm):
    """No allocation, printing, soft float or C library, and no variable that outlives a call."""
    folder, said = arm
    assert all(flag in said.split() for flag in (*FLAGS, "-Os", "-mcpu=cortex-m7"))
    for name in ("soundpost_rtp.o", "soundpost_sdp.o"):
        listed = subprocess.run(
            ["arm-none-eabi-nm", folder / name], capture_output=True, text=True, check=True
        ).stdout
        kinds = {(line.split()[-2], line.split()[-1]) for line in listed.splitlines()}
        assert {name for kind, name in kinds if kind == "U"} == set()
        assert {kind for kind, _ in kinds} <= {"T", "t"}
    # The example needs its board and this library, and nothing beside.
    listed = subprocess.run(
        ["arm-none-eabi-nm", "-u", folder / "example_dma.o"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {name.split("_")[0] for name in listed.split() if name != "U"} == {"board", "sp"}


def test_the_readme_states_what_the_build_prints(arm):
    _, said = arm
    sizes = dict(re.findall(r"^(size_of_\w+) (\d+) bytes$", said, re.MULTILINE))
    stated = dict(re.findall(r"^\| `sp_(stream|block|session)` \| (\d+) \|", README, re.MULTILINE))
    assert stated == {name.removeprefix("size_of_"): size for name, size in sizes.items()}
    (bss,) = re.findall(r"^ +\d+\s+0\s+(\d+)\s.*example_dma\.o$", said, re.MULTILINE)
    assert f"{int(bss):,} bytes of static RAM" in README
    assert 16 * int(sizes["size_of_stream"]) == 448
    assert 12 + frame_bytes("L24", 8) * 48 == 1164


def test_the_readmes_c_compiles(tmp_path):
    """Each listing, within a function that declares what it names."""
    need("gcc", "gcc")
    listings = re.findall(r"^```c\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert listings
    for listing in listings:
        program = (
            '#include "soundpost_rtp.h"\n'
            "extern int32_t buffer[2][48][128]; extern uint32_t random_numbers[48];\n"
            "extern void send(uint16_t port, const void *bytes, size_t length);\n"
            "extern uint32_t seconds, microseconds, n_lost;\n"
            "void shown(int half);\n"
            "void shown(int half)\n{\n(void)half;\n" + listing + "}\n"
        )
        done = subprocess.run(
            ["gcc", *FLAGS, "-c", f"-I{FOLDER}", "-o", tmp_path / "listing.o", "-x", "c", "-"],
            input=program,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_receiver_of_ours_reads_the_description(library):
    """What the firmware writes, Python takes in: streams, channels, ports, clock."""
    streams, random = (Stream * 16)(), (ctypes.c_uint32 * 48)(*range(48))
    library.sp_split(streams, 16, 128, 3, 98, random)
    session = Session(
        b"array", b"192.168.1.50", b"239.69.1.50", b"localmac=00-04-A3-12-34-56", 1, 48_000, 1_000,
        5_004, 1,
    )  # fmt: skip
    out = ctypes.create_string_buffer(4096)
    length = library.sp_describe(session, streams, 16, out, 4096)
    read = parse_sdp(out.raw[:length].decode(), "array.sdp")
    assert (read.n_channels, read.rate_hz, len(read.streams)) == (128, 48_000, 16)
    assert [stream.media_clock_offset for stream in read.streams] == list(range(1, 48, 3))
    assert [stream.port for stream in read.streams] == list(range(5_004, 5_036, 2))
    assert {stream.clock_reference for stream in read.streams} == {"localmac=00-04-A3-12-34-56"}
