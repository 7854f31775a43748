"""Where the clips of a data set lie: what [data] of every recipe has in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.datasets.segments import Folders
from soundpost.train.recipe import Check

_PROBLEMS: Final = ("refuse", "skip")


@dataclass(frozen=True)
class SetSettings:
    """Where the clips of a set lie, and what becomes of those that cannot be used.

    kind : published layout (`soundpost dataset --help` lists them)
    problems : of tables and files: "refuse", or "skip" what cannot be used, with a warning
    audio, video, whole_videos : where sound and video lie, if not below the tables, and whether
        they are cut to the clips; as of `soundpost dataset`
    """

    kind: str = "dcase2017"
    problems: str = "refuse"
    audio: str = ""
    video: str = ""
    whole_videos: bool = False

    @property
    def skip(self) -> bool:
        """Whether what cannot be used is left out."""
        return self.problems == "skip"

    def folders(self, tables: Path) -> Folders:
        """Where everything lies."""
        audio, video = (Path(path) if path else None for path in (self.audio, self.video))
        return Folders(tables, audio, video, self.whole_videos)

    def checks(self) -> list[Check]:
        """What they must be."""
        return [
            (self.kind in KIND_NAMES, "data.kind", self.kind, ", ".join(KIND_NAMES)),
            (self.problems in _PROBLEMS, "data.problems", self.problems, ", ".join(_PROBLEMS)),
        ]
