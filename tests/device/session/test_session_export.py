"""Sessions for other programs, read back by what is not ours: h5py, soundfile, xml."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from soundpost.device.array.acoular_calib import write_acoular_calib
from soundpost.device.array.acoustic_image import ImageSettings
from soundpost.device.array.calibration_file import Calibration, write_calibration
from soundpost.device.array.calibration_sections import Evidence, MicrophoneSection
from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.geometry_files import read_array, write_array
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.calibrated_array import calibrated_array
from soundpost.device.session.session_export import export_acoular, export_clips
from soundpost.device.session.session_images import SessionImages
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import Gap
from soundpost.device.session.wav_segments import segment_path


def quietly(_n_samples: int) -> None:
    pass


def test_acoular_gets_microphones_in_the_order_of_their_positions(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    import h5py

    written = write_session(gaps=[Gap(100, 50, "lost")])
    array = read_array(written.folder / "array.json")
    write_array(written.folder / "array.json", replace(array, channels=(2, 0, 3, 1)))
    told: list[int] = []
    with open_session(written.folder) as session:
        paths = export_acoular(session, tmp_path / "hall.h5", told.append)
    assert paths == [tmp_path / "hall.h5", tmp_path / "hall.xml"]
    assert sum(told) == 5_000
    with h5py.File(tmp_path / "hall.h5") as file:
        data = file["time_data"]
        assert data.dtype == np.float32
        assert data.attrs["sample_freq"] == 8_000.0
        np.testing.assert_array_equal(data[:], written.sound[:, [2, 0, 3, 1]])
    places = [
        [float(pos.attrib[axis]) for axis in "xyz"]
        for pos in ElementTree.parse(tmp_path / "hall.xml").getroot()
    ]
    np.testing.assert_array_equal(places, array.geometry.positions_m)


def test_acoular_opens_what_is_exported_and_sees_the_same_pixel(
    write_scene_session: Callable[..., Path], tmp_path: Path
) -> None:
    """Its own classes, from the HDF5, the XML and the factors alone: microphones on each other's
    channels, one twice as loud, every other inverted and one dead."""
    import acoular

    acoular.config.global_caching = "none"
    pixel, loud, dead = 700, 5, 11
    folder = write_scene_session((pixel,), 1.0, video=False)
    geometry = read_array(folder / "array.json").geometry
    sound, rate_hz = soundfile.read(segment_path(folder, 0))
    sound[:, loud] *= 2
    sound[:, ::2] *= -1
    sound[:, dead] = np.random.default_rng(0).uniform(-0.9, 0.9, len(sound))
    channels = np.roll(np.arange(24), 7)
    mixed = np.empty_like(sound)
    mixed[:, channels] = sound
    soundfile.write(segment_path(folder, 0), mixed, rate_hz, subtype="PCM_24")
    mics = np.arange(24)
    section = MicrophoneSection(
        Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "made up"),
        gain=tuple(np.where(mics == loud, 2.0, 1.0).tolist()),
        delay_s=(0.0,) * 24,
        inverted=tuple((mics % 2 == 0).tolist()),
        states=tuple("dead" if mic == dead else "good" for mic in mics),
        channels=tuple(channels.tolist()),
        positions_sha256=geometry.hash(),
    )
    calibration = Calibration.of(geometry).with_section(section)
    write_calibration(folder / "calibration.json", calibration)
    sha256 = hashlib.sha256((folder / "calibration.json").read_bytes()).hexdigest()
    text = (folder / "session.json").read_text()
    told = f'"calibration": {{"sha256": "{sha256}"}}'
    (folder / "session.json").write_text(text.replace('"calibration": null', told))
    with open_session(folder) as session:
        hdf5, xml = export_acoular(session, tmp_path / "hall.h5", quietly)
        array = session.array
        assert array is not None
        ours = calibrated_array(array, calibration, ImageGrid(), ImageSettings())
        (chunk,) = SessionImages(session, ours.imager, ours.channels).make(("energy",))
    assert chunk.images["energy"].sum(axis=0).argmax() == pixel
    write_acoular_calib(tmp_path / "calib.xml", array, calibration)

    def peak(with_factors: bool) -> int:
        source = acoular.TimeSamples(file=hdf5)
        assert source.sample_freq == rate_hz
        factors = acoular.Calib(source=source, file=tmp_path / "calib.xml")
        spectra = acoular.PowerSpectra(
            source=factors if with_factors else source, block_size=1_024, window="Hanning"
        )
        steering = acoular.SteeringVector(
            # Its phases are float32: far, but not too far.
            grid=acoular.ImportGrid(pos=(ImageGrid().directions() * 5.0).T),
            mics=acoular.MicGeom(file=xml),
            env=acoular.Environment(c=343.2),
        )
        beamformer = acoular.BeamformerBase(freq_data=spectra, steer=steering, r_diag=False)
        return int(np.asarray(beamformer.synthetic(4_000, 3)).argmax())

    assert peak(with_factors=True) == pixel
    assert peak(with_factors=False) != pixel


def test_a_folder_that_is_not_there_is_told(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    import h5py

    assert h5py
    with (
        open_session(write_session().folder) as session,
        pytest.raises(InputError, match=r"hall\.h5: cannot be written"),
    ):
        export_acoular(session, tmp_path / "nowhere" / "hall.h5", quietly)


def test_clips_are_cut_where_there_is_sound(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    """0.1 s each; the second and third have a gap in them, the rest is shorter than one."""
    written = write_session(gaps=[Gap(1_599, 2, "lost")])
    with open_session(written.folder) as session:
        n_clips = export_clips(session, tmp_path / "clips", quietly, channel=2, seconds=0.1)
    rows = list(csv.DictReader((tmp_path / "clips" / "clips.csv").open()))
    assert [int(row["first_sample"]) for row in rows] == [0, 2_400, 3_200, 4_000]
    assert n_clips == 4
    assert rows[0]["utc"] == "2026-11-20T10:00:00.250000Z"
    for row in rows:
        first = int(row["first_sample"])
        samples, rate_hz = soundfile.read(tmp_path / "clips" / row["file"], dtype="float32")
        assert rate_hz == 8_000
        np.testing.assert_array_equal(samples, written.sound[first : first + 800, 2])


def test_clips_of_another_rate_have_its_length(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    with open_session(write_session().folder) as session:
        export_clips(session, tmp_path, quietly, seconds=0.25, rate_hz=16_000)
        with pytest.raises(InputError, match="has no channel 4"):
            export_clips(session, tmp_path, quietly, channel=4)
        with pytest.raises(UsageError, match=r"--seconds 0: expected 0\.1 to 3600"):
            export_clips(session, tmp_path, quietly, seconds=0.0)
    clips = sorted(tmp_path.glob("*.wav"))
    assert [soundfile.info(path).frames for path in clips] == [4_000, 4_000]
