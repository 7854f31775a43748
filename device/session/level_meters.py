"""How loud each microphone is while a session is recorded: for a person who looks at it."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray

# Peaks are held so long that nobody misses one.
_HOLD_S = 2.0
# No converter is so quiet: a microphone below is dead, or its channel empty.
SILENCE_DBFS = -140.0


class Levels(NamedTuple):
    """Of each channel, (n_channels,) float32, dB re full scale (a square wave of ±1.0 reads 0).

    rms : since the viewer's last look
    peak : the same
    held : greatest peak of the last two seconds
    """

    rms: FloatArray
    peak: FloatArray
    held: FloatArray


class LevelMeters:
    """Takes blocks in one thread and is looked at in others, by each through a reader of its own.

    One reset for all would hide from one viewer the peak that another has just seen.
    """

    def __init__(self, rate_hz: int, n_channels: int) -> None:
        self._lock = threading.Lock()
        self._hold = round(_HOLD_S * rate_hz)
        self._n_channels = n_channels
        self._held = np.zeros(n_channels, np.float32)
        self._held_for = np.zeros(n_channels, np.int64)
        self._readers: list[MeterReader] = []

    def reader(self) -> MeterReader:
        """A reader of what comes from now on."""
        with self._lock:
            self._readers.append(MeterReader(self._lock, self._held, self._n_channels))
            return self._readers[-1]

    def push(self, samples: FloatArray) -> None:
        """Next (n_samples, n_channels) float32."""
        if not len(samples):
            return
        peaks = np.maximum(samples.max(axis=0), -samples.min(axis=0))
        sums = np.einsum("sc,sc->c", samples, samples)
        with self._lock:
            self._held_for += len(samples)
            renewed = (peaks >= self._held) | (self._held_for > self._hold)
            self._held[renewed] = peaks[renewed]
            self._held_for[renewed] = 0
            for reader in self._readers:
                reader.add(len(samples), sums, peaks)


class MeterReader:
    """What one viewer sees of the meters; made by LevelMeters.reader.

    lock : held while `add` is called
    held : greatest peaks of the last two seconds, kept by the meters
    """

    def __init__(self, lock: threading.Lock, held: FloatArray, n_channels: int) -> None:
        self._lock = lock
        self._held = held
        self._n_samples = 0
        self._sums = np.zeros(n_channels, np.float64)
        self._peaks = np.zeros(n_channels, np.float32)
        self._last = Levels(*(np.full((3, n_channels), SILENCE_DBFS, np.float32)))

    def add(self, n_samples: int, sums: NDArray[Any], peaks: FloatArray) -> None:
        """Take so many samples, by their sum of squares and their peak in each channel."""
        self._n_samples += n_samples
        self._sums += sums
        np.maximum(self._peaks, peaks, out=self._peaks)

    def look(self) -> Levels:
        """Levels since this reader's last look; those of then where nothing has come since."""
        with self._lock:
            if self._n_samples:
                rms = np.sqrt(self._sums / self._n_samples)
                self._last = Levels(*(_db(part) for part in (rms, self._peaks, self._held)))
                self._n_samples = 0
                self._sums[:] = 0
                self._peaks[:] = 0
            return self._last


def _db(values: NDArray[Any]) -> FloatArray:
    least = 10 ** (SILENCE_DBFS / 20)
    decibels = 20 * np.log10(np.maximum(values, least))
    shown: FloatArray = np.maximum(decibels, SILENCE_DBFS).astype(np.float32)
    return shown
