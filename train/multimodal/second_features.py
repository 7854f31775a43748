"""What jia2019's networks hear of a clip: its seconds as log-mel patches, cached.

A clip is cut into seconds that do not overlap; 100 frames of 10 ms each, with 64 bands. The last
frames of a second reach 15 ms into the next one, as the sensor's windows of 100 frames do; where
there is nothing more they hear silence. Of the rest behind the last second, half or more counts as
a second, filled up with silence: files are cut at packets, and 10 s are often 9.98.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import RowCache, open_rows
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.tagging_features import half_rows, hash_of


def frames_per_second(front_end: FrontEnd) -> int:
    """Frames of a second, 100 as published; InputError where their number is not whole."""
    frames, rest = divmod(front_end.sample_rate_hz, front_end.hop_length)
    if rest:
        raise InputError(
            f"front end: a hop of {front_end.hop_length} samples at {front_end.sample_rate_hz} Hz: "
            "expected a whole number of hops in a second"
        )
    return frames


def heard_seconds(samples: FloatArray, front_end: FrontEnd) -> FloatArray:
    """Log-mel of a clip's seconds, one after the other.

    samples : (n_samples,) float32, full scale ±1.0

    Returns (n_seconds * frames_per_second, n_mels) float32. Raises InputError without a sample.
    """
    if not len(samples):
        raise InputError("holds no sound; expected a second or more")
    rate_hz = front_end.sample_rate_hz
    n_seconds = max(1, (2 * len(samples) + rate_hz) // (2 * rate_hz))
    n = front_end.samples_of(n_seconds * frames_per_second(front_end))
    return log_mel(np.pad(samples[:n], (0, max(0, n - len(samples)))), front_end)


@dataclass(frozen=True)
class HeardClips:
    """Log-mel of some clips.

    rows : (n_seconds * frames, n_mels) float16 of each clip; empty where it cannot be used
    frames : of a second
    """

    rows: RowCache
    frames: int

    def n_frames(self) -> NDArray[np.int64]:
        """Frames of each clip, (n_clips,)."""
        return self.rows.lengths()

    def seconds(self, clip: int) -> FloatArray:
        """All seconds of a clip, (n_seconds, frames, n_mels) float32."""
        row = self.rows[clip]
        seconds: FloatArray = row.reshape(-1, self.frames, row.shape[1]).astype(np.float32)
        return seconds

    def patches(self, clips: Sequence[int], starts: Sequence[int]) -> FloatArray:
        """A second of each of some clips, from a frame on: (n, frames, n_mels) float32."""
        cut = [
            self.rows[clip][start : start + self.frames]
            for clip, start in zip(clips, starts, strict=True)
        ]
        patches: FloatArray = np.stack(cut).astype(np.float32)
        return patches


def open_seconds(
    clips: Sequence[MediaClip],
    media: ClipMedia,
    front_end: FrontEnd,
    folder: Path,
    *,
    skip: bool = False,
    quiet: bool = False,
) -> HeardClips:
    """Log-mel of clips with sound, made where it is not there yet.

    folder : of the features
    skip : an empty row where a file cannot be used, with a warning; else its InputError is raised
    """
    empty = np.empty((0, front_end.n_mels), np.float16)

    def make(clip: MediaClip) -> FloatArray:
        return heard_seconds(media.sound(clip, front_end.sample_rate_hz), front_end)

    rows = open_rows(
        clips,
        hash_of("seconds", front_end.hash()),
        half_rows(make, empty if skip else None),
        folder,
        title="log-mel",
        quiet=quiet,
    )
    return HeardClips(rows, frames_per_second(front_end))
