"""Where blocks of sound come from: what a source is, and the URL that names one.

A source is named by a URL, `mic:`, `mic:NAME` or `file:PATH`; other folders add schemes (`rtp:` is
firmware_bridge's) by the entry points `soundpost.sources`, whose values are called with the URL and
options and return a BlockSource.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np

from soundpost.device.audio import AudioBlock, Channel
from soundpost.device.errors import CaptureError, UsageError

# Longest block that is gathered: a sensor is paused, stopped and reloaded between two.
_GATHERED_S = 0.25

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")


class BlockSource(Protocol):
    """A running source of sound; also a context manager that closes it.

    rate_hz, n_channels : of every block
    channel : the one that its reader uses, who says so; blocks hold all of them all the same
    name : what to call it in a message
    live : True where sound that is not read in time is lost (a microphone)
    overflows : how often sound was lost so far
    fault : one line on what is wrong with what it delivers, None while nothing is
    """

    rate_hz: int
    n_channels: int
    channel: Channel
    name: str
    live: bool
    overflows: int
    fault: str | None

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order until the source ends or is closed.

        Raises CaptureError when a live source can no longer be trusted: open it again, as a new
        stream.
        """
        ...

    def close(self) -> None:
        """Stop; safe in any state and from any thread."""
        ...

    def __enter__(self) -> BlockSource: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_source(url: str, **options: Any) -> BlockSource:
    """Open the source that a URL names; a bare path is a file.

    options are those of the scheme's opener (microphone_source.open_microphone,
    file_source.open_file).
    Raises UsageError for an unknown scheme, else what the opener raises.
    """
    openers = {point.name: point for point in entry_points(group="soundpost.sources")}
    match = _SCHEME.match(url)
    scheme = match[1] if match else "file"
    if scheme not in openers and Path(url).exists():
        scheme = "file"
    if scheme not in openers:
        known = ", ".join(f"{name}:" for name in sorted(openers))
        raise UsageError(
            f"source {url!r}: unknown kind {scheme!r}: expected one of {known} or the path of a "
            "sound file that exists"
        )
    return cast(BlockSource, openers[scheme].load()(url, **options))


def gathered(blocks: Iterator[AudioBlock], wanted: Callable[[], int]) -> Iterator[AudioBlock]:
    """The same sound in fewer blocks: each as long as is wanted then, of 0.25 s at most.

    A block wakes all of the processing, whose data have left the processor's caches since the last
    one: blocks of 20 ms cost a sensor three times as much as what it needs to do. Nothing waits:
    sound before a gap, and before an error or the end, comes at once.

    wanted : asked when a block begins, how many samples are of use
    """
    parts: list[AudioBlock] = []
    length = enough = 0
    try:
        for block in blocks:
            if parts and block.first_sample != parts[0].first_sample + length:
                yield _joined(parts)
                parts, length = [], 0
            if not parts:
                enough = min(wanted(), round(_GATHERED_S * block.rate_hz))
            parts.append(block)
            length += len(block.samples)
            if length >= enough:
                yield _joined(parts)
                parts, length = [], 0
    except CaptureError:
        if parts:
            yield _joined(parts)
        raise
    if parts:
        yield _joined(parts)


def _joined(parts: list[AudioBlock]) -> AudioBlock:
    if len(parts) == 1:
        return parts[0]
    samples = np.concatenate([part.samples for part in parts])
    missing = tuple(mark for part in parts for mark in part.missing)
    return AudioBlock(samples, parts[0].first_sample, parts[0].rate_hz, parts[-1].time_s, missing)


def block_length(block_s: float, rate_hz: int) -> int:
    """Samples in a block of block_s seconds; raises UsageError outside 0 to 10 s."""
    if not 0 < block_s <= 10:
        raise UsageError(f"block_s {block_s}: expected more than 0 and at most 10 seconds")
    return max(1, round(block_s * rate_hz))
