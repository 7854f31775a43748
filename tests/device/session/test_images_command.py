"""`soundpost images` as a program and as a command: numbers, pictures, and what it refuses."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone

import h5py
import numpy as np
import pytest

from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.image_file import read_images
from soundpost.device.commands.images import COMMAND
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.session_tables import Gap

PIXELS = (200, 1_500)


def images(*arguments):
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_args([str(argument) for argument in arguments]))


def test_images_show_noise_in_the_pixel_it_comes_from(write_scene_session, capsys):
    folder = write_scene_session(PIXELS, 1.0, gaps=[Gap(16_100, 50, "lost")])
    assert images(folder, "--workers", 2) == 0
    assert "24 images of mfcc, energy, 1 of them without all their sound" in capsys.readouterr().out
    with h5py.File(folder / "acoustic_images.h5") as file:
        assert file["sample"][()] == pytest.approx((np.arange(24) + 0.5) * 16_000 / 12)
    found = read_images(folder / "acoustic_images.h5")
    assert found.images["mfcc"].shape == (24, 36, 48, 12)
    loudest = found.images["energy"].reshape(24, -1).argmax(axis=1)
    assert loudest[:12].tolist() == [PIXELS[0]] * 12
    assert loudest[13:].tolist() == [PIXELS[1]] * 11
    assert np.flatnonzero(~found.valid).tolist() == [12]
    assert found.settings["front_end"]["temperature_c"] == 20.0
    # Again: nothing is left to do, and other settings are refused.
    before = (folder / "acoustic_images.h5").stat().st_mtime_ns
    assert images(folder, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_images"], told["not_valid"], told["made"]) == (24, 1, 0)
    with pytest.raises(UsageError, match=r"made with front_end .*now it is.*choose another --out"):
        images(folder, "--temperature", 30)
    assert (folder / "acoustic_images.h5").stat().st_mtime_ns == before


def test_options_reach_the_images(write_scene_session, tmp_path):
    folder = write_scene_session(PIXELS, 0.5)
    out = tmp_path / "a.h5"
    options = ["--kind", "log-mel,energy", "--grid", "6x8", "--view", 30, 20, "--near", 1.5]
    more = ["--rate", 16_000, "--length", 512, "--from", 0.25, "--dead", "3,7", "--dead", "9"]
    assert images(folder, "--out", out, *options, *more, "--remove-diagonal") == 0
    found = read_images(out)
    assert sorted(found.images) == ["energy", "log_mel"]
    assert found.images["log_mel"].shape == (23, 6, 8, 24)
    assert found.settings["dead"] == [3, 7, 9]
    assert found.settings["first_sample"] == 4_000
    grid = found.settings["image_grid"]
    assert (grid["half_width_deg"], grid["half_height_deg"], grid["distance_m"]) == (30, 20, 1.5)
    assert found.settings["front_end"]["mel"]["layout"] == "frequency"
    assert found.settings["front_end"]["remove_diagonal"]
    assert not (folder / "acoustic_images.h5").exists()


@pytest.mark.parametrize("video", [True, False])
def test_a_picture_says_and_shows_where_it_is_loudest(write_scene_session, tmp_path, capsys, video):
    import matplotlib.image

    folder = write_scene_session(PIXELS, 1.0, video=video)
    for pixel, at_s in zip(PIXELS, (0.5, 1.5), strict=True):
        path = tmp_path / f"{pixel}.png"
        assert images(folder, "--picture", path, "--at", at_s, "--colours", "viridis") == 0
        said = re.search(
            r"loudest ([.\d]+)° (left|right), ([.\d]+)° (up|down)", capsys.readouterr().out
        )
        right = float(said[1]) * (1 if said[2] == "right" else -1)
        up = float(said[3]) * (1 if said[4] == "up" else -1)
        x, y, z = ImageGrid().directions()[pixel]
        assert right == pytest.approx(np.degrees(np.arctan2(x, z)), abs=0.1)
        assert up == pytest.approx(np.degrees(np.arctan2(y, z)), abs=0.1)
        picture = matplotlib.image.imread(path)[..., :3]
        height, width = picture.shape[:2]
        assert (width, height) == ((96, 64) if video else (640, 480))
        column = (x / z + 1) / 2 * width
        row = (1 - y / z / np.tan(np.radians(32))) / 2 * height
        # Viridis ends in yellow: much green, little blue. The bar is at the right.
        yellow = (picture[..., 1] - picture[..., 2])[:, : int(0.8 * width)]
        middle = np.argwhere(yellow > 0.8 * yellow.max()).mean(axis=0)
        assert middle == pytest.approx([row, column], abs=0.06 * width)
    assert not (folder / "acoustic_images.h5").exists()


def test_a_killed_run_makes_the_same_file_as_one_that_was_not(write_scene_session, tmp_path):
    folder = write_scene_session(PIXELS, 4.0, video=False)
    command = (
        "import argparse, sys; from soundpost.device.commands.images import COMMAND;"
        "parser = argparse.ArgumentParser(); COMMAND.add_arguments(parser);"
        "sys.exit(COMMAND.run(parser.parse_args()))"
    )
    out = tmp_path / "killed.h5"
    part = tmp_path / ".killed.h5.part"
    program = [sys.executable, "-c", command, folder, "--grid", "12x16", "--out"]
    process = subprocess.Popen([*program, out], env={**os.environ, "OMP_NUM_THREADS": "1"})
    # As soon as there is a part, whatever it holds
    while not part.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = tmp_path / "whole.h5"
    assert images(folder, "--grid", "12x16", "--out", out) == 0
    assert images(folder, "--grid", "12x16", "--out", whole) == 0
    one, other = read_images(out), read_images(whole)
    for kind in ("energy", "mfcc"):
        assert np.array_equal(one.images[kind], other.images[kind])
    assert one.settings == other.settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "mfcc,colour"], "--kind colour: expected some of mfcc, log_mel, power, energy"),
        (["--grid", "36"], "--grid 36: expected rows and columns, such as 36x48"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
        (["--dead", "a"], "--dead a: expected numbers from 0, such as 79,105"),
        (["--from", "3"], "--from 3 --to 1: expected times that rise, within the session's 1.000"),
        (["--to", "inf"], "--from 0 --to inf: expected times that rise"),
        (["--rate", "0", "--picture", "a.png", "--at", "0.5"], "--rate 0: expected samples"),
        (["--picture", "a.jpg", "--at", "1"], r"a\.jpg: expected a name that ends in \.png"),
        (["--picture", "a.png"], "expected --at SECONDS as well"),
        (["--acoular", "clean-sc"], "--acoular clean-sc: is for --picture"),
        (["--picture", "a.png", "--video", "a.mp4"], "--picture and --video: expected one of them"),
        (["--video", "a.mp4", "--channel", "left"], "--channel left: expected a number from 0"),
        (["--range", "0", "--picture", "a.png", "--at", "0.5"], "range 0 dB"),
    ],
)
def test_wrong_options_are_one_line(write_scene_session, monkeypatch, tmp_path, options, message):
    folder = write_scene_session((200,), 1.0, video=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        images(folder, *options)
    assert [entry for entry in tmp_path.iterdir() if entry.is_file()] == []


@pytest.mark.parametrize("band", [("nan", "6400"), ("inf", "inf"), ("900", "nan")])
def test_a_band_of_no_numbers_is_refused(write_scene_session, band):
    folder = write_scene_session((200,), 0.5, video=False)
    with pytest.raises(
        InputError, match=f"band {band[0]} to {band[1]} Hz; expected one with a bin"
    ):
        images(folder, "--kind", "energy", "--band", *band)


def test_a_session_without_an_array_is_refused(write_session):
    written = write_session(with_array=False)
    with pytest.raises(InputError, match=r"has no array\.json.*record with --array"):
        images(written.folder)


def test_a_calibration_is_applied_and_named(write_scene_session):
    """Microphones on each other's channels, every third of them inverted: without the calibration
    the noise is heard from elsewhere."""
    import hashlib

    import soundfile

    from soundpost.device.array.calibration_file import Calibration, write_calibration
    from soundpost.device.array.calibration_sections import Evidence, MicrophoneSection
    from soundpost.device.array.geometry import vogel_spiral
    from soundpost.device.session.wav_segments import segment_path

    folder, array = write_scene_session((200,), 0.5, video=False), vogel_spiral(24)
    sound, rate_hz = soundfile.read(segment_path(folder, 0))
    sound[:, ::3] *= -1
    # The stream has them the other way round.
    soundfile.write(segment_path(folder, 0), sound[:, ::-1], rate_hz, subtype="PCM_24")
    assert images(folder, "--kind", "energy", "--out", folder / "plain.h5") == 0
    plain = read_images(folder / "plain.h5")
    assert plain.settings["calibration_sha256"] is None
    assert plain.images["energy"][0].argmax() != 200

    section = MicrophoneSection(
        Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "made up"),
        gain=(1.0,) * 24,
        delay_s=(0.0,) * 24,
        inverted=tuple(mic % 3 == 0 for mic in range(24)),
        states=("good",) * 24,
        channels=tuple(range(23, -1, -1)),
        positions_sha256=array.hash(),
    )
    path = folder / "calibration.json"
    write_calibration(path, Calibration.of(array).with_section(section))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    text = (folder / "session.json").read_text()
    text = text.replace('"calibration": null', f'"calibration": {{"sha256": "{sha256}"}}')
    (folder / "session.json").write_text(text)
    assert images(folder, "--kind", "energy") == 0
    found = read_images(folder / "acoustic_images.h5")
    assert found.settings["calibration_sha256"] == sha256
    energy = found.images["energy"].reshape(found.images["energy"].shape[0], -1)
    assert energy.argmax(axis=1).tolist() == [200] * 6


def test_images_from_before_a_repair_are_not_taken_for_those_after_it(write_scene_session):
    from soundpost.device.session.session_tables import write_gaps

    folder = write_scene_session((200,), 0.5, video=False)
    assert images(folder, "--kind", "energy") == 0
    write_gaps(folder, [Gap(2_000, 400, "damaged")])
    with pytest.raises(UsageError, match=r"images made with missing_sha256 .* or remove the file"):
        images(folder, "--kind", "energy")
    (folder / "acoustic_images.h5").unlink()
    assert images(folder, "--kind", "energy") == 0
    assert read_images(folder / "acoustic_images.h5").valid.tolist() == [True, False, *[True] * 4]
