"""What is asked of a roll-out at work by a command beside it: to pause, or to be given up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically

_FILE: Final = ".roll-out.request.json"


@dataclass(frozen=True)
class Request:
    """action : to do; take_back : with `abort`, send sensors back to the channel's model"""

    action: Literal["pause", "abort"]
    take_back: bool = False


def leave_request(repository: Path, request: Request) -> None:
    """Ask; the roll-out at work finds it within a second or two."""
    write_atomically(repository / _FILE, json.dumps(vars(request)).encode())


def read_request(repository: Path) -> Request | None:
    """What is asked, if anything."""
    path = repository / _FILE
    try:
        table = json.loads(path.read_bytes())
        return Request(table["action"], table["take_back"] is True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it") from error


def clear_request(repository: Path) -> None:
    """It was done, or nobody is left who would."""
    (repository / _FILE).unlink(missing_ok=True)
