"""A sensor that hears a simulated world with models of known behaviour.

Scores have the statistics of a house's: each label has a background of its own that wanders slowly,
sounds come by chance (a Poisson process, livelier by day than by night) and last seconds, and two
models of one training differ by noise and by how sure they are. Only the deciding side is under
test: bundles are real files, their models are never run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from soundpost.device.bundle import Bundle
from soundpost.device.updates.comparison import difference
from soundpost.device.updates.live_sensor import N_BINS, ShadowTally, Tally
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Installed

Array = NDArray[np.float64]
HOP_S = 1.0
N_LABELS = 12
LABELS = tuple(f"sound{number}" for number in range(N_LABELS))
ONSET, RELEASE = 0.5, 0.3
# Events closer than this are one.
GAP_WINDOWS = 3


class World:
    """What there is to hear: (n_windows, N_LABELS) of logits that a perfect model would give."""

    def __init__(self, seed: int, per_hour: float = 40.0) -> None:
        self._rng = np.random.default_rng(seed)
        self.background = self._rng.uniform(-7.0, -3.0, N_LABELS)
        share = self._rng.lognormal(0.0, 1.0, N_LABELS)
        self.rates = per_hour * share / share.sum() / 3600.0
        self._wander = np.zeros((1, N_LABELS))
        self.time_s = 0.0

    def listen(self, n_windows: int) -> Array:
        rng = self._rng
        steps = rng.normal(0.0, 0.3, (n_windows, N_LABELS))
        wander, self._wander = scipy.signal.lfilter(
            [1.0], [1.0, -0.95], steps, axis=0, zi=0.95 * self._wander
        )
        self._wander /= 0.95
        logits = self.background + wander
        # Three times as lively at one end of the day as at the other.
        lively = 1.0 + 0.5 * np.sin(2 * np.pi * self.time_s / 86_400)
        counts = rng.poisson(lively * self.rates * HOP_S * n_windows)
        for number, count in enumerate(counts):
            for begin in rng.integers(0, n_windows, count):
                end = begin + int(np.ceil(rng.lognormal(0.9, 0.7) / HOP_S))
                logits[begin:end, number] = rng.normal(3.0, 1.0)
        self.time_s += n_windows * HOP_S
        return logits


@dataclass(frozen=True)
class Behaviour:
    """How a model hears.

    offset : by label, how much surer it is than another model
    noise : of its logits
    order : of its labels; None: the right one
    constant : score of everything
    failing : share of windows without a score
    compute_s : of a window
    """

    seed: int = 0
    offset: tuple[float, ...] = (0.0,) * N_LABELS
    noise: float = 0.8
    order: tuple[int, ...] | None = None
    constant: float | None = None
    failing: float = 0.0
    compute_s: float = 0.004

    def scores(self, logits: Array, rng: np.random.Generator) -> Array:
        if self.constant is not None:
            return np.full(logits.shape, self.constant)
        heard = logits + np.array(self.offset) + rng.normal(0.0, self.noise, logits.shape)
        scores = 1.0 / (1.0 + np.exp(-heard))
        return scores if self.order is None else scores[:, list(self.order)]


def behaviour(kind: str, seed: int) -> Behaviour:
    """`old`, `good`, or one of the bad kinds, each with differences of its own."""
    rng = np.random.default_rng((seed, sum(map(ord, kind))))
    if kind == "old":
        return Behaviour(seed)
    good = Behaviour(seed, tuple(rng.normal(0.0, 0.5, N_LABELS)))
    if kind == "good":
        # Up to half as slow again, or faster.
        return replace(good, compute_s=good.compute_s * rng.uniform(0.5, 1.5))
    if kind == "permuted":
        order = rng.permutation(N_LABELS)
        while (order == np.arange(N_LABELS)).any():
            order = rng.permutation(N_LABELS)
        return replace(good, order=tuple(order))
    if kind == "constant":
        return replace(good, constant=float(rng.choice([0.0, 0.01, 0.5, 0.99])))
    if kind == "slow":
        return replace(good, compute_s=10 * good.compute_s)
    assert kind == "nan"
    return replace(good, failing=float(rng.choice([0.05, 1.0])))


@dataclass(frozen=True)
class Hearing:
    """Labels, and the thresholds that their events have; onset, release : of all or by label."""

    labels: tuple[str, ...] = LABELS
    onset: float | Array = ONSET
    release: float | Array = RELEASE
    hop_s: float = HOP_S


class _Extremes:
    """Lowest and highest score of each label."""

    def __init__(self, n_labels: int) -> None:
        self._lowest, self._highest = np.ones(n_labels), np.zeros(n_labels)

    def take(self, scores: Array) -> None:
        if len(scores):
            self._lowest = np.minimum(self._lowest, scores.min(axis=0))
            self._highest = np.maximum(self._highest, scores.max(axis=0))

    @property
    def spread(self) -> float:
        return max(0.0, float((self._highest - self._lowest).max()))


@dataclass
class _Counter:
    """Of one model on one source."""

    label_of: Installed
    known: Hearing
    how: Any
    tally: Tally
    rng: np.random.Generator
    since: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.since = np.full(len(self.known.labels), 10**6)
        # Since it began, and since a mark.
        self.extremes, self.later = _Extremes(len(self.since)), _Extremes(len(self.since))

    def hear(self, logits: Array, load: float) -> tuple[Array, Array]:
        """Count these windows; returns whether each label is above its onset, and its release."""
        n_windows = len(logits)
        scores = self.how.scores(logits, self.rng)
        failed = self.rng.random(n_windows) < self.how.failing
        above = (scores > self.known.onset) & ~failed[:, None]
        events = dict(self.tally.events)
        for number in np.flatnonzero(above.any(axis=0)):
            at = np.flatnonzero(above[:, number])
            gaps = np.diff(at, prepend=-self.since[number] - 1)
            label = self.known.labels[number]
            events[label] = events.get(label, 0) + int((gaps > GAP_WINDOWS).sum())
            self.since[number] = -at[-1] - 1
        self.since += n_windows
        counts = dict(self.tally.scores)
        bins = np.minimum((scores * N_BINS).astype(int), N_BINS - 1)
        for number, label in enumerate(self.known.labels):
            found = np.bincount(bins[~failed, number], minlength=N_BINS)
            counts[label] = [int(a + b) for a, b in zip(counts[label], found, strict=True)]
        for extremes in (self.extremes, self.later):
            extremes.take(scores[~failed])
        self.tally = replace(
            self.tally,
            heard_s=self.tally.heard_s + n_windows * self.known.hop_s,
            windows=self.tally.windows + n_windows,
            failed=self.tally.failed + int(failed.sum()),
            compute_s=self.tally.compute_s
            + load * float((self.how.compute_s * self.rng.lognormal(0.0, 0.3, n_windows)).sum()),
            events=events,
            scores=counts,
            spread=self.extremes.spread,
        )
        return above, (scores > self.known.release) & ~failed[:, None]


class SimulatedSensor:
    """A `LiveSensor` with one source, `yard`, that hears only when it is told to (`hear`).

    behaviours : by sha256 of bundles, how their models hear
    unloadable : by sha256 of bundles that it cannot load, the error that says so
    paused, load : it hears nothing; other programs make every window take so many times as long
    shown : every state that was published
    loaded : every model that it has heard with, in turn
    """

    def __init__(
        self,
        bundle: Bundle,
        world: Any,
        behaviours: Callable[[str], Any],
        known: Hearing | None = None,
    ) -> None:
        self._known = known or Hearing()
        self._world, self._behaviours = world, behaviours
        self.unloadable: dict[str, Exception] = {}
        self.shown: list[ModelState] = []
        self.loaded: list[Installed] = []
        self.paused = False
        self.load = 1.0
        self._count = 0
        self._beside: _Counter | None = None
        self._agreement: dict[str, list[float]] = {}
        self._old_before: Tally | None = None
        self._running = self._counter(bundle)
        self.loaded.append(self._running.label_of)

    def _counter(self, bundle: Bundle) -> _Counter:
        if bundle.sha256 in self.unloadable:
            raise self.unloadable[bundle.sha256]
        self._count += 1
        manifest = bundle.manifest
        how = self._behaviours(bundle.sha256)
        return _Counter(
            Installed(manifest.name, manifest.version, bundle.sha256),
            self._known,
            how,
            Tally("yard", scores={label: [0] * N_BINS for label in self._known.labels}),
            np.random.default_rng((how.seed, self._count)),
        )

    @property
    def running(self) -> Installed:
        return self._running.label_of

    def begin_shadow(self, bundle: Bundle) -> None:
        self._beside = self._counter(bundle)
        self._agreement = {label: [0.0] * 4 for label in self._known.labels}
        self._old_before = self._running.tally
        self._running.later = _Extremes(len(self._known.labels))

    def shadow(self) -> tuple[ShadowTally, ...]:
        if self._beside is None or self._old_before is None:
            return ()
        old = difference(self._running.tally, self._old_before)
        old = replace(old, spread=self._running.later.spread)
        agreement = {label: tuple(parts) for label, parts in self._agreement.items()}
        return (ShadowTally(old, self._beside.tally, agreement),)  # type: ignore[arg-type]

    def end_shadow(self) -> None:
        self._beside = None

    def swap(self, bundle: Bundle) -> None:
        self._running = self._counter(bundle)
        self.loaded.append(self._running.label_of)

    @property
    def swapped(self) -> bool:
        return self.paused or self._running.tally.windows > 0

    def tally(self) -> tuple[Tally, ...]:
        return (self._running.tally,)

    def show(self, state: ModelState) -> None:
        self.shown.append(state)

    def hear(self, seconds: float) -> None:
        """Let time pass."""
        if self.paused:
            return
        logits = self._world.listen(max(1, round(seconds / self._known.hop_s)))
        old, old_on = self._running.hear(logits, self.load)
        if self._beside is None:
            return
        new, new_on = self._beside.hear(logits, self.load)
        both = (old & new_on) | (new & old_on)
        parts = (both, old & ~both, new & ~both, ~(old | new))
        for number, label in enumerate(self._known.labels):
            for place, part in enumerate(parts):
                self._agreement[label][place] += self._known.hop_s * int(part[:, number].sum())


class StaticRepository:
    """What a repository would offer and send, or the error that it would end with."""

    def __init__(self) -> None:
        self.offers: tuple[object, ...] = ()
        self.contents: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.looks = 0

    def refresh(self) -> tuple[object, ...]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.offers

    def download(self, offer, store, progress=None) -> Path:  # type: ignore[no-untyped-def]
        if self.error is not None:
            raise self.error
        path: Path = store.downloads / f"{offer.sha256}.part"
        content = self.contents[offer.sha256]
        half = len(content) // 2
        for part in (content[:half], content):
            path.write_bytes(part)
            if progress is not None:
                progress(len(part))
        return path
