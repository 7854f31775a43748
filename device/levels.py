"""Sound levels of a stream at its capture rate: LAeq, LCeq, LAFmax, LASmax, L10, L50, L90.

Terms are those of IEC 61672-1:2013. The frequency weightings meet class 1 limits from 20 Hz to
8 kHz (or to the rate's upper limit); nothing else of a sound level meter is claimed.

The stream is filtered in frames by FFT (overlap-save), and squared and averaged in steps of about
a millisecond. Frames and steps are counted from the beginning of the stream or the last gap, so
that values do not depend on how the stream is cut into blocks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from soundpost.device.audio import check_rate
from soundpost.device.bands import BandMeter
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.weighting import Weighting, upper_limit_hz, weighting_filter

FloatArray = NDArray[np.float32]
Array = NDArray[np.float64]

# Time constants of the time weightings (IEC 61672-1:2013, 5.8.1).
FAST_S: Final = 0.125
SLOW_S: Final = 1.0
# Levels are told no lower: digital silence has none, and JSON no infinity.
FLOOR_DBFS: Final = -200.0
# The time weighting is read once a step: a maximum between two reads is at most
# 10 lg(e) * 1 ms / 125 ms = 0.035 dB higher.
_STEP_S = 1e-3
# Percentiles are of fast levels this many steps apart, some 10 ms: a twelfth of the time constant.
_PERCENTILE_STEPS = 10
# A fast level counts for percentiles once its start from nothing is forgotten: 5 time constants,
# 0.03 dB.
_SETTLED_S = 5 * FAST_S
# Fast levels that are kept for events, which are reported up to half a minute after their onset.
_HISTORY_S = 60.0


@dataclass(frozen=True)
class Levels:
    """Levels of one interval of a stream, in dB SPL with a calibrated profile, else in dBFS.

    A full-scale sine reads 0 dBFS. What a gap took away, and the first tenth of a second after one,
    in which the filters settle, is not in them: measured_s tells how much is.

    first_sample, n_samples : the interval, in samples of the stream
    measured_s : seconds of sound in it that were measured
    gaps : breaks of the stream in it
    laeq_db, lceq_db : equivalent level, A- and C-weighted
    lafmax_db, lasmax_db : greatest A-weighted level, fast and slow
    l10_db, l50_db, l90_db : A-weighted fast level exceeded for 10, 50, 90 % of the time; None where
        no fast level had settled (within 0.8 s of the beginning or a gap)
    rms_dbfs, peak_dbfs : of the samples as they came, with their constant offset and without the
        profile
    bands_db : unweighted equivalent level by nominal mid-band frequency, of the windows that ended
        in the interval (`bands`); None unless asked for, or where none did
    """

    first_sample: int
    n_samples: int
    measured_s: float
    gaps: int
    laeq_db: float
    lceq_db: float
    lafmax_db: float
    lasmax_db: float
    l10_db: float | None
    l50_db: float | None
    l90_db: float | None
    rms_dbfs: float
    peak_dbfs: float
    bands_db: dict[str, float] | None = None


def level_dbfs(mean_square: float) -> float:
    """Level of a mean square re that of a full-scale sine, 1/2; at least FLOOR_DBFS."""
    if mean_square <= 0.0:
        return FLOOR_DBFS
    return max(FLOOR_DBFS, 10.0 * math.log10(2.0 * mean_square))


def step_samples(rate_hz: int) -> int:
    """Samples of a step: about a millisecond, and a divisor of the rate where there is one.

    With a divisor, intervals of whole seconds are whole steps.
    """
    wanted = rate_hz * _STEP_S
    divisors = [n for n in range(1, 2 * math.ceil(wanted)) if rate_hz % n == 0]
    near = [n for n in divisors if 0.8 * wanted <= n <= 1.25 * wanted]
    return min(near, key=lambda n: abs(n - wanted), default=max(1, round(wanted)))


class _Interval:
    """Sums of one interval."""

    def __init__(self, number: int, gaps: int = 0) -> None:
        self.number = number
        self.gaps = gaps
        self.steps = 0
        self.squares = np.zeros(3)  # A, C, unweighted
        self.fast_max = 0.0
        self.slow_max = 0.0
        self.peak = 0.0
        self.fast: list[Array] = []

    def levels(
        self,
        first_sample: int,
        n_samples: int,
        step: int,
        rate_hz: int,
        offset_db: float,
        bands: dict[str, float] | None,
    ) -> Levels:
        n_measured = self.steps * step
        a, c, unweighted = (float(square) / n_measured for square in self.squares)
        percentiles: list[float | None] = [None, None, None]
        if self.fast:
            # Exceeded for 10 % of the time: the 90th percentile.
            found = np.percentile(np.concatenate(self.fast), [90, 50, 10])
            percentiles = [level_dbfs(float(square)) + offset_db for square in found]
        return Levels(
            first_sample=first_sample,
            n_samples=n_samples,
            measured_s=n_measured / rate_hz,
            gaps=self.gaps,
            laeq_db=level_dbfs(a) + offset_db,
            lceq_db=level_dbfs(c) + offset_db,
            lafmax_db=level_dbfs(self.fast_max) + offset_db,
            lasmax_db=level_dbfs(self.slow_max) + offset_db,
            l10_db=percentiles[0],
            l50_db=percentiles[1],
            l90_db=percentiles[2],
            rms_dbfs=level_dbfs(unweighted),
            # A sine's peak is 3 dB above its level, and full scale is 0 dBFS for both.
            peak_dbfs=level_dbfs(self.peak**2 / 2.0),
            bands_db=None
            if bands is None
            else {name: level_dbfs(square) + offset_db for name, square in bands.items()},
        )


class LevelMeter:
    """Levels of one mono stream, interval after interval.

    Parameters
    ----------
    rate_hz : of the samples, 8,000 to 192,000
    interval_s : length of an interval; they follow one another from the stream's first sample
    profile : of the microphone; by default levels are in dBFS
    bands : whether third-octave bands are measured too

    Attributes
    ----------
    upper_limit_hz : highest frequency that is measured, None from 44.1 kHz on
    gaps : breaks in the stream so far, and frames that held NaN or infinity

    Raises InputError for a rate out of range.
    """

    def __init__(
        self,
        rate_hz: int,
        interval_s: float = 60.0,
        profile: MicrophoneProfile | None = None,
        *,
        bands: bool = False,
    ) -> None:
        check_rate(rate_hz, "levels")
        self.rate_hz = rate_hz
        self.profile = MicrophoneProfile() if profile is None else profile
        self.upper_limit_hz = upper_limit_hz(rate_hz)
        self.gaps = 0
        self._step = step_samples(rate_hz)
        self._interval_samples = max(1, round(interval_s * rate_hz))
        self._filters = _FrameFilters(rate_hz, self.profile, self._step)
        self._bands = BandMeter(rate_hz, self.profile) if bands else None
        step_s = self._step / rate_hz
        self._fast = _TimeWeighting(FAST_S, step_s)
        self._slow = _TimeWeighting(SLOW_S, step_s)
        self._settling_steps = -(-self._filters.n_history // self._step)
        self._settled_steps = self._settling_steps + math.ceil(_SETTLED_S / step_s)
        self._buffer = np.zeros(self._filters.n_history + self._filters.n_frame, np.float32)
        self._filled = 0
        # Position of the frame being filled, and steps behind it since the last gap.
        self._start = 0
        self._steps = 0
        self._expected: int | None = None
        self._origin = 0
        self._interval = _Interval(0)
        n_frames = math.ceil(_HISTORY_S * rate_hz / self._filters.n_frame) + 1
        self._history: deque[tuple[int, Array]] = deque(maxlen=n_frames)

    def push(self, samples: FloatArray, first_sample: int) -> Iterator[Levels]:
        """Add samples; yield the intervals that they complete.

        samples : (n_samples,) float32, full scale ±1.0
        first_sample : count of the first in its stream; a jump is a gap

        An interval that a gap swallowed whole is not yielded: its gap is counted in the next.
        """
        if first_sample != self._expected:
            yield from self._resume(first_sample)
        self._expected = first_sample + len(samples)
        history, frame = self._filters.n_history, self._filters.n_frame
        taken = 0
        while taken < len(samples):
            count = min(frame - self._filled, len(samples) - taken)
            at = history + self._filled
            self._buffer[at : at + count] = samples[taken : taken + count]
            self._filled += count
            taken += count
            if self._filled == frame:
                yield from self._measure(frame // self._step)
                self._buffer[:history] = self._buffer[frame:].copy()
                self._start += frame
                self._filled = 0

    def finish(self) -> Iterator[Levels]:
        """End of the stream: yield what the last interval holds."""
        yield from self._flush()
        if self._expected is not None:
            first = self._origin + self._interval.number * self._interval_samples
            yield from self._close(min(self._expected - first, self._interval_samples))
            self._interval = _Interval(self._interval.number + 1)
        self._expected = None

    def fast_max_db(self, first_sample: int, end_sample: int | None = None) -> float | None:
        """Greatest A-weighted fast level between two samples of the stream, None where unknown.

        It is known for the last minute, up to the last sample pushed.
        """
        greatest = None
        for start, fast in (*self._history, self._unfinished()):
            low = max(0, (first_sample - start) // self._step)
            high = len(fast)
            if end_sample is not None:
                high = min(high, -(-(end_sample - start) // self._step))
            if low < high:
                found = float(fast[low:high].max())
                greatest = found if greatest is None else max(greatest, found)
        return None if greatest is None else level_dbfs(greatest) + self.profile.offset_db

    def _unfinished(self) -> tuple[int, Array]:
        """Position and fast averages of the frame being filled, as far as it is."""
        n_steps = self._filled // self._step
        first = min(n_steps, max(0, self._settling_steps - self._steps))
        if first == n_steps:
            return self._start, np.zeros(0)
        buffer = self._buffer.copy()
        buffer[self._filters.n_history + self._filled :] = 0.0
        squares, _ = self._filters.run(buffer)
        if not _is_finite(squares):
            return self._start, np.zeros(0)
        fast = replace(self._fast).run(squares.fast[first:n_steps])
        return self._start + first * self._step, fast

    def _resume(self, first_sample: int) -> Iterator[Levels]:
        """Begin, or begin again after a gap: no filter may ring across it."""
        if self._expected is None:
            self._origin = first_sample
            self._interval = _Interval(0)
        else:
            yield from self._flush()
            yield from self._enter(first_sample)
            self._count_gap()
        self._forget()
        self._start = first_sample

    def _count_gap(self) -> None:
        self.gaps += 1
        self._interval.gaps += 1

    def _forget(self) -> None:
        """Let filters and averages begin anew."""
        if self._bands is not None:
            self._bands.restart()
        self._buffer[:] = 0.0
        self._filled = self._steps = 0
        self._fast.state = self._slow.state = 0.0

    def _flush(self) -> Iterator[Levels]:
        """Measure the whole steps of a frame that will not be filled."""
        n_steps = self._filled // self._step
        self._buffer[self._filters.n_history + self._filled :] = 0.0
        if n_steps:
            yield from self._measure(n_steps)
        self._filled = 0

    def _measure(self, n_steps: int) -> Iterator[Levels]:
        """Take the first n_steps of the frame in the buffer into account."""
        first = min(n_steps, max(0, self._settling_steps - self._steps))
        if first == n_steps:
            # A stream in shreds costs no filtering on a machine that is too busy as it is.
            self._steps += n_steps
            return
        squares, peaks = self._filters.run(self._buffer)
        if not _is_finite(squares):
            # A driver's NaN would stay in the time weightings for ever.
            yield from self._enter(self._start)
            self._count_gap()
            self._forget()
            return
        fast = self._fast.run(squares.fast[first:n_steps])
        slow = self._slow.run(squares.slow[first:n_steps])
        self._history.append((self._start + first * self._step, fast))
        heard = self._buffer[self._filters.n_history :]
        done = first
        while done < n_steps:
            position = self._start + done * self._step
            yield from self._enter(position)
            # Steps that begin before the interval's end.
            number = self._interval.number
            end = self._origin + (number + 1) * self._interval_samples
            until = min(n_steps, done + -(-(end - position) // self._step))
            if self._bands is not None:
                self._bands.push(heard[done * self._step : until * self._step])
            interval = self._interval
            interval.steps += until - done
            interval.squares += squares.sums[:, done:until].sum(axis=1)
            interval.peak = max(interval.peak, float(peaks[done:until].max()))
            of_steps = slice(done - first, until - first)
            interval.fast_max = max(interval.fast_max, float(fast[of_steps].max()))
            interval.slow_max = max(interval.slow_max, float(slow[of_steps].max()))
            # Every tenth step since the last gap, whatever frame it fell into.
            settled = max(done, self._settled_steps - self._steps)
            settled += -(self._steps + settled) % _PERCENTILE_STEPS
            if settled < until:
                read = fast[settled - first : until - first : _PERCENTILE_STEPS]
                interval.fast.append(read.copy())
            done = until
        self._steps += n_steps

    def _enter(self, position: int) -> Iterator[Levels]:
        """Close the interval if a position lies beyond it."""
        number = (position - self._origin) // self._interval_samples
        if number != self._interval.number:
            yield from self._close(self._interval_samples)
            # The gaps of an interval in which nothing was heard are not forgotten.
            left = 0 if self._interval.steps else self._interval.gaps
            self._interval = _Interval(number, left)

    def _close(self, n_samples: int) -> Iterator[Levels]:
        interval = self._interval
        if interval.steps:
            yield interval.levels(
                self._origin + interval.number * self._interval_samples,
                n_samples,
                self._step,
                self.rate_hz,
                self.profile.offset_db,
                None if self._bands is None else self._bands.take(),
            )


@dataclass(frozen=True)
class _StepSquares:
    """Of each step: sums of squares (A, C, unweighted; n_steps) and input of time weightings."""

    sums: Array
    fast: Array
    slow: Array


def _is_finite(squares: _StepSquares) -> bool:
    return math.isfinite(float(squares.sums.sum()))


class _FrameFilters:
    """A and C weighting of frames by overlap-save, squared and summed by steps.

    n_history : samples before a frame that its filters reach back to
    n_frame : samples of a frame, half a second to a second
    """

    def __init__(self, rate_hz: int, profile: MicrophoneProfile, step: int) -> None:
        correction = profile.correction_db if profile.response else None
        weightings: tuple[Weighting, ...] = ("A", "C")
        taps = [weighting_filter(name, rate_hz, correction) for name in weightings]
        self.n_history = len(taps[0]) - 1
        # Five parts of six are new sound: a larger frame saves little more, and costs memory.
        self._n_fft = 1 << math.ceil(math.log2(6 * len(taps[0])))
        self.n_frame = (self._n_fft - self.n_history) // step * step
        # float32 as the samples: rounding lies 140 dB below the sound, A weighting 50 dB at 20 Hz.
        self._responses = [np.fft.rfft(tap, self._n_fft).astype(np.complex64) for tap in taps]
        self._step = step
        ages = np.arange(step - 1, -1, -1)
        self._weights = np.stack(
            [
                np.ones(step),
                _TimeWeighting.weights(FAST_S, rate_hz, ages),
                _TimeWeighting.weights(SLOW_S, rate_hz, ages),
            ],
            axis=1,
        ).astype(np.float32)

    def run(self, buffer: FloatArray) -> tuple[_StepSquares, FloatArray]:
        """Squares and peaks of a frame's steps.

        buffer : (n_history + n_frame,) float32
        """
        # What is no number is found in the sums, and not warned of block after block.
        with np.errstate(over="ignore", invalid="ignore"):
            spectrum = scipy.fft.rfft(buffer, self._n_fft)
            a, c = (
                self._squares(scipy.fft.irfft(spectrum * h, self._n_fft)) for h in self._responses
            )
            frame = buffer[self.n_history :].reshape(-1, self._step)
            # Always of the same shape: another one may be summed in another order.
            weighted = (a @ self._weights).astype(np.float64)
            unweighted = np.einsum("ij,ij->i", frame, frame, dtype=np.float64)
            sums = np.stack([weighted[:, 0], c.sum(axis=1, dtype=np.float64), unweighted])
            peaks = np.maximum(frame.max(axis=1), -frame.min(axis=1))
            return _StepSquares(sums, weighted[:, 1], weighted[:, 2]), peaks

    def _squares(self, filtered: FloatArray) -> FloatArray:
        heard = filtered[self.n_history : self.n_history + self.n_frame]
        squares: FloatArray = np.square(heard).reshape(-1, self._step)
        return squares


@dataclass
class _TimeWeighting:
    """Exponential average of squares (IEC 61672-1:2013, 5.8), read at the end of each step."""

    time_constant_s: float
    step_s: float
    state: float = 0.0

    @staticmethod
    def weights(time_constant_s: float, rate_hz: int, ages: NDArray[np.int_]) -> Array:
        """What a square that many samples ago counts, so that a constant one is kept."""
        decay = math.exp(-1.0 / (time_constant_s * rate_hz))
        weights: Array = (1.0 - decay) * decay**ages
        return weights

    def run(self, steps: Array) -> Array:
        """Averages at the end of each step; steps : (n_steps,) squares times weights."""
        state, decay = self.state, math.exp(-self.step_s / self.time_constant_s)
        found = []
        for step in steps.tolist():
            state = state * decay + step
            found.append(state)
        self.state = state
        return np.array(found)
