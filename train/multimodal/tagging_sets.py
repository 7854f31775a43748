"""Clips with their tags, as tagging networks take them: sets to be judged, batches to learn from.

The clips of one batch follow from (seed, epoch, number) alone. An epoch is a permutation of the
clips, cut into whole batches; those that are left over come in another epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.catalogue import MediaClip, MediaSet, Medium
from soundpost.train.datasets.media_cache import RowCache
from soundpost.train.multimodal.acoustic_inputs import Heard
from soundpost.train.multimodal.clip_media import ClipMedia, lacks
from soundpost.train.multimodal.epoch_order import EpochOrder
from soundpost.train.multimodal.fitting import to_device
from soundpost.train.multimodal.mutual_networks import Inputs, Tagged, TaggingBatch
from soundpost.train.multimodal.tagging_features import VisualInput, open_heard, open_seen

logger = logging.getLogger(__name__)

IntArray = NDArray[np.int64]
# Makes or opens rows of some clips.
RowsOf = Callable[[list[MediaClip]], RowCache]
_JUDGED_AT_ONCE = 64


@dataclass(frozen=True)
class TaggingSet:
    """Labelled clips of some splits, with what is heard and seen in them.

    labels : of the columns of targets
    targets : (n_clips, n_labels) float32, 0 or 1
    sounds : of each feature the rows of all clips that have sound
    pictures : of those that have pictures; None where nobody looks
    sound_row, picture_row : (n_clips,) each clip's row, -1 where it has none
    """

    labels: tuple[str, ...]
    clips: tuple[MediaClip, ...]
    targets: FloatArray
    sounds: tuple[RowCache, ...]
    sound_row: IntArray
    pictures: RowCache | None
    picture_row: IntArray

    def usable(self, *, see: bool) -> IntArray:
        """Numbers of the clips with sound; `see` : with sound and pictures."""
        there = self.sound_row >= 0
        return np.flatnonzero(there & (self.picture_row >= 0) if see else there)

    def batch(self, clips: Sequence[int] | IntArray, *, see: bool) -> TaggingBatch:
        """Some clips; `see` : with their pictures."""
        chosen = np.asarray(clips, np.int64)
        rows = list(self.sound_row[chosen])
        acoustic = tuple(torch.from_numpy(one.stack(rows)).float() for one in self.sounds)
        visual = None
        if see:
            assert self.pictures is not None
            visual = torch.from_numpy(self.pictures.stack(list(self.picture_row[chosen]))).float()
        return TaggingBatch(Inputs(acoustic, visual), torch.from_numpy(self.targets[chosen]))

    def digest(self) -> str:
        """SHA-256 of what is known of the clips, wherever their files lie."""
        rows = [
            [clip.id, clip.split, list(clip.labels), int(sound >= 0), int(picture >= 0)]
            for clip, sound, picture in zip(
                self.clips, self.sound_row, self.picture_row, strict=True
            )
        ]
        return hashlib.sha256(json.dumps([self.labels, rows]).encode()).hexdigest()


def open_tagging_set(
    media_set: MediaSet,
    splits: Sequence[str],
    media: ClipMedia,
    features: Sequence[Heard],
    seconds: float,
    folder: Path,
    *,
    visual: VisualInput | None = None,
    skip: bool = False,
    quiet: bool = False,
) -> TaggingSet:
    """Labelled clips of some splits, their features made where they are not there yet.

    Parameters
    ----------
    features : of the sound, one or more
    seconds : to which each clip is cut or padded
    folder : of the features
    visual : how pictures become vectors; None where nobody looks
    skip : leave out what cannot be used, with a warning

    Raises InputError for a split that is not there or has no labelled clip, and, unless they are
    skipped, for a clip whose file is absent or cannot be used.
    """

    def hear(feature: Heard, clips: list[MediaClip]) -> RowCache:
        return open_heard(clips, media, feature, seconds, folder, skip=skip, quiet=quiet)

    def look(clips: list[MediaClip]) -> RowCache:
        assert visual is not None
        return open_seen(clips, media, visual, seconds, folder, skip=skip, quiet=quiet)

    every = [partial(hear, feature) for feature in features]
    return gather_tagging_set(media_set, splits, every, None if visual is None else look)


def gather_tagging_set(
    media_set: MediaSet,
    splits: Sequence[str],
    hear: Sequence[RowsOf],
    look: RowsOf | None = None,
) -> TaggingSet:
    """The same with whatever rows are made of sound and pictures.

    hear : of each feature, rows of the clips that have sound; look : of those that have pictures;
        an empty row where a file cannot be used
    """
    clips = tuple(clip for clip in media_set.of(*splits).clips if clip.labelled)
    if not clips:
        raise InputError(
            f"{media_set.folder}: {', '.join(splits)}: has no labelled clip; choose another split"
        )
    column = {label: index for index, label in enumerate(media_set.labels)}
    targets = np.zeros((len(clips), len(column)), np.float32)
    for row, clip in enumerate(clips):
        targets[row, [column[label] for label in clip.labels]] = 1.0
    with_sound = np.array([clip.audio is not None for clip in clips])
    with_pictures = np.array([clip.video is not None for clip in clips])
    sounding = _chosen(clips, with_sound)
    sounds = tuple(rows(sounding) for rows in hear)
    pictures = None if look is None else look(_chosen(clips, with_pictures))
    return TaggingSet(
        media_set.labels,
        clips,
        targets,
        sounds,
        rows_of(with_sound, *sounds),
        pictures,
        rows_of(with_pictures, *([] if pictures is None else [pictures])),
    )


def _chosen(clips: Sequence[MediaClip], keep: NDArray[np.bool_]) -> list[MediaClip]:
    return [clip for clip, kept in zip(clips, keep, strict=True) if kept]


def rows_of(there: NDArray[np.bool_], *caches: RowCache) -> IntArray:
    """Row of each clip; -1 where it lacks the medium, or where its row of one of them is empty."""
    rows = np.full(len(there), -1, np.int64)
    if caches:
        whole = np.all([cache.lengths() > 0 for cache in caches], axis=0)
        rows[there] = np.where(whole, np.arange(len(whole)), -1)
    return rows


def require_media(found: TaggingSet, *, see: bool, skip: bool, where: str) -> IntArray:
    """Numbers of the clips that can be used.

    Raises InputError where none can, or, unless they are skipped, where one cannot.
    """
    usable = found.usable(see=see)
    if len(usable) == len(found.clips):
        return usable
    left_out = np.setdiff1d(np.arange(len(found.clips)), usable)
    if not len(usable) or not skip:
        number = int(left_out[0])
        clip, heard = found.clips[number], bool(found.sound_row[number] >= 0)
        medium: Medium = "video" if heard else "audio"
        if not clip.has(medium):
            fault = str(lacks(clip, medium))
        else:
            fault = f"{clip.id}: its {medium} cannot be used (soundpost dataset check says why)"
        raise InputError(
            f"{fault}; so it is with {len(left_out)} of the {len(found.clips)} clips of {where}"
            + ("" if skip else ": data.problems=skip goes on without them")
        )
    logger.warning("%s: %d of %d clips left out", where, len(left_out), len(found.clips))
    return usable


class TaggingBatches:
    """Batches of some clips of a set: what `fit_method` takes.

    clips : numbers of the clips to learn from
    see : with their pictures

    Raises InputError where there are fewer than two.
    """

    def __init__(
        self, of: TaggingSet, clips: IntArray, batch_size: int, seed: int, *, see: bool
    ) -> None:
        self.set, self.see = of, see
        self.order = EpochOrder(clips, batch_size, seed)
        self.batch_size, self.n_batches = self.order.batch_size, self.order.n_batches

    def batch(self, epoch: int, number: int) -> TaggingBatch:
        """One batch, on the CPU."""
        return self.set.batch(self.order.batch(epoch, number), see=self.see)


@torch.no_grad()
def score_clips(
    network: nn.Module, of: TaggingSet, clips: IntArray, device: torch.device, *, see: bool
) -> FloatArray:
    """Scores of clips, (n_clips, n_labels) in 0 to 1, in the order given.

    network : from Inputs to Tagged, in evaluation mode on the device
    """
    found = [np.empty((0, len(of.labels)), np.float32)]
    for first in range(0, len(clips), _JUDGED_AT_ONCE):
        batch = of.batch(clips[first : first + _JUDGED_AT_ONCE], see=see)
        said: Tagged = network(to_device(batch.inputs, device))
        found.append(said.logits.float().sigmoid().cpu().numpy())
    return np.concatenate(found)
