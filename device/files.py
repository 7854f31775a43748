"""Names of files as people write them, and files of which no reader ever sees half."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from soundpost.device.errors import InputError


def expand_home(path: str) -> Path:
    """The path with `~` or `~user` at its start replaced; InputError without such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path[:60]!r}: no home folder is known for it; write it out") from error


def nearest_folder(path: Path) -> Path:
    """The nearest folder above that is there; OSError where this user may not even look."""
    # Not exists(): it says of a folder that it may not look into that there is nothing.
    for parent in path.parents:
        try:
            parent.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return parent
    return Path()


def check_free(folder: Path, n_bytes: int, min_free_mb: float, what: str, setting: str) -> None:
    """Raise InputError where so many more bytes would leave less than `min_free_mb` on the disk.

    what, setting : of the message: what is written, and the setting that says how much stays free
    """
    try:
        free_mb = (shutil.disk_usage(folder).free - n_bytes) / 1e6
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    if free_mb < min_free_mb:
        raise InputError(
            f"{folder}: the disk is full: {what} would leave {max(0.0, free_mb):.0f} MB, "
            f"{min_free_mb:g} MB stay free; free some space, or lower {setting}"
        )


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Write a file bit by bit; its name holds the old content until the block ends, then all of it.

    mode : permissions; by default everybody reads, for a bundle is for a daemon

    Nothing changes where the block raises. Raises InputError where the disk is full or the folder
    cannot be written; nothing is left then.
    """
    aside: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            aside = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile makes files that only their owner can read.
        aside.chmod(mode)
        aside.replace(path)
        aside = None
        # The rename itself lies in the folder.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another "
            "place, then run the same command again"
        ) from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that its name always holds either the old content or all of the new.

    mode, errors : as of `replacing`
    """
    with replacing(path, mode) as file:
        file.write(content)
