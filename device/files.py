"""Names of files as people write them, and files of which no reader ever sees half."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that its name always holds either the old content or all of the new.

    mode : permissions; by default everybody reads, for a bundle is for a daemon

    Raises InputError where the disk is full or the folder cannot be written; nothing is left then.
    """
    aside: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            aside = Path(file.name)
            file.write(content)
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
