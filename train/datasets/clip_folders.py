"""Folders of labelled clips (clips.csv, or ESC-50 as published) as a set like the others."""

from __future__ import annotations

import os
from pathlib import Path

from soundpost.train.clips import ClipSet, read_clip_set
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet

# Clips of ESC-50 are 5 s long; those of other folders are as long as they are.
_ESC50_TABLE = Path("meta") / "esc50.csv"
_ESC50_SECONDS = 5.0


def list_clips(folder: Path) -> Listing:
    """The clips of a folder; its reader stops at the first problem, with InputError."""
    return Listing(media_of_clips(read_clip_set(folder)))


def media_of_clips(clips: ClipSet) -> MediaSet:
    """The same clips: each known by its id, or its name in the folder, its fold the split."""
    published = (clips.folder / _ESC50_TABLE).is_file()
    return MediaSet(
        clips.folder,
        "esc50" if published else clips.folder.name,
        clips.labels,
        tuple(
            MediaClip(
                clip.path.name
                if published
                else clip.id or os.path.relpath(clip.path, clips.folder),
                clip.path,
                None,
                (clip.label,),
                str(clip.fold),
                seconds=_ESC50_SECONDS if published else None,
                group=clip.group,
                source=str(clip.path),
            )
            for clip in clips.clips
        ),
    )
