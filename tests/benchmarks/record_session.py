"""Prints what recording an array and a camera loses and costs, and how well their times agree.

python tests/benchmarks/record_session.py --out /disk/with/12/GB     10 minutes of 128 channels
python tests/benchmarks/record_session.py --seconds 60

Sound of 128 channels at 48 kHz comes from a crystal that is 30 ppm slow, in blocks that are up to
10 ms late; a camera of 30 frames a second is another process, whose clock is 50 ppm fast and whose
frames are up to 10 ms late (flash_camera.py). At every whole second of the machine's clock, lamp
and microphones tell: a flash, whose first frame says by its brightness when it began, and a click
of one sample. What lies between the two on the session's timeline is the error of audio against
video. The folder is removed in the end.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from flash_camera import BRIGHT, DARK, FPS
from machine import describe, one_thread, verdict
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.audio import AudioBlock
from soundpost.device.session.camera import open_camera
from soundpost.device.session.record_settings import RecordSettings
from soundpost.device.session.recorder import Recorder
from soundpost.device.session.session_check import check_session
from soundpost.device.session.session_reader import Session, open_session

RATE_HZ = 48_000
BLOCK = 960
SOUND_PPM = 30.0
LIMIT_MS = 5.0
END_S = 20.0
CLICK = 0.9


class ClickingArray:
    """Noise of its own in every channel, and a click in all of them at every whole second."""

    live = True
    channel = 0
    overflows = 0
    fault = None
    name = "clicking array"
    rate_hz = RATE_HZ

    def __init__(self, n_channels: int, seed: int = 2) -> None:
        self.n_channels = n_channels
        rng = np.random.default_rng(seed)
        steps = rng.integers(-(2**18), 2**18, (RATE_HZ, n_channels), dtype=np.int32)
        self.second = (steps / 2**23).astype(np.float32)
        self._late = rng
        self._closed = False
        self.spent_s = 0.0

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks as a driver hands them over: late, and without a time of their own."""
        began_s = time.monotonic()
        sample_s = (1 + 1e-6 * SOUND_PPM) / RATE_HZ
        position = 0
        while not self._closed:
            cpu_s = time.thread_time()
            place = position % RATE_HZ
            samples = self.second[place : place + BLOCK]
            first_s = began_s + position * sample_s
            click = round((np.ceil(first_s) - first_s) / sample_s)
            if click < BLOCK:
                samples = samples.copy()
                samples[click] = CLICK
            self.spent_s += time.thread_time() - cpu_s
            end_s = began_s + (position + BLOCK) * sample_s + self._late.uniform(0.0, 0.01)
            time.sleep(max(0.0, end_s - time.monotonic()))
            yield AudioBlock(samples, position, RATE_HZ)
            position += BLOCK

    def close(self) -> None:
        """Stop."""
        self._closed = True

    def __enter__(self) -> ClickingArray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clicks(session: Session, array: ClickingArray) -> tuple[NDArray[np.float64], int]:
    """Samples of the clicks, and how many samples are not as they were played."""
    found, wrong = [], 0
    for first in tqdm(range(0, session.n_samples, RATE_HZ), desc="comparing", leave=False):
        sound = session.read(first, min(RATE_HZ, session.n_samples - first))
        loud = np.flatnonzero((sound == np.float32(round(CLICK * 2**23) / 2**23)).all(axis=1))
        found += (first + loud).tolist()
        sound[loud] = array.second[loud]
        wrong += int((sound != array.second[: len(sound)]).sum())
    return np.array(found, np.float64), wrong


def flashes(session: Session, first_s: float, last_s: float) -> NDArray[np.float64]:
    """Samples at which flashes began, between two times."""
    samples = session.frame_table.samples
    first, last = np.searchsorted(samples, [first_s * RATE_HZ, last_s * RATE_HZ])
    shades = [float(frame.picture.mean()) for frame in session.frames(int(first), int(last))]
    lit = (np.array(shades) - DARK) / (BRIGHT - DARK)
    found = []
    for number in range(1, len(lit) - 1):
        # The next one is bright throughout: this one was lit to its end.
        if lit[number - 1] < 0.02 and lit[number] >= 0.02 and lit[number + 1] > 0.98:
            exposure = RATE_HZ / FPS
            found.append(samples[first + number] - exposure * min(1.0, lit[number]))
    return np.array(found)


def offsets_ms(
    session: Session, heard: NDArray[np.float64], first_s: float, last_s: float
) -> NDArray[np.float64]:
    """Flash minus the click that is nearest to it."""
    seen = flashes(session, first_s, last_s)
    nearest = heard[np.abs(heard[:, None] - seen).argmin(axis=0)]
    offsets: NDArray[np.float64] = 1e3 * (seen - nearest) / RATE_HZ
    return offsets


def cpu_s() -> float:
    """Processor time of this process; the camera's is its own."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Record, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--out", type=Path, help="folder for the session; default: a temporary one")
    arguments = parser.parse_args()
    one_thread()
    describe()
    folder = Path(tempfile.mkdtemp(prefix="record-session-", dir=arguments.out))
    need = 3 * arguments.channels * RATE_HZ * arguments.seconds * 1.02
    if shutil.disk_usage(folder).free < need + 1e9:
        folder.rmdir()
        parser.error(f"--out: expected {need / 1e9 + 1:.1f} GB of free space at {folder}")
    try:
        measure(folder / "session", arguments.seconds, arguments.channels)
    finally:
        shutil.rmtree(folder)


def measure(out: Path, seconds: float, n_channels: int) -> None:
    """Record a session and print what there is to say about it."""
    program = Path(__file__).with_name("flash_camera.py")
    url = f"pipe:{shlex.join([sys.executable, str(program)])}"
    array = ClickingArray(n_channels)
    settings = RecordSettings("benchmark", "clicks", url, seconds=seconds)
    recorder = Recorder(out, array, settings, open_camera(url), lambda: open_camera(url))
    meters = recorder.meters.reader()
    recorder.start()
    began_s, began_cpu_s, fullest = time.monotonic(), cpu_s(), 0.0
    with tqdm(total=round(seconds), unit="s", desc="recording", leave=False) as bar:
        while not recorder.wait(0.2):
            recorder.tick()
            status = recorder.status(meters)
            fullest = max(fullest, status.waiting)
            bar.update(status.n_samples // RATE_HZ - bar.n)
    spent_s, took_s = cpu_s() - began_cpu_s - array.spent_s, time.monotonic() - began_s
    done = recorder.finish()
    n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    video = recorder.video
    assert video is not None
    print(f"{done.n_samples} samples of {n_channels} channels, {video.written} frames; {done.end}")
    print(
        f"{n_bytes / 1e6 / took_s:.1f} MB/s to the disk, {100 * spent_s / took_s:.0f} % of a core, "
        f"queue at most {100 * fullest:.0f} % full"
    )
    for finding in check_session(out):
        print(f"  {finding.area}: {finding.state}: {finding.text}")
    with open_session(out) as session:
        heard, wrong = clicks(session, array)
        lost = sum(gap.length for gap in session.gaps)
        expected = round(seconds * RATE_HZ)
        short = expected - session.n_samples
        print(
            f"samples lost {lost}, wrong {wrong}, short {short}, frames dropped {video.dropped} "
            f"(limit 0): {verdict(lost + wrong + abs(short) + video.dropped, 0)}"
        )
        worst = 0.0
        for name, first_s, last_s in (
            ("first", 0.0, END_S),
            ("last", session.duration_s - END_S, session.duration_s),
        ):
            found = offsets_ms(session, heard, max(0.0, first_s), last_s)
            worst = max(worst, float(np.abs(found).max()))
            print(
                f"flash minus click, {name} {END_S:g} s: median {np.median(found):+.2f} ms, from "
                f"{found.min():+.2f} to {found.max():+.2f} ms, {len(found)} flashes"
            )
        print(f"worst {worst:.2f} ms (limit {LIMIT_MS:g} ms): {verdict(worst, LIMIT_MS)}")


if __name__ == "__main__":
    main()
