"""Log-mel front end: the same numbers in training, in export and on the sensor.

Jia et al., "Cross-modal supervised learning for better acoustic representations" (2019): 16 kHz
mono, 25 ms Hamming window, 10 ms hop, 64 mel bands. A patch of 100 frames spans 16,240 samples.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]

# Matrix products are made in tiles of this many frames, the last one padded: a BLAS picks another
# kernel, and another order of summation, for another shape, and a streamed frame would then differ
# from the same frame of a whole clip in its last bits.
_TILE = 8
# What a bundle from elsewhere may ask for: eight times what any published front end does.
_MAX_FFT_LENGTH = 32_768
_MAX_MELS = 1_024
_MIN_RATE_HZ, _MAX_RATE_HZ = 8_000, 192_000
_MAX_LOG = 80
# Frames that the stream's buffer holds: 1.28 s, so that a second is one pass.
_CAPACITY = 16 * _TILE


@dataclass(frozen=True)
class FrontEnd:
    """Every parameter of the log-mel front end; travels in the model bundle with its hash.

    log_offset is added to the mel magnitudes before the natural logarithm, whose result is clamped
    to [clamp_low, clamp_high]: a fixed range, so that quantisation knows it and a stream needs no
    statistics of its clip. Full scale is ±1.0.
    """

    sample_rate_hz: int = 16_000
    window_length: int = 400
    hop_length: int = 160
    fft_length: int = 512
    n_mels: int = 64
    fmin_hz: float = 125.0
    fmax_hz: float = 7_500.0
    log_offset: float = 1e-3
    clamp_low: float = -7.0
    clamp_high: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.hop_length <= self.window_length <= self.fft_length:
            raise InputError(
                f"front end: hop_length {self.hop_length}, window_length {self.window_length}, "
                f"fft_length {self.fft_length}: expected 0 < hop <= window <= fft"
            )
        if not (self.fft_length <= _MAX_FFT_LENGTH and 1 <= self.n_mels <= _MAX_MELS):
            raise InputError(
                f"front end: fft_length {self.fft_length}, n_mels {self.n_mels}: expected at most "
                f"{_MAX_FFT_LENGTH}, and 1 to {_MAX_MELS}"
            )
        if not _MIN_RATE_HZ <= self.sample_rate_hz <= _MAX_RATE_HZ:
            raise InputError(
                f"front end: sample_rate_hz {self.sample_rate_hz}: expected {_MIN_RATE_HZ} to "
                f"{_MAX_RATE_HZ}"
            )
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise InputError(
                f"front end: band {self.fmin_hz}-{self.fmax_hz} Hz: expected to lie within "
                f"0-{self.sample_rate_hz / 2:g} Hz"
            )
        ordered = -_MAX_LOG <= self.clamp_low < self.clamp_high <= _MAX_LOG
        if not (0 < self.log_offset <= 1 and ordered):
            raise InputError(
                f"front end: log_offset {self.log_offset}, clamp [{self.clamp_low}, "
                f"{self.clamp_high}]: expected a positive offset up to 1 and an ascending range "
                f"within ±{_MAX_LOG}"
            )

    def to_dict(self) -> dict[str, int | float]:
        """Parameters by name, as they stand in a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrontEnd:
        """Front end of a manifest; raises InputError on unknown or missing names."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(set(values) ^ known)).encode("unicode_escape").decode()[:200]
            raise InputError(
                f"front end: unknown or missing parameters: {odd}; update soundpost on this device "
                "or export the model again"
            )
        kinds: dict[str, type[Any]] = {
            field.name: int if field.type == "int" else float for field in fields(cls)
        }
        try:
            return cls(**{name: kinds[name](value) for name, value in values.items()})
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"front end: {error}: expected numbers") from error

    def hash(self) -> str:
        """SHA-256 (hex) of the parameters: equal hash, equal features."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def samples_of(self, n_frames: int) -> int:
        """Samples that n_frames frames span: frame i covers [hop i, hop i + window)."""
        return (n_frames - 1) * self.hop_length + self.window_length

    def frames_of(self, n_samples: int) -> int:
        """Whole frames within n_samples."""
        return max(0, (n_samples - self.window_length) // self.hop_length + 1)


def hamming_window(front_end: FrontEnd) -> FloatArray:
    """Periodic Hamming window, (window_length,)."""
    n = np.arange(front_end.window_length)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * n / front_end.window_length)
    periodic: FloatArray = window.astype(np.float32)
    return periodic


def mel_filters(front_end: FrontEnd) -> FloatArray:
    """Triangular mel filters of unit peak, linear in frequency, on the HTK mel scale.

    Returns
    -------
    (fft_length / 2 + 1, n_mels) float32
        mel = 2595 log10(1 + f / 700) (The HTK Book, section 5.4).
    """

    def to_mel(hz: float) -> float:
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    mels = np.linspace(to_mel(front_end.fmin_hz), to_mel(front_end.fmax_hz), front_end.n_mels + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.arange(front_end.fft_length // 2 + 1) * (
        front_end.sample_rate_hz / front_end.fft_length
    )
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters: FloatArray = np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)
    return filters


@lru_cache(maxsize=4)
def _tables(front_end: FrontEnd) -> tuple[FloatArray, FloatArray, int, int]:
    """Window, filters of the bins that any filter uses, and the range of those bins."""
    filters = mel_filters(front_end)
    used = np.flatnonzero(filters.any(axis=1))
    if not len(used):
        raise InputError(
            f"front end: band {front_end.fmin_hz}-{front_end.fmax_hz} Hz: lies between two bins of "
            "the Fourier transform; expected a wider one"
        )
    low, high = int(used[0]), int(used[-1]) + 1
    return hamming_window(front_end), np.ascontiguousarray(filters[low:high]), low, high


class LogMelStream:
    """Log-mel frames of a stream, frame by frame as its samples arrive.

    The values do not depend on how the stream is cut: every frame goes through the same arithmetic
    in the same order.

    frames_per_group : frames come out in multiples of this. A detector that looks at the stream
        every 25 frames loses nothing by waiting for 25, and twelve small blocks then cost one call.
    """

    def __init__(self, front_end: FrontEnd, frames_per_group: int = 1) -> None:
        if not 1 <= frames_per_group <= _CAPACITY // 2:
            raise ValueError(f"frames_per_group {frames_per_group}: expected 1 to {_CAPACITY // 2}")
        self.front_end = front_end
        self.frames_per_group = frames_per_group
        self._window, self._filters, self._low, self._high = _tables(front_end)
        self._buffer = np.zeros(front_end.samples_of(_CAPACITY), np.float32)
        step = self._buffer.strides[0]
        self._frames: FloatArray = as_strided(
            self._buffer,
            (_CAPACITY, front_end.window_length),
            (step * front_end.hop_length, step),
            writeable=False,
        )
        self._padded = np.zeros((_CAPACITY, front_end.fft_length), np.float32)
        self._windowed = self._padded[:, : front_end.window_length]
        self._magnitude = np.zeros((_CAPACITY, self._high - self._low), np.float32)
        self._ceiling = np.float32(math.exp(front_end.clamp_high))
        # A logarithm of the offset alone that is above clamp_low needs no lower clamp.
        floor = math.exp(front_end.clamp_low)
        self._floor = np.float32(floor) if floor > front_end.log_offset else None
        self._offset = np.float32(front_end.log_offset)
        self._filled = 0

    @property
    def n_held(self) -> int:
        """Samples pushed that the next frame still needs."""
        return self._filled

    def reset(self) -> None:
        """Forget the samples held for the next frame (after a gap in the stream)."""
        self._filled = 0

    def push(self, samples: FloatArray) -> FloatArray:
        """Add samples; return the frames they complete.

        Parameters
        ----------
        samples : (n_samples,) float32, full scale ±1.0, any number of them

        Returns
        -------
        (n_frames, n_mels) float32
            Natural log of mel magnitude plus offset, clamped. May be empty.
        """
        front_end = self.front_end
        total = self._whole_groups(self._filled + len(samples))
        if total == 0:
            self._buffer[self._filled : self._filled + len(samples)] = samples
            self._filled += len(samples)
            return np.empty((0, front_end.n_mels), np.float32)
        out = np.empty((-(-total // _TILE) * _TILE, front_end.n_mels), np.float32)
        done = taken = 0
        while taken < len(samples):
            room = min(len(self._buffer) - self._filled, len(samples) - taken)
            self._buffer[self._filled : self._filled + room] = samples[taken : taken + room]
            self._filled += room
            taken += room
            n_frames = self._whole_groups(self._filled)
            if n_frames:
                # Rows are written by whole tiles: the rows past n_frames hold stale frames, which
                # the next pass overwrites and the final slice leaves out.
                self._transform(n_frames, out[done:])
                done += n_frames
                used = n_frames * front_end.hop_length
                rest = self._filled - used
                self._buffer[:rest] = self._buffer[used : self._filled].copy()
                self._filled = rest
        out = out[:total]
        out += self._offset
        if self._floor is not None:
            np.maximum(out, self._floor, out=out)
        np.minimum(out, self._ceiling, out=out)
        return np.log(out, out=out)

    def _whole_groups(self, n_samples: int) -> int:
        n_frames = self.front_end.frames_of(n_samples)
        return n_frames - n_frames % self.frames_per_group

    def _transform(self, n_frames: int, out: FloatArray) -> None:
        np.multiply(self._frames[:n_frames], self._window, out=self._windowed[:n_frames])
        spectrum = scipy.fft.rfft(self._padded[:n_frames])
        np.abs(spectrum[:, self._low : self._high], out=self._magnitude[:n_frames])
        for start in range(0, n_frames, _TILE):
            tile = self._magnitude[start : start + _TILE]
            if len(out) - start >= _TILE:
                np.matmul(tile, self._filters, out=out[start : start + _TILE])
            else:
                out[start:] = np.matmul(tile, self._filters)[: len(out) - start]


def log_mel(samples: FloatArray, front_end: FrontEnd) -> FloatArray:
    """Log-mel spectrogram of mono audio.

    Parameters
    ----------
    samples : (n_samples,) float32, full scale ±1.0
    front_end : FrontEnd
        Carried in every model bundle.

    Returns
    -------
    (n_frames, n_mels) float32
        Natural log of mel magnitude plus offset, clamped; frame i covers samples
        [hop i, hop i + window). Empty where there is less than one window.
    """
    return LogMelStream(front_end).push(np.asarray(samples, np.float32))
