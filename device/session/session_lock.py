"""Tells whether a session is being recorded: its recorder holds a lock that dies with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from soundpost.device.errors import InputError


@contextlib.contextmanager
def session_lock(folder: Path) -> Iterator[None]:
    """Hold a session for oneself; InputError where another process does.

    Nothing is written: a folder on a disk that cannot lock is held by nobody.
    """
    try:
        number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened: {error.strerror}; check the path") from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: is being recorded, or repaired, by another process; wait for its end"
            ) from error
        except OSError:
            # Some network file systems have no locks.
            pass
        yield
    finally:
        os.close(number)
