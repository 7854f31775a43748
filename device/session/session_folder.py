"""The folder of a session that begins: what an earlier start has left in it, and what ours leaves.

A start that fails, is interrupted or killed before the first sample leaves nothing that is worth
anything: the next one finds the folder as if it had never been.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LOST_FILE
from soundpost.device.session.session_json import (
    ARRAY_FILE,
    CALIBRATION_FILE,
    SESSION_FILE,
)
from soundpost.device.session.session_lock import session_lock
from soundpost.device.session.session_reader import AUDIO_FOLDER, VIDEO_FILE, segment_path
from soundpost.device.session.session_tables import FRAMES_FILE, GAPS_FILE
from soundpost.device.session.wav_segments import HEADER_BYTES

# Room that a full disk cannot take away; also the mark of a session that has not ended.
RESERVE_FILE: Final = ".reserve"
# session.json of a day, the last cluster of the video, a table of frames of some hours.
_RESERVE_BYTES: Final = 4_000_000
_FILES: Final = (
    *(RESERVE_FILE, SESSION_FILE, ARRAY_FILE, CALIBRATION_FILE),
    *(GAPS_FILE, LOST_FILE, VIDEO_FILE, FRAMES_FILE),
)
# Those that were being written when their writer was killed (files.py).
_ASIDE: Final = re.compile(rf"\.(?:{'|'.join(map(re.escape, _FILES))})\..*\.part")


class SessionFolder:
    """A folder held for a new session, from now until `close` or `discard`.

    Raises InputError where it cannot be made, holds anything but an unstarted session, is held by
    another process, or has no room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = contextlib.ExitStack()
        self._made = _make(folder)
        try:
            # A repair of what is being recorded would end it: held until `close`, or our death.
            self._held.enter_context(session_lock(folder))
            if is_unstarted(folder):
                _clear(folder)
            _demand_empty(folder)
        except BaseException:
            self._held.close()
            raise
        try:
            with (folder / RESERVE_FILE).open("wb") as reserve:
                os.posix_fallocate(reserve.fileno(), 0, _RESERVE_BYTES)
        except OSError as error:
            self.discard()
            raise InputError(
                f"{folder}: no room for a session ({error.strerror}); free some space, or "
                "choose another disk"
            ) from error

    def free_reserve(self) -> None:
        """Give the disk the room that the end of a session needs."""
        (self._folder / RESERVE_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder, and keep what is in it."""
        self._held.close()

    def discard(self) -> None:
        """Take away what a session without sound has left, the folder too where we made it."""
        with self._held, contextlib.suppress(OSError):
            _clear(self._folder)
            if self._made:
                self._folder.rmdir()


def make_session_folder(folder: Path) -> None:
    """Make the folder of a session; InputError where there is something in it already."""
    _make(folder)
    _demand_empty(folder)


def is_unstarted(folder: Path) -> bool:
    """Whether a folder holds nothing but what a recording makes before its first sample."""
    names = {path.name for path in folder.iterdir()}
    if RESERVE_FILE not in names:
        # Ended, or no session at all: whatever its files are, they are somebody's.
        return False
    others = {name for name in names - {AUDIO_FOLDER, *_FILES} if not _ASIDE.fullmatch(name)}
    return not others and _has_no_sound(folder)


def _has_no_sound(folder: Path) -> bool:
    audio = folder / AUDIO_FOLDER
    if not audio.exists():
        return True
    first = segment_path(folder, 0)
    return audio.is_dir() and all(
        path == first and path.stat().st_size <= HEADER_BYTES for path in audio.iterdir()
    )


def _clear(folder: Path) -> None:
    if (folder / AUDIO_FOLDER).is_dir():
        segment_path(folder, 0).unlink(missing_ok=True)
        (folder / AUDIO_FOLDER).rmdir()
    # The mark last: a kill meanwhile leaves an unstarted session once more.
    paths = sorted(folder.iterdir(), key=lambda path: path.name == RESERVE_FILE)
    for path in paths:
        if path.name in _FILES or _ASIDE.fullmatch(path.name):
            path.unlink()


def _make(folder: Path) -> bool:
    """Make a folder where there is none; whether it was made."""
    try:
        there = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}; give the folder of a new session"
        ) from error
    return not there


def _demand_empty(folder: Path) -> None:
    if any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give the folder of a new session")
