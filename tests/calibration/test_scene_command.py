"""`soundpost scene render`: the WAV holds the sound to the last bit, the JSON says what it is."""

import argparse
import json

import numpy as np
import pytest
import soundfile

from soundpost.calibration.propagation import free_field
from soundpost.calibration.scene import render
from soundpost.calibration.scene_command import COMMAND
from soundpost.calibration.scene_files import check_size
from soundpost.calibration.scene_settings import build_scene, load_scene_settings
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription, write_array
from soundpost.device.errors import InputError, UsageError

SETTINGS = """\
array = "array.json"
seconds = 0.5
rate_hz = 12288
seed = 3

[[source]]
label = "whistle"
tone_hz = 900
seconds = 0.2
start_s = 0.1
position_m = [0.5, 0.0, 2.0]

[[source]]
chirp_hz = [300, 3000]
seconds = 0.3
path = [[0.0, -0.5, 0.0, 2.0], [0.5, 0.5, 0.0, 2.0]]

[[noise]]
kind = "self"
snr_db = 30
"""
# Microphone 0 on channel 2, and channel 1 unused.
CHANNELS = (2, 0, 3, 4, 5, 6, 7, 8)


@pytest.fixture
def folder(tmp_path):
    write_array(tmp_path / "array.json", ArrayDescription(vogel_spiral(8), CHANNELS))
    (tmp_path / "scene.toml").write_text(SETTINGS)
    return tmp_path


def run(*words):
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_intermixed_args([str(word) for word in words]))


def test_the_wav_holds_what_is_heard_to_half_of_the_last_bit(folder, capsys):
    wav = folder / "scene.wav"
    assert run("render", folder / "scene.toml", "--out", wav, "--quiet") == 0
    info = soundfile.info(wav)
    assert (info.channels, info.samplerate, info.frames) == (9, 12_288, 6_144)
    assert (info.format, info.subtype) == ("WAV", "PCM_24")
    settings = load_scene_settings(folder / "scene.toml")
    positions = vogel_spiral(8).positions_m
    expected = render(build_scene(settings, 8), positions).samples
    found, _ = soundfile.read(wav)
    assert np.abs(found[:, CHANNELS] - expected).max() <= 0.5 / 2**23 + 1e-9
    assert not found[:, 1].any()
    told = capsys.readouterr().out
    assert "0.5 s, 8 microphones at 12288 Hz" in told
    assert "whistle" in told


def test_the_json_beside_says_what_is_heard_from_where(folder):
    run("render", folder / "scene.toml", "--out", folder / "scene.wav", "--quiet")
    note = json.loads((folder / "scene.json").read_text())
    assert note["schema"] == "soundpost.scene/1"
    array = vogel_spiral(8)
    assert note["array"]["sha256"] == array.hash()
    assert note["array"]["channels"] == list(CHANNELS)
    np.testing.assert_array_equal(note["array"]["positions_m"], array.positions_m)
    whistle, sweep = note["sources"]
    nearest = np.linalg.norm(array.positions_m - [0.5, 0, 2], axis=1).min()
    assert whistle["label"] == "whistle"
    assert whistle["onset_s"] == pytest.approx(0.1 + nearest / 343.2)
    assert whistle["path"] == [[0.0, 0.5, 0.0, 2.0]]
    assert sweep["path"] == [[0.0, -0.5, 0.0, 2.0], [0.5, 0.5, 0.0, 2.0]]
    found, _ = soundfile.read(folder / "scene.wav")
    assert note["peak"] == pytest.approx(np.abs(found).max(), abs=1e-6)
    # From the note and the sources' samples alone, the sound can be made again.
    sources = build_scene(load_scene_settings(folder / "scene.toml"), 8).sources
    positions = np.array(note["array"]["positions_m"])
    again = free_field(sources, positions, note["n_samples"], 12_288, note["speed_of_sound_m_s"])
    noise = found[:, note["array"]["channels"]] - again
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(note["noises"][0]["rms"], rel=0.01)


def test_the_same_settings_give_the_same_bytes_and_a_change_others(folder):
    outs = [folder / name for name in ("a.wav", "b.wav", "c.wav")]
    for out, changes in zip(outs, ([], [], ["seed=4"]), strict=True):
        run("render", folder / "scene.toml", *changes, "--out", out, "--quiet")
    a, b, c = (out.read_bytes() for out in outs)
    assert a == b != c
    assert outs[0].with_suffix(".json").read_bytes() == outs[1].with_suffix(".json").read_bytes()


def test_what_24_bits_cannot_hold_is_refused_and_float_holds_it(folder):
    loud = ("render", folder / "scene.toml", "gain_db=40", "--out", folder / "loud.wav", "--quiet")
    with pytest.raises(InputError, match=r"loudest sample is \d.* lower gain_db by \d"):
        run(*loud)
    assert not (folder / "loud.wav").exists()
    run(*loud, "--float")
    assert soundfile.info(folder / "loud.wav").subtype == "FLOAT"
    run("render", folder / "scene.toml", "--out", folder / "as_is.wav", "--float", "--quiet")
    loud_samples, samples = (soundfile.read(folder / of)[0] for of in ("loud.wav", "as_is.wav"))
    np.testing.assert_allclose(loud_samples, 100 * samples, rtol=1e-4, atol=1e-4)


def test_the_note_can_be_printed(folder, capsys):
    run("render", folder / "scene.toml", "--out", folder / "scene.wav", "--json", "--quiet")
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((folder / "scene.json").read_text())


def test_what_is_missing_is_named(folder):
    settings = folder / "scene.toml"
    with pytest.raises(UsageError, match=r"expected a name that ends in \.wav"):
        run("render", settings, "--out", folder / "scene.flac")
    array = ("--array", folder / "array.json")
    assert run("render", settings, "--out", folder / "scene.wav", *array, "--quiet") == 0
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        run("render", settings, "--out", folder / "scene.wav", "--array", folder / "none.json")


def test_without_an_array_there_are_the_published_sensors_128_microphones(folder):
    settings = folder / "scene.toml"
    settings.write_text(SETTINGS.replace('array = "array.json"\n', ""))
    assert run("render", settings, "--out", folder / "scene.wav", "--quiet") == 0
    told = json.loads((folder / "scene.json").read_text())
    assert np.shape(told["array"]["positions_m"]) == (128, 3)
    assert np.ptp(np.array(told["array"]["positions_m"])[:, 0]) <= 0.45


def test_scenes_too_large_for_a_wav_are_refused_before_they_are_rendered(folder):
    array = ArrayDescription(vogel_spiral(128))
    # 1 GiB of float32 on 128 channels.
    check_size(2**21, array)
    with pytest.raises(UsageError, match="expected at most 2097152: render it in parts"):
        check_size(2**21 + 1, array)
