"""Folders in DESED's layout (recordings with times, tags or neither) as a set like the others."""

from __future__ import annotations

import os
from pathlib import Path

from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet
from soundpost.train.sed.desed import Reading, read_desed
from soundpost.train.sed.scenes import Scene


def clip_id_of(scene: Scene, folder: Path) -> str:
    """What a recording is known by: its place in the folder."""
    return Path(os.path.relpath(scene.path, folder)).as_posix()


def list_scenes(folder: Path) -> Listing:
    """The recordings of a folder; its reader stops at the first problem, with InputError.

    Splits are train, validation and, where there is one, test. Recordings of any length are taken,
    and files that are gone left out: what a student makes of them is its recipe's choice.
    """
    reading = Reading(seconds=float("inf"), lengths="fit", overlaps="merge", missing="skip")
    sets = read_desed(folder, reading, quiet=True)
    parts = (("train", sets.train), ("validation", sets.validation), ("test", sets.test))
    clips = tuple(
        MediaClip(
            clip_id_of(scene, folder),
            scene.path,
            None,
            tuple(sorted(scene.tags)),
            split,
            seconds=scene.seconds,
            labelled=scene.labelling != "unlabelled",
            source=str(scene.path),
        )
        for split, scenes in parts
        if scenes is not None
        for scene in scenes.scenes
    )
    return Listing(MediaSet(folder, folder.name, sets.train.labels, clips))
