"""Datagrams that nobody should send: what a port on a network gets sooner or later."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from soundpost.firmware_bridge.rtcp_report import SenderReport, build_report

_HEADER = struct.Struct("!BBHII")
LONGEST = 65_507


def _noise(good: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 11, 12, 13, 40, 1_400]))


def _truncated(good: bytes, rng: random.Random) -> bytes:
    return good[: rng.randrange(len(good))]


def _oversized(good: bytes, rng: random.Random) -> bytes:
    return good[:12] + bytes(rng.choice([1_500, 9_000, LONGEST - 12, LONGEST - 13]))


def _flipped(good: bytes, rng: random.Random) -> bytes:
    changed = bytearray(good)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(min(len(changed), 40))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _lengths(good: bytes, rng: random.Random) -> bytes:
    """Contributing sources, extensions and padding that are not there."""
    changed = bytearray(good)
    changed[0] = 0x80 | rng.randrange(64)
    changed[12:16] = struct.pack("!HH", rng.randrange(1 << 16), rng.choice([0, 1, 0x7FFF, 0xFFFF]))
    changed[-1] = rng.choice([0, 1, len(good) & 0xFF, 255])
    return bytes(changed)


def _other_type(good: bytes, rng: random.Random) -> bytes:
    return good[:1] + bytes([rng.randrange(256)]) + good[2:]


def _elsewhere(good: bytes, rng: random.Random) -> bytes:
    """Of the right form, with counters at random."""
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(good)
    if rng.random() < 0.5:
        sequence = rng.randrange(1 << 16)
    near = timestamp + rng.choice([-1, 1]) * rng.randrange(1 << rng.randrange(1, 32))
    return _HEADER.pack(first, second, sequence, near & 0xFFFFFFFF, ssrc) + good[12:]


def _other_length(good: bytes, rng: random.Random) -> bytes:
    """Whole samples, but more or fewer than the others hold; none at all among them."""
    return good[:12] + rng.randbytes(24 * rng.choice([0, 1, 2, 47, 49, 480]))


def _report(good: bytes, rng: random.Random) -> bytes:
    ssrc = _HEADER.unpack_from(good)[4] if rng.random() < 0.5 else rng.randrange(1 << 32)
    report = SenderReport(ssrc, rng.randrange(1 << 64), rng.randrange(1 << 32))
    return _flipped(build_report(report), rng) if rng.random() < 0.5 else build_report(report)


def _again(good: bytes, rng: random.Random) -> bytes:
    return good


KINDS: list[Callable[[bytes, random.Random], bytes]] = [
    _noise,
    _truncated,
    _oversized,
    _flipped,
    _lengths,
    _other_type,
    _elsewhere,
    _other_length,
    _report,
    _again,
]


def hostile(good: bytes, rng: random.Random) -> bytes:
    """A datagram made of a good one."""
    return rng.choice(KINDS)(good, rng)
