"""The sound of any set as a folder of labelled clips: what the sensor's clip students learn from.

Files keep the ids of their clips in a column of clips.csv, so that soft labels that were written of
the set (`soundpost distil --kind KIND`) are those of the folder too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.clip_media import ReadSet

TABLE = "clips.csv"
COLUMNS = ("filename", "label", "fold", "group", "id")


@dataclass(frozen=True)
class ClipExport:
    """What was written.

    n_clips : with one label and sound
    several : clips left out because they have several labels, or none; silent : or no sound
    folds : number of each split, or subject
    """

    n_clips: int
    several: int
    silent: int
    folds: Mapping[str, int]


def export_clips(
    read: ReadSet, splits: Sequence[str], out: Path, rate_hz: int, *, quiet: bool = False
) -> ClipExport:
    """Write sound (16 bit) and clips.csv; what lies there already of a killed call is kept.

    splits : of the set; all where none is named

    Raises
    ------
    UsageError
        No split of this name.
    InputError
        No clip has one label and sound; a file cannot be read; the folder holds other clips.
    """
    there = read.clips.splits()
    for split in splits:
        if split not in there:
            raise UsageError(f"--split {split}: the set has {', '.join(there)}; name one of them")
    chosen = read.clips.of(*splits).clips if splits else read.clips.clips
    single = [clip for clip in chosen if len(clip.labels) == 1]
    clips = [clip for clip in single if clip.has("audio")]
    if not clips:
        raise InputError(
            f"{read.clips.folder}: none of {len(chosen)} clips has one label and sound; sets with "
            "several labels are learnt from by soundpost train yin2021_mobilenet_v2"
        )
    folds = _folds(clips)
    names = _names(clips)
    rows = [
        (names[clip.id], clip.labels[0], folds[_part(clip)], clip.group, clip.id) for clip in clips
    ]
    table = _table(rows)
    if (out / TABLE).is_file() and (out / TABLE).read_bytes() != table:
        raise InputError(f"{out / TABLE}: lists other clips; give another --out")
    for clip in tqdm(clips, desc="clips", unit="clip", disable=quiet):
        path = out / names[clip.id]
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            packed = io.BytesIO()
            samples = read.media.sound(clip, rate_hz)
            soundfile.write(packed, samples, rate_hz, "PCM_16", format="WAV")
            write_atomically(path, packed.getvalue())
    # Last: a folder with it is whole.
    write_atomically(out / TABLE, table)
    several = len(chosen) - len(single)
    return ClipExport(len(clips), several, len(single) - len(clips), folds)


def _part(clip: MediaClip) -> str:
    # In the layout of `actions` all is one split, and who is not heard in training is a subject.
    return clip.subject or clip.split


def _folds(clips: Sequence[MediaClip]) -> dict[str, int]:
    """A number for each split: its own where all are numbers."""
    parts = sorted({_part(clip) for clip in clips})
    if all(part.isascii() and part.isdigit() for part in parts):
        return {part: int(part) for part in parts}
    return {part: number for number, part in enumerate(parts, 1)}


def _names(clips: Sequence[MediaClip]) -> dict[str, str]:
    """A file for each id, inside the folder whatever the id is; InputError where two would be one.

    Ids that are paths stay folders.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for clip in clips:
        safe = re.sub(r"[^\w./-]", "_", clip.id, flags=re.ASCII)
        parts = [part for part in safe.split("/") if part.strip(".")]
        name = "/".join(parts).removesuffix(".wav") + ".wav"
        if taken.setdefault(name, clip.id) != clip.id:
            raise InputError(
                f"{clip.source or clip.id}: clips {taken[name]} and {clip.id} would both be "
                f"{name}; rename one"
            )
        names[clip.id] = name
    return names


def _table(rows: Sequence[tuple[str, str, int, str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return text.getvalue().encode()
