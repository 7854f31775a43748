"""Scenes: levels as asked for, spans as worked out by hand, the same bytes again."""

import dataclasses

import numpy as np
import pytest

from soundpost.calibration.microphones import Microphones, MicrophoneSettings
from soundpost.calibration.propagation import PointSource, free_field
from soundpost.calibration.rooms import Room
from soundpost.calibration.scene import Noise, Scene, n_steps, render
from soundpost.calibration.signals import tone
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError

RATE = 12_288
MICS = np.random.default_rng(0).uniform(-0.2, 0.2, (8, 3)) * [1, 1, 0]
DOG = PointSource(0.5 * tone(700, 0.5, RATE), Trajectory.at_rest([0.5, 0, 2]), 0.25, "dog")
CAR = PointSource(
    0.2 * tone(300, 0.4, RATE), Trajectory.through([[0, -2, 0, 3], [2, 2, 0, 3]]), 1.2, "car"
)
QUIET = Scene((DOG, CAR), 2 * RATE, RATE)


def rms(of):
    return np.sqrt(np.mean(np.square(of, dtype=float)))


def test_without_noise_it_is_the_free_field_at_the_temperatures_speed():
    warm = dataclasses.replace(QUIET, temperature_c=35.0, gain_db=6.0)
    expected = free_field(QUIET.sources, MICS, 2 * RATE, RATE, 343.2 * np.sqrt(308.15 / 293.15))
    np.testing.assert_allclose(
        render(warm, MICS).samples, expected * 10 ** (6 / 20), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["diffuse", "wind", "self"])
def test_noise_is_so_far_below_the_sources_while_they_sound(kind):
    quiet = render(QUIET, MICS)
    noisy = render(dataclasses.replace(QUIET, noises=(Noise(kind, snr_db=12.0),)), MICS)
    noise = noisy.samples - quiet.samples
    sounding = np.zeros(2 * RATE, bool)
    for onset_s, offset_s in quiet.spans_s:
        sounding[round(onset_s * RATE) : round(offset_s * RATE) + 1] = True
    found = 20 * np.log10(rms(quiet.samples[sounding]) / rms(noise))
    assert found == pytest.approx(12.0, abs=0.02)
    assert noisy.noise_rms[0] == pytest.approx(rms(noise), rel=1e-3)


def test_noise_of_a_level_needs_no_source():
    silent = Scene((), RATE, RATE, noises=(Noise("self", level_dbfs=-40.0),))
    assert 20 * np.log10(rms(render(silent, MICS).samples)) == pytest.approx(-40, abs=0.1)
    relative = dataclasses.replace(silent, noises=(Noise("self", snr_db=10.0),))
    with pytest.raises(UsageError, match=r"no source sounds .* give level_dbfs instead"):
        render(relative, MICS)
    with pytest.raises(UsageError, match="one of snr_db and level_dbfs"):
        Noise("self")


def test_spans_are_when_direct_sound_first_and_last_arrives():
    (dog, car) = render(QUIET, MICS).spans_s
    distances = np.linalg.norm(MICS - [0.5, 0, 2], axis=1)
    last = 0.25 + (len(DOG.samples) - 1) / RATE
    assert dog == pytest.approx((0.25 + distances.min() / 343.2, last + distances.max() / 343.2))
    # At 1.2 s the car is at x = 0.4.
    assert car[0] == pytest.approx(1.2 + np.linalg.norm(MICS - [0.4, 0, 3], axis=1).min() / 343.2)


def test_microphones_record_what_the_scene_gives():
    dead = Microphones.draw(8, MicrophoneSettings(dead=2), seed=1)
    noisy = dataclasses.replace(QUIET, noises=(Noise("self", snr_db=20.0),), microphones=dead)
    samples = render(noisy, MICS).samples
    np.testing.assert_array_equal(~samples.any(axis=0), dead.dead)


def test_the_same_seed_gives_the_same_bytes_and_another_another_noise():
    noises = (Noise("diffuse", snr_db=10.0), Noise("wind", level_dbfs=-40.0))
    settings = MicrophoneSettings(noisy=1, gain_db=1.0)
    scene = dataclasses.replace(
        QUIET, noises=noises, microphones=Microphones.draw(8, settings, 0), seed=5
    )
    first, again = render(scene, MICS).samples, render(scene, MICS).samples
    other = render(dataclasses.replace(scene, seed=6), MICS).samples
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other, atol=1e-4)


@pytest.mark.parametrize("room", [None, Room((6.0, 3.0, 6.0), (3.0, 1.2, 1.0), 0.15)])
def test_progress_is_told_as_often_as_was_said(room):
    short = dataclasses.replace(
        QUIET, n_samples=RATE // 4, room=room, noises=(Noise("self", level_dbfs=-50.0),)
    )
    told = []
    render(short, MICS[:1], progress=lambda: told.append(1))
    # Two sources; in the room the car's 0.8 m in 0.4 s are 1 + 4 places.
    assert len(told) == n_steps(short) == (3 if room is None else 1 + 5 + 1)
