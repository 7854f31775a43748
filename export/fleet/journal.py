"""What a roll-out decides, in a file beside the repository and for a person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from soundpost.device.errors import InputError
from soundpost.device.terminal import printable
from soundpost.export.fleet.roll_out import LOG_FILE


def utc_now() -> datetime:
    """Now; the state file holds microseconds."""
    return datetime.now(timezone.utc)


class Journal:
    """One line for each thing that is decided, in a file beside the repository and for a person.

    tell : is given each line without its time; None: the file alone
    """

    def __init__(self, repository: Path, tell: Callable[[str], None] | None = print) -> None:
        self._path = repository / LOG_FILE
        self._tell = tell

    def line(self, text: str) -> None:
        """Keep a line; raises InputError where the disk does not take it."""
        text = printable(text)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{utc_now():%Y-%m-%dT%H:%M:%SZ} {text}\n")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        if self._tell is not None:
            self._tell(text)
