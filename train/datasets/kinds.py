"""Kinds of data sets by name: how each is read and checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from soundpost.device.errors import UsageError
from soundpost.train.datasets.acoustic_actions import list_actions, read_actions
from soundpost.train.datasets.acoustic_scenes import read_scenes
from soundpost.train.datasets.action_check import check_action_files
from soundpost.train.datasets.audioset import read_audioset
from soundpost.train.datasets.catalogue import Listing, MediaSet, Medium, Problem
from soundpost.train.datasets.clip_folders import list_clips
from soundpost.train.datasets.dcase2017_task4 import CLASSES, read_dcase2017
from soundpost.train.datasets.dcase2018_task4 import read_dcase2018
from soundpost.train.datasets.labels import compare_labels
from soundpost.train.datasets.media_check import check_media
from soundpost.train.datasets.segments import Folders
from soundpost.train.datasets.world_tables import read_world


@dataclass(frozen=True)
class Kind:
    """One published layout.

    read : clips and problems of a folder
    needs : what every clip has as published
    of_files : sound and video are files of one's own, which may lie elsewhere
    """

    read: Callable[[Folders], Listing]
    needs: tuple[Medium, ...]
    of_files: bool = False


def _list_scenes(folders: Folders) -> Listing:
    # Its reader brings torch along, which the other layouts do without.
    from soundpost.train.datasets.scene_folders import list_scenes

    return list_scenes(folders.tables)


KINDS: Final[Mapping[str, Kind]] = {
    "audioset": Kind(read_audioset, ("audio", "video"), of_files=True),
    "dcase2017": Kind(read_dcase2017, ("audio", "video"), of_files=True),
    "dcase2018": Kind(read_dcase2018, ("audio", "video"), of_files=True),
    "esc50": Kind(lambda folders: list_clips(folders.tables), ("audio",)),
    "scenes": Kind(lambda folders: read_scenes(folders.tables), ("audio",)),
    "actions": Kind(lambda folders: list_actions(folders.tables), ("audio", "video", "images")),
    "desed": Kind(_list_scenes, ("audio",)),
    "world": Kind(lambda folders: read_world(folders.tables), ("audio", "video", "images")),
}


def read_set(kind: str, folders: Folders) -> Listing:
    """Clips of a folder and what is wrong with its tables.

    Raises UsageError for folders of sound and video where the layout has its own, and InputError
    where there is nothing to read.
    """
    elsewhere = folders.audio is not None or folders.video is not None or folders.whole_videos
    if elsewhere and not KINDS[kind].of_files:
        raise UsageError(
            f"{kind}: the files of this layout lie in its folder; --audio, --video and "
            f"--whole-videos are for {', '.join(k for k, v in KINDS.items() if v.of_files)}"
        )
    return KINDS[kind].read(folders)


def check_set(
    kind: str,
    folders: Folders,
    needs: Collection[Medium] | None = None,
    *,
    thorough: bool = False,
    quiet: bool = False,
) -> tuple[MediaSet, list[Problem]]:
    """The clips of a folder, and all that is wrong with its tables and files.

    needs : what every clip must have; by default what it has as published
    """
    listing = read_set(kind, folders)
    if kind in ("actions", "world"):
        # Files of both are those of recordings, of which a world's clips are parts.
        actions, _ = read_actions(folders.tables)
        files = check_action_files(actions, thorough=thorough, quiet=quiet)
        return listing.media, [*listing.problems, *files]
    wanted = KINDS[kind].needs if needs is None else needs
    files = check_media(listing.media, wanted, thorough=thorough, quiet=quiet)
    return listing.media, [*listing.problems, *files]


def compare_sets(first: MediaSet, second: MediaSet) -> list[Problem]:
    """Classes that two sets name differently; ids of vehicles and warnings are known by heart."""
    return compare_labels(first, second, CLASSES)
