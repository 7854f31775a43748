"""Rooms: the direct sound of the free field, images behind the walls, the decay asked for."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest
from scipy import signal

from soundpost.calibration.propagation import PointSource, free_field
from soundpost.calibration.rooms import Room, impulse_responses, in_room, waypoints
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import MissingExtraError, UsageError

RATE = 12_288
C = 340.0
MICS = np.array([[0.1, 0.2, 0.0], [-0.2, 0.05, 0.0]])
ROOM = Room((6.0, 3.0, 5.0), (3.0, 1.2, 0.5), 0.3)


def band_noise(n_samples, seed=0):
    """Noise from 300 to 5,000 Hz: above the room's high-pass, below the end of the filters."""
    band = signal.firwin(401, [300, 5_000], fs=RATE, pass_zero=False)
    noise = np.random.default_rng(seed).standard_normal(n_samples)
    return np.convolve(noise, band).astype(np.float32)


def direct(room):
    return dataclasses.replace(room, max_order=0)


def difference_db(found, expected):
    return 20 * np.log10(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_the_direct_sound_is_that_of_the_free_field():
    """pyroomacoustics with no reflection against our exact delays: 40 dB below the sound."""
    source = PointSource(band_noise(5_000), Trajectory.at_rest([0.3, 0.2, 2.0]), 0.10004)
    free = free_field([source], MICS, 9_000, RATE, C)
    found = in_room([source], MICS, 9_000, RATE, C, direct(ROOM))
    assert difference_db(found, free) < -40


def test_first_reflections_come_from_where_a_mirror_puts_them():
    """Six images by hand, each weaker by the reflection of a wall, sqrt(1 - absorption)."""
    place = np.array([0.3, 0.2, 2.0])
    sound = band_noise(5_000, seed=1)
    low = -np.array(ROOM.camera_m)
    high = low + np.array(ROOM.size_m)
    images = [place]
    for axis, wall in itertools.product(range(3), (low, high)):
        image = place.copy()
        image[axis] = 2 * wall[axis] - place[axis]
        images.append(image)
    # Sabine: rt60 = 24 ln(10) V / (c S a).
    volume, surface = 6 * 3 * 5, 2 * (6 * 3 + 6 * 5 + 3 * 5)
    absorption = 24 * np.log(10) * volume / (C * surface * ROOM.rt60_s)
    gains = [1.0] + 6 * [np.sqrt(1 - absorption)]
    sources = [
        PointSource((gain * sound).astype(np.float32), Trajectory.at_rest(image), 0.05)
        for gain, image in zip(gains, images, strict=True)
    ]
    expected = free_field(sources, MICS, 8_000, RATE, C)
    source = PointSource(sound, Trajectory.at_rest(place), 0.05)
    found = in_room([source], MICS, 8_000, RATE, C, dataclasses.replace(ROOM, max_order=1))
    assert difference_db(found, expected) < -35


@pytest.mark.parametrize("rt60_s", [0.15, 0.25])
def test_decays_as_long_as_asked(rt60_s):
    """Twice the time from -5 to -35 dB of Schroeder's backward integral (ISO 3382)."""
    room = Room((4.0, 2.6, 3.5), (2.0, 1.2, 0.5), rt60_s)
    place = np.array([0.5, 0.1, 2.0])
    response = impulse_responses(room, place, MICS[:1], RATE, C)[0][0]
    decay = np.cumsum(np.square(response[::-1], dtype=float))[::-1]
    decay_db = 10 * np.log10(np.maximum(decay, 1e-30) / decay[0])
    first, last = (int(np.argmax(decay_db < level)) for level in (-5, -35))
    # Sabine's formula assumes a diffuse field, which a small box is not.
    assert 2 * (last - first) / RATE == pytest.approx(rt60_s, rel=0.4)


def test_what_moves_fades_from_place_to_place():
    path = Trajectory.through([[0.0, -1, 0, 2], [1.0, 1, 0, 2], [2.0, 1, 0.5, 2]])
    source = PointSource(np.ones(RATE, np.float32), path, 0.5)
    found = waypoints(source, RATE, ROOM)
    # From 0.5 s to 1.5 s it goes 1 m and 0.25 m: 1 + 1.25 / 0.25 places.
    assert len(found) == 6
    np.testing.assert_allclose(found[0][0], [0, 0, 2], atol=1e-3)
    np.testing.assert_allclose(found[-1][0], [1, 0.25, 2], atol=1e-3)
    np.testing.assert_allclose(sum(weights for _, weights in found), 1, atol=1e-6)
    few = Room(ROOM.size_m, ROOM.camera_m, ROOM.rt60_s, most_waypoints=3)
    assert len(waypoints(source, RATE, few)) == 3
    rest = PointSource(np.ones(RATE, np.float32), Trajectory.at_rest([0, 0, 2]))
    assert [weights for _, weights in waypoints(rest, RATE, ROOM)] == [None]


def test_what_moves_is_heard_first_from_its_first_place_and_last_from_its_last():
    ends = np.array([[-1.5, 0.0, 2.0], [1.5, 0.3, 3.0]])
    sound = band_noise(6_000, seed=2)
    length_s = (len(sound) - 1) / RATE
    moving = PointSource(sound, Trajectory(np.array([0.0, length_s]), ends))
    room = Room(ROOM.size_m, ROOM.camera_m, ROOM.rt60_s, most_waypoints=2)
    found = in_room([moving], MICS, 7_000, RATE, C, direct(room))
    fade = np.linspace(1, 0, len(sound))
    fixed = [
        PointSource((sound * weight).astype(np.float32), Trajectory.at_rest(place))
        for place, weight in zip(ends, (fade, 1 - fade), strict=True)
    ]
    expected = free_field(fixed, MICS, 7_000, RATE, C)
    assert difference_db(found, expected) < -40


def test_the_same_room_gives_the_same_bytes():
    source = PointSource(band_noise(1_000), Trajectory.at_rest([0.3, 0.2, 2.0]))
    found = [
        in_room([source], MICS, 3_000, RATE, C, dataclasses.replace(ROOM, max_order=3))
        for _ in range(2)
    ]
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((6, 3, 5), (7, 1, 1), 0.3), "camera_m is .* expected a place within size_m"),
        (((6, 3, 5), (3, 1, 1), 0.05), r"rt60_s is 0\.05; expected 0\.1\d \(all sound absorbed\)"),
        (((0, 3, 5), (3, 1, 1), 0.3), "size_m is"),
    ],
)
def test_rooms_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Room(*settings)


def test_what_is_outside_of_the_room_is_refused():
    outside = PointSource(np.ones(10, np.float32), Trajectory.at_rest([0, 0, 4.6]))
    with pytest.raises(UsageError, match=r"a source at \[0\.0, 0\.0, 4\.6\] is outside"):
        in_room([outside], MICS, 100, RATE, C, ROOM)
    inside = PointSource(np.ones(10, np.float32), Trajectory.at_rest([0, 0, 2]))
    with pytest.raises(UsageError, match="a microphone at"):
        in_room([inside], MICS - [0, 0, 1], 100, RATE, C, ROOM)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    source = PointSource(np.ones(10, np.float32), Trajectory.at_rest([0, 0, 2]))
    with pytest.raises(MissingExtraError, match=r"install soundpost\[train\]"):
        in_room([source], MICS, 100, RATE, C, ROOM)
