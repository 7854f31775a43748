"""Log-mel features of recordings, computed once and then read from a memory-mapped file.

A value takes two bytes: the front end clamps to a fixed range, which 65,536 steps divide to 9e-5 of
a natural logarithm (0.0008 dB) at most. Ten seconds (998 frames of 64 bands) take 128 kB, a
thousand such recordings 128 MB, which the page cache holds. The file's name is a hash of the front
end and of the files' names, sizes and times, so that whatever changes, the features follow.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.audio import read_clip
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.sed.scenes import Scene, SceneSet

# Raise it when the meaning of the stored numbers changes.
_FORMAT = 1
_HALF_RANGE = 32_767


@dataclass(frozen=True)
class FeatureCache:
    """Features of the recordings of one set, in its order.

    codes : (n_scenes, n_frames, n_mels) int16, memory-mapped; see log_mel
    """

    scenes: SceneSet
    front_end: FrontEnd
    codes: NDArray[np.int16]

    @property
    def n_frames(self) -> int:
        """Frames of each recording."""
        return int(self.codes.shape[1])

    def log_mel(self, indices: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """Features of some recordings, (n, n_frames, n_mels) float32."""
        centre, step = _scale(self.front_end)
        codes = torch.from_numpy(np.stack([self.codes[i] for i in indices]))
        return codes.float().mul_(step).add_(centre)


def _scale(front_end: FrontEnd) -> tuple[float, float]:
    low, high = front_end.clamp_low, front_end.clamp_high
    return (low + high) / 2, (high - low) / 2 / _HALF_RANGE


def encode(values: FloatArray, front_end: FrontEnd) -> NDArray[np.int16]:
    """int16 codes of log-mel values, to the nearest step of the clamped range."""
    centre, step = _scale(front_end)
    steps = np.round((values.astype(np.float64) - centre) / step)
    codes: NDArray[np.int16] = np.clip(steps, -_HALF_RANGE, _HALF_RANGE).astype(np.int16)
    return codes


def open_features(
    scene_set: SceneSet,
    front_end: FrontEnd,
    seconds: float,
    folder: Path | None = None,
    *,
    quiet: bool = False,
) -> FeatureCache:
    """Features of a set: read where they are, computed where not (with a progress bar).

    Parameters
    ----------
    seconds : length to which every recording is cut or padded with silence
    folder : where the file lies; by default `features` in the set's folder, or where that may not
        be written the user's cache

    Raises InputError where a recording cannot be read or the file cannot be written.
    """
    if not scene_set.scenes:
        raise InputError(f"{scene_set.folder}: has no recordings to make features of")
    n_samples = round(seconds * front_end.sample_rate_hz)
    n_frames = front_end.frames_of(n_samples)
    shape = (len(scene_set.scenes), n_frames, front_end.n_mels)
    folder = _default_folder(scene_set.folder) if folder is None else folder
    path = folder / f"{_key(scene_set.scenes, front_end, n_samples)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A second run that starts meanwhile waits, and then finds the file.
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(path, shape):
                _compute(scene_set.scenes, front_end, n_samples, path, shape, quiet=quiet)
    except OSError as error:
        raise InputError(
            f"{folder}: features cannot be written ({error.strerror}); free "
            f"{np.prod(shape) * 2 / 1e6:.0f} MB"
        ) from error
    return FeatureCache(scene_set, front_end, np.load(path, mmap_mode="r"))


def _default_folder(data: Path) -> Path:
    own = data / "features"
    if os.access(own if own.is_dir() else data, os.W_OK):
        return own
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "soundpost" / "features"


def _key(scenes: Sequence[Scene], front_end: FrontEnd, n_samples: int) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, front_end.hash(), n_samples]).encode())
    for scene in scenes:
        status = scene.path.stat()
        row = [os.fspath(scene.path.absolute()), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:32]


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        codes = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(codes.shape == shape and codes.dtype == np.int16)


def _compute(
    scenes: Sequence[Scene],
    front_end: FrontEnd,
    n_samples: int,
    path: Path,
    shape: tuple[int, ...],
    *,
    quiet: bool,
) -> None:
    aside = path.with_suffix(".part")
    try:
        # numpy gives this function no types.
        codes = np.lib.format.open_memmap(aside, "w+", np.int16, shape)  # type: ignore[no-untyped-call]
        bar = tqdm(scenes, "features", unit="file", disable=quiet, leave=False)
        for index, scene in enumerate(bar):
            samples = read_clip(scene.path, front_end.sample_rate_hz)[:n_samples]
            samples = np.pad(samples, (0, n_samples - len(samples)))
            codes[index] = encode(log_mel(samples, front_end), front_end)
        codes.flush()
        del codes
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
