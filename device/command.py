"""What a sub-command of `soundpost` is: the seam that the entry points of every folder fill."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One sub-command.

    summary : one line for `soundpost --help`
    description : what it does, with examples, for `soundpost NAME --help` (shown as written)
    add_arguments : adds options to the sub-command's parser
    intermixed : positional arguments may also stand after options (not with sub-parsers)
    run : does the job and returns the exit code; raises SoundpostError where it cannot go on
    """

    summary: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    intermixed: bool = False
