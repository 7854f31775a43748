"""Programs that record, for tests that kill them, fill their disk or take their camera away.

As a program it is a camera: 25 pictures a second as NUT on its standard output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

# The sub-command by its module: it is also there where this checkout is not what is installed.
_COMMAND = """
import argparse, sys
from soundpost.device.commands.{name} import COMMAND
from soundpost.device.errors import SoundpostError
parser = argparse.ArgumentParser()
COMMAND.add_arguments(parser)
try:
    sys.exit(COMMAND.run(parser.parse_args()))
except SoundpostError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
# Runs a sub-command in a child again and again, each time with a signal at another call of a
# function in its main thread: arguments are the signal, the number of instants, the folder of the
# outcomes, and then those of the sub-command, in which FOLDER stands for a new one each time.
_AT_INSTANTS = """
import argparse, os, signal, sys, threading
from pathlib import Path
from soundpost.device.commands.record import COMMAND
from soundpost.device.errors import SoundpostError
from soundpost.device.interrupt import handle_interrupts

def outcome(number, at, words):
    calls = 0
    def called(frame, event, argument):
        nonlocal calls
        if event in ("call", "c_call") and threading.current_thread() is threading.main_thread():
            calls += 1
            if calls == at:
                os.kill(os.getpid(), number)
    handle_interrupts(signal.SIGINT)
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    arguments = parser.parse_args(words)
    sys.setprofile(called)
    try:
        return COMMAND.run(arguments), calls
    except SoundpostError as error:
        print(error, file=sys.stderr)
        return error.exit_code, calls
    except KeyboardInterrupt:
        return 130, calls
    finally:
        sys.setprofile(None)

def child(number, at, words):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, calls = outcome(number, at, words)
        os.write(writing, str(calls).encode())
        os._exit(code)
    os.close(writing)
    status = os.waitpid(pid, 0)[1]
    calls = int(os.read(reading, 100) or 0)
    os.close(reading)
    return os.waitstatus_to_exitcode(status), calls

number, instants, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
def words(name):
    return [str(out / name) if word == "FOLDER" else word for word in sys.argv[4:]]
code, total = child(number, -1, words("whole"))
print("whole", code, flush=True)
for index in range(instants):
    at = 1 + index * total // instants
    print(index, child(number, at, words(str(index)))[0], flush=True)
"""
# A camera that is a program: see main.
CAMERA = f"pipe:{sys.executable} {Path(__file__).resolve()}"
CAMERA_FPS = 25


def command(name: str, *arguments: object) -> list[str]:
    """A sub-command as a program's words."""
    return [sys.executable, "-c", _COMMAND.format(name=name), *map(str, arguments)]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a sub-command to its end."""
    return subprocess.run(
        command(name, *arguments), capture_output=True, text=True, check=False, timeout=120
    )


def start(name: str, *arguments: object, errors: Path) -> subprocess.Popen[bytes]:
    """Start a sub-command that says on a file what goes wrong."""
    with errors.open("wb") as file:
        return subprocess.Popen(
            command(name, *arguments), stdout=subprocess.DEVNULL, stderr=file, env=os.environ
        )


def at_instants(
    number: int, instants: int, out: Path, *arguments: object
) -> tuple[list[tuple[str, int]], str]:
    """Exit codes of `record` by the name of its folder, and what it said; see _AT_INSTANTS."""
    words = [sys.executable, "-c", _AT_INSTANTS, int(number), instants, out, *arguments]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(name, int(code)) for name, code in rows], done.stderr


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so; an error where it does not come about."""
    until_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until_s, "it has not come about"
        time.sleep(0.02)


def write_noise(path: Path, seconds: float, n_channels: int, rate_hz: int) -> NDArray[np.float32]:
    """A 24-bit file of noise, and what it holds."""
    rng = np.random.default_rng(5)
    steps = rng.integers(-(2**23), 2**23, (round(seconds * rate_hz), n_channels), dtype=np.int32)
    soundfile.write(path, steps << 8, rate_hz, subtype="PCM_24")
    return (steps / 2**23).astype(np.float32)


def main() -> None:
    """Show pictures until nobody looks."""
    import av

    with av.open("pipe:1", "w", format="nut", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=CAMERA_FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        began_s = time.monotonic()
        number = 0
        while True:
            picture = np.full((48, 64, 3), 10 * (number % 20) + 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            time.sleep(max(0.0, began_s + number / CAMERA_FPS - time.monotonic()))
            container.mux(stream.encode(frame))
            number += 1


if __name__ == "__main__":
    main()
