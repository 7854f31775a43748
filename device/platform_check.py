"""Refuses, in one line, the machines that Soundpost's wheels do not exist for.

`make` runs this file with whatever `python3` there is, before anything is installed: it imports
nothing but the standard library and keeps to syntax that Python 3.6 can read.
"""

import struct
import sys
from typing import Optional, Tuple

OLDEST_PYTHON = (3, 10)


def platform_problem(python: Tuple[int, int], pointer_bits: int) -> Optional[str]:
    """Why this machine cannot run Soundpost and what to do about it, or None where it can.

    python : version of the interpreter, (major, minor)
    pointer_bits : width of its pointers. The machine's name would not tell: Raspberry Pi OS
        32-bit runs on a 64-bit kernel, which calls itself aarch64.
    """
    if pointer_bits < 64:
        return (
            f"this Python is {pointer_bits}-bit: Soundpost needs a 64-bit system (the TFLite "
            "runtimes have no 32-bit wheels); install the 64-bit Raspberry Pi OS, Debian or Ubuntu"
        )
    if python < OLDEST_PYTHON:
        return (
            "this is Python {}.{}: Soundpost needs {}.{} or newer; install one (Debian 12, "
            "Raspberry Pi OS 12, Ubuntu 22.04 and JetPack 6 bring it), or name it: "
            "make PYTHON=python3.11 demo".format(python[0], python[1], *OLDEST_PYTHON)
        )
    return None


def this_platform_problem() -> Optional[str]:
    """As platform_problem, for the interpreter that runs this."""
    return platform_problem(sys.version_info[:2], 8 * struct.calcsize("P"))


def refuse_unsupported_platform() -> None:
    """Raise UsageError where Soundpost cannot run; the `soundpost` command's first act."""
    problem = this_platform_problem()
    if problem:
        from soundpost.device.errors import UsageError

        raise UsageError(problem)


if __name__ == "__main__":
    sys.exit(this_platform_problem())
