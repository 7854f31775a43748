"""Recordings of real arrays from `soundpost record` through `calibrate` to `images`."""

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.calibration.calibrate_command import COMMAND
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.array.image_file import read_images
from soundpost.device.commands import images as images_command
from soundpost.device.commands import record as record_command
from soundpost.device.errors import InputError
from soundpost.device.session.session_reader import open_session

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[3] / "shared" / "data")
MULTICHANNEL = DATA / "multichannel"
pytestmark = pytest.mark.data


def run(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def four_in_a_square():
    """reSpeaker XVF3800: raw microphones on channels 2 to 5, 45 mm from the middle."""
    angle = np.arange(4) * np.pi / 2
    places = 0.045 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    return ArrayDescription(ArrayGeometry(places, "XVF3800"), (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("name", "dead"), [("output", [5]), ("cal_test", []), ("cal_ref", [])], ids=str
)
def test_the_dead_channel_of_a_recorded_session_is_named_and_no_other(
    record_session, monkeypatch, tmp_path, name, dead
):
    """A room's noise is no source at a known place: refused, with what is plainly wrong."""
    monkeypatch.chdir(tmp_path)
    samples, rate_hz = soundfile.read(MULTICHANNEL / "respeaker_xvf3800" / f"{name}.flac")
    folder = record_session(name, samples, rate_hz, array=four_in_a_square())
    with pytest.raises(InputError) as caught:
        run(COMMAND, "array", "--take", folder, 0, 0, 1)
    plain = [f"channel {channel} is dead: silent to the last bit; " for channel in dead]
    assert str(caught.value).startswith("".join(plain) + "recording 1: ")
    assert "channel" not in str(caught.value)[sum(map(len, plain)) :]
    assert not (tmp_path / "calibration.json").exists()


def delays_by_gcc_phat(samples, rate_hz):
    """Later than channel 0, (n_channels,), by another estimator than the one under test."""
    spectra = np.fft.rfft(samples, axis=0)
    hertz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    used = np.flatnonzero((hertz > 300) & (hertz < 4_000))[::3]
    lags = np.arange(-100, 101) * 4e-6
    turning = np.exp(2j * np.pi * np.outer(lags, hertz[used]))
    cross = (spectra * spectra[:, :1].conj())[used]
    return lags[(turning @ (cross / np.abs(cross))).real.argmax(axis=0)]


def test_a_talker_is_seen_where_the_delays_of_a_real_array_say(
    record_session, monkeypatch, tmp_path, capsys
):
    """CMU array A: eight microphones in a line. A line is no array that makes images: they are
    drawn 2 mm above and below it, which moves no peak along it."""
    monkeypatch.chdir(tmp_path)
    samples, rate_hz = soundfile.read(
        MULTICHANNEL / "cmu_arrA_8ch" / "an101-mtms-arrA.flac", dtype="float32"
    )
    places = np.zeros((8, 3))
    places[:, 0] = (np.arange(8) - 3.5) * 0.07
    with pytest.raises(InputError, match="on one line"):
        ArrayGeometry(places)
    places[:, 1] = 0.002 * (-1.0) ** np.arange(8)
    array = ArrayDescription(ArrayGeometry(places, "CMU A"), tuple(range(8)), ImageGrid(1, 61))
    folder = record_session("talker", samples, rate_hz, array=array, temperature_c=20.0)
    # A voice in a reverberant laboratory is no evidence of gains.
    with pytest.raises(InputError, match=r"^recording 1: SNR 1\d dB, expected 15"):
        run(COMMAND, "array", "--take", folder, 0, 0, 1)

    # Gains as told by other means go through Acoular's file into a session of their own.
    gain = np.sqrt(np.square(samples, dtype=np.float64).mean(axis=0))
    gain /= np.exp(np.log(gain).mean())
    factors = "".join(f'<pos Name="Point" factor="{1 / of:.6f}"/>' for of in gain)
    Path("calib.xml").write_text(f"<Calib>{factors}</Calib>")
    assert run(COMMAND, "import", "calib.xml", "--array", folder / "array.json") == 0
    assert (
        run(
            record_command.COMMAND,
            *("--source", tmp_path / "talker-played.wav", "--fast", "--quiet", "--out", "hall"),
            *("--array", folder / "array.json", "--calibration", "calibration.json"),
        )
        == 0
    )
    with open_session("hall") as session:
        told = np.array(session.known.microphones.gain)
        np.testing.assert_allclose(told / np.exp(np.log(told).mean()), gain, rtol=1e-4)
    words = ["--kind", "energy", "--band", 300, 4_000, "--view", 60, 20, "--remove-diagonal"]
    assert run(images_command.COMMAND, "hall", *words) == 0
    found = read_images(Path("hall") / "acoustic_images.h5")
    assert found.settings["calibration_sha256"] is not None
    energy = found.images["energy"].sum(axis=(0, 1))
    grid = ImageGrid(1, 61, 60.0, 20.0)
    right = grid.directions()[int(energy.argmax()), 0]
    # Later to the right means from the left: sin of the angle is minus the slope.
    slope = np.polyfit(places[:, 0], delays_by_gcc_phat(samples, rate_hz), 1)[0]
    assert right == pytest.approx(-slope * 343.2, abs=0.04)
    # And it stands out from where nobody talks.
    assert energy.max() > 4 * energy[[0, -1]].max()
