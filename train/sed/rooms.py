"""Rooms for soundscapes: impulse responses by the image source method (Allen and Berkley 1979).

pyroomacoustics makes them: Scheibler et al., "Pyroomacoustics: a Python package for audio room
simulation and array processing algorithms" (2018). What it makes depends on the geometry alone, not
on its number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from soundpost.device.features import FloatArray

# Smallest and largest width, depth and height of a room in metres: from a bathroom to a hall of a
# flat.
_SMALLEST_M = (2.5, 2.5, 2.3)
_LARGEST_M = (7.0, 6.0, 3.2)
# From a wall, so that no image falls onto its source.
_CLEARANCE_M = 0.4
_NEAREST_M = 0.5
# Reflections that are followed, along one path. Later ones are 60 dB down for the reverberation
# times offered here, and their number grows with the third power.
_MAX_ORDER = 40
# Middle of the windowed sinc by which pyroomacoustics delays a path by part of a sample.
_FRACTIONAL_DELAY = 40
SPEED_OF_SOUND = 343.0


@dataclass(frozen=True)
class RoomSettings:
    """Reverberation.

    share : of the recordings that were made in a room; the others are as dry as their clips
    rooms : different rooms that a split draws from, each with its own place of the microphone
    rt60_s : range of the time in which the sound falls by 60 dB (Sabine's formula)
    """

    share: float = 0.5
    rooms: int = 12
    rt60_s: tuple[float, float] = (0.15, 0.5)


@lru_cache(maxsize=512)
def impulse_response(
    settings: RoomSettings, key: tuple[int, ...], room: int, place: int, rate_hz: int
) -> FloatArray:
    """Response from one place in a room to its microphone, from the direct sound on.

    Parameters
    ----------
    key, room, place : decide the room and the source's place in it; equal numbers, equal response

    Returns
    -------
    (n_samples,) float32, the direct sound centred on sample 0
    """
    # Half a second to import, and only wanted with reverberation.
    import pyroomacoustics

    rng = np.random.default_rng([*key, room])
    size = rng.uniform(_SMALLEST_M, _LARGEST_M)
    rt60_s = rng.uniform(*settings.rt60_s)
    microphone = _place(size, rng)
    at = np.random.default_rng([*key, room, 1 + place])
    source = _place(size, at)
    while np.linalg.norm(source - microphone) < _NEAREST_M:
        source = _place(size, at)
    absorption, order = _walls(pyroomacoustics, rt60_s, size)
    box = pyroomacoustics.ShoeBox(
        size,
        fs=rate_hz,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(order, _MAX_ORDER),
        air_absorption=True,
    )
    box.add_source(source)
    box.add_microphone(microphone)
    box.compute_rir()
    distance_m = float(np.linalg.norm(source - microphone))
    direct = round(distance_m / SPEED_OF_SOUND * rate_hz) + _FRACTIONAL_DELAY
    response: FloatArray = np.asarray(box.rir[0][0][direct:], np.float32)
    return response


def _place(size: Any, rng: np.random.Generator) -> Any:
    return rng.uniform(_CLEARANCE_M, size - _CLEARANCE_M)


def _walls(library: Any, rt60_s: float, size: Any) -> tuple[float, int]:
    """Absorption of the walls and reflections that the reverberation time takes.

    A large room with a short time would need walls that absorb more than all sound: it gets the
    shortest time that Sabine's formula allows.
    """
    volume = float(np.prod(size))
    surface = 2.0 * float(size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    shortest_s = 24 * np.log(10) * volume / (SPEED_OF_SOUND * surface)
    absorption, order = library.inverse_sabine(max(rt60_s, 1.01 * shortest_s), size)
    return float(absorption), int(order)
