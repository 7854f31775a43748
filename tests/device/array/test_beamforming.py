"""Beams against closed forms: response, beam width, gains against noise, distance, calibration."""

import numpy as np
import pytest

from soundpost.device.array.beamforming import (
    arrival_delays,
    bins_per_block,
    point_delays,
    snapshot_spectra,
    speed_of_sound_m_s,
    steering_vectors,
)
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.errors import InputError

SOUND_M_S = 343.2
BINS_HZ = 12.0 * np.arange(512)


def collected(beams, spectra, bins=range(512)):
    """All power that a beamformer hands on, (n_bins, n_pixels, n_frames), and its bins."""
    blocks = [(some, values.copy()) for some, values in beams.power(spectra, bins)]
    assert [index for some, _ in blocks for index in some] == list(bins)
    return np.concatenate([values for _, values in blocks])


def general(array, grid, bin_hz=12.0, n_bins=512):
    return SteeredBeamformer(arrival_delays(array, grid, SOUND_M_S), bin_hz, n_bins)


def limit(beams):
    """How far power may be off: ten times what the trial saw, 2e-7 of magnitude and 2e-6."""
    return 4e-6 if isinstance(beams, SteeredBeamformer) else 1e-5


def db(ratio):
    return 10 * np.log10(ratio)


# ------------------------------------------------------------------------------- plane waves


def test_a_plane_wave_has_unit_power_in_its_pixel_in_every_bin(image_beams, spiral, plane_waves):
    directions = ImageGrid().directions()
    pixels = [0, 47, 863, 864, 1000, 1727]
    spectra = (plane_waves(spiral.positions_m, directions[pixels], BINS_HZ) / 128).astype("c8")
    power = collected(image_beams, spectra)
    found = power[:, pixels, range(len(pixels))]
    assert np.abs(found - 1).max() < limit(image_beams)
    # and nowhere more
    assert power.max() < 1 + limit(image_beams)


def test_the_point_spread_function_is_its_closed_form(image_beams, spiral, plane_waves):
    directions = ImageGrid().directions()
    source = directions[700]
    spectra = (plane_waves(spiral.positions_m, source, BINS_HZ) / 128).astype("c8")
    power = collected(image_beams, spectra)[:, :, 0]
    for index in [1, 31, 32, 33, 100, 255, 256, 400, 510, 511]:
        k = 2 * np.pi * BINS_HZ[index] / SOUND_M_S
        differences = (source - directions) @ spiral.positions_m.T
        expected = np.abs(np.exp(1j * k * differences).mean(axis=1)) ** 2
        assert np.abs(power[index] - expected).max() < limit(image_beams)


def test_noise_of_the_microphones_gives_what_float64_gives(image_beams, spiral):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((512, 128, 5)) + 1j * rng.standard_normal((512, 128, 5))
    spectra = (noise / 128).astype("c8")
    power = collected(image_beams, spectra)
    delays_s = arrival_delays(spiral, ImageGrid(), SOUND_M_S)
    for index in [0, 1, 63, 200, 333, 511]:
        vectors = steering_vectors(delays_s, BINS_HZ[index : index + 1])[0]
        expected = np.abs(vectors @ spectra[index].astype("c16")) ** 2
        assert np.abs(power[index] - expected).max() < 1e-5 * expected.max()


def test_the_beam_of_a_disc_is_as_wide_as_diffraction_makes_it():
    # -3 dB width of a uniform circular aperture: 1.029 lambda / D (Balanis, "Antenna theory")
    frequency_hz = 4_000.0
    grid = ImageGrid(1, 4_001, half_width_deg=15.0, half_height_deg=1.0)
    widths = []
    for turn in np.radians([0, 30, 60, 90]):
        x, y, z = vogel_spiral(128).positions_m.T
        turned = np.stack(
            [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn), z], axis=1
        )
        beams = general(ArrayGeometry(turned), grid, frequency_hz, 2)
        spectra = np.full((2, 128, 1), 1 / 128, np.complex64)
        power = collected(beams, spectra, range(1, 2))[0, :, 0]
        main = grid.cosines()[0][power >= 0.5]
        assert np.abs(main).max() < 0.2
        widths.append(main[-1] - main[0])
    expected = 1.029 * SOUND_M_S / frequency_hz / 0.45
    # Off by 0.5 % in the trial
    assert np.array(widths) == pytest.approx(expected, rel=0.01)


def test_only_the_difference_of_direction_cosines_counts(spiral):
    frequencies_hz = np.array([1_000.0, 6_000.0])
    grid = ImageGrid(5, 7, half_width_deg=20.0, half_height_deg=15.0)
    shift = np.array([0.21, -0.13])

    def pattern(offset):
        cosines = grid.directions()[:, :2] + offset
        places = np.column_stack([cosines, np.zeros(len(cosines))])
        delays_s = -(places @ spiral.positions_m.T) / SOUND_M_S
        vectors = steering_vectors(delays_s, frequencies_hz)
        source = vectors[:, 17].conj()
        return np.abs(np.einsum("fpm,fm->fp", vectors, source) / 128) ** 2

    # 2e-15 was seen in the trial
    assert np.abs(pattern(shift) - pattern(0.0)).max() < 2e-14


def test_the_spiral_has_no_grating_lobe_within_the_image_and_a_grid_of_128_has():
    # Every difference of two directions of the image, at its last bin
    k = 2 * np.pi * 6_132.0 / SOUND_M_S
    u = np.linspace(-np.sqrt(2), np.sqrt(2), 201)
    v = np.linspace(-2 * np.sin(np.radians(32)), 2 * np.sin(np.radians(32)), 201)
    beyond_main = np.hypot(u[:, None], v) > 1.5 * 1.22 * SOUND_M_S / 6_132.0 / 0.45

    def highest_lobe(x, y):
        factors = np.exp(1j * k * np.outer(u, x))[:, None] * np.exp(1j * k * np.outer(v, y))
        return db((np.abs(factors.mean(axis=2)) ** 2)[beyond_main].max())

    x, y, _ = vogel_spiral().positions_m.T
    assert highest_lobe(x, y) == pytest.approx(-10.9, abs=0.3)
    x, y = (part.ravel() for part in np.meshgrid(np.arange(16) * 0.03, np.arange(8) * 0.064))
    assert highest_lobe(x, y) > -0.5


# -------------------------------------------------------------------------------------- noise


def test_noise_of_the_microphones_falls_by_their_number(image_beams):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((512, 128, 2)) + 1j * rng.standard_normal((512, 128, 2))
    power = collected(image_beams, (noise / 128).astype("c8"), range(256, 384))
    # 10 lg 128 = 21.07 dB
    gain_db = db(np.mean(np.abs(noise[256:384]) ** 2) / power.mean())
    assert gain_db == pytest.approx(21.07, abs=0.1)


def test_diffuse_noise_falls_by_what_the_sinc_of_pairs_says(spiral, plane_waves):
    # Plane waves from 4,000 directions, even over the sphere, of equal power and unrelated
    number = np.arange(4_000) + 0.5
    height = 1 - number / 2_000
    angle = np.pi * (1 + 5**0.5) * number
    radius = np.sqrt(1 - height**2)
    directions = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    frequencies_hz = np.array([200.0, 500.0, 1_000.0, 2_000.0])
    waves = plane_waves(spiral.positions_m, directions, frequencies_hz)
    beams = SteeredBeamformer(np.zeros((1, 128)), 1.0, 4)
    power = collected(beams, (waves / 128).astype("c8"), range(4)).mean(axis=2)[:, 0]
    apart_m = np.linalg.norm(spiral.positions_m[:, None] - spiral.positions_m, axis=2)
    for frequency_hz, found in zip(frequencies_hz, power, strict=True):
        expected = np.sinc(2 * frequency_hz * apart_m / SOUND_M_S).mean()
        assert db(found) == pytest.approx(db(expected), abs=0.05)
    # Far from the 21.07 dB of unrelated noise
    assert db(power[0]) > -2


def test_errors_of_calibration_leave_the_floor_that_their_variance_gives(spiral):
    # 10 lg ((s_g^2 + s_phi^2 + (k s_x u)^2) / M) re the peak, for small errors
    rng = np.random.default_rng(2)
    gain, phase, place_m = 0.05, 0.08, 0.8e-3
    frequency_hz, u = 4_000.0, 0.5
    k = 2 * np.pi * frequency_hz / SOUND_M_S
    n = 300
    errors = np.zeros((2, 128, n), complex)
    wave = np.exp(1j * k * u * spiral.positions_m[:, 0])
    moved = k * u * rng.normal(0, place_m, (128, n))
    heard = (1 + rng.normal(0, gain, (128, n))) * np.exp(
        1j * (rng.normal(0, phase, (128, n)) + moved)
    )
    errors[1] = wave[:, None] * (heard - 1) / 128
    beams = general(spiral, ImageGrid(), frequency_hz, 2)
    power = collected(beams, errors.astype("c8"), range(1, 2))
    expected = db((gain**2 + phase**2 + (k * place_m * u) ** 2) / 128)
    assert db(power.mean()) == pytest.approx(expected, abs=0.3)


# ----------------------------------------------------------------------------------- distance


@pytest.mark.parametrize(("distance_m", "lost_db"), [(1.0, 2.9), (2.0, 0.7), (5.0, 0.11)])
def test_plane_waves_lose_what_was_measured_nearby_and_points_do_not(
    spiral, point_waves, distance_m, lost_db
):
    spectra = (point_waves(spiral.positions_m, [0, 0, distance_m], [0, 6_000.0]) / 128).astype("c8")
    far, near = (
        collected(general(spiral, ImageGrid(1, 1, distance_m=place), 6_000.0, 2), spectra, range(2))
        for place in (None, distance_m)
    )
    # Steered by phase alone, a point's beam is the mean of what the microphones hear.
    shares = distance_m / np.hypot(distance_m, np.hypot(*spiral.positions_m[:, :2].T))
    assert near[1, 0, 0] == pytest.approx(shares.mean() ** 2, rel=1e-5)
    assert db(near[1, 0, 0] / far[1, 0, 0]) == pytest.approx(lost_db, abs=0.05)


@pytest.mark.parametrize("surface", ["sphere", "plane"])
def test_a_point_nearby_peaks_in_its_pixel_though_the_array_is_off_the_origin(point_waves, surface):
    positions = vogel_spiral(48).positions_m + np.array([0.1, -0.3, -0.05])
    grid = ImageGrid(15, 20, surface=surface, distance_m=0.8)
    pixels = [0, 19, 147, 299]
    spectra = point_waves(positions, grid.points_m()[pixels], [0.0, 3_000.0, 6_000.0]) / 48
    power = collected(
        general(ArrayGeometry(positions), grid, 3_000.0, 3), spectra.astype("c8"), range(1, 3)
    )
    assert power.sum(axis=0).argmax(axis=0).tolist() == pixels


def test_delays_to_far_points_are_those_of_plane_waves(spiral):
    far = ImageGrid(3, 5)
    near = ImageGrid(3, 5, distance_m=2_000.0)
    difference = arrival_delays(spiral, near, SOUND_M_S) - arrival_delays(spiral, far, SOUND_M_S)
    # The curvature of the wave, r^2 / 2 R, is 13 micrometres.
    assert np.abs(difference).max() * SOUND_M_S < 1.3e-5
    assert point_delays(np.zeros((1, 3)), np.ones((2, 3)), SOUND_M_S).tolist() == [[0.0], [0.0]]


def test_the_speed_of_sound_follows_the_temperature():
    assert speed_of_sound_m_s(20.0) == pytest.approx(343.2)
    # Cramer, "The variation of the specific heat ratio and the speed of sound in air" (1993)
    assert speed_of_sound_m_s(0.0) == pytest.approx(331.4, abs=0.2)
    assert speed_of_sound_m_s(25.0) / speed_of_sound_m_s(15.0) == pytest.approx(1.017, abs=5e-4)


# ---------------------------------------------------------------------------------- mechanics


@pytest.mark.parametrize("n_frames", [1, 2, 7, 24])
def test_frames_and_ranges_of_bins_change_no_value(image_beams, n_frames):
    rng = np.random.default_rng(3)
    spectra = rng.standard_normal((512, 128, 2 * n_frames)).view("c16").astype("c8")
    bins = range(45, 131)
    power = collected(image_beams, spectra, bins)
    assert power.shape == (86, 1728, n_frames)
    alone = np.ascontiguousarray(spectra[:, :, -1:])
    for some in (range(45, 46), range(64, 66), range(96, 131)):
        expected = power[some.start - 45 : some.stop - 45, :, -1:]
        found = collected(image_beams, alone, some)
        assert np.abs(found - expected).max() < 1e-5 * expected.max()
        if isinstance(image_beams, SteeredBeamformer):
            assert [index for index, _ in image_beams.beams(alone, some)] == list(some)


def test_blocks_are_as_long_as_was_measured_to_be_best():
    assert bins_per_block(24) == 4
    assert bins_per_block(1) == 32


def test_beams_are_spectra_of_the_sound_in_the_centre(spiral, plane_waves):
    grid = ImageGrid(6, 8)
    source = np.exp(1j * np.random.default_rng(4).uniform(0, 6, 512))
    positions = spiral.positions_m + np.array([0.3, 0.2, 0.1])
    waves = plane_waves(positions, grid.directions()[29], BINS_HZ)
    beams = general(ArrayGeometry(positions), grid)
    spectra = (waves * source[:, None, None] / 128).astype("c8")
    for index, found in beams.beams(spectra, range(512)):
        assert abs(found[29, 0] - source[index]) < 2e-6


@pytest.mark.parametrize("n_frames", [1, 3])
def test_spectra_are_those_of_the_windowed_samples(n_frames):
    rng = np.random.default_rng(5)
    samples = rng.standard_normal((n_frames, 4, 64)).astype("f4")
    window = rng.random(64).astype("f4")
    spectra = snapshot_spectra(samples, window)
    assert spectra.dtype == np.complex64
    expected = np.fft.fft(samples.astype("f8") * window)[..., :32]
    assert np.abs(spectra - expected.transpose(2, 1, 0)).max() < 1e-5


@pytest.mark.parametrize(
    "spectra",
    [np.zeros((512, 127, 1), "c8"), np.zeros((511, 128, 1), "c8"), np.zeros((512, 128, 1), "c16")],
)
def test_spectra_of_another_array_are_refused(image_beams, spectra):
    with pytest.raises(InputError, match=r"expected \(512 bins, 128 microphones, n_frames\)"):
        next(image_beams.power(spectra, range(512)))
