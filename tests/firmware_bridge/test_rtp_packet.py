"""Packets by the bytes of RFC 3550 and RFC 3190, worked by hand; hostile lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.firmware_bridge.rtp_packet import (
    Encoding,
    HeaderExtension,
    PacketError,
    build_packet,
    decode_floats,
    decode_samples,
    encode_samples,
    frame_bytes,
    parse_packet,
)

# RFC 3550, 5.1: version 2; marker and payload type 96; sequence 0x1234; timestamp; SSRC.
PLAIN = bytes.fromhex("80 e0 1234 deadbeef 01020304") + b"abcdef"
# Padding, extension and two contributing sources: flags 10 1 1 0010.
FULL = bytes.fromhex(
    "b2 60 ffff 00000000 ffffffff"
    "0000000a 0000000b"  # contributing sources
    "bede 0001 10aa0000"  # extension: profile, one word, the word
    "616263"  # the payload
    "00 00 03"  # padding, its length in the last byte
)


def test_the_bytes_of_the_standard() -> None:
    packet = parse_packet(PLAIN)
    assert packet[:4] == (96, 0x1234, 0xDEADBEEF, 0x01020304)
    assert (bytes(packet.payload), packet.marker, packet.csrcs, packet.extension) == (
        b"abcdef",
        True,
        (),
        None,
    )
    assert build_packet(96, 0x1234, 0xDEADBEEF, 0x01020304, b"abcdef", marker=True) == PLAIN
    packet = parse_packet(FULL)
    extension = HeaderExtension(0xBEDE, bytes.fromhex("10aa0000"))
    assert packet[:4] == (96, 0xFFFF, 0, 0xFFFFFFFF)
    assert (bytes(packet.payload), packet.marker, packet.csrcs, packet.extension) == (
        b"abc",
        False,
        (10, 11),
        extension,
    )
    built = build_packet(
        96, 0xFFFF, 1 << 32, 0xFFFFFFFF, b"abc", csrcs=(10, 11), extension=extension, padding=3
    )
    assert built == FULL


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes, fewer than the 12"),
        (PLAIN[:11], "11 bytes, fewer than the 12"),
        (b"\x40" + PLAIN[1:], "version 1 of RTP, expected 2"),
        (b"\x8f" + PLAIN[1:], "too few for 15 contributing sources"),
        (b"\x90" + PLAIN[1:14], "2 bytes where a header extension of at least 4 is announced"),
        (b"\x90" + PLAIN[1:12] + b"\xbe\xde\xff\xff", "extension of 262140 bytes where 0 follow"),
        (b"\xa0" + PLAIN[1:-1] + b"\x07", "7 bytes of padding where 6 follow"),
        (b"\xa0" + PLAIN[1:-1] + b"\x00", "0 bytes of padding"),
        (b"\xa0" + PLAIN[1:11] + b"\x01", "1 bytes of padding where 0 follow"),
    ],
)
def test_a_length_is_never_believed_beyond_the_bytes(data: bytes, problem: str) -> None:
    with pytest.raises(PacketError, match=problem):
        parse_packet(data)


@settings(max_examples=300)
@given(st.binary(max_size=120), st.integers(0, 255))
def test_any_bytes_are_a_packet_or_refused(data: bytes, first: int) -> None:
    """And a packet that is taken holds no byte that was not there."""
    data = bytes([first]) + data
    try:
        packet = parse_packet(data)
    except PacketError:
        return
    assert bytes(packet.payload) in data
    extra = 4 * len(packet.csrcs)
    extra += 4 + len(packet.extension.data) if packet.extension else 0
    assert 12 + extra + len(packet.payload) <= len(data)


def test_samples_are_big_endian() -> None:
    """RFC 3190, 4 and RFC 3551, 4.5.11: most significant byte first, channels side by side."""
    l24 = bytes.fromhex("000001 ffffff 800000 7fffff")
    l16 = bytes.fromhex("0001 ffff 8000 7fff")
    wide = np.array([[1, -1], [-(1 << 23), (1 << 23) - 1]])
    short = np.array([[1, -1], [-(1 << 15), (1 << 15) - 1]])
    assert np.array_equal(decode_samples(l24, "L24", 2), wide)
    assert np.array_equal(decode_samples(l16, "L16", 2), short)
    assert np.array_equal(decode_floats(l24, "L24", 2), wide / 2**23)
    assert np.array_equal(decode_floats(l16, "L16", 2), short / 2**15)
    for kind in (np.int32, np.int64):
        assert encode_samples(wide.astype(kind), "L24") == l24
        assert encode_samples(short.astype(kind), "L16") == l16
    assert encode_samples(short.astype(np.int16), "L16") == l16
    for kind in (np.float32, np.float64):
        assert encode_samples((wide / 2**23).astype(kind), "L24") == l24
        assert encode_samples((short / 2**15).astype(kind), "L16") == l16


@given(
    st.sampled_from(["L16", "L24"]),
    st.integers(1, 9),
    st.integers(0, 20),
    st.integers(0, 2**32 - 1),
)
def test_what_is_sent_is_received(
    encoding: Encoding, n_channels: int, n_samples: int, seed: int
) -> None:
    bits = 16 if encoding == "L16" else 24
    samples = np.random.default_rng(seed).integers(
        -(1 << bits - 1), 1 << bits - 1, (n_samples, n_channels)
    )
    payload = encode_samples(samples, encoding)
    assert len(payload) == n_samples * frame_bytes(encoding, n_channels)
    assert np.array_equal(decode_samples(payload, encoding, n_channels), samples)
    floats = decode_floats(payload, encoding, n_channels)
    assert floats.dtype == np.float32
    assert np.array_equal(floats, samples / (1 << bits - 1))
    assert encode_samples(floats, encoding) == payload
    if n_channels > 1 and n_samples:
        with pytest.raises(PacketError, match="expected a multiple of"):
            decode_samples(payload[1:], encoding, n_channels)


def test_beyond_full_scale_is_clipped() -> None:
    assert encode_samples(np.array([[1.0, -1.5, 7.0]]), "L16") == b"\x7f\xff\x80\x00\x7f\xff"
    assert encode_samples(np.array([[1 << 23, -(1 << 30)]]), "L24") == b"\x7f\xff\xff\x80\x00\x00"


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PacketError, match="payload type 128"):
        build_packet(128, 0, 0, 0, b"")
    with pytest.raises(PacketError, match="16 contributing sources: expected at most 15"):
        build_packet(96, 0, 0, 0, b"", csrcs=range(16))
    with pytest.raises(PacketError, match="extension of 5 bytes: expected a multiple of 4"):
        build_packet(96, 0, 0, 0, b"", extension=HeaderExtension(1, b"12345"))
