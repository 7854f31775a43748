"""Pictures by name in folders: `train/dog/000.jpeg`, as networks that see are trained everywhere.

The folder of a split has one for each name; names of the training split are the vocabulary, in
alphabetical order.
"""

from __future__ import annotations

from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet, Problem

_SUFFIXES = (".jpeg", ".jpg")
TRAIN, VALIDATION = "train", "validation"


def read_picture_folders(folder: Path) -> Listing:
    """Pictures of a folder as clips without sound, their ids `train/dog/000`.

    Raises InputError where there is no split to learn from, or fewer than two names in it.
    """
    splits = [name for name in (TRAIN, VALIDATION, "test") if (folder / name).is_dir()]
    if TRAIN not in splits:
        raise InputError(
            f"{folder}: has no folder {TRAIN}; expected {TRAIN}/NAME/*.jpeg and "
            f"{VALIDATION}/NAME/*.jpeg: give the folder that holds them"
        )
    labels = tuple(sorted(path.name for path in (folder / TRAIN).iterdir() if path.is_dir()))
    if len(labels) < 2:
        raise InputError(
            f"{folder / TRAIN}: has {len(labels)} folders; expected one for each name that a "
            "picture may have, two or more"
        )
    clips: list[MediaClip] = []
    problems: list[Problem] = []
    for split in splits:
        for of_name in sorted(path for path in (folder / split).iterdir() if path.is_dir()):
            if of_name.name not in labels:
                problems.append(
                    Problem(
                        str(of_name),
                        f"pictures of {of_name.name}",
                        f"a name that {TRAIN} has",
                        f"add pictures of it to {TRAIN}, or take the folder away",
                    )
                )
                continue
            clips += [
                MediaClip(
                    path.relative_to(folder).with_suffix("").as_posix(),
                    None,
                    path,
                    (of_name.name,),
                    split,
                    source=str(path),
                )
                for path in sorted(of_name.iterdir())
                if path.suffix.lower() in _SUFFIXES
            ]
    return Listing(MediaSet(folder, folder.name, labels, tuple(clips)), tuple(problems))
