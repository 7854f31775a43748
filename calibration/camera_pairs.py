"""Where a target that buzzes and shines was seen and heard, each time it was held still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.calibration.camera_map import find_peak, find_spot
from soundpost.device.array.acoustic_image import AcousticImager, cut_snapshots
from soundpost.device.array.geometry import Floats
from soundpost.device.audio import FloatArray

# Held still: within so many pixels for so long. The first and last moments are left out.
_STILL_PX = 6.0
_STILL_S = 0.6
_EDGE_S = 0.1
_MISSED_S = 0.2
# Of the peak over the middle of the image; what echoes or hums is less of a peak.
_LEAST_CONTRAST_DB = 6.0
_MEDIAN_OF = 60


@dataclass(frozen=True, eq=False)
class Stay:
    """The target held still.

    first_s, last_s : in the video's time
    pixel : (2,) column and row of the light, mean
    """

    first_s: float
    last_s: float
    pixel: Floats


@dataclass(frozen=True, eq=False)
class Pairs:
    """Places at which the target was both seen and heard.

    directions : (n_pairs, 3); pixels : (n_pairs, 2); times_s : (n_pairs,) in the video
    contrast_db : (n_pairs,) of the acoustic peaks
    unheard : stays whose acoustic image had no clear peak, or no sound at all
    """

    directions: Floats
    pixels: Floats
    times_s: Floats
    contrast_db: Floats
    unheard: int


def usual_picture(frames: Sequence[NDArray[np.uint8]]) -> Floats:
    """The picture without the moving light, (height, width): the median of some frames."""
    some = frames[:: max(len(frames) // _MEDIAN_OF, 1)]
    usual: Floats = np.median(np.stack(some), axis=0)
    return usual


def find_stays(times_s: Sequence[float], spots: Sequence[tuple[float, float] | None]) -> list[Stay]:
    """When the target was held still.

    times_s, spots : of each frame, see `find_spot`
    """
    stays: list[Stay] = []
    held: list[tuple[float, tuple[float, float]]] = []
    for time_s, spot in [*zip(times_s, spots, strict=True), (np.inf, None)]:
        middle = np.median([of for _, of in held], axis=0) if held else None
        late = bool(held) and time_s - held[-1][0] > _MISSED_S
        away = (
            middle is not None
            and spot is not None
            and np.hypot(*(np.array(spot) - middle)) > _STILL_PX
        )
        if late or away:
            if held[-1][0] - held[0][0] >= _STILL_S:
                stays.append(Stay(held[0][0], held[-1][0], np.array(middle)))
            held = []
        if spot is not None:
            held.append((time_s, spot))
    return stays


def pair_up(
    stays: Sequence[Stay],
    samples: FloatArray,
    rate_hz: int,
    audio_late_s: float,
    imager: AcousticImager,
) -> Pairs:
    """The direction in which each stay is heard.

    samples : (n_samples, n_mics), a column for each microphone, at the imager's rate
    audio_late_s : of the audio's clock behind the video's
    """
    found: list[tuple[Floats, Floats, float, float]] = []
    unheard = 0
    length = imager.settings.snapshot_length
    for stay in stays:
        first = round((stay.first_s + _EDGE_S + audio_late_s) * rate_hz)
        last = round((stay.last_s - _EDGE_S + audio_late_s) * rate_hz)
        cut = samples[max(first, 0) : max(last, 0)]
        snapshots = cut_snapshots(cut, length)
        if len(snapshots) < 2:
            unheard += 1
            continue
        energy = imager.energy(snapshots).mean(axis=0).astype(np.float64)
        if not energy.max() > 0:
            unheard += 1
            continue
        direction, contrast_db = find_peak(energy, imager.grid)
        if contrast_db < _LEAST_CONTRAST_DB:
            unheard += 1
            continue
        found.append((direction, stay.pixel, (stay.first_s + stay.last_s) / 2, contrast_db))
    directions, pixels, times_s, contrasts = zip(*found, strict=True) if found else ((),) * 4
    return Pairs(
        np.array(directions).reshape(-1, 3),
        np.array(pixels).reshape(-1, 2),
        np.array(times_s, np.float64),
        np.array(contrasts, np.float64),
        unheard,
    )


def spots_of(frames: Sequence[NDArray[np.uint8]]) -> list[tuple[float, float] | None]:
    """The light in each frame, or None."""
    usual = usual_picture(frames)
    return [find_spot(frame, usual) for frame in frames]
