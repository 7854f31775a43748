"""Sound that a stream lacks: marks on the zeros that stand in for it, and a list of all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from soundpost.device.audio import AudioBlock, Channel


class Missing(NamedTuple):
    """Samples that never came; in a block zeros stand in for them.

    first_sample, length : position in the stream, as blocks count
    first_channel, n_channels : which channels lack them
    cause : one word: "lost" on the way, "silent" where their sender sends nothing, "jump" where no
        channel has anything and the numbering jumps over it
    """

    first_sample: int
    length: int
    first_channel: int
    n_channels: int
    cause: str

    def concerns(self, channel: Channel) -> bool:
        """Whether a reader of this channel, or of the mean of all ("mix"), hears it."""
        return channel == "mix" or 0 <= channel - self.first_channel < self.n_channels


class GapLog:
    """All that a stream lacks so far: blocks in, gaps out, each once however blocks cut it.

    first_sample : where the stream begins
    keep : how many gaps are kept, the last ones; None: all of them

    Attributes
    ----------
    gaps : in the order in which they ended; of one that lasts, what of it has come so far is told
        by `open_gaps`
    count : of all gaps, those that last among them
    """

    def __init__(self, first_sample: int = 0, keep: int | None = None) -> None:
        self.gaps: deque[Missing] = deque(maxlen=keep)
        self.count = 0
        self._expected = first_sample
        self._open: list[Missing] = []

    def add(self, block: AudioBlock) -> None:
        """Take note of the next block; of what was told before, the first stands."""
        n_channels = block.samples.shape[1]
        jump = block.first_sample - self._expected
        if jump > 0:
            self._take(Missing(self._expected, jump, 0, n_channels, "jump"))
        for part in block.missing:
            told = max(0, self._expected - part.first_sample)
            if told < part.length:
                self._take(
                    part._replace(first_sample=part.first_sample + told, length=part.length - told)
                )
        self._expected = max(self._expected, block.first_sample + len(block.samples))
        self._close(self._expected)

    def _take(self, part: Missing) -> None:
        self._close(part.first_sample)
        for index, gap in enumerate(self._open):
            end = gap.first_sample + gap.length
            if end == part.first_sample and gap[2:] == part[2:]:
                self._open[index] = gap._replace(length=gap.length + part.length)
                return
        self._open.append(part)
        self.count += 1

    def _close(self, position: int) -> None:
        """End all gaps that end before a position."""
        ended = [gap for gap in self._open if gap.first_sample + gap.length < position]
        self.gaps += ended
        self._open = [gap for gap in self._open if gap not in ended]

    def open_gaps(self) -> list[Missing]:
        """Those that reach up to the end of the last block."""
        return list(self._open)


def by_place(parts: Iterable[Missing]) -> list[Missing]:
    """The same in the order of samples, neighbouring channels that lack the same taken together."""
    joined: list[Missing] = []
    for part in sorted(parts):
        if joined:
            last = joined[-1]
            beside = last.first_channel + last.n_channels == part.first_channel
            if beside and last[:2] == part[:2] and last.cause == part.cause:
                joined[-1] = last._replace(n_channels=last.n_channels + part.n_channels)
                continue
        joined.append(part)
    return joined
