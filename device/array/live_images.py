"""Energy maps of a running array: twelve a second, whatever blocks the sound comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings
from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.audio import AudioBlock, StreamResampler
from soundpost.device.errors import InputError, UsageError

# Twelve maps a second, as the published sensor makes of 1,024 samples at 12,288 Hz.
_SNAPSHOT_S = 1 / 12
_FLOOR_DB = -120.0


def live_settings(rate_hz: int, temperature_c: float | None = None) -> ImageSettings:
    """Settings for maps of a stream at its own rate, which costs less than to resample it.

    temperature_c : of the air; 20 degrees where it is not known
    """
    return ImageSettings(
        sample_rate_hz=rate_hz,
        snapshot_length=max(16, round(_SNAPSHOT_S * rate_hz / 2) * 2),
        temperature_c=20.0 if temperature_c is None else temperature_c,
        mel=MelSettings(layout="frequency"),
    )


def below_greatest_db(energy: FloatArray) -> FloatArray:
    """A map in dB below its greatest energy, float32, from -120 to 0."""
    greatest = float(energy.max())
    if greatest <= 0:
        return np.full(energy.shape, _FLOOR_DB, np.float32)
    least = 10 ** (_FLOOR_DB / 10)
    decibels: FloatArray = 10 * np.log10(np.maximum(energy / greatest, least))
    return decibels.astype(np.float32, copy=False)


class LiveMap(NamedTuple):
    """One map.

    energy : (rows, columns) float32
    sample : middle of the map on the stream, at the stream's own rate
    """

    energy: FloatArray
    sample: float


class LiveImages:
    """Makes the energy maps of a stream as its sound comes.

    Parameters
    ----------
    imager : its sample rate a whole number of Hz
    channels : (n_mics,) channel of each microphone; by default in order
    skip : maps left out after each that is made: 0 for twelve a second, 2 for four, where a page
        shows no more

    Sound that is missing (first_sample jumps, or the rate changes) starts the snapshots anew after
    the gap: no map is made of sound from both sides. The same stream gives the same maps, to the
    bit, in whatever blocks it comes. Sound is resampled where the imager's rate is
    another; then about 115 ms wait in the resampler and a snapshot, else 83.
    """

    def __init__(
        self, imager: AcousticImager, channels: Sequence[int] = (), *, skip: int = 0
    ) -> None:
        self.imager = imager
        self._channels = list(channels) or list(range(imager.geometry.n_mics))
        if len(self._channels) != imager.geometry.n_mics:
            raise InputError(
                f"live images: {len(self._channels)} channels for {imager.geometry.n_mics} "
                "microphones; expected one for each"
            )
        self._rate_hz = round(imager.settings.sample_rate_hz)
        if self._rate_hz != imager.settings.sample_rate_hz:
            raise UsageError(
                f"live images: rate {imager.settings.sample_rate_hz:g} Hz; expected a whole number"
            )
        length = imager.settings.snapshot_length
        # (n_mics, length), so that a snapshot is what the imager takes, without a copy
        self._snapshot = np.zeros((len(self._channels), length), np.float32)
        self._skip = skip
        self._resampler: StreamResampler | None = None
        self._next_sample = -1
        self._start_anew(0)

    def _start_anew(self, first_sample: int) -> None:
        self._filled = 0
        self._n_snapshots = 0
        self._first_sample = first_sample

    def push(self, block: AudioBlock) -> list[LiveMap]:
        """The next sound in, the maps that are ready out; mostly none or one.

        Raises InputError for a block with too few channels, or samples that are no numbers.
        """
        if block.samples.shape[1] <= max(self._channels):
            raise InputError(
                f"live images: a block of {block.samples.shape[1]} channels; expected at least "
                f"{max(self._channels) + 1}, as the array says"
            )
        resampler = self._resampler
        rate_changed = resampler is None or resampler.rate_in_hz != block.rate_hz
        if rate_changed or block.first_sample != self._next_sample:
            resampler = StreamResampler(block.rate_hz, self._rate_hz, len(self._channels))
            self._resampler = resampler
            self._start_anew(block.first_sample)
        assert resampler is not None
        self._next_sample = block.first_sample + len(block.samples)
        return self._fill(resampler.push(block.samples[:, self._channels]), block.rate_hz)

    def _fill(self, samples: FloatArray, rate_hz: int) -> list[LiveMap]:
        maps = []
        length = self._snapshot.shape[1]
        position = 0
        while position < len(samples):
            some = samples[position : position + length - self._filled]
            self._snapshot[:, self._filled : self._filled + len(some)] = some.T
            self._filled += len(some)
            position += len(some)
            if self._filled == length:
                if self._n_snapshots % (self._skip + 1) == 0:
                    maps.append(self._map(rate_hz))
                self._filled = 0
                self._n_snapshots += 1
        return maps

    def _map(self, rate_hz: int) -> LiveMap:
        (energy,) = self.imager.energy(self._snapshot[None])
        middle = (self._n_snapshots + 0.5) * self._snapshot.shape[1] * rate_hz / self._rate_hz
        return LiveMap(energy, self._first_sample + middle)
