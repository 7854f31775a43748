"""Microphones that are not perfect: what calibration finds out and the device puts right."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from soundpost.calibration.propagation import TAIL
from soundpost.calibration.trajectory import Floats
from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError

_FIELDS = {
    "gain": np.float64,
    "delay_s": np.float64,
    "inverted": np.bool_,
    "dead": np.bool_,
    "noise_rms": np.float64,
    "clip_level": np.float64,
    "order": np.intp,
}


@dataclass(frozen=True)
class MicrophoneSettings:
    """How imperfect the microphones of a drawn array are.

    gain_db, delay_s : standard deviations
    inverted, dead, noisy, clipped : so many microphones, each with one of these faults
    swapped : so many pairs of them on each other's channel
    noise_dbfs : level of a noisy microphone's own noise
    clip_dbfs : largest sample of a clipped one
    """

    gain_db: float = 0.0
    delay_s: float = 0.0
    inverted: int = 0
    dead: int = 0
    noisy: int = 0
    clipped: int = 0
    swapped: int = 0
    noise_dbfs: float = -30.0
    clip_dbfs: float = -30.0


@dataclass(frozen=True, eq=False)
class Microphones:
    """What each microphone does to the sound, and on which channel it comes.

    All (n_mics,): gain; delay_s; inverted: minus where there should be plus; dead: it hears
    nothing; noise_rms: of white noise that it adds; clip_level: largest magnitude that it gives,
    inf without a limit; order: microphone that each channel carries.
    """

    gain: Floats
    delay_s: Floats
    inverted: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    noise_rms: Floats
    clip_level: Floats
    order: NDArray[np.intp]

    def __post_init__(self) -> None:
        n = len(self.gain)
        for name, kind in _FIELDS.items():
            values = np.array(getattr(self, name), kind)
            if values.shape != (n,):
                raise UsageError(
                    f"microphones: {name} has shape {values.shape}; expected ({n},), as gain has"
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if sorted(self.order) != list(range(n)):
            raise UsageError(
                f"microphones: order is {list(self.order)}; expected each of 0 to {n - 1} once"
            )

    @classmethod
    def perfect(cls, n_mics: int) -> Microphones:
        """Microphones that change nothing."""
        zeros, no = np.zeros(n_mics), np.zeros(n_mics, bool)
        return cls(
            np.ones(n_mics), zeros, no, no, zeros, np.full(n_mics, np.inf), np.arange(n_mics)
        )

    @classmethod
    def draw(cls, n_mics: int, settings: MicrophoneSettings, seed: int) -> Microphones:
        """An array as it comes out of a box; raises UsageError for more faults than microphones."""
        counts = (settings.inverted, settings.dead, settings.noisy, settings.clipped)
        if min(*counts, settings.swapped) < 0 or sum(counts) + 2 * settings.swapped > n_mics:
            raise UsageError(
                f"microphones: {sum(counts)} with a fault and {settings.swapped} swapped pairs; "
                f"expected no more than the {n_mics} microphones"
            )
        rng = np.random.default_rng([seed, n_mics])
        gain_db = settings.gain_db * rng.standard_normal(n_mics)
        delay_s = settings.delay_s * rng.standard_normal(n_mics)
        inverted, dead, noisy, clipped, swapped = np.split(
            rng.permutation(n_mics)[: sum(counts) + 2 * settings.swapped], np.cumsum(counts)
        )
        order = np.arange(n_mics)
        order[swapped] = swapped.reshape(-1, 2)[:, ::-1].ravel()
        perfect = cls.perfect(n_mics)
        return cls(
            10 ** (gain_db / 20),
            delay_s,
            _with(perfect.inverted, inverted, True),
            _with(perfect.dead, dead, True),
            _with(perfect.noise_rms, noisy, 10 ** (settings.noise_dbfs / 20)),
            _with(perfect.clip_level, clipped, 10 ** (settings.clip_dbfs / 20)),
            order,
        )

    def record(self, sound: FloatArray, rate_hz: int, rng: np.random.Generator) -> FloatArray:
        """What comes on the channels for what is there to be heard.

        Parameters
        ----------
        sound : (n_samples, n_mics) float32, kept as it is

        Returns
        -------
        (n_samples, n_mics) float32
        """
        n_samples, n_mics = sound.shape
        if n_mics != len(self.gain):
            raise UsageError(f"microphones: {len(self.gain)} for sound of {n_mics} channels")
        factor = np.where(self.dead, 0.0, np.where(self.inverted, -self.gain, self.gain))
        heard: FloatArray = sound * factor.astype(np.float32)
        for mic in np.flatnonzero((self.delay_s != 0) & (factor != 0)):
            heard[:, mic] = _delayed(heard[:, mic], self.delay_s[mic] * rate_hz)
        for mic in np.flatnonzero(self.noise_rms > 0):
            heard[:, mic] += self.noise_rms[mic] * rng.standard_normal(n_samples, np.float32)
        limit = self.clip_level.astype(np.float32)
        np.clip(heard, -limit, limit, out=heard)
        return heard[:, self.order]

    def to_dict(self) -> dict[str, list[Any]]:
        """As JSON takes it; a clip level that is none is null."""
        table = {f.name: getattr(self, f.name).tolist() for f in dataclasses.fields(self)}
        table["clip_level"] = [None if of == np.inf else of for of in table["clip_level"]]
        return table


def _with(values: NDArray[Any], indices: NDArray[np.intp], value: float) -> NDArray[Any]:
    changed = values.copy()
    changed[indices] = value
    return changed


def _delayed(samples: FloatArray, delay: float) -> FloatArray:
    """A signal later by samples of any size and sign, as long as it was."""
    room = TAIL + int(np.ceil(abs(delay)))
    size = fft.next_fast_len(len(samples) + room, real=True)
    spectrum = fft.rfft(samples.astype(np.float64), size)
    spectrum *= np.exp(-2j * np.pi * delay / size * np.arange(len(spectrum)))
    late: FloatArray = fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)
    return late
