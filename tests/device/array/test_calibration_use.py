"""A calibration undoes in an image what the microphones do: closed forms and Acoular's files."""

from datetime import datetime, timezone

import numpy as np
import pytest

from soundpost.device.array.acoular_calib import read_acoular_calib, write_acoular_calib
from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.beamforming import plane_wave_delays
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import (
    Evidence,
    LevelSection,
    MicrophoneSection,
    PositionSection,
    ResponseSection,
)
from soundpost.device.array.calibration_use import apply_calibration, corrections
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError

N_MICS = 16
DATE = datetime(2026, 11, 29, tzinfo=timezone.utc)
EVIDENCE = Evidence(DATE, "known")
ARRAY = ArrayDescription(vogel_spiral(N_MICS), image=ImageGrid(9, 12))
# One snapshot is a period of every bin, so that a delay is exact: no window, no edges.
SETTINGS = ImageSettings(taper=0.0)


def drawn(seed=0):
    """Faults of all kinds, 3 dead, 5 noisy and 8 clipped, and the channels in some other order."""
    rng = np.random.default_rng(seed)
    states = ["good"] * N_MICS
    states[3], states[5], states[8] = "dead", "noisy", "clipped"
    return MicrophoneSection(
        EVIDENCE,
        tuple(10 ** rng.normal(0, 0.1, N_MICS)),
        tuple(rng.normal(0, 5e-5, N_MICS)),
        tuple((rng.random(N_MICS) < 0.3).tolist()),
        tuple(states),
        tuple(rng.permutation(N_MICS).tolist()),
        ARRAY.geometry.hash(),
    )


def heard(positions_m, section, seed=1, response_db=0.0):
    """A periodic plane wave from the right as faulty microphones record it, (1024, n_mics)."""
    rng = np.random.default_rng(seed)
    frequencies = np.fft.rfftfreq(1024, 1 / SETTINGS.sample_rate_hz)
    spectrum = np.exp(2j * np.pi * rng.random(len(frequencies))) * 10 ** (response_db / 20)
    spectrum[[0, -1]] = 0
    direction = np.array([[0.4, 0.1, np.sqrt(1 - 0.17)]])
    delays = plane_wave_delays(positions_m, direction, 343.2)[0] + np.array(section.delay_s)
    factor = np.where(section.inverted, -1, 1) * np.array(section.gain)
    turned = spectrum[:, None] * np.exp(-2j * np.pi * np.outer(frequencies, delays)) * factor
    samples = np.empty((1024, N_MICS), np.float32)
    samples[:, list(section.channels)] = np.fft.irfft(turned, axis=0)
    return samples


def energy(applied, recording):
    imager = AcousticImager(
        applied.geometry, ARRAY.image, SETTINGS, gains=applied.gains, dead=applied.dead
    )
    return imager.energy(cut_snapshots(recording[:, list(applied.channels)]))[0]


PERFECT = MicrophoneSection(
    EVIDENCE,
    (1.0,) * N_MICS,
    (0.0,) * N_MICS,
    (False,) * N_MICS,
    ("good",) * N_MICS,
    ARRAY.channels,
    "",
)


def test_a_calibrated_image_is_that_of_perfect_microphones():
    section = drawn()
    calibration = Calibration.of(ARRAY.geometry).with_section(section)
    applied = apply_calibration(ARRAY, calibration, SETTINGS)
    assert applied.dead == (3, 5, 8)
    positions = ARRAY.geometry.positions_m
    recording = heard(positions, section)
    # What those give that are not used must not matter.
    recording[:, [section.channels[mic] for mic in applied.dead]] = 1.0
    perfect = AcousticImager(ARRAY.geometry, ARRAY.image, SETTINGS, dead=(3, 5, 8))
    expected = perfect.energy(cut_snapshots(heard(positions, PERFECT)))[0]
    found = energy(applied, recording)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
    raw = perfect.energy(cut_snapshots(recording))[0]
    assert np.abs(raw - expected).max() > 0.2 * expected.max()


def test_measured_positions_are_the_ones_that_are_steered_by():
    moved = ARRAY.geometry.positions_m + np.random.default_rng(2).normal(0, 0.01, (N_MICS, 3))
    calibration = Calibration.of(ARRAY.geometry).with_section(PositionSection(EVIDENCE, moved))
    applied = apply_calibration(ARRAY, calibration, SETTINGS)
    assert np.array_equal(applied.geometry.positions_m, moved)
    # A wave from a pixel keeps its power exactly only where every microphone is as it is heard.
    wave = energy(applied, heard(moved, PERFECT))
    drawn_only = apply_calibration(ARRAY, Calibration.of(ARRAY.geometry), SETTINGS)
    assert wave.max() > 1.05 * energy(drawn_only, heard(moved, PERFECT)).max()


def test_delays_of_other_positions_are_told_of(caplog):
    calibration = Calibration.of(ARRAY.geometry).with_section(drawn())
    apply_calibration(ARRAY, calibration, SETTINGS)
    assert caplog.messages == []
    moved = PositionSection(EVIDENCE, ARRAY.geometry.positions_m * 1.01)
    apply_calibration(ARRAY, calibration.with_section(moved), SETTINGS)
    assert len(caplog.messages) == 1
    assert "run soundpost calibrate array again" in caplog.messages[0]


def test_pascals_come_from_the_channel_of_the_calibrator_whatever_its_gain():
    section = drawn()
    # The calibrator on microphone 7: a sample of 1.0 there is 4 Pa.
    level = LevelSection(EVIDENCE, 4.0, 0.1, section.channels[7])
    calibration = Calibration.of(ARRAY.geometry).with_section(section).with_section(level)
    in_pascals = apply_calibration(ARRAY, calibration, SETTINGS, in_pascals=True)
    # All microphones hear a 1 Pa tone: spectra that are 1 / 4 g / g_7 become 1.
    spectra = np.array(section.gain) / section.gain[7] / 4
    np.testing.assert_allclose(np.abs(in_pascals.gains[0]) * spectra, 1.0, rtol=1e-12)


def test_the_response_is_taken_away_at_its_frequencies():
    points = ((100.0, -6.0), (1000.0, 0.0), (6000.0, 6.0))
    calibration = Calibration.of(ARRAY.geometry).with_section(ResponseSection(EVIDENCE, points))
    table = corrections(ARRAY, calibration, np.array([50.0, 100.0, 1000.0, 6000.0]))
    expected = [6.0, 6.0, 0.0, -6.0]
    np.testing.assert_allclose(20 * np.log10(np.abs(table[:, 0])), expected, atol=1e-9)


STEP = ((20.0, 0.0), (2_000.0, 0.0), (2_001.0, 3.0), (20_000.0, 3.0))


def test_a_microphone_that_adds_3_db_above_2_khz_measures_flat():
    known = ResponseSection(EVIDENCE, by_microphone={4: STEP})
    table = corrections(
        ARRAY,
        Calibration.of(ARRAY.geometry).with_section(known),
        np.array([0.0, 1000.0, 2000.0, 2001.0, 6000.0]),
    )
    heard_db = np.array([0.0, 0.0, 0.0, 3.0, 3.0])
    np.testing.assert_allclose(20 * np.log10(np.abs(table[:, 4])) + heard_db, 0.0, atol=1e-9)
    others = np.delete(np.arange(N_MICS), 4)
    np.testing.assert_array_equal(table[:, others], 1.0)


def test_a_map_of_unlike_microphones_is_that_of_a_flat_array():
    """Some add 3 dB above 2 kHz, all others lose 2 there; the oracle has plain microphones."""
    lifted = [1, 4, 9]
    falling = ((20.0, 0.0), (2_000.0, 0.0), (2_001.0, -2.0), (20_000.0, -2.0))
    positions = ARRAY.geometry.positions_m
    flat = heard(positions, PERFECT)
    spectra = np.fft.rfft(flat.astype(float), axis=0)
    above = np.fft.rfftfreq(1024, 1 / SETTINGS.sample_rate_hz) > 2_000.5
    gain_db = np.full(N_MICS, -2.0)
    gain_db[lifted] = 3.0
    spectra[above] *= 10 ** (gain_db / 20)
    unlike = np.fft.irfft(spectra, axis=0).astype("f4")
    known = ResponseSection(EVIDENCE, falling, dict.fromkeys(lifted, STEP))
    applied = apply_calibration(ARRAY, Calibration.of(ARRAY.geometry).with_section(known), SETTINGS)
    plain = apply_calibration(ARRAY, Calibration.of(ARRAY.geometry), SETTINGS)
    expected = energy(plain, flat)
    np.testing.assert_allclose(energy(applied, unlike), expected, atol=1e-5 * expected.max())
    assert np.abs(energy(plain, unlike) - expected).max() > 0.1 * expected.max()


def test_pascals_without_a_level_and_another_array_are_refused():
    calibration = Calibration.of(ARRAY.geometry)
    with pytest.raises(InputError, match=r"has no level.*soundpost calibrate level"):
        apply_calibration(ARRAY, calibration, SETTINGS, in_pascals=True)
    stray = calibration.with_section(LevelSection(EVIDENCE, 4.0, 0.1, 77))
    with pytest.raises(InputError, match="channel 77, which is no microphone"):
        apply_calibration(ARRAY, stray, SETTINGS, in_pascals=True)
    other = ArrayDescription(vogel_spiral(N_MICS, 0.4))
    with pytest.raises(InputError, match="belongs to array 'vogel-16'"):
        apply_calibration(other, calibration, SETTINGS)


# ------------------------------------------------------------------------------------ Acoular


def test_acoular_reads_pascals_per_unit_of_each_microphone(tmp_path):
    # Here, for the device is tested without it as well.
    from acoular import Calib

    section = drawn()
    level = LevelSection(EVIDENCE, 4.0, 0.1, section.channels[7])
    calibration = Calibration.of(ARRAY.geometry).with_section(section).with_section(level)
    path = tmp_path / "calib.xml"
    write_acoular_calib(path, ARRAY, calibration)
    found = Calib(file=str(path)).data
    signs = np.where(section.inverted, -1, 1)
    expected = 4.0 * section.gain[7] / np.array(section.gain) * signs
    expected[3] = 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    again = read_acoular_calib(path, ARRAY, DATE)
    assert again.microphones.named("dead") == (3,)
    write_acoular_calib(tmp_path / "again.xml", ARRAY, again)
    kept = Calib(file=str(tmp_path / "again.xml")).data
    np.testing.assert_allclose(kept, expected, rtol=1e-12)


ACOULAR = """<?xml version="1.0" encoding="utf-8"?>
<Calib name="three">
  <pos Name="Point 1" factor="1.5"/>
  <pos Name="Point 2" factor="-3.0"/>
  <pos Name="Point 3" factor="0.0"/>
</Calib>"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Calib", "<!DOCTYPE a><Calib", "document type or an entity"),
        ("</Calib>", "", "is not XML"),
        ("Calib", "MicArray", "is a <MicArray>; expected a <Calib>"),
        ('factor="-3.0"', 'factor="loud"', "<pos> 1: found"),
        ('factor="-3.0"', "", "<pos> 1: found"),
        ('factor="-3.0"', 'factor="inf"', "<pos> 1: factor inf"),
        ('  <pos Name="Point 3" factor="0.0"/>\n', "", "2 factors; expected 3"),
    ],
)
def test_other_xml_is_refused_with_its_name(tmp_path, old, new, message):
    path = tmp_path / "calib.xml"
    path.write_text(ACOULAR.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_acoular_calib(path, ArrayDescription(vogel_spiral(3)), DATE)
    assert str(caught.value).startswith(str(path))
