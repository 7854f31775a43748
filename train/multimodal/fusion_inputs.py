"""What li2018 takes from a folder: clips that are heard, and those to be judged, also seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from soundpost.device.features import FloatArray, FrontEnd
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.datasets.media_cache import RowCache, cache_folder, open_rows
from soundpost.train.multimodal.clip_media import ClipMedia, ReadSet, read_media_set
from soundpost.train.multimodal.fitting import to_device
from soundpost.train.multimodal.fusion_recipe import VALIDATION, FusionRecipe
from soundpost.train.multimodal.held_out import hold_out
from soundpost.train.multimodal.mil_crnn import MilCrnn, MilScores, clip_features
from soundpost.train.multimodal.tagging_features import half_rows, hash_of
from soundpost.train.multimodal.tagging_inputs import FEATURES
from soundpost.train.multimodal.tagging_sets import (
    IntArray,
    TaggingSet,
    gather_tagging_set,
    require_media,
    rows_of,
)
from soundpost.train.multimodal.video_branch import VideoBranch, open_objects

# Clips at once: the first convolution's map of one has 3.8 million numbers.
_JUDGED_AT_ONCE = 16


def clip_frames(samples: FloatArray, front_end: FrontEnd, seconds: float) -> FloatArray:
    """Log-mel of a clip's first seconds as clip_features makes it; what lacks is silent."""
    n = round(seconds * front_end.sample_rate_hz)
    return clip_features(np.pad(samples[:n], (0, max(0, n - len(samples)))), front_end)


def open_sound(
    clips: Sequence[MediaClip],
    media: ClipMedia,
    front_end: FrontEnd,
    seconds: float,
    folder: Path,
    *,
    skip: bool = False,
    quiet: bool = False,
) -> RowCache:
    """Log-mel frames of clips, (n_frames, n_mels) float16 each; skip as of open_objects."""

    def make(clip: MediaClip) -> FloatArray:
        return clip_frames(media.sound(clip, front_end.sample_rate_hz), front_end, seconds)

    row = half_rows(make, np.empty((0, front_end.n_mels), np.float16) if skip else None)
    made_by = hash_of("centred log_mel", front_end.hash(), seconds)
    return open_rows(clips, made_by, row, folder, title="log-mel", quiet=quiet)


@dataclass(frozen=True)
class Part:
    """Clips of a set, and the numbers of those that can be used."""

    of: TaggingSet
    clips: IntArray

    def rows(self) -> list[FloatArray]:
        """What was seen in each, as VideoBranch.look makes it."""
        assert self.of.pictures is not None
        return [self.of.pictures[int(row)] for row in self.of.picture_row[self.clips]]

    def truth(self) -> FloatArray:
        """(n_clips, n_labels), 0 or 1."""
        return self.of.targets[self.clips]

    def clip_ids(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(self.of.clips[i].id for i in self.clips)


@dataclass(frozen=True)
class FusionInputs:
    """One data set with a recipe's features."""

    recipe: FusionRecipe
    folder: Path
    read: ReadSet
    quiet: bool

    @property
    def features(self) -> Path:
        """Folder of the rows."""
        return cache_folder(self.folder, FEATURES)

    def heard(self, splits: Sequence[str]) -> Part:
        """Clips to learn from; InputError as gather_tagging_set and require_media raise it."""
        data, clips = self.recipe.data, self.read.clips
        if data.skip:
            clips = clips.having(*(cast(Medium, medium) for medium in data.needs))
        of = gather_tagging_set(clips, splits, [self._hear])
        where = ", ".join(splits)
        return Part(of, require_media(of, see=False, skip=data.skip, where=where))

    def seen(self, splits: Sequence[str], branch: VideoBranch) -> Part:
        """Clips to be judged, which have sound and pictures; InputError as of heard."""

        def look(clips: list[MediaClip]) -> RowCache:
            return self._look(clips, branch)

        of = gather_tagging_set(self.read.clips, splits, [self._hear], look)
        return self._judged(of, ", ".join(splits))

    def held_out(self, train: Part, branch: VideoBranch) -> tuple[Part, Part]:
        """Training clips without some of them, and these, which have sound and pictures."""
        data = self.recipe.data
        able = train.clips
        if data.skip:
            able = np.array([i for i in able if train.of.clips[i].has("video")], np.int64)
        of = train.of
        chosen = able[
            hold_out([of.clips[i] for i in able], data.validation_share, data.validation_seed)
        ]
        groups = {_group(of.clips[i]) for i in chosen}
        rest = np.array([i for i in train.clips if _group(of.clips[i]) not in groups], np.int64)
        there = np.array([of.clips[i].has("video") for i in chosen])
        pictures = self._look([of.clips[i] for i in chosen[there]], branch)
        held = replace(
            of,
            clips=tuple(of.clips[i] for i in chosen),
            targets=of.targets[chosen],
            sound_row=of.sound_row[chosen],
            pictures=pictures,
            picture_row=rows_of(there, pictures),
        )
        where = f"{VALIDATION} (held out of {', '.join(data.train)})"
        return Part(of, rest), self._judged(held, where)

    def parts(self, branch: VideoBranch) -> tuple[Part, dict[str, Part]]:
        """Clips to learn from, and those to be judged by name of split."""
        train = self.heard(self.recipe.data.train)
        if not self.recipe.data.validation:
            train, validation = self.held_out(train, branch)
            return train, {VALIDATION: validation, **self.judged("test", branch)}
        return train, {**self.judged(VALIDATION, branch), **self.judged("test", branch)}

    def judged(self, part: str, branch: VideoBranch) -> dict[str, Part]:
        """Clips of "test" or "validation", by name of split."""
        data = self.recipe.data
        if part != VALIDATION:
            return {split: self.seen([split], branch) for split in data.test}
        if data.validation:
            return {VALIDATION: self.seen(data.validation, branch)}
        return {VALIDATION: self.held_out(self.heard(data.train), branch)[1]}

    def _hear(self, clips: list[MediaClip]) -> RowCache:
        recipe, data = self.recipe, self.recipe.data
        return open_sound(
            clips, self.read.media, recipe.front_end, data.seconds, self.features,
            skip=data.skip, quiet=self.quiet,
        )  # fmt: skip

    def _look(self, clips: list[MediaClip], branch: VideoBranch) -> RowCache:
        data = self.recipe.data
        return open_objects(
            clips, self.read.media, branch, data.seconds, self.features,
            skip=data.skip, quiet=self.quiet,
        )  # fmt: skip

    def _judged(self, of: TaggingSet, where: str) -> Part:
        skip = self.recipe.data.skip
        return Part(of, require_media(of, see=True, skip=skip, where=where))


def _group(clip: MediaClip) -> str:
    return clip.group or clip.id


def open_fusion_inputs(recipe: FusionRecipe, folder: Path, *, quiet: bool) -> FusionInputs:
    """Read a folder's tables; InputError as read_media_set raises it."""
    read = read_media_set(
        recipe.data.kind, recipe.data.folders(folder), refuse=not recipe.data.skip
    )
    return FusionInputs(recipe, folder, read, quiet)


@torch.no_grad()
def mil_logits(network: MilCrnn, part: Part, device: torch.device) -> torch.Tensor:
    """Scores of clips before the sigmoid, (n_clips, n_labels) float32 on the CPU.

    network : in evaluation mode on the device
    """
    found = []
    for first in range(0, len(part.clips), _JUDGED_AT_ONCE):
        batch = part.of.batch(part.clips[first : first + _JUDGED_AT_ONCE], see=False)
        said: MilScores = network(to_device(batch.inputs, device).acoustic[0])
        found.append(said.clips.float().cpu())
    return torch.cat(found)
