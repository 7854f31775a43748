"""Batches that mix strongly labelled, weakly labelled and unlabelled recordings by a ratio.

What a batch holds follows from (seed, epoch, number of the batch) and from nothing that was drawn
before, so that a run that was killed draws the same batches when it goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.device.errors import ConfigError
from soundpost.train.sed.feature_cache import FeatureCache
from soundpost.train.sed.frame_grid import frame_targets
from soundpost.train.sed.scenes import Labelling, SceneBatch, SceneSet

_KINDS: tuple[Labelling, ...] = ("strong", "weak", "unlabelled")
# Streams of random numbers that must not be the same ones.
_ORDER, _AUGMENT = 1, 2

T = TypeVar("T")


@dataclass(frozen=True)
class BatchSettings:
    """What one batch holds, and how it is varied; 0 switches a variation off.

    strong, weak, unlabelled : recordings of each kind in every batch (the baseline of DCASE 2019
        task 4: a quarter, a quarter, a half)
    shift_s : largest shift in time, forwards or backwards; what leaves at one end comes in at the
        other, and its labels with it
    mix_probability : of a labelled recording getting another of its own kind added, and its labels
    """

    strong: int = 6
    weak: int = 6
    unlabelled: int = 12
    shift_s: float = 0.0
    mix_probability: float = 0.0

    def __post_init__(self) -> None:
        if min(self.strong, self.weak, self.unlabelled) < 0 or self.strong + self.weak == 0:
            raise ConfigError(
                f"batch: strong {self.strong}, weak {self.weak}, unlabelled {self.unlabelled}: "
                "expected none below 0, and a labelled one at least"
            )
        if self.shift_s < 0 or not 0 <= self.mix_probability <= 1:
            raise ConfigError(
                f"batch: shift_s {self.shift_s}, mix_probability {self.mix_probability}: expected "
                "0 or more, and a probability up to 1"
            )

    @property
    def size(self) -> int:
        """Recordings in a batch."""
        return self.strong + self.weak + self.unlabelled


def check_kinds(scenes: SceneSet, settings: BatchSettings) -> None:
    """Raise ConfigError where a kind is wanted that the set does not have."""
    there = {scene.labelling for scene in scenes.scenes}
    for kind in _KINDS:
        wanted = getattr(settings, kind)
        if wanted and kind not in there:
            raise ConfigError(
                f"batch.{kind} is {wanted}: {scenes.folder} has no {kind} recordings; "
                f"set batch.{kind}=0"
            )


class Batches:
    """Training batches of a set.

    An epoch has as many batches as the set takes once over, rounded up. Each kind goes through all
    its recordings in a random order before one comes again, across the epochs; where the ratio in a
    batch is not the ratio in the set, some kinds come round sooner than others.

    teacher : (n_scenes, n_frames, n_labels), a trained model's posteriors of the set's recordings;
        they are shifted and mixed as the labels are

    Raises ConfigError where a kind is wanted that the set does not have.
    """

    def __init__(
        self,
        features: FeatureCache,
        settings: BatchSettings,
        seed: int = 0,
        teacher: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        self.features = features
        self.settings = settings
        self.seed = seed
        scenes = features.scenes.scenes
        self._of_kind = {
            kind: np.array([i for i, scene in enumerate(scenes) if scene.labelling == kind])
            for kind in _KINDS
        }
        # The order of the cycle that a kind is in, which only saves making it again.
        self._orders: dict[Labelling, tuple[int, NDArray[np.int64]]] = {}
        self._wanted = (settings.strong, settings.weak, settings.unlabelled)
        check_kinds(features.scenes, settings)
        self._targets = _Targets(features, teacher)
        self.n_batches = -(-len(scenes) // settings.size)

    def indices(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """(size,) numbers of the recordings in one batch: strong, weak, unlabelled."""
        parts = []
        for kind, wanted in zip(_KINDS, self._wanted, strict=True):
            first = (epoch * self.n_batches + batch) * wanted
            parts += [self._draw(kind, draw) for draw in range(first, first + wanted)]
        return np.array(parts, np.int64)

    def _draw(self, kind: Labelling, number: int) -> int:
        """The recording that is drawn as the n-th of its kind since the run began."""
        of_kind = self._of_kind[kind]
        cycle, position = divmod(number, len(of_kind))
        held = self._orders.get(kind)
        if held is None or held[0] != cycle:
            key = [self.seed, _ORDER, _KINDS.index(kind), cycle]
            held = cycle, np.random.default_rng(key).permutation(of_kind)
            self._orders[kind] = held
        return int(held[1][position])

    def batch(self, epoch: int, number: int) -> SceneBatch:
        """One batch, with its variations."""
        made = self._targets.batch(self.indices(epoch, number))
        settings = self.settings
        rng = np.random.default_rng([self.seed, _AUGMENT, epoch, number])
        if settings.shift_s:
            made = _shifted(made, self.features, settings.shift_s, rng)
        if settings.mix_probability:
            made = _mixed(made, self.features, settings, rng)
        return made

    def epoch(self, epoch: int) -> Iterator[SceneBatch]:
        """All batches of one epoch, each made while the one before is learnt from."""
        return prefetch(self.batch(epoch, number) for number in range(self.n_batches))


def in_order(features: FeatureCache, batch_size: int) -> Iterator[SceneBatch]:
    """Every recording of a set once, in its order and as it is: for judging."""
    targets = _Targets(features)
    n = len(features.scenes.scenes)
    return prefetch(
        targets.batch(np.arange(first, min(first + batch_size, n)))
        for first in range(0, n, batch_size)
    )


class _Targets:
    """Batches of given recordings, without variations."""

    def __init__(
        self, features: FeatureCache, teacher: NDArray[np.floating[Any]] | None = None
    ) -> None:
        self.features = features
        self.teacher = teacher
        scene_set = features.scenes
        labels = scene_set.labels
        self.tags = np.array(
            [[label in scene.tags for label in labels] for scene in scene_set.scenes], np.float32
        )
        # A strong scene's rows take 40 kB as float32: made as bytes, once, for all of them.
        self.rows = {
            i: frame_targets(scene.events, labels, features.front_end, features.n_frames).astype(
                np.uint8
            )
            for i, scene in enumerate(scene_set.scenes)
            if scene.labelling == "strong"
        }

    def batch(self, indices: NDArray[np.int64]) -> SceneBatch:
        scenes = [self.features.scenes.scenes[i] for i in indices]
        frames = np.zeros((len(indices), self.features.n_frames, self.tags.shape[1]), np.float32)
        for row, index in enumerate(indices):
            if int(index) in self.rows:
                frames[row] = self.rows[int(index)]
        return SceneBatch(
            self.features.log_mel(indices),
            torch.from_numpy(frames),
            torch.from_numpy(self.tags[indices]),
            torch.tensor([scene.labelling == "strong" for scene in scenes]),
            torch.tensor([scene.labelling != "unlabelled" for scene in scenes]),
            tuple(scene.path for scene in scenes),
            None
            if self.teacher is None
            else torch.from_numpy(self.teacher[indices].astype(np.float32)),
        )


def _shifted(
    batch: SceneBatch, features: FeatureCache, shift_s: float, rng: np.random.Generator
) -> SceneBatch:
    front_end = features.front_end
    largest = min(
        round(shift_s * front_end.sample_rate_hz / front_end.hop_length), features.n_frames - 1
    )
    shifts = rng.integers(-largest, largest + 1, len(batch.log_mel))

    def rolled(values: torch.Tensor) -> torch.Tensor:
        rows = zip(values, shifts, strict=True)
        return torch.stack([torch.roll(row, int(shift), 0) for row, shift in rows])

    return replace(
        batch,
        log_mel=rolled(batch.log_mel),
        frame_targets=rolled(batch.frame_targets),
        teacher=None if batch.teacher is None else rolled(batch.teacher),
    )


def _mixed(
    batch: SceneBatch, features: FeatureCache, settings: BatchSettings, rng: np.random.Generator
) -> SceneBatch:
    """Add magnitudes, as if both had been recorded at once, and unite the labels.

    log(exp a + exp b - offset): the magnitudes of two sounds add up to at most this.
    """
    partner = np.arange(len(batch.log_mel))
    first = 0
    for wanted in (settings.strong, settings.weak):
        group = np.arange(first, first + wanted)
        if wanted > 1:
            chosen = rng.random(wanted) < settings.mix_probability
            other = group[(np.arange(wanted) + rng.integers(1, wanted, wanted)) % wanted]
            partner[group] = np.where(chosen, other, group)
        first += wanted
    rows = torch.from_numpy(np.flatnonzero(partner != np.arange(len(partner))))
    if not len(rows):
        return batch
    others = torch.from_numpy(partner)[rows]
    front_end = features.front_end
    log_mel = batch.log_mel.clone()
    both = batch.log_mel[rows].exp() + batch.log_mel[others].exp() - front_end.log_offset
    lowest = float(np.exp(front_end.clamp_low))
    log_mel[rows] = both.clamp_(min=lowest).log_().clamp_(max=front_end.clamp_high)
    frames, tags = batch.frame_targets.clone(), batch.clip_targets.clone()
    frames[rows] = torch.maximum(batch.frame_targets[rows], batch.frame_targets[others])
    tags[rows] = torch.maximum(batch.clip_targets[rows], batch.clip_targets[others])
    teacher = batch.teacher
    if teacher is not None:
        both_say = torch.maximum(teacher[rows], teacher[others])
        teacher = teacher.index_copy(0, rows, both_say)
    return replace(batch, log_mel=log_mel, frame_targets=frames, clip_targets=tags, teacher=teacher)


_END = object()


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order, up to depth of them made ahead by a thread.

    An error of items is raised here. Leaving the loop ends the thread.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, tuple) and len(item) == 2 and item[0] is _END:
                if item[1] is not None:
                    raise item[1]
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
