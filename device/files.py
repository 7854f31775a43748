"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from soundpost.device.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name always holds either the old content or all of the new.

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
        # NamedTemporaryFile makes files that only their owner can read; a bundle is for a daemon.
        aside.chmod(0o644)
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
