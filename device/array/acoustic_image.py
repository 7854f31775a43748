"""Acoustic images: how loud it is in each direction, as a map, a spectrum or MFCC in each pixel.

Pérez et al., "Audio-visual model distillation using acoustic images" (2020): 12 images a second
from 1,024 samples of each of 128 microphones, 36 x 48 pixels, 512 bins, of which 12 MFCC; the map
for overlays is the energy from 900 to 6,400 Hz. The text says 12 kHz; 1,024 samples twelve times a
second are 12,288 Hz, which is the default. A band beyond the last bin ends there.

Snapshots are windowed (Tukey, 0.75, as in the group's published code for one microphone; the text
names none). Power is that of the windowed spectrum re full scale ±1.0, not divided by its length.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.fft
import scipy.linalg.blas
from numpy.typing import NDArray

from soundpost.device.array.beamforming import (
    Beamformer,
    ComplexArray,
    FloatArray,
    arrival_delays,
    snapshot_spectra,
    speed_of_sound_m_s,
)
from soundpost.device.array.fast_path import SeparableBeamformer, separable
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid
from soundpost.device.array.mfcc import MelSettings, log_mel, mel_filters, mfcc_matrix
from soundpost.device.audio import to_float
from soundpost.device.errors import InputError

Route = Literal["auto", "fast", "general"]

# Frames at once: two seconds of images, whose steering vectors are made only once.
_BATCH_FRAMES = 24
_MIN_LENGTH, _MAX_LENGTH = 16, 65_536
_TEMPERATURES_C = (-60.0, 70.0)


@dataclass(frozen=True)
class ImageSettings:
    """How images are made.

    sample_rate_hz : of the snapshots
    snapshot_length : samples of each microphone in one image
    taper : part of a snapshot that the Tukey window's cosines cover
    temperature_c : of the air, for the speed of sound: 10 degrees more are 1.7 %
    band_low_hz, band_high_hz : of the energy map
    remove_diagonal : take away what each microphone adds by itself, its own noise above all; power
        may then be negative
    route : "fast" for a plane array and plane waves, "general" for any; "auto": fast where possible
    mel : filters and coefficients

    Raises InputError where a value cannot be.
    """

    sample_rate_hz: float = 12_288.0
    snapshot_length: int = 1_024
    taper: float = 0.75
    temperature_c: float = 20.0
    band_low_hz: float = 900.0
    band_high_hz: float = 6_400.0
    remove_diagonal: bool = False
    route: Route = "auto"
    mel: MelSettings = field(default_factory=MelSettings)

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate_hz < math.inf:
            raise InputError(
                f"acoustic image: sample_rate_hz {self.sample_rate_hz:g}; expected more than 0"
            )
        if self.snapshot_length % 2 or not _MIN_LENGTH <= self.snapshot_length <= _MAX_LENGTH:
            raise InputError(
                f"acoustic image: snapshot_length {self.snapshot_length}; expected an even number "
                f"from {_MIN_LENGTH} to {_MAX_LENGTH}"
            )
        if not 0 <= self.taper <= 1:
            raise InputError(f"acoustic image: taper {self.taper:g}; expected 0 to 1")
        coldest, hottest = _TEMPERATURES_C
        if not coldest <= self.temperature_c <= hottest:
            raise InputError(
                f"acoustic image: temperature_c {self.temperature_c:g}; expected {coldest:g} to "
                f"{hottest:g} degrees Celsius"
            )
        finite = math.isfinite(self.band_low_hz) and math.isfinite(self.band_high_hz)
        if not finite or not len(self.band):
            raise InputError(
                f"acoustic image: band {self.band_low_hz:g} to {self.band_high_hz:g} Hz; expected "
                f"one with a bin in it, which are {self.bin_hz:g} Hz apart up to "
                f"{(self.n_bins - 1) * self.bin_hz:g} Hz"
            )
        if self.route not in ("auto", "fast", "general"):
            raise InputError(
                f"acoustic image: route {self.route!r}; expected 'auto', 'fast' or 'general'"
            )

    @property
    def n_bins(self) -> int:
        """Bins from 0 Hz on, without the Nyquist frequency."""
        return self.snapshot_length // 2

    @property
    def bin_hz(self) -> float:
        """Distance of the bins."""
        return self.sample_rate_hz / self.snapshot_length

    @property
    def band(self) -> range:
        """Bins of the energy map."""
        low = math.ceil(max(self.band_low_hz, 0.0) / self.bin_hz)
        high = math.floor(min(self.band_high_hz, self.sample_rate_hz) / self.bin_hz)
        return range(low, min(high + 1, self.n_bins))


class AcousticImages(NamedTuple):
    """Images of some snapshots, made together.

    energy : (n_frames, rows, columns) float32, sum of the power over the band
    mfcc : (n_frames, rows, columns, n_coefficients) float32
    """

    energy: FloatArray
    mfcc: FloatArray


class AcousticImager:
    """Makes acoustic images; keeps what depends on array, grid and settings alone.

    Parameters
    ----------
    geometry : where the microphones are
    grid : pixels, by default those of the published sensor
    settings : ImageSettings
    gains : (n_mics,), or (n_bins, n_mics) complex: what calibration multiplies each microphone's
        spectrum by
    dead : numbers of microphones to leave out, counted from 0; the published set's are 79 and 105

    All methods take snapshots (n_frames, n_mics, snapshot_length), floats with full scale ±1.0 or
    integers, and may run in several threads at once. Those of dead microphones are not looked at.

    Raises InputError where gains or dead microphones do not belong to the array, or where the fast
    route is asked for and there is none.
    """

    def __init__(
        self,
        geometry: ArrayGeometry,
        grid: ImageGrid | None = None,
        settings: ImageSettings | None = None,
        *,
        gains: NDArray[Any] | None = None,
        dead: Collection[int] = (),
    ) -> None:
        self.geometry = geometry
        self.grid = grid if grid is not None else ImageGrid()
        self.settings = settings = settings if settings is not None else ImageSettings()
        self.mics = _living(geometry, dead)
        # Here, for it takes 80 MB: a sensor that has no array never loads it.
        from scipy.signal.windows import tukey

        window = tukey(settings.snapshot_length, settings.taper)
        self._window: FloatArray = window.astype(np.float32)
        self._weights = _weights(gains, geometry.n_mics, self.mics, settings.n_bins)
        # Refused here rather than at the first image.
        mel = settings.mel
        self._filters = mel_filters(mel, settings.n_bins, settings.sample_rate_hz)
        self._beamformer = self._choose()

    def _choose(self) -> Beamformer:
        settings = self.settings
        sound_m_s = speed_of_sound_m_s(settings.temperature_c)
        fast = settings.route == "fast"
        if settings.route == "auto":
            highest_hz = settings.sample_rate_hz / 2
            fast = separable(self.geometry, self.grid, highest_hz, sound_m_s)
        if fast:
            return SeparableBeamformer(
                self.geometry, self.grid, self.mics, settings.bin_hz, settings.n_bins, sound_m_s
            )
        delays_s = arrival_delays(self.geometry, self.grid, sound_m_s)[:, self.mics]
        return SteeredBeamformer(delays_s, settings.bin_hz, settings.n_bins)

    def images(self, snapshots: NDArray[Any]) -> AcousticImages:
        """Energy map and MFCC, for hardly more than the price of one."""
        energy, energies = self._sums(snapshots, energy=True, mel=True)
        return AcousticImages(energy, self._cepstra(energies))

    def energy(self, snapshots: NDArray[Any]) -> FloatArray:
        """Sum of the power over the band, (n_frames, rows, columns) float32."""
        return self._sums(snapshots, energy=True, mel=False)[0]

    def mfcc(self, snapshots: NDArray[Any]) -> FloatArray:
        """MFCC of each pixel, (n_frames, rows, columns, n_coefficients) float32."""
        return self._cepstra(self._sums(snapshots, energy=False, mel=True)[1])

    def log_mel(self, snapshots: NDArray[Any]) -> FloatArray:
        """Natural log of each filter's energy, (n_frames, rows, columns, n_filters) float32."""
        return log_mel(self._sums(snapshots, energy=False, mel=True)[1], self.settings.mel)

    def power(self, snapshots: NDArray[Any]) -> FloatArray:
        """Power of each pixel in each bin, (n_frames, rows, columns, n_bins) float32.

        An image is 3.5 MB.
        """
        samples = self._checked(snapshots)
        n_bins = self.settings.n_bins
        power = np.empty((len(samples), self.grid.n_pixels, n_bins), np.float32)
        for frames, spectra in self._batches(samples):
            for bins, values in self._power(spectra, range(n_bins)):
                power[frames, :, bins.start : bins.stop] = values.transpose(2, 1, 0)
        return power.reshape(len(samples), self.grid.rows, self.grid.columns, n_bins)

    def corrected(self, samples: FloatArray) -> FloatArray:
        """Sound of the living microphones as it would be without what gains undo.

        samples : (n_samples, n_mics)

        Returns (n_samples, n_living) float32. Gains of each bin are read between the bins.
        """
        weights = self._weights * np.float32(len(self.mics))
        spectra = scipy.fft.rfft(samples[:, self.mics], axis=0)
        places = np.linspace(0, self.settings.n_bins, len(spectra))
        bins = np.arange(self.settings.n_bins)
        for spectrum, weight in zip(spectra.T, weights.T, strict=True):
            spectrum *= np.interp(places, bins, weight.real) + 1j * np.interp(
                places, bins, weight.imag
            )
        corrected: FloatArray = scipy.fft.irfft(spectra, len(samples), axis=0)
        return corrected.astype(np.float32)

    def _checked(self, snapshots: NDArray[Any]) -> FloatArray:
        expected = (self.geometry.n_mics, self.settings.snapshot_length)
        if snapshots.ndim != 3 or snapshots.shape[1:] != expected:
            raise InputError(
                f"snapshots of shape {snapshots.shape}; expected (n_frames, {expected[0]} "
                f"microphones, {expected[1]} samples)"
            )
        return to_float(snapshots)

    def _batches(self, samples: FloatArray) -> Iterator[tuple[slice, ComplexArray]]:
        """Weighted spectra of the living microphones, some frames at a time."""
        everyone = len(self.mics) == self.geometry.n_mics
        for first in range(0, len(samples), _BATCH_FRAMES):
            frames = slice(first, min(first + _BATCH_FRAMES, len(samples)))
            some = samples[frames] if everyone else samples[frames, self.mics]
            spectra = snapshot_spectra(some, self._window, self._weights)
            # One sample that is no number makes none of all bins, and the first is soon looked at.
            if not np.isfinite(spectra[0]).all():
                raise InputError(_not_finite(some, first, self.mics))
            yield frames, spectra

    def _power(self, spectra: ComplexArray, bins: range) -> Iterator[tuple[range, FloatArray]]:
        for some, values in self._beamformer.power(spectra, bins):
            if self.settings.remove_diagonal:
                alone = spectra[some.start : some.stop].view(np.float32)
                own = np.einsum("bmv,bmv->bv", alone, alone)
                values -= (own[:, ::2] + own[:, 1::2])[:, None]
            yield some, values

    def _sums(
        self, snapshots: NDArray[Any], *, energy: bool, mel: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Energy of the band, (n_frames, rows, columns), and of the filters, one axis more.

        What is not asked for is empty.
        """
        samples = self._checked(snapshots)
        n_pixels, n_filters = self.grid.n_pixels, len(self._filters)
        band = np.empty((len(samples) if energy else 0, n_pixels), np.float32)
        filtered = np.empty((len(samples) if mel else 0, n_pixels, n_filters), np.float32)
        weights = self._sum_weights(energy=energy, mel=mel)
        used = np.flatnonzero(weights.any(axis=0))
        for frames, spectra in self._batches(samples):
            sums = np.zeros((len(weights), n_pixels * spectra.shape[2]), np.float32)
            for some, values in self._power(spectra, range(int(used[0]), int(used[-1]) + 1)):
                flat = values.reshape(len(some), -1)
                _add_weighted(sums, weights[:, some.start : some.stop], flat)
            shaped = sums.reshape(len(weights), n_pixels, -1)
            if energy:
                band[frames] = shaped[-1].T
            if mel:
                filtered[frames] = shaped[:n_filters].transpose(2, 1, 0)
        shape = (-1, self.grid.rows, self.grid.columns)
        return band.reshape(shape), filtered.reshape(*shape, n_filters)

    def _sum_weights(self, *, energy: bool, mel: bool) -> FloatArray:
        """What each bin counts in each sum: those of the filters, and last that of the band."""
        band = np.zeros((1, self.settings.n_bins), np.float32)
        band[:, self.settings.band] = 1.0
        rows: FloatArray = np.concatenate(
            [self._filters[: mel * len(self._filters)], band[:energy]]
        )
        return rows

    def _cepstra(self, energies: FloatArray) -> FloatArray:
        mel = self.settings.mel
        pixels = log_mel(energies.reshape(-1, mel.n_filters), mel)
        coefficients: FloatArray = pixels @ mfcc_matrix(mel).T
        return coefficients.reshape(*energies.shape[:3], mel.n_coefficients)


def _add_weighted(sums: FloatArray, weights: FloatArray, values: FloatArray) -> None:
    """sums += weights @ values, in one pass over the values for each run of rows.

    sums : (n_sums, n), weights : (n_sums, n_bins), values : (n_bins, n)
    """
    # Few filters hold some neighbouring bins, and they are neighbours; the band stands apart.
    held = np.flatnonzero(weights.any(axis=1))
    for rows in np.split(held, np.flatnonzero(np.diff(held) > 1) + 1):
        if len(rows):
            some = sums[rows[0] : rows[-1] + 1]
            # Transposed it is as Fortran has it, and BLAS adds to what is there.
            scipy.linalg.blas.sgemm(
                1.0, values.T, weights[rows].T, beta=1.0, c=some.T, overwrite_c=True
            )


def cut_snapshots(samples: FloatArray, length: int = 1_024) -> FloatArray:
    """Snapshots of a recording, one after the other; a rest shorter than one is left out.

    samples : (n_samples, n_mics), one column for each microphone

    Returns (n_frames, n_mics, length), without a copy.
    """
    if samples.ndim != 2 or length < 1:
        raise InputError(
            f"samples of shape {samples.shape} in snapshots of {length}; expected (n_samples, "
            "n_mics) and at least 1"
        )
    n_frames = len(samples) // length
    cut = samples[: n_frames * length].reshape(n_frames, length, samples.shape[1])
    return cut.transpose(0, 2, 1)


def _living(geometry: ArrayGeometry, dead: Collection[int]) -> NDArray[np.intp]:
    strange = [mic for mic in dead if not 0 <= mic < geometry.n_mics]
    if strange:
        raise InputError(
            f"dead microphones: {strange[0]} is none of the array's; expected 0 to "
            f"{geometry.n_mics - 1}"
        )
    living = np.setdiff1d(np.arange(geometry.n_mics), np.array(list(dead), int))
    if len(living) < 2:
        raise InputError(
            f"dead microphones: {len(set(dead))} of {geometry.n_mics}; expected 2 alive at least"
        )
    return living


def _not_finite(samples: FloatArray, first: int, mics: NDArray[np.intp]) -> str:
    strange = np.argwhere(~np.isfinite(samples))
    if not len(strange):
        return f"snapshot {first}: samples too large to be summed; expected full scale ±1.0"
    frame, mic, _ = strange[0]
    return (
        f"snapshot {first + int(frame)}: microphone {mics[mic]} has a sample that is not a number; "
        "name it as dead, or repair the recording"
    )


def _weights(
    gains: NDArray[Any] | None, n_mics: int, mics: NDArray[np.intp], n_bins: int
) -> ComplexArray:
    """What spectra of the living microphones are multiplied by, (n_bins, len(mics))."""
    table = np.ones(n_mics) if gains is None else np.asarray(gains)
    if table.shape not in ((n_mics,), (n_bins, n_mics)):
        raise InputError(
            f"gains of shape {table.shape}; expected ({n_mics} microphones,) or ({n_bins} bins, "
            f"{n_mics} microphones)"
        )
    weights = np.broadcast_to(table[..., mics] / len(mics), (n_bins, len(mics)))
    if not np.isfinite(weights).all():
        raise InputError("gains: one is not a finite number; name its microphone as dead instead")
    return weights.astype(np.complex64)
