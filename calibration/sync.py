"""How much later sound stands in a recording than the picture of the same moment.

A flash with a click (a flash gun, a clapper, a phone that does both) is bright in one or two frames
and loud at once. A flash is dated by the time stamps of the frames that show it, whatever moment of
their exposure these are, so that sound and picture meet that belong together. Within its frame it
may have come at any time; several at times that have nothing to do with the frames average this
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.geometry import Floats
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError

LEAST_EVENTS = 3
_MOST_LATE_S = 2.0
# Over what there is between events, in units of its spread.
_BRIGHT = 8.0
_LOUD = 10 ** (15 / 10)
_STEP_S = 0.001
_APART_S = 0.25


@dataclass(frozen=True, eq=False)
class Sync:
    """What flashes and clicks say.

    audio_late_s : click in the audio minus flash in the video, mean of the pairs
    uncertainty_s : standard uncertainty of that: of the mean, and at least what frames allow
    flashes_s, clicks_s : (n_pairs,) times of the pairs
    spread_s : standard deviation of their differences
    """

    audio_late_s: float
    uncertainty_s: float
    flashes_s: Floats
    clicks_s: Floats
    spread_s: float

    @property
    def differences_s(self) -> Floats:
        """Of each pair, (n_pairs,)."""
        difference: Floats = self.clicks_s - self.flashes_s
        return difference


def find_flashes(brightness: Floats, times_s: Floats) -> Floats:
    """Times of flashes, (n,): stamps of the frames, weighted by the light beyond the usual.

    brightness : (n_frames,) largest brightness of small parts of a frame: see `frame_brightness`
    times_s : (n_frames,) time stamps, rising
    """
    if len(brightness) < 3:
        return np.zeros(0)
    usual = np.median(brightness)
    spread = max(1.48 * float(np.median(np.abs(brightness - usual))), 0.5)
    excess = brightness - usual
    bright = excess > max(_BRIGHT * spread, 0.25 * float(excess.max()))
    found = []
    for first, last in _runs(bright, times_s):
        weights = np.maximum(excess[first:last], 0)
        found.append(float((weights * times_s[first:last]).sum() / weights.sum()))
    return np.array(found)


def find_clicks(samples: FloatArray, rate_hz: int) -> Floats:
    """Times of clicks, (n,): where the power of (n_samples,) first rises to half of their peak."""
    step = max(round(_STEP_S * rate_hz), 1)
    n_steps = len(samples) // step
    if n_steps < 3:
        return np.zeros(0)
    squares = np.square(samples[: n_steps * step], dtype=np.float64)
    power = squares.reshape(n_steps, step).mean(axis=1)
    usual = max(float(np.median(power)), 1e-20)
    loud = power > max(_LOUD * usual, 0.05 * float(power.max()))
    found = []
    for first, last in _runs(loud, np.arange(n_steps) * step / rate_hz):
        start = max(first - 1, 0) * step
        part = squares[start : last * step]
        rise = int(np.argmax(part >= 0.25 * part.max()))
        found.append((start + rise) / rate_hz)
    return np.array(found)


def measure_sync(
    flashes_s: Floats, clicks_s: Floats, frame_s: float, *, distance_m: float, sound_m_s: float
) -> Sync:
    """Pair flashes with clicks.

    flashes_s, clicks_s : in the video's time and in the audio's
    frame_s : from frame to frame
    distance_m : from what flashes and clicks to the microphones; sound takes time, which is no
        error of the clocks

    Raises InputError with fewer than three pairs, or where they do not agree.
    """
    for name, times in (("flashes in the video", flashes_s), ("clicks in the audio", clicks_s)):
        if len(times) < LEAST_EVENTS:
            raise InputError(
                f"{len(times)} {name}; expected at least {LEAST_EVENTS}, a second or more apart "
                "and not evenly: dim the room, and come closer"
            )
    travel_s = distance_m / sound_m_s
    pairs = _pairs(flashes_s, clicks_s - travel_s, frame_s)
    if len(pairs) < LEAST_EVENTS:
        raise InputError(
            f"{len(pairs)} flashes have a click within {_MOST_LATE_S:g} s at the same lag; "
            f"expected at least {LEAST_EVENTS}: make them a second or more apart, not evenly, and "
            "let nothing else flash or click"
        )
    flashes, clicks = flashes_s[pairs[:, 0]], clicks_s[pairs[:, 1]] - travel_s
    differences = clicks - flashes
    spread_s = float(differences.std(ddof=1))
    # A flash anywhere within a frame is taken for its middle: uniform over the frame.
    least = max(spread_s, frame_s / np.sqrt(12))
    return Sync(
        float(differences.mean()),
        float(least / np.sqrt(len(pairs))),
        flashes,
        clicks,
        spread_s,
    )


def frame_brightness(frame: NDArray[np.uint8]) -> float:
    """Mean brightness of the brightest of 16 x 16 parts of a frame, (height, width) of 0 to 255."""
    height, width = frame.shape
    rows = np.linspace(0, height, min(16, height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(16, width) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(frame.astype(np.float64), rows, 0), columns, 1)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return float((sums / counts).max())


def _runs(marked: NDArray[np.bool_], times_s: Floats) -> list[tuple[int, int]]:
    """First and past-the-last index of runs, joined where they are close in time."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if runs and times_s[first] - times_s[runs[-1][1] - 1] < _APART_S:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    return runs


def _pairs(flashes_s: Floats, clicks_s: Floats, frame_s: float) -> NDArray[np.intp]:
    """Indices (n_pairs, 2) of flashes and clicks at the lag at which most of them meet."""
    lags = clicks_s - flashes_s[:, None]
    width = max(frame_s, 0.01)
    candidates = lags[np.abs(lags) <= _MOST_LATE_S]
    if not len(candidates):
        return np.zeros((0, 2), int)
    meeting = [(np.abs(lags - of) <= width).any(axis=1).sum() for of in candidates]
    best = max(meeting)
    # Of equally good lags the smallest: clocks are rarely seconds apart.
    chosen = min((of for of, n in zip(candidates, meeting, strict=True) if n == best), key=abs)
    near = np.median(lags[np.abs(lags - chosen) <= width])
    found = []
    for flash, row in enumerate(lags):
        click = int(np.abs(row - near).argmin())
        if abs(row[click] - near) <= width:
            found.append((flash, click))
    return np.array(found, int).reshape(-1, 2)
