"""What tagging networks take of a clip: what is heard and embeddings of its pictures, cached.

Every clip has the same length: cut, or padded with silence, and with its last picture where the
video ends before the sound. Numbers are stored in two bytes each (float16: a log-mel value is off
by 0.002 nepers, 0.02 dB, at most). Where faults are skipped, a clip whose file cannot be used gets
an empty row: of fifty thousand videos that somebody fetched, some are always damaged, and the next
run need not try them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.backbones.frozen import FrozenBackbone
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media import Frames
from soundpost.train.datasets.media_cache import RowCache, open_rows
from soundpost.train.multimodal.clip_media import ClipMedia

if TYPE_CHECKING:
    from soundpost.train.multimodal.acoustic_inputs import Heard

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = NDArray[np.float16]
_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class VisualInput:
    """How pictures become vectors.

    scores : the network's output layer ("VGG-1000" of yin2021) instead of what is before it
    """

    backbone: FrozenBackbone
    frames_per_second: float = 1.0
    scores: bool = False

    @cached_property
    def size(self) -> int:
        """Elements of a vector."""
        if not self.scores:
            return self.backbone.embedding_size
        side = self.backbone.frames.crop_px
        return int(self.vectors(np.zeros((1, side, side, 3), np.uint8)).shape[1])

    def n_frames(self, seconds: float) -> int:
        """Pictures of a clip."""
        return max(1, round(seconds * self.frames_per_second))

    def vectors(self, frames: Frames) -> FloatArray:
        """(n, height, width, 3) uint8 to (n, size) float32."""
        network = self.backbone.scores if self.scores else self.backbone.embed
        return np.asarray(network(frames), np.float32)


def seen(frames: Frames, visual: VisualInput, seconds: float) -> FloatArray:
    """Vectors of a clip's first seconds, (n_frames, size) float32; the last one lasts."""
    n = visual.n_frames(seconds)
    vectors = visual.vectors(frames[:n])
    lasting: FloatArray = vectors[np.minimum(np.arange(n), len(vectors) - 1)]
    return lasting


def open_heard(
    clips: Sequence[MediaClip],
    media: ClipMedia,
    feature: Heard,
    seconds: float,
    folder: Path,
    *,
    skip: bool = False,
    quiet: bool = False,
) -> RowCache:
    """One feature of clips with sound, (n_frames, size) float16 each.

    skip : an empty row where a file cannot be used, with a warning; else its InputError is raised
    """
    empty = np.empty((0, feature.feature.size), np.float16)

    def make(clip: MediaClip) -> FloatArray:
        return feature.of(media.sound(clip, feature.rate_hz), seconds)

    row = half_rows(make, empty if skip else None)
    title = feature.name.replace("_", "-")
    return open_rows(clips, feature.key(seconds), row, folder, title=title, quiet=quiet)


def open_seen(
    clips: Sequence[MediaClip],
    media: ClipMedia,
    visual: VisualInput,
    seconds: float,
    folder: Path,
    *,
    skip: bool = False,
    quiet: bool = False,
) -> RowCache:
    """Vectors of clips with pictures, (n_frames, size) float16 each; skip as in open_heard."""
    made_by = hash_of(
        "pictures", visual.backbone.fingerprint(), visual.frames_per_second, visual.scores, seconds
    )
    empty = np.empty((0, visual.size), np.float16)

    def make(clip: MediaClip) -> FloatArray:
        return seen(media.pictures(clip, visual.frames_per_second), visual, seconds)

    row = half_rows(make, empty if skip else None)
    return open_rows(clips, made_by, row, folder, title="pictures", quiet=quiet)


def band_statistics(
    rows: RowCache, indices: Sequence[int] | NDArray[np.int64], at_most: int = 2_000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each column over some rows, (size,) each.

    at_most : rows that are looked at, spread evenly over the indices
    """
    chosen = np.asarray(indices)[:: max(1, -(-len(indices) // at_most))]
    count, total, squares = 0, np.zeros(0), np.zeros(0)
    for index in chosen:
        values = rows[int(index)].astype(np.float64)
        count += len(values)
        total = values.sum(0) + (total if len(total) else 0.0)
        squares = np.square(values).sum(0) + (squares if len(squares) else 0.0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def hash_of(*parts: Any) -> str:
    """SHA-256 of what decides rows, as JSON takes it."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def half_rows(
    make: Callable[[MediaClip], FloatArray], instead: Row | None
) -> Callable[[MediaClip], Row]:
    """Rows in two bytes a number; see leaving_out."""

    def row(clip: MediaClip) -> Row:
        return np.clip(make(clip), -_MOST, _MOST).astype(np.float16)

    return leaving_out(row, instead)


def leaving_out(make: Callable[[MediaClip], T], instead: T | None) -> Callable[[MediaClip], T]:
    """Rows of clips whose file may be faulty.

    instead : of such a clip, with a warning; None to raise its InputError
    """

    def row(clip: MediaClip) -> T:
        try:
            return make(clip)
        except InputError as error:
            if instead is None:
                raise
            logger.warning("%s: left out: %s", clip.id, error)
            return instead

    return row
