"""Whether recordings of a source at known places say enough of an array to calibrate it by them.

What is poor is refused, with what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from soundpost.calibration.array_response import Fit, Take, Transfer
from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError

LEAST_SNR_DB = 15.0
_LEAST_SECONDS = 1.0
_LEAST_BANDS = 12
_LEAST_OCTAVES = 2.0
_BAND_SNR = 10.0
# Reflections that leave half of the sound unexplained shift gains by far more than they should be
# known to.
_MOST_MISFIT = 0.5
_MOST_TURN_DEG = 5.0
# A channel so far below the others carries no microphone that works.
DEAD_LEVEL = 10 ** (-40 / 20)
SILENT_RMS = 1e-7


def check_takes(takes: Sequence[Take], n_mics: int) -> None:
    """Raise InputError for recordings that are too short, or of another number of channels."""
    if not takes:
        raise InputError("no recording; expected one or more of a source at a known place")
    for number, take in enumerate(takes, 1):
        n_samples, n_columns = take.samples.shape
        if n_columns != n_mics:
            raise InputError(
                f"recording {number}: {n_columns} channels for {n_mics} microphones; expected one "
                "for each"
            )
        seconds = n_samples / take.rate_hz
        if seconds < _LEAST_SECONDS:
            raise InputError(
                f"recording {number}: {seconds:.2f} s; expected at least {_LEAST_SECONDS:g} s, "
                "better 5"
            )
        if not np.isfinite(take.samples).all():
            raise InputError(f"recording {number}: has samples that are not numbers; repair it")


def audible_columns(levels: Floats) -> NDArray[np.intp]:
    """Columns that are not plainly dead."""
    if np.median(levels) < SILENT_RMS:
        raise InputError(
            f"{int((levels < SILENT_RMS).sum())} of {len(levels)} channels are silent to the last "
            "bit; check that the array is on and that its channels are recorded"
        )
    columns = np.flatnonzero(levels > np.median(levels) * DEAD_LEVEL)
    if len(columns) < 3:
        raise InputError(
            f"{len(columns)} of {len(levels)} channels hear anything; expected at least 3"
        )
    return columns


def check_sound(
    transfers: Sequence[Transfer], fits: Sequence[Fit], leading: NDArray[np.bool_]
) -> float:
    """SNR of the poorest recording in dB; InputError where it is poor, narrow or echoes."""
    found_db = []
    for number, (transfer, fit) in enumerate(zip(transfers, fits, strict=True), 1):
        where = f"recording {number}"
        snr_db = float(np.median(10 * np.log10(snr_of([transfer])[leading])))
        if snr_db < LEAST_SNR_DB:
            raise InputError(
                f"{where}: SNR {snr_db:.0f} dB, expected {LEAST_SNR_DB:g}: move the source closer, "
                "make it louder, or wait until it is quiet; what echoes counts as noise"
            )
        found_db.append(snr_db)
        bands = np.median(transfer.snr()[:, leading], axis=1) > _BAND_SNR
        used_hz = transfer.frequencies_hz[bands]
        octaves = float(np.log2(used_hz[-1] / used_hz[0])) if len(used_hz) else 0.0
        if len(used_hz) < _LEAST_BANDS or octaves < _LEAST_OCTAVES:
            raise InputError(
                f"{where}: the source is heard over {octaves:.1f} octaves in {len(used_hz)} bands "
                f"of {len(bands)}; expected {_LEAST_OCTAVES:g} octaves and {_LEAST_BANDS} bands: "
                "play noise or a sweep from 200 Hz to 6 kHz"
            )
        misfit = float(np.median(fit.misfit[leading]))
        if misfit > _MOST_MISFIT:
            raise InputError(
                f"{where}: one source at one place leaves {misfit:.0%} of the sound unexplained, "
                f"expected {_MOST_MISFIT:.0%} at most: reflections, or a second source; record in "
                "the open, or move the source closer and away from walls"
            )
    return min(found_db)


def check_places(
    takes: Sequence[Take],
    positions_m: Floats,
    late_s: Floats,
    leading: NDArray[np.bool_],
    sound_m_s: float,
) -> float:
    """Largest angle in degrees between where a source is said to be and where it is heard.

    late_s : (n_takes, n_columns) later than from the place that is said

    Raises InputError where it is too large.
    """
    centre = positions_m.mean(axis=0)
    largest = 0.0
    for number, (take, late) in enumerate(zip(takes, late_s, strict=True), 1):
        away = take.place_m - positions_m[leading]
        slopes = away / np.linalg.norm(away, axis=1, keepdims=True) / sound_m_s
        slopes = slopes - slopes.mean(axis=0)
        heard = late[leading] - np.median(late[leading])

        def left(move: Floats, slopes: Floats = slopes, heard: Floats = heard) -> Floats:
            # Distance is hardly heard: half a metre is held as if it had been measured.
            return np.concatenate([(heard - slopes @ move[:3] - move[3]) / 1e-5, move[:3] / 0.5])

        found = least_squares(left, np.zeros(4), loss="cauchy", x_scale=(0.1, 0.1, 0.1, 1e-5))
        toward, said = take.place_m + found.x[:3] - centre, take.place_m - centre
        cosine = toward @ said / np.linalg.norm(toward) / np.linalg.norm(said)
        turn_deg = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        scatter_s = 1.48 * float(np.median(np.abs(heard - slopes @ found.x[:3] - found.x[3])))
        reach_m = float(np.sqrt(np.square(positions_m - centre).sum(axis=1).mean() / 2))
        doubt_deg = np.degrees(scatter_s * sound_m_s / reach_m / np.sqrt(len(heard)))
        if turn_deg > max(_MOST_TURN_DEG, 4 * doubt_deg):
            raise InputError(
                f"recording {number}: the source is heard {turn_deg:.0f} degrees away from "
                f"({', '.join(f'{value:g}' for value in take.place_m)}) m; check its place (x "
                "right, y up, z towards the scene) and the order of the array's channels"
            )
        largest = max(largest, turn_deg)
    return largest


def snr_of(transfers: Sequence[Transfer]) -> Floats:
    """Of each column over all bands and recordings, (n_columns,)."""
    sound = np.sum([np.square(np.abs(of.values)).sum(axis=0) for of in transfers], axis=0)
    ratio: Floats = sound / np.sum([of.noise.sum(axis=0) for of in transfers], axis=0)
    return ratio
