"""A source of sound for the sensor under test: soundscapes without end, faster than real time.

Its state lies in a folder that the campaign shares: `NNN.npy` to play, `speed` (seconds of sound
per second), `unplugged` (while the file exists there is no device), `gap` (a request to lose
sound), and `heard`, eight bytes that count the samples played by all processes so far.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError

RATE_HZ = 16_000
BLOCK = 8_000


class City:
    """A BlockSource; see the module."""

    rate_hz = RATE_HZ
    n_channels = 1
    name = "city"
    live = True
    overflows = 0
    fault: str | None = None

    def __init__(self, url: str) -> None:
        self._folder = Path(url.partition(":")[2])
        self._check()
        self._scenes = [np.load(path) for path in sorted(self._folder.glob("*.npy"))]
        self._speed = float((self._folder / "speed").read_text())
        self._closed = False

    def _check(self) -> None:
        if (self._folder / "unplugged").exists():
            raise CaptureError(f"{self._folder.name}: unplugged")

    def _blocks(self, place: int) -> Iterator[np.ndarray]:
        """Sound from a place on, the same for every process."""
        length = len(self._scenes[0])
        while True:
            scene, at = divmod(place, length)
            # A walk through the scenes that is not the same round and round.
            sound = self._scenes[scene * 7919 % len(self._scenes) - scene // 13 % 5]
            block = sound[at : at + BLOCK]
            place += len(block)
            yield block

    def blocks(self) -> Iterator[AudioBlock]:
        heard = os.open(self._folder / "heard", os.O_RDWR | os.O_CREAT)
        try:
            place = int.from_bytes(os.pread(heard, 8, 0), "little")
            sample, due_s = 0, time.monotonic()
            for block in self._blocks(place):
                self._check()
                gap = self._folder / "gap"
                if gap.exists():
                    sample += int(gap.read_text())
                    gap.unlink()
                due_s = max(due_s, time.monotonic() - 0.2) + len(block) / RATE_HZ / self._speed
                time.sleep(max(0.0, due_s - time.monotonic()))
                if self._closed:
                    return
                yield AudioBlock(block[:, None], sample, RATE_HZ)
                sample += len(block)
                place += len(block)
                os.pwrite(heard, place.to_bytes(8, "little"), 0)
        finally:
            os.close(heard)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> City:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
