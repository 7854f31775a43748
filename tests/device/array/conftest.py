"""Plane waves and point sources as closed forms: spectra that no code of ours has made."""

import numpy as np
import pytest

from soundpost.device.array.beamforming import arrival_delays, speed_of_sound_m_s
from soundpost.device.array.fast_path import SeparableBeamformer
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ImageGrid, vogel_spiral

SOUND_M_S = speed_of_sound_m_s(20.0)


@pytest.fixture(scope="session")
def spiral():
    return vogel_spiral()


@pytest.fixture(scope="session", params=["fast", "general"])
def image_beams(request, spiral):
    """The published image's beams, 512 bins of 12 Hz, by either route."""
    grid = ImageGrid()
    if request.param == "fast":
        mics = np.arange(spiral.n_mics)
        return SeparableBeamformer(spiral, grid, mics, 12.0, 512, SOUND_M_S)
    return SteeredBeamformer(arrival_delays(spiral, grid, SOUND_M_S), 12.0, 512)


@pytest.fixture(scope="session")
def plane_waves():
    """Function: spectra (n_bins, n_mics, n_waves) of unit plane waves, float64, as the centre's."""

    def waves(positions_m, directions, frequencies_hz):
        from_centre = positions_m - positions_m.mean(axis=0)
        lead_m = from_centre @ np.atleast_2d(directions).T
        return np.exp(2j * np.pi / SOUND_M_S * np.multiply.outer(frequencies_hz, lead_m))

    return waves


@pytest.fixture(scope="session")
def point_waves():
    """Function: spectra (n_bins, n_mics, n_points) of points, 1/r and r/c, unit in the centre."""

    def waves(positions_m, points_m, frequencies_hz):
        centre_m = positions_m.mean(axis=0)
        points_m = np.atleast_2d(points_m)
        r = np.linalg.norm(positions_m[:, None] - points_m, axis=2)
        r0 = np.linalg.norm(points_m - centre_m, axis=1)
        turns = np.multiply.outer(frequencies_hz, (r - r0) / SOUND_M_S)
        return r0 / r * np.exp(-2j * np.pi * turns)

    return waves
