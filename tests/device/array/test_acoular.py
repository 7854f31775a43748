"""Acoular, the published library: its example of three sources, its files, and its methods."""

import json
import os
from pathlib import Path

import acoular
import numpy as np
import pytest
from acoular.demo import create_three_sources

from soundpost.device.array.acoular_maps import METHODS, acoular_map
from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import read_acoular_xml, write_acoular_xml
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.errors import InputError, UsageError

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")
RATE_HZ, LENGTH = 51_200.0, 128
# Its grid: 41 x 41 points 1 cm apart, 0.3 m away
HALF_DEG = float(np.degrees(np.arctan(0.205 / 0.3)))
GRID = ImageGrid(41, 41, HALF_DEG, HALF_DEG, "plane", 0.3)
# Rows and columns of its sources; it lists x first, and its scene lies at negative z.
SOURCES = [(30, 10), (20, 35), (10, 20)]


@pytest.fixture(scope="module")
def example():
    """Its array as we read it, and the sound of its example, (n_samples, 64)."""
    acoular.config.global_caching = "none"
    path = Path(acoular.__file__).parent / "xml" / "array_64.xml"
    mixer = create_three_sources(acoular.MicGeom(file=path), h5savefile="")
    sound = np.concatenate([block.copy() for block in mixer.result(4_096)])
    return read_acoular_xml(path), sound


def test_images_agree_on_the_three_sources(example):
    array, sound = example
    settings = ImageSettings(
        sample_rate_hz=RATE_HZ,
        snapshot_length=LENGTH,
        taper=1.0,
        mel=MelSettings(layout="frequency"),
    )
    imager = AcousticImager(array, GRID, settings)
    found = imager.power(cut_snapshots(sound.astype("f4"), LENGTH)).mean(axis=0)
    spectra = acoular.PowerSpectra(
        source=acoular.TimeSamples(data=sound, sample_freq=RATE_HZ),
        block_size=LENGTH,
        window="Hanning",
        overlap="None",
        precision="complex128",
    )
    grid = acoular.RectGrid(x_min=-0.2, x_max=0.2, y_min=-0.2, y_max=0.2, z=-0.3, increment=0.01)
    beamformer = acoular.BeamformerBase(
        freq_data=spectra,
        # By phase alone, as ours
        steer=acoular.SteeringVector(
            grid=grid,
            mics=acoular.MicGeom(pos_total=array.positions_m.T),
            steer_type="classic",
            env=acoular.Environment(c=343.2),
        ),
        r_diag=False,
        precision="float64",
    )
    # One-sided, of a window of unit power; ours is that of the spectrum as it is.
    scale = 2 / (LENGTH * np.square(np.hanning(LENGTH)).sum())
    for frequency_hz in (4_000, 8_000, 12_000):
        # Theirs by x, then y upwards; the array is flat, so that either side of it is alike.
        expected = np.asarray(beamformer.synthetic(frequency_hz, 0)).reshape(41, 41).T[::-1]
        image = found[:, :, round(frequency_hz * LENGTH / RATE_HZ)] * scale
        # 8e-7 was seen.
        assert np.abs(image - expected).max() < 2e-6 * expected.max()


def test_its_files_are_ours_and_ours_are_its(example, tmp_path):
    array, _ = example
    path = tmp_path / "array.xml"
    write_acoular_xml(path, array)
    assert np.array_equal(acoular.MicGeom(file=path).pos, array.positions_m.T)


@pytest.mark.data
def test_the_file_of_a_real_array_of_128_is_its_array(tmp_path):
    """Norsonic Nor848A: from its maker's table through our XML to Acoular, and back from its own"""
    raw = json.loads(
        (DATA / "multichannel" / "geometries" / "norsonic_nor848a_128mic.json").read_bytes()
    )
    array = ArrayGeometry(np.array([[place[axis] for axis in "xyz"] for place in raw["elements"]]))
    write_acoular_xml(tmp_path / "ours.xml", array)
    theirs = acoular.MicGeom(file=tmp_path / "ours.xml")
    assert theirs.num_mics == 128
    assert np.array_equal(theirs.pos, array.positions_m.T)
    theirs.export_mpos(tmp_path / "theirs.xml")
    assert np.array_equal(read_acoular_xml(tmp_path / "theirs.xml").positions_m, array.positions_m)


@pytest.mark.parametrize("method", ["base", "functional", "clean-sc"])
def test_methods_show_the_loudest_source_in_its_pixel(example, method):
    array, sound = example
    grid = ImageGrid(21, 21, HALF_DEG, HALF_DEG, "plane", 0.3)
    found = acoular_map(
        sound[:12_800],
        RATE_HZ,
        array,
        grid,
        343.2,
        method=method,
        frequency_hz=8_000,
        block_length=LENGTH,
    )
    assert found.shape == (21, 21)
    assert found.dtype == np.float32
    row, column = divmod(int(found.argmax()), 21)
    # Pixels of twice the size
    assert abs(row - SOURCES[0][0] / 2) <= 0.75
    assert abs(column - SOURCES[0][1] / 2) <= 0.75
    if method == "clean-sc":
        # And little between the sources, where delay-and-sum shows its beam
        assert np.median(found) < 1e-4 * found.max()


def test_every_method_has_its_class():
    for name, changes in METHODS.values():
        # Names that a class does not have are its own error.
        assert all(hasattr(getattr(acoular, name)(), trait) for trait in changes)


def test_what_cannot_be_is_refused_before_acoular_is_asked():
    given = (RATE_HZ, vogel_spiral(8), GRID, 343.2)
    sound = np.zeros((2_000, 8), np.float32)
    with pytest.raises(UsageError, match="'cleaner'; expected one of base, eig"):
        acoular_map(sound, *given, method="cleaner", frequency_hz=1_000)
    with pytest.raises(InputError, match="900 samples; expected at least 1024"):
        acoular_map(sound[:900], *given, method="base", frequency_hz=1_000)
    with pytest.raises(UsageError, match="frequency 30000 Hz; expected 50 to 25600 Hz"):
        acoular_map(sound, *given, method="base", frequency_hz=30_000)


def test_far_pixels_are_put_where_its_phases_still_hold():
    array, grid = ArrayGeometry(vogel_spiral(24).positions_m), ImageGrid(9, 12)
    lead_s = array.positions_m @ grid.directions()[30] / 343.2
    noise = np.random.default_rng(0).normal(0, 0.1, 12_288)
    turns = np.outer(lead_s, np.fft.rfftfreq(12_288, 1 / 12_288))
    sound = np.fft.irfft(np.fft.rfft(noise) * np.exp(2j * np.pi * turns)).T.astype("f4")
    found = acoular_map(sound, 12_288, array, grid, 343.2, method="base", frequency_hz=4_000)
    assert found.argmax() == 30
