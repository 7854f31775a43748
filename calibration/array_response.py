"""What each microphone of an array does to sound from a known place: its transfer, band by band.

The spectra of a whole recording are turned back by the delays of the known place, so that all
microphones should hear the same, and averaged over bands. In each band their cross spectra are
those of one sound that all share and of noise that each has alone, R = u u^H + diag(n): one factor
and unequal noise (Lawley and Maxwell, "Factor analysis as a statistical method", 1962). u is, but
for a factor common to all, what the microphones do. Noise that a few of them share a little, such
as that of a field, stays in u with its share over the signal.

A microphone is then a gain, a delay and a sign, fitted to u over all bands and recordings by
weighted least squares, with less weight on bands that do not fit (Huber).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from soundpost.device.array.geometry import Floats
from soundpost.device.audio import FloatArray

Complex = NDArray[np.complex128]

LOWEST_HZ = 200.0
HIGHEST_HZ = 8_000.0
# Of the sample rate: converters fade out before its half.
_USED = 0.48
_BAND_HZ = 50.0
_MIN_BINS = 40
_STEPS = 60
# Below this share of a channel's power its noise is not told from the sound.
_LEAST_NOISE = 1e-5
# What no microphone's gain and delay explain, at best: bands weigh no more than this allows.
_MODEL_ERROR = 0.02
_HUBER = 2.0
_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class Take:
    """A recording of one source at rest.

    samples : (n_samples, n_mics) float32, a column for each microphone as array.json orders them
    rate_hz : of the samples
    place_m : (3,) where the source is
    """

    samples: FloatArray
    rate_hz: int
    place_m: Floats


@dataclass(frozen=True, eq=False)
class Transfer:
    """What microphones do to the sound, band by band.

    frequencies_hz : (n_bands,)
    values : (n_bands, n_mics) complex, times the same unknown number for all of a band
    noise : (n_bands, n_mics) power of what each hears alone, on the scale of |values|²
    n_bins : averaged in each band
    """

    frequencies_hz: Floats
    values: Complex
    noise: Floats
    n_bins: int

    def without(self, response_db: Floats) -> Transfer:
        """The same of microphones that do not add this, (n_bands, n_mics)."""
        factors = 10 ** (-response_db / 20)
        return replace(self, values=self.values * factors, noise=self.noise * factors**2)

    def snr(self) -> Floats:
        """Power of the sound over that of the noise, (n_bands, n_mics)."""
        ratio: Floats = np.abs(self.values) ** 2 / self.noise
        return ratio


@dataclass(frozen=True, eq=False)
class Fit:
    """Gains, delays and signs that explain the transfers best.

    gain, delay_s, inverted : (n_mics,)
    gain_error, delay_error_s : (n_mics,) standard errors, from what does not fit
    misfit : (n_mics,) root mean square of what does not fit, over the gain
    deviation : of each take, (n_bands, n_mics) complex: transfer over model, 1 where it fits
    """

    gain: Floats
    delay_s: Floats
    inverted: NDArray[np.bool_]
    gain_error: Floats
    delay_error_s: Floats
    misfit: Floats
    deviation: tuple[Complex, ...]


def arrivals_s(positions_m: Floats, place_m: Floats, sound_m_s: float) -> Floats:
    """When microphones hear a sound from a place, (n_mics,)."""
    times: Floats = np.linalg.norm(positions_m - place_m, axis=1) / sound_m_s
    return times


def measure_transfer(take: Take, positions_m: Floats, sound_m_s: float) -> Transfer:
    """Transfers of all microphones for a recording; every channel must have a signal.

    positions_m : (n_mics, 3)
    """
    n_samples, n_mics = take.samples.shape
    seconds = n_samples / take.rate_hz
    bins_per_band = max(round(_BAND_HZ * seconds), _MIN_BINS)
    first = round(LOWEST_HZ * seconds)
    last = int(min(HIGHEST_HZ, _USED * take.rate_hz) * seconds)
    n_bands = max((last - first) // bins_per_band, 0)
    bins = first + np.arange(n_bands * bins_per_band)
    late_s = arrivals_s(positions_m, take.place_m, sound_m_s)
    far_m = late_s * sound_m_s
    spectra = np.empty((len(bins), n_mics), np.complex128)
    for mic in range(n_mics):
        spectrum = fft.rfft(take.samples[:, mic].astype(np.float64))[bins]
        turned = np.exp(2j * np.pi * (late_s[mic] - late_s.mean()) / seconds * bins)
        spectra[:, mic] = spectrum * turned * (far_m[mic] / far_m.mean())
    blocks = spectra.reshape(n_bands, bins_per_band, n_mics)
    cross = (blocks.transpose(0, 2, 1) @ blocks.conj() / bins_per_band).astype(np.complex128)
    values, noise = one_factor(cross)
    middles_hz = bins.reshape(n_bands, bins_per_band).mean(axis=1) / seconds
    return Transfer(middles_hz, values, noise, bins_per_band)


def one_factor(cross: Complex) -> tuple[Complex, Floats]:
    """Split cross spectra (n_bands, n, n) into u u^H + diag(n): u and n, (n_bands, n) each."""
    power = np.einsum("bmm->bm", cross).real
    floor = np.maximum(power * _LEAST_NOISE, np.finfo(float).tiny)
    noise = np.maximum(power / 4, floor)
    # From what the loudest channel hears of the others.
    loudest = power.argmax(axis=1)
    values = cross[np.arange(len(cross)), :, loudest]
    for _ in range(_STEPS):
        # A step of the power method on the whitened cross spectra, then the noise anew.
        white = values / np.sqrt(noise)
        white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), np.finfo(float).tiny)
        turned = (cross @ (white / np.sqrt(noise))[..., None])[..., 0] / np.sqrt(noise)
        strength = np.einsum("bm,bm->b", white.conj(), turned).real
        direction = turned / np.maximum(
            np.linalg.norm(turned, axis=1, keepdims=True), np.finfo(float).tiny
        )
        values = direction * np.sqrt(np.maximum(strength - 1, 1e-12))[:, None] * np.sqrt(noise)
        noise = np.maximum(power - np.abs(values) ** 2, floor)
    return values, noise


def fit_microphones(
    transfers: Sequence[Transfer], leading: NDArray[np.bool_], widest_s: float
) -> Fit:
    """Gains, delays and signs; those of the leading microphones are 1, 0 and plus on average.

    leading : (n_mics,) those that say what is typical
    widest_s : delays are looked for from minus to plus this
    """
    frequencies = np.concatenate([of.frequencies_hz for of in transfers])
    values = np.concatenate([of.values for of in transfers])
    noise = np.concatenate([of.noise / of.n_bins for of in transfers])
    magnitude = np.abs(values) ** 2
    weights = magnitude / (noise + _MODEL_ERROR**2 * magnitude + np.finfo(float).tiny)
    # Relative to each value; on their scale from here on.
    level = np.sqrt(np.maximum(np.median(magnitude[:, leading], axis=1), np.finfo(float).tiny))
    values = values / level[:, None]
    weights = weights / np.maximum(np.abs(values) ** 2, 1e-12)
    weights[:, ~leading] = np.minimum(weights[:, ~leading], np.median(weights[:, leading]))
    turns = 2j * np.pi * frequencies
    model = np.ones_like(values)
    gain, delay = np.ones(values.shape[1]), np.zeros(values.shape[1])
    robust = np.ones_like(weights)
    for number in range(_ROUNDS):
        common = _common(values, model, weights * robust, leading)
        relative = values / common[:, None]
        heft = weights * robust * np.abs(common[:, None]) ** 2
        if number < 3:
            delay = _coarse_delay(relative, heft, frequencies, widest_s)
        delay = _refined(relative, heft, turns, delay)
        turned = relative * np.exp(np.outer(turns, delay))
        gain = (heft * turned.real).sum(axis=0) / heft.sum(axis=0)
        gain, delay = _gauged(gain, delay, leading)
        model = gain * np.exp(-np.outer(turns, delay))
        excess = np.abs(relative - model) / np.maximum(np.abs(gain), 1e-9)
        typical = np.maximum(np.median(excess, axis=0), 1e-6)
        robust = np.minimum(1.0, _HUBER * typical / np.maximum(excess, 1e-12))
    common = _common(values, model, weights * robust, leading)
    relative = values / common[:, None]
    deviation = relative / model
    # Standard errors from what is left, in the directions along and across the model.
    heft = weights * robust * np.abs(common[:, None]) ** 2
    effective = heft.sum(axis=0) ** 2 / (heft**2).sum(axis=0)
    shares = heft / heft.sum(axis=0)
    left = deviation - 1
    along, across = ((shares * part**2).sum(axis=0) for part in (left.real, left.imag))
    spread = (shares * (2 * np.pi * frequencies[:, None]) ** 2).sum(axis=0)
    splits = np.cumsum([len(of.frequencies_hz) for of in transfers])[:-1]
    return Fit(
        np.abs(gain),
        delay,
        gain < 0,
        np.sqrt(along / effective),
        np.sqrt(across / effective / spread),
        np.sqrt(along + across),
        tuple(np.split(deviation, splits)),
    )


def _common(
    values: Complex, model: Complex, weights: Floats, leading: NDArray[np.bool_]
) -> Complex:
    """The number that all microphones of a band share, (n_bands,)."""
    some = weights * leading
    top = (some * model.conj() * values).sum(axis=1)
    common: Complex = top / np.maximum((some * np.abs(model) ** 2).sum(axis=1), 1e-30)
    common[np.abs(common) < 1e-9] = 1.0
    return common


def _coarse_delay(relative: Complex, heft: Floats, frequencies: Floats, widest_s: float) -> Floats:
    """Delay whose turning back leaves the largest real sum of either sign, (n_mics,)."""
    step_s = 1 / (8 * frequencies.max())
    candidates = np.arange(-np.ceil(widest_s / step_s), np.ceil(widest_s / step_s) + 1) * step_s
    turning = np.exp(2j * np.pi * np.outer(candidates, frequencies))
    # Bands weigh alike here: a few strong ones would be a narrow sound, which has many peaks.
    whitened = relative / np.maximum(np.abs(relative), 1e-12) * np.sqrt(heft)
    sums = np.abs((turning @ whitened).real)
    found: Floats = candidates[sums.argmax(axis=0)]
    return found


def _refined(relative: Complex, heft: Floats, turns: Complex, delay: Floats) -> Floats:
    """Newton's steps towards the delay that leaves no phase on average, (n_mics,)."""
    omega = turns.imag[:, None]
    for _ in range(4):
        turned = relative * np.exp(omega * 1j * delay)
        sign = np.sign((heft * turned.real).sum(axis=0))
        turned = turned * np.where(sign == 0, 1, sign)
        slope = (heft * omega * turned.imag).sum(axis=0)
        curvature = (heft * omega**2 * np.abs(turned)).sum(axis=0)
        delay = delay - slope / np.maximum(curvature, 1e-30)
    return delay


def _gauged(gain: Floats, delay: Floats, leading: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    gain = np.where(gain == 0, 1e-12, gain)
    typical = np.exp(np.log(np.abs(gain[leading])).mean())
    if np.median(np.sign(gain[leading])) < 0:
        typical = -typical
    return gain / typical, delay - delay[leading].mean()
