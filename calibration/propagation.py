"""Sound from points to microphones in the free field, delayed by exact fractions of a sample.

A source's samples stand for the band-limited signal through them. A microphone at distance r hears
it 1/r as strong (1 at 1 m) and r/c late; air takes nothing away (at 6 kHz and 5 m about 0.2 dB).

At rest, the delay is a phase over the frequencies of the whole signal. In motion, the sample at t
was emitted at tau, t = tau + r(tau) / c: on a straight line a quadratic equation, solved in closed
form, and the signal is read between the points of a 16 times finer one. This is what makes the
Doppler shift. The level follows 1/r at the time of emission; the convective factor of a moving
point (0.25 dB at 5 m/s) depends on what kind of source it is and is left out.

Fractions of a sample are exact for a signal that begins and ends softly. One that jumps there rings
before and after, as every band-limited signal does; the ringing is followed for `TAIL` samples,
where it has fallen 70 dB below the jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from soundpost.calibration.trajectory import Floats, Trajectory
from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError

TAIL = 1024
# Between its points, a cubic with the exact slopes at both ends errs by w^4 / 384 of a sine whose
# phase grows by w from point to point: 4e-6 at the Nyquist frequency.
_OVERSAMPLING = 16
# Long signals are cut into pieces that fade into each other, which bounds the memory they take.
_PIECE = 65_536
_FADE = 512
_MICS_AT_ONCE = 8
# 1/r is no microphone's field any closer.
NEAREST_M = 0.01
# A source as fast as its sound is outside of what this describes, and nothing indoors.
HIGHEST_MACH = 0.5


@dataclass(frozen=True, eq=False)
class PointSource:
    """Something that sounds the same in all directions.

    samples : (n,) float32, pressure at 1 m, at the rate of the rendering
    place : where it is
    start_s : time of the first sample at the source, in the recording
    label : what it is called in files about a scene
    """

    samples: FloatArray
    place: Trajectory
    start_s: float = 0.0
    label: str = field(default="")

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or not np.isfinite(self.samples).all():
            raise UsageError(
                f"source {self.label!r}: samples of shape {self.samples.shape}; expected (n,), "
                "mono, finite numbers"
            )


def free_field(
    sources: Sequence[PointSource],
    positions_m: Floats,
    n_samples: int,
    rate_hz: int,
    sound_m_s: float,
    *,
    progress: Callable[[], object] | None = None,
) -> FloatArray:
    """What microphones hear of sources in the free field.

    Parameters
    ----------
    positions_m : (n_mics, 3)
    n_samples : length of the recording; what arrives later is cut
    sound_m_s : speed of sound
    progress : called after each source

    Returns
    -------
    (n_samples, n_mics) float32

    Raises UsageError where a source comes too close to a microphone, or moves too fast.
    """
    out = np.zeros((len(positions_m), n_samples), np.float32)
    for source in sources:
        check_source(source, positions_m, sound_m_s)
        for first, piece in pieces(source.samples):
            start_s = source.start_s + first / rate_hz
            if source.place.moves:
                _add_moving(out, piece, source.place, start_s, positions_m, rate_hz, sound_m_s)
            else:
                offsets = positions_m - source.place.positions_m[0]
                distances_m = np.linalg.norm(offsets, axis=1)
                delays = (start_s + distances_m / sound_m_s) * rate_hz
                add_delayed(out, piece, delays, 1.0 / distances_m)
        if progress is not None:
            progress()
    return np.ascontiguousarray(out.T)


def check_source(source: PointSource, positions_m: Floats, sound_m_s: float) -> None:
    """Raise UsageError for a source that comes too close to a microphone, or moves too fast."""
    nearest_m, mic = min(
        (distance, mic) for mic, distance in enumerate(_nearest_m(source.place, positions_m))
    )
    if nearest_m < NEAREST_M:
        raise UsageError(
            f"source {source.label!r}: comes within {nearest_m:.3f} m of microphone {mic}; "
            f"expected at least {NEAREST_M:g} m"
        )
    fastest = source.place.highest_speed_m_s
    if fastest > HIGHEST_MACH * sound_m_s:
        raise UsageError(
            f"source {source.label!r}: moves at {fastest:.0f} m/s; expected at most "
            f"{HIGHEST_MACH * sound_m_s:.0f} m/s, half the speed of sound"
        )


def _nearest_m(place: Trajectory, positions_m: Floats) -> Floats:
    """Smallest distance of a trajectory from each point, (n_points,)."""
    corners = place.positions_m
    nearest: Floats = np.linalg.norm(positions_m - corners[0], axis=1)
    for start, end in pairwise(corners):
        along = end - start
        length2 = float(along @ along)
        share = np.clip((positions_m - start) @ along / length2, 0, 1) if length2 else 0.0
        foot = start + np.multiply.outer(share, along)
        nearest = np.minimum(nearest, np.linalg.norm(positions_m - foot, axis=1))
    return nearest


def pieces(samples: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Cut a signal into pieces that fade into each other; with each, where it begins.

    Their sum, each at its place, is the signal.
    """
    step = _PIECE - _FADE
    rise = np.sin(np.pi / 2 * (np.arange(_FADE) + 0.5) / _FADE) ** 2
    for first in range(0, max(len(samples) - _FADE, 1), step):
        piece = np.array(samples[first : first + _PIECE])
        if first:
            piece[:_FADE] *= rise
        if first + _PIECE < len(samples):
            piece[-_FADE:] *= 1 - rise
        yield first, piece


def add_delayed(out: FloatArray, samples: FloatArray, delays: Floats, gains: Floats) -> None:
    """Add a signal to each channel, delayed and weighted.

    Parameters
    ----------
    out : (n_channels, n_samples) float32, changed
    delays : (n_channels,) in samples, of any size and sign
    """
    if not len(samples):
        return
    first = math.floor(delays.min()) - TAIL
    spread = math.ceil(delays.max() - delays.min())
    size = fft.next_fast_len(len(samples) + spread + 2 * TAIL, real=True)
    begin, end = max(first, 0), min(first + size, out.shape[1])
    if begin >= end:
        return
    spectrum = fft.rfft(samples.astype(np.float64), size)
    for channel in range(0, len(delays), _MICS_AT_ONCE):
        some = slice(channel, channel + _MICS_AT_ONCE)
        delayed = _turns((delays[some] - first) / size, len(spectrum))
        delayed *= spectrum
        delayed *= gains[some, None]
        out[some, begin:end] += fft.irfft(delayed, size)[:, begin - first : end - first]


def _turns(turns: Floats, n_bins: int) -> NDArray[np.complex128]:
    """exp(-2 pi i k turns) for k from 0 to n_bins - 1, (n, n_bins), from two short tables."""
    block = 256
    coarse = np.arange(-(-n_bins // block)) * block
    of_blocks = np.exp(-2j * np.pi * np.multiply.outer(turns, coarse))
    within = np.exp(-2j * np.pi * np.multiply.outer(turns, np.arange(block)))
    table: NDArray[np.complex128] = of_blocks[:, :, None] * within[:, None, :]
    return table.reshape(len(turns), -1)[:, :n_bins]


def _add_moving(
    out: FloatArray,
    samples: FloatArray,
    place: Trajectory,
    start_s: float,
    positions_m: Floats,
    rate_hz: int,
    sound_m_s: float,
) -> None:
    if not len(samples):
        return
    table = _fine(samples)
    ends_s = np.array([start_s - TAIL / rate_hz, start_s + (len(samples) - 1 + TAIL) / rate_hz])
    corners_m = place.at(ends_s)
    for channel, position_m in enumerate(positions_m):
        arrivals_s = ends_s + np.linalg.norm(corners_m - position_m, axis=1) / sound_m_s
        begin = max(math.ceil(arrivals_s[0] * rate_hz), 0)
        end = min(math.floor(arrivals_s[1] * rate_hz) + 1, out.shape[1])
        if begin >= end:
            continue
        heard_s = np.arange(begin, end) / rate_hz
        emitted_s = emission_times(place, position_m, heard_s, sound_m_s)
        distances_m = sound_m_s * (heard_s - emitted_s)
        at = ((emitted_s - start_s) * rate_hz + TAIL) * _OVERSAMPLING
        out[channel, begin:end] += _read(table, at) / distances_m


def emission_times(
    place: Trajectory, position_m: Floats, heard_s: Floats, sound_m_s: float
) -> Floats:
    """When that was emitted which is heard at one point.

    Solves t = tau + r(tau) / c for tau. On a line p + v (tau - tau_k), with R = p - m and
    T = t - tau_k, it is |R + v s|^2 = c^2 (T - s)^2 for s = tau - tau_k, of which the earlier
    root is the one with s < T.

    Parameters
    ----------
    position_m : (3,)
    heard_s : (n,) rising

    Returns
    -------
    (n,) float64
    """
    # Rest before the first point, the lines, rest after the last.
    starts_s = np.concatenate([place.times_s[:1], place.times_s])
    starts_m = np.concatenate([place.positions_m[:1], place.positions_m])
    velocities = np.zeros_like(starts_m)
    velocities[1:-1] = np.diff(place.positions_m, axis=0) / np.diff(place.times_s)[:, None]
    from_mic = starts_m - position_m
    rr, rv, vv = (
        np.einsum("ij,ij->i", a, b)
        for a, b in (
            (from_mic, from_mic),
            (from_mic, velocities),
            (velocities, velocities),
        )
    )
    arrivals_s = place.times_s + np.sqrt(rr[1:]) / sound_m_s
    edges = np.concatenate([[0], np.searchsorted(heard_s, arrivals_s), [len(heard_s)]])
    start, rr, rv, vv = np.repeat(np.stack([starts_s, rr, rv, vv]), np.diff(edges), axis=1)
    c2 = sound_m_s**2
    since = heard_s - start
    # c^2 |R + v T|^2 less the part that does not grow with c: no large numbers cancel.
    root = np.sqrt(c2 * (rr + since * (2 * rv + since * vv)) - (vv * rr - rv * rv))
    emitted: Floats = start + (c2 * since + rv - root) / (c2 - vv)
    return emitted


def _fine(samples: FloatArray) -> FloatArray:
    """Cubics between the points of the oversampled signal, (n_points, 4), constant term first.

    The first point lies `TAIL` samples before the signal's first sample.
    """
    size = fft.next_fast_len(len(samples) + 2 * TAIL + 1, real=True)
    padded = np.zeros(size)
    padded[TAIL : TAIL + len(samples)] = samples
    spectrum = fft.rfft(padded)
    if size % 2 == 0:
        # Alone at the end of a short spectrum, one of a pair within a long one.
        spectrum[-1] /= 2
    size *= _OVERSAMPLING
    value = fft.irfft(spectrum, size) * _OVERSAMPLING
    spectrum *= 2j * np.pi / size * np.arange(len(spectrum))
    slope = fft.irfft(spectrum, size) * _OVERSAMPLING
    rise = np.roll(value, -1) - value
    after = np.roll(slope, -1)
    table: FloatArray = np.empty((size, 4), np.float32)
    table[:, 0] = value
    table[:, 1] = slope
    table[:, 2] = 3 * rise - 2 * slope - after
    table[:, 3] = slope + after - 2 * rise
    return table


def _read(table: FloatArray, at: Floats) -> FloatArray:
    """The signal between points, (n,)."""
    whole = at.astype(np.intp)
    part = (at - whole).astype(np.float32)
    constant, linear, square, cube = np.take(table, whole, axis=0, mode="clip").T
    read: FloatArray = ((cube * part + square) * part + linear) * part + constant
    return read
