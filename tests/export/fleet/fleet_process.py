"""`soundpost fleet` in a process of its own, which may die before a change of the disk.

    python fleet_process.py NUMBER WORDS...

NUMBER : of the change that it dies before, as by SIGKILL; -1: never
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from soundpost.device.errors import SoundpostError
from soundpost.export.fleet import driver
from soundpost.export.fleet.command import COMMAND


def main() -> int:
    path = Path(__file__).parents[2] / "device" / "updates" / "kill_points.py"
    specification = spec_from_file_location("kill_points", path)
    assert specification is not None
    assert specification.loader is not None
    kill_points = module_from_spec(specification)
    specification.loader.exec_module(kill_points)
    left, words = int(sys.argv[1]), sys.argv[2:]
    lock = threading.Lock()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in kill_points.CHANGES or writes:
            with lock:
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

    driver.TICK_S = 0.05
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    parsed = parser.parse_args(words)
    sys.addaudithook(hook)
    try:
        return COMMAND.run(parsed)
    except SoundpostError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
