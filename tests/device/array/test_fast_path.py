"""Rows and columns apart give what every pixel by itself gives, and only where they part."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soundpost.device.array.fast_path import SeparableBeamformer, separable
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.errors import InputError

SOUND_M_S = 343.2


@settings(max_examples=25)
@example(seed=0, n_mics=3, rows=1, columns=5, n_frames=1, half_width_deg=6.0, left_out=2)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_mics=st.integers(3, 30),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    n_frames=st.integers(1, 3),
    half_width_deg=st.floats(5, 60),
    left_out=st.integers(0, 2),
)
def test_any_plane_array_and_any_size_of_image(
    seed, n_mics, rows, columns, n_frames, half_width_deg, left_out
):
    rng = np.random.default_rng(seed)
    places = rng.uniform(-0.3, 0.3, (n_mics, 2))
    # Not on one line
    places[:3] = [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]]
    array = ArrayGeometry(np.pad(places, ((0, 0), (0, 1))) + np.array([0.2, 0.1, -0.04]))
    grid = ImageGrid(rows, columns, half_width_deg, 25.0)
    mics = np.arange(left_out, n_mics)
    beams = SeparableBeamformer(array, grid, mics, 400.0, 16, SOUND_M_S)
    shape = (16, len(mics), 2 * n_frames)
    spectra = rng.standard_normal(shape).view("c16").astype("c8") / len(mics)
    for bins, power in beams.power(spectra, range(16)):
        for index, found in zip(bins, power, strict=True):
            k = 2 * np.pi * 400.0 * index / SOUND_M_S
            vectors = np.exp(-1j * k * grid.directions() @ array.positions_m[mics].T)
            expected = np.abs(vectors @ spectra[index].astype("c16")) ** 2
            strongest = (np.abs(spectra[index]).sum(axis=0) ** 2).max()
            assert np.abs(found - expected).max() < 1e-5 * strongest


def test_few_functions_hold_the_whole_image(spiral):
    beams = SeparableBeamformer(spiral, ImageGrid(), np.arange(128), 12.0, 512, SOUND_M_S)
    # 10 + 10 and 8 + 8 were seen in the trial, with a coarser tolerance
    ranks = np.array([group.ranks for group in beams._groups])
    assert ranks.max(axis=0).tolist() == [11, 9]
    assert (np.diff(ranks, axis=0) >= -1).all()
    assert (ranks[0] <= 3).all()


BENT = vogel_spiral(20).positions_m + np.array([[0.0, 0.0, 1e-5]] + 19 * [[0.0, 0.0, 0.0]])
TILTED = vogel_spiral(20).positions_m[:, [2, 1, 0]] + vogel_spiral(20).positions_m


@pytest.mark.parametrize(
    ("positions", "grid"),
    [
        (BENT, ImageGrid()),
        (TILTED, ImageGrid()),
        (vogel_spiral(20).positions_m, ImageGrid(distance_m=2.0)),
        (vogel_spiral(20).positions_m, ImageGrid(surface="plane")),
    ],
)
def test_what_does_not_part_is_refused(positions, grid):
    array = ArrayGeometry(positions)
    assert not separable(array, grid, 6_000.0, SOUND_M_S)
    with pytest.raises(InputError, match="fast route: expected all microphones in one plane"):
        SeparableBeamformer(array, grid, np.arange(20), 12.0, 512, SOUND_M_S)


def test_a_plane_anywhere_parts():
    array = ArrayGeometry(vogel_spiral(20).positions_m + np.array([0.3, 0.2, -0.1]))
    assert separable(array, ImageGrid(), 24_000.0, SOUND_M_S)
