"""A bad network and bad microphones, on purpose: what is lost, held back, doubled, dead, swapped.

Everything follows from a seed, and everything done to a packet is told, so that a receiver can be
held to it.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError
from soundpost.device.files import replacing
from soundpost.firmware_bridge.packetiser import Datagram

What = Literal["lost", "reordered", "duplicate"]


class Impaired(NamedTuple):
    """What was done to one packet.

    first_sample, n_samples : which of the array's samples it holds
    places : reordered: packets of its stream that overtook it; duplicate: those between the two
    """

    what: What
    stream: int
    sequence: int
    first_sample: int
    n_samples: int
    places: int = 0


@dataclass(frozen=True)
class ImpairmentSettings:
    """Shares of packets, from 0 to 1, and a time.

    loss : never sent
    reorder : held back until up to `depth` later packets of their stream have gone
    duplicate : sent twice, the second time up to `depth` packets later
    jitter_ms : each is late by up to so much; within a stream none overtakes another by it
    """

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    jitter_ms: float = 0.0
    depth: int = 3

    def __post_init__(self) -> None:
        for name in ("loss", "reorder", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name):g}: expected a share from 0 to 1")
        if self.loss + self.reorder + self.duplicate > 1:
            raise UsageError(
                f"loss {self.loss:g}, reorder {self.reorder:g} and duplicate {self.duplicate:g} "
                "are more than all packets: expected a sum of at most 1"
            )
        if not 0 <= self.jitter_ms <= 10_000:
            raise UsageError(f"jitter {self.jitter_ms:g} ms: expected 0 to 10000")
        if self.depth < 1:
            raise UsageError(f"depth {self.depth}: expected at least 1 packet")


@dataclass
class _Held:
    """A packet, or the copy of one, that waits until so many later ones of its stream have gone."""

    datagram: Datagram
    what: What
    left: int
    overtaken: int = 0


@dataclass
class Impairments:
    """A network that does to each packet at most one of: losing, holding back, doubling it.

    record : told of each packet that something was done to; the times of jitter are not told
    """

    settings: ImpairmentSettings
    seed: int
    record: Callable[[Impaired], object] | None = None
    counts: dict[What, int] = field(
        default_factory=lambda: {"lost": 0, "reordered": 0, "duplicate": 0}
    )

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._held: dict[int, list[_Held]] = {}
        self._latest_s: dict[int, float] = {}

    def send(self, datagram: Datagram, due_s: float) -> Iterator[tuple[float, Datagram]]:
        """What the network delivers now that a packet is put in, each with when it is due."""
        settings = self.settings
        chosen = self._rng.random()
        if chosen < settings.loss:
            self._tell("lost", datagram)
            return
        if settings.jitter_ms:
            due_s += self._rng.random() * settings.jitter_ms / 1000
            due_s = max(due_s, self._latest_s.get(datagram.stream, due_s))
            self._latest_s[datagram.stream] = due_s
        chosen -= settings.loss
        if chosen < settings.reorder:
            self._hold(datagram, "reordered", self._rng.randint(1, settings.depth))
            return
        doubled = chosen - settings.reorder < settings.duplicate
        places = self._rng.randint(0, settings.depth) if doubled else 0
        for going in self._going(datagram):
            yield due_s, going
        if doubled and places == 0:
            self._tell("duplicate", datagram)
            yield due_s, datagram
        elif doubled:
            self._hold(datagram, "duplicate", places)

    def flush(self, due_s: float) -> Iterator[tuple[float, Datagram]]:
        """What is still held back; nothing can overtake it any more."""
        for stream, held in self._held.items():
            for one in held:
                if one.what == "duplicate" or one.overtaken:
                    self._tell(one.what, one.datagram, one.overtaken)
                yield max(due_s, self._latest_s.get(stream, due_s)), one.datagram
        self._held.clear()

    def _hold(self, datagram: Datagram, what: What, places: int) -> None:
        self._held.setdefault(datagram.stream, []).append(_Held(datagram, what, places))

    def _going(self, datagram: Datagram) -> Iterator[Datagram]:
        """A packet that goes, and those that have waited for it, which may free others."""
        yield datagram
        held = self._held.get(datagram.stream)
        if not held:
            return
        for one in held:
            if one.datagram.first_sample < datagram.first_sample:
                one.left -= 1
                one.overtaken += 1
        free = [one for one in held if one.left <= 0]
        self._held[datagram.stream] = [one for one in held if one.left > 0]
        for one in free:
            self._tell(one.what, one.datagram, one.overtaken)
            if one.what == "reordered":
                yield from self._going(one.datagram)
            else:
                yield one.datagram

    def _tell(self, what: What, datagram: Datagram, places: int = 0) -> None:
        self.counts[what] += 1
        if self.record is not None:
            self.record(Impaired(what, *datagram[:4], places))


@contextmanager
def truth_file(path: Path) -> Iterator[Callable[[Impaired], object]]:
    """Write what was done to packets as CSV; the file appears whole, when the block ends.

    Gives the function to record with. Raises InputError where the file cannot be written.
    """
    ended: BaseException | None = None
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        rows = csv.writer(text)
        rows.writerow(Impaired._fields)
        try:
            yield rows.writerow
        except BaseException as error:
            # Ctrl-C ends most runs, and what was done until then is true all the same.
            ended = error
        text.flush()
        text.detach()
    if ended is not None:
        raise ended


def read_truth(path: Path) -> list[Impaired]:
    """Read what truth_file wrote."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [Impaired(what, *map(int, rest)) for what, *rest in rows]  # type: ignore[arg-type]


def faulty_order(n_channels: int, swaps: Sequence[tuple[int, int]]) -> list[int]:
    """Which microphone each channel hears when the plugs of these pairs are exchanged.

    Raises UsageError for a channel that is not there.
    """
    order = list(range(n_channels))
    for one, other in swaps:
        check_channels((one, other), n_channels)
        order[one], order[other] = order[other], order[one]
    return order


def check_channels(channels: Iterable[int], n_channels: int) -> None:
    """Refuse channels that are not there (UsageError)."""
    for channel in channels:
        if not 0 <= channel < n_channels:
            raise UsageError(f"channel {channel}: expected 0 to {n_channels - 1}")


def spoil_channels(samples: FloatArray, order: Sequence[int], dead: Sequence[int]) -> FloatArray:
    """Samples as an array with swapped plugs and dead microphones gives them.

    samples : (n_samples, n_channels)
    order : which microphone each channel hears
    dead : channels of the stream (after swapping) that are silent

    Returns the samples themselves where nothing is wrong.
    """
    if list(order) == list(range(samples.shape[1])) and not dead:
        return samples
    spoilt: FloatArray = np.take(samples, order, axis=1)
    spoilt[:, list(dead)] = 0
    return spoilt
