"""Folders of labelled clips: `clips.csv` (filename, label, fold) or ESC-50's own layout.

A table with the column `suggested` is one that a person is still labelling (`soundpost collect`):
its rows without a label, and those whose `review` is `rejected`, are left out.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.audio import read_clip
from soundpost.device.errors import InputError

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"})


@dataclass(frozen=True)
class Clip:
    """One labelled recording.

    group : clips of one group (one author, one recording) never stand on both sides of a split
    licence, attribution : carried into the model card
    id : by which soft labels know it, where that is not its name in the folder
    """

    path: Path
    label: str
    fold: int
    group: str
    licence: str = ""
    attribution: str = ""
    id: str = ""


@dataclass(frozen=True)
class ClipSet:
    """Clips of one folder and their labels in alphabetical order."""

    folder: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]

    def folds(self) -> tuple[int, ...]:
        """Fold numbers present, ascending."""
        return tuple(sorted({clip.fold for clip in self.clips}))


def read_clip_set(folder: Path) -> ClipSet:
    """List the clips of a folder, checking every row.

    Raises
    ------
    InputError
        No list, no labelled clip, a column or a label missing, a file named twice or absent, a
        fold that is not a whole number: the row is named.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give --data a folder with clips.csv")
    table = folder / "clips.csv"
    if table.is_file():
        columns, audio = ("filename", "label", "fold"), folder
    elif (folder / "meta" / "esc50.csv").is_file():
        table = folder / "meta" / "esc50.csv"
        columns, audio = ("filename", "category", "fold"), folder / "audio"
    else:
        raise InputError(
            f"{folder}: found neither clips.csv nor meta/esc50.csv; "
            "write clips.csv with the columns filename,label,fold"
        )
    clips: list[Clip] = []
    n_left_out = 0
    seen: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{table}: line 1: column {missing[0]} is missing; "
                    f"expected at least {','.join(columns)}"
                )
            in_review = "suggested" in (reader.fieldnames or [])
            for row in reader:
                if in_review and _left_out(row, columns[1]):
                    n_left_out += 1
                    continue
                clips.append(_clip(row, columns, audio, f"{table}: line {reader.line_num}", seen))
                seen[row[columns[0]]] = reader.line_num
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table}: is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error
    if not clips and n_left_out:
        raise InputError(
            f"{table}: none of its {n_left_out} clips has a label yet; open index.html beside it, "
            "or write labels into the column label"
        )
    if n_left_out:
        logger.info("%s: %d clips without a label are left out", table, n_left_out)
    if not clips:
        raise InputError(f"{table}: lists no clips; add a row per clip: filename,label,fold")
    return ClipSet(folder, tuple(clips), tuple(sorted({clip.label for clip in clips})))


def _left_out(row: dict[str, str | None], label: str) -> bool:
    return not (row.get(label) or "").strip() or (row.get("review") or "").strip() == "rejected"


def _clip(
    row: dict[str, str | None],
    columns: tuple[str, ...],
    audio: Path,
    where: str,
    seen: dict[str, int],
) -> Clip:
    name, label, fold = ((row.get(column) or "").strip() for column in columns)
    if not name:
        raise InputError(f"{where}: filename is empty; name a file or delete the row")
    if not label:
        raise InputError(f"{where}: {name} has no label; write one in column {columns[1]}")
    if name in seen:
        raise InputError(f"{where}: {name} is listed before, in line {seen[name]}; delete one row")
    path = audio / name
    if not path.is_file():
        raise InputError(f"{where}: {path} does not exist; correct the name or delete the row")
    if not fold.isascii() or not fold.isdigit():
        raise InputError(f"{where}: fold is '{fold}'; expected a whole number such as 1")
    group = (row.get("group") or row.get("src_file") or name).strip()
    return Clip(
        path,
        label,
        int(fold),
        group,
        (row.get("licence") or "").strip(),
        (row.get("attribution") or "").strip(),
        (row.get("id") or "").strip(),
    )


@dataclass(frozen=True)
class Waveforms:
    """Clips in memory, one after the other.

    samples : (n_total,) int16 at the front end's rate: half the memory of float32
    starts, lengths : (n_clips,) int64
    """

    samples: NDArray[np.int16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def clip(self, index: int) -> NDArray[np.float32]:
        """Samples of one clip, float32 full scale ±1.0."""
        start = self.starts[index]
        part = self.samples[start : start + self.lengths[index]]
        return part.astype(np.float32) / np.float32(32_768)


def pack(arrays: Sequence[NDArray[np.float32]]) -> Waveforms:
    """Waveforms of float arrays, rounded to 16 bits."""
    lengths = np.array([len(array) for array in arrays], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    samples = np.empty(int(lengths.sum()), np.int16)
    for start, array in zip(starts, arrays, strict=True):
        samples[start : start + len(array)] = np.round(np.clip(array, -1.0, 1.0) * 32_767)
    return Waveforms(samples, starts, lengths)


def load_waveforms(clips: Sequence[Clip], rate_hz: int, *, quiet: bool = False) -> Waveforms:
    """Decode clips to mono at rate_hz, with a progress bar.

    Raises InputError naming the file on anything that is not readable audio.
    """
    bar = tqdm(clips, "reading clips", unit="clip", disable=quiet, leave=False)
    return pack([read_clip(clip.path, rate_hz) for clip in bar])
