"""Narrower copies of published networks, for what two cores can train."""

from __future__ import annotations


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a width of 1 to those at another; one at least."""
    return max(1, round(channels * width))
