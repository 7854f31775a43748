"""Acoustic images of a recorded session: which sound each is made of, and all of them in order.

The sound is brought to the images' rate in pieces that depend on the first sample alone, so that a
run that was interrupted, or several at once, make the same images to the bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.acoustic_image import AcousticImager, cut_snapshots
from soundpost.device.array.beamforming import FloatArray, speed_of_sound_m_s
from soundpost.device.array.geometry import ArrayGeometry, Floats
from soundpost.device.audio import StreamResampler
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.session_reader import Session

# Share of the sound of an image, over all microphones, that may be lost on the way.
_MOST_LACKING: Final = 0.1

# Two seconds: 50 MB of sound of 128 microphones at 48 kHz.
CHUNK_IMAGES = 24
# Sound before and after a piece that the resampler's filter reaches into, and more.
_MARGIN_S = 0.1


class ImageChunk(NamedTuple):
    """Some images.

    number : of the chunk, counted from 0
    images : by kind, (n, rows, columns, ...) float32, NaN where not valid
    valid : (n,) bool, False where sound is missing
    """

    number: int
    images: Mapping[str, FloatArray]
    valid: NDArray[np.bool_]


class SessionImages:
    """Images of a part of a session.

    Parameters
    ----------
    session : open
    imager : makes the images; its sample rate a whole number of Hz
    channels : (n_mics,) channel of each of its microphones
    first, last : samples of the session from which to which; by default all

    Raises UsageError where the part is shorter than one image, InputError where channels do not
    belong to the session.
    """

    def __init__(
        self,
        session: Session,
        imager: AcousticImager,
        channels: Sequence[int],
        first: int = 0,
        last: int | None = None,
    ) -> None:
        last = session.n_samples if last is None else min(last, session.n_samples)
        settings = imager.settings
        self.rate_hz = round(settings.sample_rate_hz)
        if self.rate_hz != settings.sample_rate_hz:
            raise UsageError(f"rate {settings.sample_rate_hz:g} Hz; expected a whole number")
        if len(channels) != imager.geometry.n_mics or max(channels) >= session.n_channels:
            raise InputError(
                f"{session.folder}: {len(channels)} channels up to {max(channels)} for "
                f"{imager.geometry.n_mics} microphones; expected one for each, of the "
                f"{session.n_channels} recorded"
            )
        self.session, self.imager, self.first = session, imager, first
        self._channels = list(channels)
        self._everyone = self._channels == list(range(session.n_channels))
        # Samples of the session in one image; not always whole
        self.image_samples = settings.snapshot_length * session.rate_hz / self.rate_hz
        self.n_images = max(0, math.floor((last - first) / self.image_samples + 1e-9))
        if not self.n_images:
            raise UsageError(
                f"{session.folder}: {max(0, last - first) / session.rate_hz:.3f} s were chosen of "
                f"{session.duration_s:.3f} s; expected at least "
                f"{self.image_samples / session.rate_hz:.3f} s, which is one image"
            )
        self.n_chunks = -(-self.n_images // CHUNK_IMAGES)
        # After so many samples both rates meet in a sample again.
        self._step = session.rate_hz // math.gcd(session.rate_hz, self.rate_hz)

    @property
    def samples(self) -> Floats:
        """Middle of each image on the session's timeline, (n_images,)."""
        middles: Floats = self.first + (np.arange(self.n_images) + 0.5) * self.image_samples
        return middles

    @property
    def settings(self) -> dict[str, Any]:
        """All that the images depend on, as JSON takes it."""
        session, imager = self.session, self.imager
        description = session.description
        return {
            "session": description.id,
            "first_sample": self.first,
            "n_images": self.n_images,
            "session_rate_hz": session.rate_hz,
            "array_sha256": imager.geometry.hash(),
            "calibration_sha256": description.calibration_sha256,
            "missing_sha256": self._missing_sha256(),
            "channels": self._channels,
            "dead": sorted(set(range(imager.geometry.n_mics)) - set(imager.mics.tolist())),
            "image_grid": dataclasses.asdict(imager.grid),
            "front_end": dataclasses.asdict(imager.settings),
        }

    def _missing_sha256(self) -> str:
        """Of what is said to be missing: images made before a repair said so are none."""
        last = self.first + math.ceil(self.n_images * self.image_samples)
        parts = [
            *((gap.first_sample, gap.length) for gap in self.session.gaps),
            *(dataclasses.astuple(part)[:4] for part in self.session.lost),
        ]
        of_images = [part for part in parts if part[0] < last and part[0] + part[1] > self.first]
        return hashlib.sha256(json.dumps(of_images).encode()).hexdigest()

    def valid(self) -> NDArray[np.bool_]:
        """Which images have all their sound, (n_images,).

        Where some channels alone lack a packet the others make the image; where they lack a tenth
        of it or more, it is missing.
        """
        starts = self.first + np.arange(self.n_images) * self.image_samples
        missing = np.zeros(self.n_images, bool)
        for gap in self.session.gaps:
            after = starts < gap.first_sample + gap.length
            missing |= after & (starts + self.image_samples > gap.first_sample)
        lacking = np.zeros(self.n_images)
        used = {self._channels[mic] for mic in self.imager.mics.tolist()}
        for part in self.session.lost:
            channels = range(part.first_channel, part.first_channel + part.n_channels)
            share = len(used.intersection(channels)) / len(used)
            low = np.maximum(starts, part.first_sample)
            high = np.minimum(starts + self.image_samples, part.first_sample + part.length)
            lacking += share * np.maximum(high - low, 0) / self.image_samples
        return ~missing & (lacking < _MOST_LACKING)

    def shapes(self, kinds: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Shape of one image of each kind."""
        grid, settings = self.imager.grid, self.imager.settings
        last: dict[str, tuple[int, ...]] = {
            "mfcc": (settings.mel.n_coefficients,),
            "log_mel": (settings.mel.n_filters,),
            "power": (settings.n_bins,),
            "energy": (),
        }
        return {kind: (grid.rows, grid.columns, *last[kind]) for kind in kinds}

    def make(
        self, kinds: Sequence[str], chunks: Sequence[int] | None = None, workers: int = 1
    ) -> Iterator[ImageChunk]:
        """Images of some chunks, by default of all, in order.

        workers : threads; the sound is read by the caller's

        Raises InputError where sound cannot be read or is no number.
        """
        numbers = range(self.n_chunks) if chunks is None else chunks
        valid = self.valid()
        waiting: deque[Future[ImageChunk]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for number in numbers:
                    # One more than they work on, so that none waits for the disk.
                    while len(waiting) > workers:
                        yield waiting.popleft().result()
                    images = slice(
                        number * CHUNK_IMAGES, min((number + 1) * CHUNK_IMAGES, self.n_images)
                    )
                    sound = self._read(images)
                    waiting.append(
                        pool.submit(self._images, number, images, sound, kinds, valid[images])
                    )
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def acoular(self, method: str, frequency_hz: float) -> FloatArray:
        """Map of all the sound in a third octave by one of Acoular's methods, (rows, columns).

        Gains of the calibration are applied to the whole; see `acoular_map` for the errors.
        """
        from soundpost.device.array.acoular_maps import acoular_map

        imager = self.imager
        last = self.first + math.floor(self.n_images * self.image_samples)
        sound = self.session.read(self.first, last - self.first)[:, self._channels]
        resampler = StreamResampler(self.session.rate_hz, self.rate_hz, sound.shape[1])
        samples = np.concatenate([resampler.push(sound), resampler.flush()])
        alive = ArrayGeometry(imager.geometry.positions_m[imager.mics], imager.geometry.name)
        return acoular_map(
            imager.corrected(samples),
            self.rate_hz,
            alive,
            imager.grid,
            speed_of_sound_m_s(imager.settings.temperature_c),
            method=method,
            frequency_hz=frequency_hz,
        )

    def _span(self, images: slice) -> tuple[int, int, int]:
        """Samples of the session to read, and how many resampled ones to skip then."""
        session, length = self.session, self.imager.settings.snapshot_length
        margin = math.ceil(_MARGIN_S * session.rate_hz)
        begin = images.start * self.image_samples - margin
        steps = max(math.floor(begin / self._step), math.ceil(-self.first / self._step))
        end = math.ceil(images.stop * self.image_samples) + margin
        skip = images.start * length - steps * self._step * self.rate_hz // session.rate_hz
        return self.first + steps * self._step, min(self.first + end, session.n_samples), skip

    def _read(self, images: slice) -> FloatArray:
        first, last, _ = self._span(images)
        samples = self.session.read(first, last - first)
        # Several microphones may be those of a larger recorder.
        return samples if self._everyone else samples[:, self._channels]

    def _images(
        self,
        number: int,
        images: slice,
        sound: FloatArray,
        kinds: Sequence[str],
        valid: NDArray[np.bool_],
    ) -> ImageChunk:
        length = self.imager.settings.snapshot_length
        n_samples = (images.stop - images.start) * length
        *_, skip = self._span(images)
        resampler = StreamResampler(self.session.rate_hz, self.rate_hz, sound.shape[1])
        parts = [resampler.push(sound), resampler.flush()]
        resampled = np.concatenate(parts)[skip : skip + n_samples]
        if len(resampled) < n_samples:
            # At the session's very end a rate may leave a sample less.
            short = n_samples - len(resampled)
            resampled = np.pad(resampled, ((0, short), (0, 0)))
        made = _kinds(self.imager, cut_snapshots(resampled, length), kinds)
        for one in made.values():
            one[~valid] = np.nan
        return ImageChunk(number, made, valid)


def _kinds(
    imager: AcousticImager, snapshots: FloatArray, kinds: Sequence[str]
) -> dict[str, FloatArray]:
    made: dict[str, FloatArray] = {}
    if "mfcc" in kinds and "energy" in kinds:
        made["energy"], made["mfcc"] = imager.images(snapshots)
    functions = {
        "mfcc": imager.mfcc,
        "log_mel": imager.log_mel,
        "power": imager.power,
        "energy": imager.energy,
    }
    for kind in kinds:
        if kind not in made:
            made[kind] = functions[kind](snapshots)
    return made
