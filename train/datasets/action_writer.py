"""Writes sets of one's own in the layout of the acoustic-image action set, a frame at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType

from soundpost.device.array.published_files import SETTINGS_FILE, SETTINGS_SCHEMA
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.device.files import write_atomically
from soundpost.train.datasets.acoustic_actions import ActionSettings
from soundpost.train.datasets.action_files import (
    IMAGE_SHAPE,
    SAMPLES_PER_FRAME,
    block_bytes,
    block_name,
    image_bytes,
    image_name,
    picture_bytes,
    picture_name,
)
from soundpost.train.datasets.media import Frames


def write_settings(folder: Path, settings: ActionSettings) -> None:
    """Write the folder's actions.json: names of actions and locations, microphones."""
    table = {
        "schema": SETTINGS_SCHEMA,
        "name": settings.name,
        "actions": {str(number): name for number, name in settings.actions.items()},
        "locations": {str(number): name for number, name in settings.locations.items()},
        "n_microphones": settings.n_microphones,
        "broken_microphones": list(settings.broken_microphones),
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / SETTINGS_FILE, content.encode())


class RecordingWriter:
    """Writes one recording; in a `with` block, after which it is there as a whole or not at all.

    Parameters
    ----------
    folder : of the set
    location, subject, action : numbers from 1

    A recording that is there is not written again: ask is_written first.
    """

    def __init__(
        self,
        folder: Path,
        settings: ActionSettings,
        location: int,
        subject: int,
        action: int,
    ) -> None:
        if location not in settings.locations or action not in settings.actions or subject < 1:
            raise InputError(
                f"{folder}: location {location}, subject {subject}, action {action}; expected "
                "numbers from 1 that the set has names for"
            )
        self.path = recording_path(folder, location, subject, action)
        self._aside = self.path.with_name(f".{self.path.name}.part")
        self._settings = settings
        self._size: tuple[int, ...] | None = None
        self.n_frames = 0

    def write(self, image: FloatArray, samples: FloatArray, picture: Frames) -> None:
        """The next frame.

        image : (36, 48, 12) float32
        samples : (1024, n_microphones) float32, full scale ±1.0; stored as int32
        picture : (height, width, 3) uint8 RGB, of the same size in all frames

        Raises InputError for other shapes, and where the file cannot be written.
        """
        number = self.n_frames + 1
        wanted = (SAMPLES_PER_FRAME, self._settings.n_microphones)
        size = self._size or picture.shape
        shapes = (image.shape, samples.shape, picture.shape)
        if shapes != (IMAGE_SHAPE, wanted, size) or picture.ndim != 3:
            raise InputError(
                f"{self.path}: frame {number} has shapes {shapes}; expected "
                f"{(IMAGE_SHAPE, wanted, size if len(size) == 3 else '(height, width, 3)')}"
            )
        self._size = size
        for kind, name, content in (
            ("MFCC_Image", image_name(number), image_bytes(image)),
            ("audio", block_name(number), block_bytes(samples)),
            ("video", picture_name(number), picture_bytes(picture)),
        ):
            try:
                (self._aside / kind / name).write_bytes(content)
            except OSError as error:
                raise self._unwritable(error) from error
        self.n_frames = number

    def __enter__(self) -> RecordingWriter:
        if self.path.exists():
            raise InputError(
                f"{self.path}: is there already; expected a recording that is not: delete it to "
                "write it again"
            )
        try:
            # What a run that was killed left.
            shutil.rmtree(self._aside, ignore_errors=True)
            for kind in ("MFCC_Image", "audio", "video"):
                (self._aside / kind).mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self.n_frames:
            self._aside.rename(self.path)
        else:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror}); free some space or choose another "
            "folder, then run the same command again"
        )


def recording_path(folder: Path, location: int, subject: int, action: int) -> Path:
    """Folder of a recording."""
    return folder / f"Location_{location:02d}" / f"Subject_{subject:02d}" / f"Action_{action:02d}"


def is_written(folder: Path, location: int, subject: int, action: int) -> bool:
    """Whether a recording is there, so that a killed run goes on with the next."""
    return recording_path(folder, location, subject, action).is_dir()
