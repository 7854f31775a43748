"""Packets of RTP (RFC 3550, 5.1) with samples as L16 or L24 (RFC 3551, 4.5.11; RFC 3190, 4).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |           synchronization source (SSRC) identifier            |
    |            contributing source (CSRC) identifiers             |

Samples are big-endian two's complement, all channels of one instant side by side.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError

Encoding = Literal["L16", "L24"]
Bytes = bytes | bytearray | memoryview
Samples = NDArray[np.int32]

SAMPLE_BYTES: Final[dict[Encoding, int]] = {"L16": 2, "L24": 3}
HEADER_BYTES: Final = 12
# IPv4's longest datagram, less the headers of IP and UDP.
MAX_DATAGRAM_BYTES: Final = 65_507

_VERSION = 2
_MAX_CSRCS = 15
_HEADER = struct.Struct("!BBHII")
_EXTENSION = struct.Struct("!HH")


class PacketError(InputError):
    """Bytes that are no RTP or RTCP packet; the message says which rule they break."""


class HeaderExtension(NamedTuple):
    """Header extension; data is a whole number of 32-bit words."""

    profile: int
    data: bytes


class RtpPacket(NamedTuple):
    """One packet.

    payload_type : 0 to 127
    sequence : 0 to 65,535, one more with each packet
    timestamp : 0 to 2^32 - 1, of the first sample, counted in samples
    ssrc : 0 to 2^32 - 1, chosen at random by its sender
    payload : samples without padding; of a parsed packet a view of the bytes that were given
    marker : set on the first packet after silence
    csrcs : sources that a mixer has put together, 15 at most
    """

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: Bytes
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: HeaderExtension | None = None


def parse_packet(data: Bytes) -> RtpPacket:
    """Read one datagram; raises PacketError where it is no whole RTP packet.

    A length that the packet states is never trusted beyond the bytes that are there.
    """
    length = len(data)
    if length < HEADER_BYTES:
        raise PacketError(f"{length} bytes, fewer than the {HEADER_BYTES} of an RTP header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != _VERSION:
        raise PacketError(f"version {first >> 6} of RTP, expected {_VERSION}")
    view = memoryview(data)
    marker, payload_type = second >= 0x80, second & 0x7F
    # As nearly all are: no padding, no extension, no contributing sources.
    if first == _VERSION << 6:
        return RtpPacket(payload_type, sequence, timestamp, ssrc, view[HEADER_BYTES:], marker)
    n_csrcs = first & 0x0F
    start, end = HEADER_BYTES + 4 * n_csrcs, length
    if start > end:
        raise PacketError(f"{length} bytes, too few for {n_csrcs} contributing sources")
    csrcs = struct.unpack_from(f"!{n_csrcs}I", data, HEADER_BYTES)
    extension = None
    if first & 0x10:
        extension = _parse_extension(view[start:])
        start += _EXTENSION.size + len(extension.data)
    if first & 0x20:
        # The last byte counts the padding, itself included.
        padding = view[-1]
        if not 1 <= padding <= end - start:
            raise PacketError(f"{padding} bytes of padding where {end - start} follow the header")
        end -= padding
    return RtpPacket(
        payload_type, sequence, timestamp, ssrc, view[start:end], marker, csrcs, extension
    )


def _parse_extension(view: memoryview) -> HeaderExtension:
    if len(view) < _EXTENSION.size:
        raise PacketError(f"{len(view)} bytes where a header extension of at least 4 is announced")
    profile, n_words = _EXTENSION.unpack_from(view)
    data = bytes(view[_EXTENSION.size : _EXTENSION.size + 4 * n_words])
    if len(data) < 4 * n_words:
        raise PacketError(
            f"header extension of {4 * n_words} bytes where {len(view) - _EXTENSION.size} follow"
        )
    return HeaderExtension(profile, data)


def build_packet(
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    payload: Bytes,
    *,
    marker: bool = False,
    csrcs: Sequence[int] = (),
    extension: HeaderExtension | None = None,
    padding: int = 0,
) -> bytes:
    """Bytes of one packet.

    sequence, timestamp : taken modulo 2^16 and 2^32, as they run over
    padding : bytes to add at the end, at most 255

    Raises PacketError for what the fields cannot hold.
    """
    if not (0 <= payload_type <= 127 and 0 <= ssrc < 1 << 32 and 0 <= padding <= 255):
        raise PacketError(
            f"payload type {payload_type}, SSRC {ssrc}, padding {padding}: expected 0 to 127, "
            "0 to 2^32 - 1, 0 to 255"
        )
    if len(csrcs) > _MAX_CSRCS:
        raise PacketError(f"{len(csrcs)} contributing sources: expected at most {_MAX_CSRCS}")
    flags = _VERSION << 6 | (padding > 0) << 5 | (extension is not None) << 4 | len(csrcs)
    parts: list[Bytes] = [
        _HEADER.pack(
            flags, marker << 7 | payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc
        )
    ]
    if csrcs:
        parts.append(struct.pack(f"!{len(csrcs)}I", *csrcs))
    if extension is not None:
        n_words, rest = divmod(len(extension.data), 4)
        if rest or n_words > 0xFFFF:
            raise PacketError(
                f"header extension of {len(extension.data)} bytes: expected a multiple of 4 up to "
                f"{4 * 0xFFFF}"
            )
        parts += [_EXTENSION.pack(extension.profile, n_words), extension.data]
    parts.append(payload)
    if padding:
        parts.append(bytes(padding - 1) + bytes([padding]))
    return b"".join(parts)


def frame_bytes(encoding: Encoding, n_channels: int) -> int:
    """Bytes that all channels of one instant take."""
    return SAMPLE_BYTES[encoding] * n_channels


def decode_samples(payload: Bytes, encoding: Encoding, n_channels: int) -> Samples:
    """Samples of a payload as whole numbers, of 16 or 24 significant bits.

    Returns (n_samples, n_channels) int32. Raises PacketError where the payload is no whole number
    of instants.
    """
    _check_whole(len(payload), encoding, n_channels)
    if encoding == "L16":
        samples: Samples = np.frombuffer(payload, ">i2").astype(np.int32)
    else:
        samples = _wide(payload) >> 8
    return samples.reshape(-1, n_channels)


def decode_floats(payload: Bytes, encoding: Encoding, n_channels: int) -> FloatArray:
    """Samples of a payload, (n_samples, n_channels) float32, full scale ±1.0, exact to the bit.

    Raises PacketError where the payload is no whole number of instants.
    """
    _check_whole(len(payload), encoding, n_channels)
    if encoding == "L16":
        samples: FloatArray = np.frombuffer(payload, ">i2").astype(np.float32)
        samples *= np.float32(2.0**-15)
    else:
        # 24 significant bits are all that float32 holds: nothing is rounded.
        samples = _wide(payload).astype(np.float32)
        samples *= np.float32(2.0**-31)
    return samples.reshape(-1, n_channels)


def _check_whole(length: int, encoding: Encoding, n_channels: int) -> None:
    size = frame_bytes(encoding, n_channels)
    if length % size:
        raise PacketError(
            f"{length} bytes of samples: expected a multiple of {size}, {n_channels} channels of "
            f"{encoding}"
        )


def _wide(payload: Bytes) -> Samples:
    """24-bit samples in the upper three bytes of (n,) int32."""
    raw = np.frombuffer(payload, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 1], wide[:, 2], wide[:, 3] = raw[:, 2], raw[:, 1], raw[:, 0]
    samples: Samples = wide.view("<i4")[:, 0]
    return samples


def encode_samples(samples: NDArray[np.integer[Any]] | FloatArray, encoding: Encoding) -> bytes:
    """Payload of samples; what lies beyond full scale is clipped, as a converter does.

    samples : (n_samples, n_channels); whole numbers of 16 or 24 significant bits, or floats of full
        scale ±1.0, which are rounded to the nearest
    """
    bits = 8 * SAMPLE_BYTES[encoding]
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if np.issubdtype(samples.dtype, np.floating):
        # A power of two: exact in the samples' own type.
        scaled = np.rint(samples * samples.dtype.type(1 << bits - 1))
    else:
        scaled = samples.astype(np.promote_types(samples.dtype, np.int32), copy=False)
    kind = scaled.dtype.type
    whole = np.clip(scaled, kind(low), kind(high))
    if encoding == "L16":
        return bytes(whole.astype(">i2").data)
    raw = np.ascontiguousarray(whole, "<i4").view(np.uint8).reshape(-1, 4)
    packed = np.empty((len(raw), 3), np.uint8)
    # Column by column: numpy copies three bytes at a time eight times as slowly.
    packed[:, 0], packed[:, 1], packed[:, 2] = raw[:, 2], raw[:, 1], raw[:, 0]
    return bytes(packed.data)
