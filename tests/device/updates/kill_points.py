"""A power cut in the middle of a job: its process ends, without clean-up, before a chosen step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

# What changes a disk, by the names of Python's audit events.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")
KILLED, FAILED = 9, 1


def killed_at(number: int, job: Callable[[], object]) -> bool:
    """Run a job in a process that dies before its change of the disk with this number.

    Returns whether it came so far. The process is a fork: no destructor, no `finally` and no
    buffer has its turn, as with SIGKILL.
    """
    child = os.fork()
    if child == 0:
        left = number

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if event in CHANGES or writes:
                if left == 0:
                    os._exit(KILLED)
                left -= 1

        code = FAILED
        try:
            sys.addaudithook(hook)
            job()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the job failed with {code}"
    return code == KILLED
