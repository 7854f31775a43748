"""When each sensor of a wave is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def turns_s(devices: Sequence[str], spread_s: float, salt: str) -> dict[str, float]:
    """Seconds until each of these is asked, all within `spread_s`.

    In their order, each at a place by hash within an equal share of the time: a wave must not fall
    upon the web server at once, nor, as drawn without shares, in clumps.
    """
    turns = {}
    for number, device in enumerate(devices):
        digest = hashlib.sha256(f"{salt}\0{device}".encode()).digest()
        share = (number + int.from_bytes(digest[:6], "big") / 2**48) / len(devices)
        turns[device] = share * spread_s
    return turns
