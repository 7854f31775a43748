"""Inputs that are nearly right: bytes changed at random, and JSON with a value that is another."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

# What parsers stumble over.
_WORDS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b'"', b'"""', b"\\u0000",
    b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"-1", b"0.0", b"1e-400", b"9" * 400, b"9" * 5_000,
    b"[" * 6_000, b"{" * 3_000, b'{"a":' * 3_000, b"[[a]]\n", b"a.b.c = 1\n", b"true", b"null",
    b"[]", b"{}", b"../../", b"/dev/zero", b"#", b"+", b"$SYS", "é".encode(), "\u202e".encode(),
    b"2026-11-20T10:00:01.250000Z", b"9999-12-31T23:59:60.000000Z", b"0x7fffffffffffffff",
    b"a" * 70_000,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324,
    "", "a", "\x00", "é", "\ud800", "a" * 300, "a" * 70_000, "2026-11-20T10:00:01.250000Z", [], [1],
    {}, {"a": 1}, "../../etc/passwd", "mic0/#", "$SYS", "0192f1a0-0000-7000-8000-000000000000",
    "0" * 64, "start", "end", [[[[]]]], "soundpost.event/1",
)  # fmt: skip


def _value(rng: random.Random) -> Any:
    # A copy: an object that were put into itself has no JSON.
    return copy.deepcopy(rng.choice(_VALUES))


def mutated(seed: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """A seed with a few changes."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 4, 16, 64))
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = rng.choice(_WORDS)
        elif kind == 4:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at:] = other[start:]
        elif kind == 6:
            data[at : at + length] = rng.choice(_WORDS)
        else:
            data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)


def mutated_json(seed: bytes, rng: random.Random) -> bytes:
    """JSON in which values are others, missing or new; any depth."""
    root = json.loads(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = root
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            change = rng.randrange(6)
            if change == 0:
                del place[key]
            elif change == 1 and isinstance(place, dict):
                place[rng.choice(("extra", "schema", "", "a" * 100))] = _value(rng)
            elif change == 2 and isinstance(place, list):
                place.insert(rng.randrange(len(place) + 1), _value(rng))
            elif change == 3 and isinstance(place[key], float):
                place[key] = place[key] * rng.choice((-1, 0, 2, 1e30, 1e-30, 0.5))
            else:
                place[key] = _value(rng)
            break
    return json.dumps(root).encode()
