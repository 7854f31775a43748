"""Delay-and-sum in the time domain, written as it is defined: slow, and hard to get wrong.

Each microphone's signal is advanced by its delay with a filter that reads between samples (a sinc
under a Kaiser window), and the mean is taken. It is what the fast routes are tested against, and
what gives the sound of a direction as a signal.
"""

from __future__ import annotations

import numpy as np
import scipy.special

from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError

# Ripple below 1e-4 up to 0.85 of the Nyquist frequency with 64 taps.
_KAISER_BETA = 9.0


def fractional_advance(advances: Floats, n_taps: int) -> tuple[Floats, int]:
    """Filters that advance a signal by parts of a sample.

    Parameters
    ----------
    advances : (n,) in samples, of any sign
    n_taps : even number of samples that each filter reads at least

    Returns
    -------
    taps, first : (n, length) float64, the weight of sample i + first + tap for output sample i
    """
    half = n_taps // 2
    first = int(np.floor(advances.min())) - half
    last = int(np.ceil(advances.max())) + half
    offsets = np.arange(first, last + 1) - advances[:, None]
    inside = np.clip(1 - (offsets / half) ** 2, 0, None)
    window = scipy.special.i0(_KAISER_BETA * np.sqrt(inside)) / scipy.special.i0(_KAISER_BETA)
    taps: Floats = np.where(inside > 0, window, 0) * np.sinc(offsets)
    return taps, first


def delay_and_sum(
    samples: Floats, delays_s: Floats, sample_rate_hz: float, n_taps: int = 64
) -> Floats:
    """Sound of each pixel, as it would be heard in the array's centre.

    Parameters
    ----------
    samples : (n_mics, n_samples)
    delays_s : (n_pixels, n_mics): how much later each microphone hears each pixel
    sample_rate_hz : of the samples
    n_taps : of the filters that read between samples

    Returns
    -------
    (n_pixels, n_samples) float64; beyond its ends the recording is taken as silent

    Raises InputError where shapes do not belong together.
    """
    if samples.ndim != 2 or delays_s.ndim != 2 or delays_s.shape[1] != len(samples):
        raise InputError(
            f"samples of shape {samples.shape} and delays of shape {delays_s.shape}; expected "
            "(n_mics, n_samples) and (n_pixels, n_mics)"
        )
    if n_taps < 2 or n_taps % 2:
        raise InputError(f"n_taps {n_taps}; expected an even number from 2 on")
    # Here, for it takes 80 MB: a sensor that has no array never loads it.
    from scipy.signal import fftconvolve

    n_mics, n_samples = samples.shape
    beams = np.empty((len(delays_s), n_samples))
    for beam, advances in zip(beams, delays_s * sample_rate_hz, strict=True):
        taps, first = fractional_advance(advances, n_taps)
        length = taps.shape[1]
        # A convolution runs backwards: its output i + length - 1 has read samples i to
        # i + length - 1.
        sums = fftconvolve(samples, taps[:, ::-1], axes=1).sum(axis=0) / n_mics
        beam[:] = _shifted(sums, length - 1 + first, n_samples)
    return beams


def _shifted(values: Floats, first: int, length: int) -> Floats:
    """values[first : first + length], with zeros where there are none."""
    padded = np.zeros(length)
    begin, end = max(first, 0), min(first + length, len(values))
    if begin < end:
        padded[begin - first : end - first] = values[begin:end]
    return padded
