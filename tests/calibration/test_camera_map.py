"""The map of a camera that is known: pixels, inverse, outliers, spots of light, acoustic peaks."""

from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.calibration.camera_map import find_peak, find_spot, fit_camera
from soundpost.calibration.camera_pairs import Stay, find_stays, pair_up
from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings
from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.camera_map import camera_pixels, camera_rays
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.errors import InputError

EVIDENCE = Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "known")
SIZE = (640, 480)


def camera(radial=-0.1, turn=0.05):
    """640 x 480, 500 pixels of focal length, turned and aside a little."""
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    matrix = np.array([[500.0, 0, 330], [0, -500, 235], [0, 0, 1]]) @ rotation
    return CameraSection(EVIDENCE, matrix / matrix[2, 2], radial, *SIZE)


def all_over(n, seed=0):
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(-0.5, 0.5, n), rng.uniform(-0.35, 0.35, n)], axis=1)
    return np.concatenate([points, np.ones((n, 1))], axis=1)


def test_a_pinhole_maps_as_the_textbook_says():
    plain = CameraSection(
        EVIDENCE, np.array([[500.0, 0, 320], [0, -500, 240], [0, 0, 1]]), 0.0, *SIZE
    )
    # 1 m right and 0.5 m up at 2 m: 250 columns right and 125 rows up from the middle.
    assert camera_pixels(plain, np.array([[1.0, 0.5, 2.0]])).tolist() == [[570.0, 115.0]]
    assert np.isnan(camera_pixels(plain, np.array([[1.0, 0.5, -2.0]]))).all()


@given(st.integers(0, 2**32 - 1), st.floats(-0.2, 0.4), st.floats(-0.2, 0.2))
def test_rays_of_pixels_are_the_ones_that_map_there(seed, radial, turn):
    known = camera(radial, turn)
    directions = all_over(20, seed)
    pixels = camera_pixels(known, directions)
    np.testing.assert_allclose(camera_rays(known, pixels), directions, atol=1e-9)
    # Of any shape.
    picture = camera_rays(known, pixels.reshape(4, 5, 2))
    np.testing.assert_allclose(picture.reshape(20, 3), directions, atol=1e-9)


@pytest.mark.parametrize("radial", [0.0, -0.15, 0.2])
def test_a_known_camera_is_found_from_exact_pairs(radial):
    known, directions = camera(radial), all_over(20)
    fit = fit_camera(directions, camera_pixels(known, directions), SIZE, EVIDENCE)
    others = all_over(100, 1)
    # The lens is held near none a little.
    left = camera_pixels(fit.section, others) - camera_pixels(known, others)
    assert np.abs(left).max() < 0.1
    assert fit.section.radial == pytest.approx(radial, abs=2e-3)


def test_noise_is_told_as_it_is_and_outliers_are_left_out():
    known, directions = camera(), all_over(60)
    rng = np.random.default_rng(2)
    pixels = camera_pixels(known, directions) + rng.normal(0, 2.0, (60, 2))
    pixels[[5, 40]] += [[120.0, 10.0], [-30.0, 90.0]]
    fit = fit_camera(directions, pixels, SIZE, EVIDENCE)
    assert np.flatnonzero(~fit.used).tolist() == [5, 40]
    assert fit.rms_px == pytest.approx(2.0 * np.sqrt(2), rel=0.2)
    assert fit.section.evidence.residuals["rms_px"] == fit.rms_px
    truth = camera_pixels(known, directions)
    left = camera_pixels(fit.section, directions) - truth
    assert np.sqrt(np.mean(np.square(left).sum(axis=1))) < 1.5


@pytest.mark.parametrize(
    ("directions", "pixels", "message"),
    [
        (all_over(7), None, "7 places of the target .* at least 8"),
        (all_over(20) * [0.1, 0.1, 1], None, "covers .* move it all over the picture"),
        (all_over(20) * [1, 0, 1] + [0, 0.1, 0], None, "or one line"),
        (all_over(20), all_over(20, 9)[:, :2] * 600 + 300, "no camera fits"),
    ],
)
def test_pairs_that_tell_no_map_are_refused(directions, pixels, message):
    given_pixels = camera_pixels(camera(), directions) if pixels is None else pixels
    with pytest.raises(InputError, match=message):
        fit_camera(directions, given_pixels, SIZE, EVIDENCE)


def spot(column, row, width=3.0, size=(120, 160), peak=200.0):
    rows, columns = np.indices(size)
    distance = (rows - row) ** 2 + (columns - column) ** 2
    return peak * np.exp(-distance / 2 / width**2)


def test_a_spot_is_found_to_a_small_part_of_a_pixel():
    rng = np.random.default_rng(0)
    dark = rng.uniform(0, 120, (120, 160))
    dark[:20, :30] = 250  # a window, which is bright all the time
    lit = np.clip(dark + spot(90.3, 70.6), 0, 255)
    found = find_spot(lit.astype(np.uint8), np.floor(dark))
    assert found == pytest.approx((90.3, 70.6), abs=0.4)


@pytest.mark.parametrize(
    "light",
    [
        np.zeros((120, 160)),
        spot(50, 50, peak=20),
        spot(50, 50, width=40),
        spot(30, 50) + spot(120, 50),
    ],
)
def test_darkness_dim_wide_and_double_lights_are_no_spot(light):
    assert find_spot(light.astype(np.uint8)) is None


def test_stays_are_where_the_light_is_held_still():
    times = np.arange(100) * 0.1
    places = [(10.0, 10.0)] * 20 + [(10.0 + 10 * k, 10.0) for k in range(1, 11)]
    places += [(110.0, 60.0)] * 30 + [None] * 10 + [(50.0, 50.0)] * 3 + [(90.0, 20.0)] * 27
    stays = find_stays(times.tolist(), places)
    assert [of.pixel.tolist() for of in stays] == [[10, 10], [110, 60], [90, 20]]
    assert [of.first_s for of in stays] == pytest.approx([0, 3, 7.3])
    assert [of.last_s for of in stays] == pytest.approx([1.9, 5.9, 9.9])


@pytest.mark.parametrize("surface", ["sphere", "plane"])
def test_a_peak_between_pixels_has_its_direction(surface):
    """A beam whose level falls with the square of the distance is a parabola: exact."""
    grid = ImageGrid(18, 24, surface=surface)
    true = np.array([0.21, -0.13, 1.0]) / np.linalg.norm([0.21, -0.13, 1.0])
    directions = grid.directions()
    axes = directions[:, :2] if surface == "sphere" else directions[:, :2] / directions[:, 2:]
    at = true[:2] if surface == "sphere" else true[:2] / true[2]
    energy = 10 ** (-200 * np.square(axes - at).sum(axis=1) / 10).reshape(18, 24)
    found, contrast_db = find_peak(energy, grid)
    np.testing.assert_allclose(found, true, atol=1e-9)
    assert contrast_db > 10


def test_a_place_is_heard_where_one_direction_stands_out(record):
    """Held still at two places: at the first it buzzes, at the second there is only a hum in the
    room, whose loudest direction is chance."""
    place = (0.5, 0.3, 1.5)
    spiral = vogel_spiral(20)
    (take,) = record(spiral.positions_m, places=[place], snr_db=30.0)
    n_samples, n_mics = take.samples.shape
    hum = 0.1 * np.random.default_rng(1).standard_normal((n_samples, n_mics))
    samples = np.concatenate([take.samples, hum.astype(np.float32)])
    seconds = n_samples / take.rate_hz
    stays = [Stay(begin, begin + seconds, np.array([320.0, 240.0])) for begin in (0.0, seconds)]
    imager = AcousticImager(
        spiral,
        settings=ImageSettings(sample_rate_hz=take.rate_hz, mel=MelSettings(layout="frequency")),
    )
    pairs = pair_up(stays, samples, take.rate_hz, 0.0, imager)
    assert pairs.unheard == 1
    assert pairs.contrast_db.tolist() == [pytest.approx(pairs.contrast_db[0])]
    towards = np.array(place) / np.linalg.norm(place)
    assert np.degrees(np.arccos(pairs.directions[0] @ towards)) < 5
