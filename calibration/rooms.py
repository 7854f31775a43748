"""Sound in a room that is a box: the image source method (Allen and Berkley 1979).

pyroomacoustics makes the responses: Scheibler et al., "Pyroomacoustics: a Python package for audio
room simulation and array processing algorithms" (2018). Its high-pass at 10 Hz takes out what the
method itself piles up at 0 Hz. All walls absorb alike at all frequencies, and air takes nothing
away, as in the free field (propagation.py).

What moves is heard from a few places on its way, fading linearly from each to the next: the echoes
change with it, the pitch does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from soundpost.calibration.propagation import TAIL, PointSource, check_source
from soundpost.calibration.trajectory import Floats, Trajectory
from soundpost.device.audio import FloatArray
from soundpost.device.errors import MissingExtraError, UsageError

# Two million images, whose responses take minutes.
_MAX_ORDER = 100
_MICS_AT_ONCE = 16


@dataclass(frozen=True)
class Room:
    """A box whose walls are square to the axes of the world.

    size_m : width (x), height (y), depth (z)
    camera_m : the camera, the world's origin, from the corner with the smallest x, y and z
    rt60_s : time in which the sound falls by 60 dB, by Sabine's formula
    waypoint_m : what moves is heard from places at most this far apart,
    most_waypoints : but from no more than this many
    max_order : reflections along one path that are followed at most; fewer where the reverberation
        time needs fewer, and 0 is the direct sound alone. Their number grows with the third power,
        and so does the time that it takes
    """

    size_m: tuple[float, float, float]
    camera_m: tuple[float, float, float]
    rt60_s: float
    waypoint_m: float = 0.25
    most_waypoints: int = 8
    max_order: int = 40

    def __post_init__(self) -> None:
        if min(self.size_m) <= 0:
            raise UsageError(f"room: size_m is {list(self.size_m)}; expected lengths above 0")
        if not all(0 < at < size for at, size in zip(self.camera_m, self.size_m, strict=True)):
            raise UsageError(
                f"room: camera_m is {list(self.camera_m)}; expected a place within size_m "
                f"({list(self.size_m)})"
            )
        width, height, depth = self.size_m
        # Sabine with walls that absorb everything, for the slowest sound considered here.
        surface = 2 * (width * height + width * depth + height * depth)
        shortest_s = 24 * math.log(10) * width * height * depth / (300 * surface)
        if not shortest_s < self.rt60_s <= 5:
            raise UsageError(
                f"room: rt60_s is {self.rt60_s:g}; expected {shortest_s:.2f} (all sound absorbed) "
                "to 5 for this size"
            )
        if self.waypoint_m <= 0 or self.most_waypoints < 1:
            raise UsageError(
                f"room: waypoint_m is {self.waypoint_m:g}, most_waypoints {self.most_waypoints}; "
                "expected above 0 and at least 1"
            )
        if not 0 <= self.max_order <= _MAX_ORDER:
            raise UsageError(f"room: max_order is {self.max_order}; expected 0 to {_MAX_ORDER}")


def in_room(
    sources: Sequence[PointSource],
    positions_m: Floats,
    n_samples: int,
    rate_hz: int,
    sound_m_s: float,
    room: Room,
    *,
    progress: Callable[[], object] | None = None,
) -> FloatArray:
    """What microphones hear of sources in a room.

    Parameters
    ----------
    positions_m : (n_mics, 3), world coordinates
    n_samples : length of the recording; what arrives later is cut
    progress : called after each place that a source is heard from (see `waypoints`)

    Returns
    -------
    (n_samples, n_mics) float32

    Raises UsageError for what lies outside of the room, MissingExtraError without pyroomacoustics.
    """
    out = np.zeros((len(positions_m), n_samples), np.float32)
    for source in sources:
        check_source(source, positions_m, sound_m_s)
        for place_m, weights in waypoints(source, rate_hz, room):
            responses, early = impulse_responses(room, place_m, positions_m, rate_hz, sound_m_s)
            part = source.samples if weights is None else source.samples * weights
            _add_convolved(out, part, responses, source.start_s * rate_hz - early)
            if progress is not None:
                progress()
    return np.ascontiguousarray(out.T)


def waypoints(
    source: PointSource, rate_hz: int, room: Room
) -> list[tuple[Floats, FloatArray | None]]:
    """Places that a source is heard from, with the weight of each of its samples there.

    The weights of one sample are 1 together; None is 1 throughout.
    """
    n = len(source.samples)
    start_s, end_s = source.start_s, source.start_s + max(n - 1, 1) / rate_hz
    length_m = _length_m(source.place, start_s, end_s)
    count = min(1 + math.ceil(length_m / room.waypoint_m), room.most_waypoints)
    if length_m == 0 or count == 1:
        return [(source.place.at((start_s + end_s) / 2), None)]
    knots_s = np.linspace(start_s, end_s, count)
    times_s = start_s + np.arange(n) / rate_hz
    return [
        (place_m, np.interp(times_s, knots_s, np.eye(count)[index]).astype(np.float32))
        for index, place_m in enumerate(source.place.at(knots_s))
    ]


def _length_m(place: Trajectory, start_s: float, end_s: float) -> float:
    inner = place.times_s[(place.times_s > start_s) & (place.times_s < end_s)]
    corners = place.at(np.concatenate([[start_s], inner, [end_s]]))
    return float(np.linalg.norm(np.diff(corners, axis=0), axis=1).sum())


def impulse_responses(
    room: Room,
    place_m: Floats,
    positions_m: Floats,
    rate_hz: int,
    sound_m_s: float,
) -> tuple[FloatArray, int]:
    """Responses from one place to the microphones; 1 at 1 m for the direct sound.

    Returns
    -------
    responses : (n_mics, n_samples) float32
    early : samples by which they come too late (half of the filter that delays by fractions)
    """
    library = _library()
    box = _box(library, room, rate_hz, sound_m_s)
    origin = np.array(room.camera_m)
    for name, places in (("a source", place_m[None]), ("a microphone", positions_m)):
        outside = ((places + origin <= 0) | (places + origin >= room.size_m)).any(axis=1)
        if outside.any():
            found = [round(float(value), 3) for value in places[int(np.argmax(outside))]]
            low = [round(-value, 3) for value in room.camera_m]
            high = [
                round(size - at, 3) for size, at in zip(room.size_m, room.camera_m, strict=True)
            ]
            raise UsageError(
                f"room: {name} at {found} is outside; expected within {low} and {high} (x, y, z "
                "from the camera)"
            )
    box.add_source(place_m + origin)
    box.add_microphone((positions_m + origin).T)
    box.compute_rir()
    made = [of_mic[0] for of_mic in box.rir]
    responses: FloatArray = np.zeros((len(made), max(map(len, made))), np.float32)
    for row, response in zip(responses, made, strict=True):
        row[: len(response)] = response
    return responses, library.constants.get("frac_delay_length") // 2


def _library() -> Any:
    # Half a second to import, and only wanted with reverberation.
    try:
        import pyroomacoustics
    except ImportError as error:
        raise MissingExtraError(
            "room: needs pyroomacoustics; install soundpost[train], or leave [room] out"
        ) from error
    return pyroomacoustics


def _box(library: Any, room: Room, rate_hz: int, sound_m_s: float) -> Any:
    absorption, order = library.inverse_sabine(room.rt60_s, np.array(room.size_m), c=sound_m_s)
    box = library.ShoeBox(
        np.array(room.size_m),
        fs=rate_hz,
        materials=library.Material(float(absorption)),
        max_order=min(int(order), room.max_order),
    )
    box.set_sound_speed(sound_m_s)
    return box


def _add_convolved(
    out: FloatArray, samples: FloatArray, responses: FloatArray, delay: float
) -> None:
    """Add a signal through each channel's response, all delayed by the same samples."""
    first = math.floor(delay) - TAIL
    size = fft.next_fast_len(len(samples) + responses.shape[1] + 2 * TAIL, real=True)
    begin, end = max(first, 0), min(first + size, out.shape[1])
    if begin >= end or not len(samples):
        return
    spectrum = fft.rfft(samples.astype(np.float64), size)
    spectrum *= np.exp(-2j * np.pi * (delay - first) / size * np.arange(len(spectrum)))
    for mic in range(0, len(responses), _MICS_AT_ONCE):
        some = slice(mic, mic + _MICS_AT_ONCE)
        heard = fft.irfft(fft.rfft(responses[some].astype(np.float64), size) * spectrum, size)
        out[some, begin:end] += heard[:, begin - first : end - first]
