"""The general route: steering vectors held by few functions, and made from bin to bin."""

import numpy as np
import pytest

from soundpost.device.array.beamforming import arrival_delays, steering_vectors
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral

SOUND_M_S = 343.2


def worst_error(beams, delays_s, bin_hz, bins):
    """Of the beams of noise of the microphones, re the greatest in their bin, against float64."""
    n_mics = delays_s.shape[1]
    rng = np.random.default_rng(8)
    spectra = rng.standard_normal((beams.n_bins, n_mics, 4)).view("c16").astype("c8") / n_mics
    worst = 0.0
    for index, found in beams.beams(spectra, bins):
        vectors = steering_vectors(delays_s, np.array([index * bin_hz]))[0]
        expected = vectors @ spectra[index].astype("c16")
        worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
    return worst


def scattered(n_mics, size_m):
    """An array without any order, in a cube."""
    rng = np.random.default_rng(9)
    return ArrayGeometry(rng.uniform(-size_m / 2, size_m / 2, (n_mics, 3)))


@pytest.mark.parametrize(
    ("array", "grid"),
    [
        (vogel_spiral(128), ImageGrid()),
        (vogel_spiral(128), ImageGrid(distance_m=0.5)),
        (scattered(64, 0.4), ImageGrid(18, 24, distance_m=1.0)),
    ],
    ids=["plane waves", "near", "in a cube"],
)
def test_few_functions_hold_low_frequencies(array, grid):
    delays_s = arrival_delays(array, grid, SOUND_M_S)
    beams = SteeredBeamformer(delays_s, 12.0, 256)
    numbers = beams.n_functions
    # More of them the higher the frequency, until they are as many as microphones.
    assert len(numbers) >= 3
    assert numbers == sorted(numbers)
    assert numbers[0] < 0.5 * array.n_mics
    assert numbers[-1] <= 0.97 * array.n_mics
    # Those bins, and the first that are made one from the other.
    bins = range(min(16 * len(numbers) + 3, 256))
    assert worst_error(beams, delays_s, 12.0, bins) < 1e-5


def test_where_phases_turn_much_from_bin_to_bin_functions_are_not_believed():
    # Microphones metres apart, and a metre of wavelength between the ends of a group.
    delays_s = arrival_delays(scattered(64, 8.0), ImageGrid(18, 24, distance_m=9.0), SOUND_M_S)
    beams = SteeredBeamformer(delays_s, 20.0, 64)
    assert beams.n_functions == []
    assert worst_error(beams, delays_s, 20.0, range(64)) < 4e-6


def test_phases_stay_exact_from_bin_to_bin():
    # Each pixel here is one microphone's delay, of up to 1 ms, and its beam the phase itself.
    delays_s = np.random.default_rng(6).uniform(-1e-3, 1e-3, (2_000, 1))
    beams = SteeredBeamformer(delays_s, 12.0, 512)
    ones = np.ones((512, 1, 2), np.complex64)
    worst = [
        np.abs(found[:, 0] - np.exp(2j * np.pi * 12.0 * index * delays_s[:, 0])).max()
        for index, found in beams.beams(ones, range(512))
    ]
    # 6e-8 for each of at most 31 products
    assert max(worst) < 31 * 6e-8 + 1e-7
