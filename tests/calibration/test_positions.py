"""Positions from chirps at unknown places, against the truth and against closed forms."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from soundpost.calibration.event_times import EventTimes, find_events, measure_times
from soundpost.calibration.microphones import Microphones, MicrophoneSettings
from soundpost.calibration.position_problem import PositionProblem
from soundpost.calibration.positions import find_positions, rigid_motion
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.signals import at_level, chirp
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.errors import InputError

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[3] / "shared" / "data")
RATE_HZ = 16_000
SOUND_M_S = 343.2


def around(n, rng):
    """Places all around in the half space before the array."""
    z = (np.arange(n) + 0.5) / n * 0.75 + 0.2
    angle = np.arange(n) * 2.4 + rng.uniform(0, 1)
    side = np.sqrt(1 - z**2)
    directions = np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=1)
    return directions * rng.uniform(0.6, 1.8, (n, 1))


def exact_times(positions_m, sources_m, delays_s=0.0, noise_s=0.0, seed=0):
    travel = np.linalg.norm(positions_m - sources_m[:, None], axis=2) / SOUND_M_S
    rng = np.random.default_rng(seed)
    times = travel + delays_s + rng.uniform(0, 9, (len(sources_m), 1))
    times = times + noise_s * rng.standard_normal(times.shape)
    return EventTimes(times, np.full(times.shape, noise_s), np.zeros((len(sources_m), 2)))


def off_by_m(found_m, truth_m):
    """What no motion of the whole array explains, root mean square distance."""
    laid, _ = rigid_motion(found_m, truth_m)
    return np.sqrt(np.mean(np.square(laid - truth_m).sum(axis=1)))


def test_twelve_chirps_bring_5_mm_to_less_than_1_mm():
    """The bound of the project, with noise at 20 dB and own delays of the microphones."""
    rng = np.random.default_rng(3)
    drawn_m = vogel_spiral(20).positions_m
    true_m = drawn_m + rng.normal(0, 5e-3, drawn_m.shape)
    microphones = Microphones.draw(
        20, MicrophoneSettings(gain_db=1.0, delay_s=1e-5, inverted=3), seed=1
    )
    sound = at_level(chirp(300, 6500, 0.15, RATE_HZ), -20)
    sources_m = around(12, rng)
    scene = Scene(
        tuple(
            PointSource(sound, Trajectory.at_rest(place), 0.2 + 0.4 * number)
            for number, place in enumerate(sources_m)
        ),
        round(5.2 * RATE_HZ),
        RATE_HZ,
        noises=(Noise("self", snr_db=20.0),),
        microphones=microphones,
    )
    samples = render(scene, true_m).samples
    events = find_events(samples, RATE_HZ)
    assert len(events) == 12
    times = measure_times(samples, RATE_HZ, events, 2e-3)
    exact = np.linalg.norm(true_m - sources_m[:, None], axis=2) / SOUND_M_S + microphones.delay_s
    wrong_s = times.times_s - exact
    wrong_s -= wrong_s.mean(axis=1, keepdims=True)
    assert np.sqrt(np.mean(wrong_s**2)) < 5e-7
    assert 0.5 < np.sqrt(np.mean((wrong_s / times.errors_s) ** 2)) < 2
    found = find_positions(times, drawn_m, SOUND_M_S)
    assert off_by_m(drawn_m, true_m) > 6e-3
    assert off_by_m(found.positions_m, true_m) < 1e-3
    assert found.residual_s < 1e-6


def test_exact_times_give_exact_positions_sources_and_delays():
    rng = np.random.default_rng(0)
    drawn_m = vogel_spiral(16).positions_m
    true_m = drawn_m + rng.normal(0, 5e-3, drawn_m.shape)
    delays_s = 1e-5 * rng.standard_normal(16)
    sources_m = around(24, rng)
    found = find_positions(exact_times(true_m, sources_m, delays_s), drawn_m, SOUND_M_S)
    # Spreads hold weakly known combinations a little: tenths of a millimetre of five.
    assert off_by_m(found.positions_m, true_m) < 5e-4
    _, motion = rigid_motion(found.positions_m, true_m)
    assert np.abs(motion(found.sources_m) - sources_m).max() < 0.02
    assert np.abs(found.delays_s - (delays_s - delays_s.mean())).max() < 1e-6


def test_the_array_is_laid_on_the_drawing():
    """Where the whole array is cannot be heard: result and drawing differ by no rigid motion."""
    rng = np.random.default_rng(1)
    drawn_m = vogel_spiral(16).positions_m + np.array([0.5, -0.2, 0.1])
    true_m = drawn_m + rng.normal(0, 3e-3, drawn_m.shape)
    times = exact_times(true_m, around(16, rng) + np.array([0.5, -0.2, 0.1]), noise_s=2e-7)
    found = find_positions(times, drawn_m, SOUND_M_S)
    again, _ = rigid_motion(found.positions_m, drawn_m)
    np.testing.assert_allclose(again, found.positions_m, atol=1e-12)


def test_a_rigid_motion_is_undone():
    rng = np.random.default_rng(2)
    points = rng.standard_normal((9, 3))
    rotation = Rotation.from_rotvec([0.3, -0.8, 0.5])
    laid, motion = rigid_motion(rotation.apply(points) + np.array([1, 2, 3]), points)
    np.testing.assert_allclose(laid, points, atol=1e-12)
    np.testing.assert_allclose(motion(np.array([[1.0, 2, 3]])), [[0, 0, 0]], atol=1e-12)


def test_the_jacobian_is_that_of_the_residuals():
    rng = np.random.default_rng(4)
    drawn_m = vogel_spiral(5).positions_m
    problem = PositionProblem(exact_times(drawn_m, around(4, rng)), drawn_m, SOUND_M_S, 5e-3, 1e-5)
    x = problem.start() + problem.scales * 0.1 * rng.standard_normal(len(problem.scales))
    whole = problem.jacobian(x).toarray() * problem.scales
    for column in range(len(x)):
        step = np.zeros(len(x))
        step[column] = 1e-4 * problem.scales[column]
        slope = (problem.residuals(x + step) - problem.residuals(x - step)) / 2e-4
        np.testing.assert_allclose(whole[:, column], slope, rtol=1e-4, atol=1e-2)


def test_errors_are_as_large_as_said():
    drawn_m = vogel_spiral(12).positions_m
    ratios = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        true_m = drawn_m + rng.normal(0, 5e-3, drawn_m.shape)
        times = exact_times(true_m, around(16, rng), 0.0, 5e-7, seed)
        found = find_positions(times, drawn_m, SOUND_M_S, delay_spread_s=0.0)
        said = np.sqrt(np.mean(np.square(found.errors_m).sum(axis=1)))
        ratios.append(off_by_m(found.positions_m, true_m) / said)
    assert 0.4 < np.mean(ratios) < 2


@pytest.mark.parametrize(
    ("n_events", "change", "message"),
    [
        (11, "none", r"11 chirps or clicks are heard; expected at least 12"),
        (14, "one side", r"positions to .* mm only.*spread the sources over the whole half space"),
        (14, "echo", r"µs of the times unexplained.*event 3 .*fits worst"),
    ],
)
def test_poor_events_are_refused_with_what_to_do(n_events, change, message):
    rng = np.random.default_rng(5)
    drawn_m = vogel_spiral(12).positions_m
    sources_m = around(n_events, rng)
    if change == "one side":
        sources_m = np.array([0.2, 0.1, 4.0]) + 0.1 * rng.standard_normal((n_events, 3))
    times = exact_times(drawn_m, sources_m, noise_s=1e-6)
    if change == "echo":
        times.times_s[2] += rng.normal(0, 5e-4, 12)
    with pytest.raises(InputError, match=message):
        find_positions(times, drawn_m, SOUND_M_S)


def test_events_are_found_where_they_are():
    rng = np.random.default_rng(6)
    samples = 1e-3 * rng.standard_normal((RATE_HZ * 3, 4)).astype(np.float32)
    starts = [4000, 16_000, 30_000]
    for first in starts:
        samples[first : first + 1600] += 0.1 * rng.standard_normal((1600, 1))
    # A step in the house, 30 dB below.
    samples[40_000:40_400] += 0.002 * rng.standard_normal((400, 1))
    spans = find_events(samples, RATE_HZ)
    assert len(spans) == 3
    for first, (start, stop) in zip(starts, spans, strict=True):
        assert first - 400 <= start <= first
        assert first + 1600 <= stop <= first + 2000
    assert find_events(samples[:10], RATE_HZ) == []


@pytest.mark.data
def test_a_real_array_comes_near_its_published_calibration():
    """Pyramic, 48 microphones in an anechoic chamber: measured delays, to samples of 192 kHz, of
    27 places; what its authors found from 540 is 3.9 mm from their drawing."""
    folder = DATA / "multichannel" / "geometries"
    measured = json.loads((folder / "pyramic_48mic_tdoa.json").read_bytes())
    protocol = json.loads((folder / "pyramic_48mic_protocol.json").read_bytes())
    published = json.loads((folder / "pyramic_48mic_calibrated_locations.json").read_bytes())
    drawn_m = np.array(protocol["geometry"]["microphones"]["locations"])
    published_m = np.array(published["microphones"])
    delays_s = np.array(measured["delays"])[:, ::20].reshape(47, -1).T
    times_s = np.concatenate([np.zeros((len(delays_s), 1)), delays_s], axis=1)
    step_s = 1 / 192_000
    errors_s = np.full(times_s.shape, step_s / np.sqrt(12))
    times = EventTimes(times_s, errors_s, np.zeros((len(times_s), 2)))
    found = find_positions(times, drawn_m, measured["sound_speed_mps"])
    assert off_by_m(drawn_m, published_m) > 3.8e-3
    assert off_by_m(found.positions_m, published_m) < 1.5e-3
    assert found.residual_s < step_s
