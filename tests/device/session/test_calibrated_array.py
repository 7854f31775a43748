"""A calibration is applied once and alike: to images, to what is exported, and to the live map."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import (
    Evidence,
    MicrophoneSection,
    PositionSection,
    ResponseSection,
)
from soundpost.device.array.camera_sections import CameraSection, SyncSection
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import read_acoular_xml
from soundpost.device.array.live_images import LiveImages, below_greatest_db, live_settings
from soundpost.device.audio import AudioBlock
from soundpost.device.commands.images import COMMAND
from soundpost.device.session.calibrated_array import calibrated_array, heard_frames
from soundpost.device.session.image_request import build_images
from soundpost.device.session.lost_parts import LostPart, write_lost
from soundpost.device.session.published_export import export_published
from soundpost.device.session.session_export import export_acoular
from soundpost.device.session.session_images import SessionImages
from soundpost.device.session.session_overlay import draw_at, frame_at
from soundpost.device.session.session_reader import Session, open_session
from soundpost.device.session.session_tables import FrameTable
from soundpost.device.session.wav_segments import segment_path

RATE_HZ, N_MICS, DEAD = 8_000, 8, 5
ARRAY = vogel_spiral(N_MICS, 0.2)
EVIDENCE = Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "made up")


def calibration(**changed: Any) -> Calibration:
    """Nothing is wrong with any microphone but one, which is dead, and with those that are told."""
    values: dict[str, Any] = {
        "gain": (1.0,) * N_MICS,
        "delay_s": (0.0,) * N_MICS,
        "inverted": (False,) * N_MICS,
        "states": tuple("dead" if mic == DEAD else "good" for mic in range(N_MICS)),
        "channels": tuple(range(N_MICS)),
    }
    section = MicrophoneSection(EVIDENCE, positions_sha256=ARRAY.hash(), **(values | changed))
    return Calibration.of(ARRAY).with_section(section)


# What is wrong with the other: 0 and 3 are on each other's channel, 1 is inverted, 2 twice as loud.
FAULTY = calibration(
    channels=(3, 1, 2, 0, 4, 5, 6, 7),
    inverted=(False, True, *(False,) * 6),
    gain=(1.0, 1.0, 2.0, *(1.0,) * 5),
)


@pytest.fixture
def both(write_session: Callable[..., Any]) -> tuple[Path, Path]:
    """The same sound, by microphones that are as they should be and by some that are not."""
    whole = write_session(9_600, N_MICS, calibration=calibration().to_json().encode())
    faulty = write_session(9_600, N_MICS, calibration=FAULTY.to_json().encode())
    length = 1_500
    for number in range(-(-9_600 // length)):
        sound, _ = soundfile.read(segment_path(whole.folder, number))
        # Half as loud, so that what is doubled is not cut off.
        soundfile.write(segment_path(whole.folder, number), sound / 2, RATE_HZ, subtype="PCM_24")
        wrong = sound / 2
        wrong[:, 1] *= -1
        wrong[:, 2] *= 2
        wrong[:, [0, 3]] = wrong[:, [3, 0]]
        # Whatever a dead one gives, it is not heard.
        wrong[:, DEAD] = np.random.default_rng(number).uniform(-0.9, 0.9, len(wrong))
        soundfile.write(segment_path(faulty.folder, number), wrong, RATE_HZ, subtype="PCM_24")
    return whole.folder, faulty.folder


def test_exported_images_are_those_of_an_array_without_faults(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    from soundpost.train.datasets.acoustic_actions import read_actions

    images = []
    for number, folder in enumerate(both):
        with open_session(folder) as session:
            export_published(session, tmp_path / f"{number}", (1, 1, 1), lambda _: None)
        actions, problems = read_actions(tmp_path / f"{number}")
        assert [problem.found for problem in problems] == ["has no video"]
        assert actions.settings.broken_microphones == (DEAD,)
        images.append(actions.recordings[0].load_images())
    assert len(images[0]) == 14
    # Coefficients reach 100; empty bands are told from the last bit of 24.
    np.testing.assert_allclose(images[1], images[0], atol=0.5)


def test_images_of_microphones_with_known_responses_are_those_of_flat_ones(
    write_session: Callable[..., Any],
) -> None:
    """Microphone 2 adds 6 dB above 2 kHz, which only one of the calibrations knows of."""
    step = ((20.0, 0.0), (2_000.0, 0.0), (2_050.0, 6.0), (20_000.0, 6.0))
    known = calibration().with_section(ResponseSection(EVIDENCE, by_microphone={2: step}))
    rng, n_samples = np.random.default_rng(4), 9_000
    sound = rng.uniform(-0.05, 0.05, (n_samples, N_MICS))
    spectrum = np.fft.rfft(sound[:, 2])
    hertz = np.maximum(np.fft.rfftfreq(n_samples, 1 / RATE_HZ), 1.0)
    table_hz, table_db = np.array(step).T
    spectrum *= 10 ** (np.interp(np.log(hertz), np.log(table_hz), table_db) / 20)
    lifted = sound.copy()
    lifted[:, 2] = np.fft.irfft(spectrum, n_samples)
    maps = []
    for used, samples in ((calibration(), sound), (known, lifted), (calibration(), lifted)):
        written = write_session(
            n_samples, N_MICS, segment_samples=n_samples, calibration=used.to_json().encode()
        )
        soundfile.write(segment_path(written.folder, 0), samples, RATE_HZ, subtype="PCM_24")
        with open_session(written.folder) as session:
            made, _ = made_by_default(session)
            (chunk,) = made.make(("energy",))
            maps.append(chunk.images["energy"])
    expected, found, without = maps
    # The window mixes neighbouring bins at the step alone.
    assert np.abs(found - expected).max() < 0.01 * expected.max()
    assert np.abs(without - expected).max() > 0.1 * expected.max()


def test_acoular_gets_each_microphones_sound_at_the_place_where_it_is(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its columns and places are those that the factors of `calibrate export` belong to."""
    import h5py

    found = []
    for number, folder in enumerate(both):
        with open_session(folder) as session:
            path, _ = export_acoular(session, tmp_path / f"{number}.h5", lambda _: None)
        with h5py.File(path) as file:
            found.append(file["time_data"][:])
    factors = np.ones(N_MICS)
    factors[[1, 2]] = -1.0, 2.0
    alive = np.arange(N_MICS) != DEAD
    np.testing.assert_allclose(
        found[1][:, alive] / factors[alive], found[0][:, alive], atol=2.0**-22
    )


def test_acoular_gets_positions_as_measured(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    import h5py

    placed_m = ARRAY.positions_m + np.linspace(0, 0.003, 3 * N_MICS).reshape(N_MICS, 3)
    known = calibration().with_section(PositionSection(EVIDENCE, placed_m))
    written = write_session(1_000, N_MICS, calibration=known.to_json().encode())
    with open_session(written.folder) as session:
        sound, xml = export_acoular(session, tmp_path / "a.h5", lambda _: None)
    with h5py.File(sound) as exported:
        assert exported["time_data"].shape == (1_000, N_MICS)
    np.testing.assert_allclose(read_acoular_xml(xml).positions_m, placed_m, atol=1e-9)


def test_the_live_map_is_that_of_an_array_without_faults(both: tuple[Path, Path]) -> None:
    maps = []
    for folder, known in zip(both, (calibration(), FAULTY), strict=True):
        with open_session(folder) as session:
            assert session.array is not None
            settings = live_settings(RATE_HZ, 20.0)
            found = calibrated_array(session.array, known, session.array.image, settings)
            live = LiveImages(found.imager, found.channels)
            heard = live.push(AudioBlock(session.read(0, 2_000), 0, RATE_HZ))
            maps.append(below_greatest_db(heard[-1].energy))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-3)
    assert np.ptp(maps[0]) > 1.0


def made_by_default(session: Session) -> tuple[SessionImages, CameraSection | None]:
    """What `soundpost images` makes of it without options."""
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return build_images(session, parser.parse_args([str(session.folder)]))


def test_images_lack_what_most_of_their_microphones_lack(both: tuple[Path, Path]) -> None:
    """Of the faulty one, whose microphone 0 is on channel 3, and whose channel 5 nobody hears."""
    image = RATE_HZ / 12
    parts = [
        # A packet of one channel of seven, a tenth of image 1.
        LostPart(round(1.2 * image), round(0.1 * image), 3, 1, "lost"),
        # All of image 3 on three of seven channels.
        LostPart(round(3 * image), round(image), 0, 3, "silent"),
        # All of image 6 on the channel of the dead one.
        LostPart(round(6 * image), round(image), 5, 1, "silent"),
    ]
    write_lost(both[1], parts)
    with open_session(both[1]) as session:
        made, _ = made_by_default(session)
        valid = made.valid()
    assert np.flatnonzero(~valid).tolist() == [3]


def test_pictures_are_laid_at_what_is_heard_when_they_are_seen(
    write_session: Callable[..., Any],
) -> None:
    samples = np.arange(10) * 400.0
    frames = FrameTable(samples / RATE_HZ, samples, samples / RATE_HZ)
    late = Calibration.of(vogel_spiral(4, 0.2)).with_section(SyncSection(EVIDENCE, 0.12, 0.001))
    for known, shift in ((None, 0.0), (late.to_json().encode(), 0.12 * RATE_HZ)):
        with open_session(write_session(frames=frames, calibration=known).folder) as session:
            found = heard_frames(session)
            np.testing.assert_allclose(found.samples, samples + shift)
            np.testing.assert_array_equal(found.sensor_time_s, frames.sensor_time_s)
            # The picture at 0.1 s, sample 800, is of what is heard at 0.22 s.
            assert found.nearest(800 + shift) == 2


def test_without_pictures_the_cameras_map_is_of_no_use(write_session: Callable[..., Any]) -> None:
    matrix = np.array([[600.0, 0, 640], [0, -600, 360], [0, 0, 1]])
    known = Calibration.of(vogel_spiral(4, 0.2)).with_section(
        CameraSection(EVIDENCE, matrix, 0.0, 1_280, 720)
    )
    written = write_session(calibration=known.to_json().encode())
    with open_session(written.folder) as session:
        made, camera = made_by_default(session)
        assert camera is None
        assert frame_at(session, 0.0) is None
        from soundpost.device.array.map_overlay import OverlayStyle

        energy = np.ones((made.imager.grid.rows, made.imager.grid.columns), np.float32)
        picture = draw_at(session, energy, 0.0, made.imager.grid, camera, OverlayStyle())
        assert picture.shape == (480, 640, 3)
