"""Settings of a scene: what they say is what is built, and what they cannot say is refused."""

import numpy as np
import pytest
import soundfile

from soundpost.calibration.rooms import Room
from soundpost.calibration.scene_settings import build_scene, load_scene_settings
from soundpost.device.errors import ConfigError, InputError

SETTINGS = """\
array = "array.json"
seconds = 2.0
rate_hz = 16000
temperature_c = 10
seed = 4

[room]
size_m = [6.0, 3.0, 5.0]
camera_m = [3.0, 1.2, 0.3]
rt60_s = 0.3

[[source]]
label = "dog"
file = "dog.wav"
from_s = 0.25
seconds = 0.5
start_s = 1.0
position_m = [0.5, 0.0, 2]

[[source]]
tone_hz = 1000
level_dbfs = -6.0
path = [[0, -1.0, 0.0, 2.0], [5, 1.0, 0.0, 2.0]]

[[noise]]
kind = "wind"
snr_db = 20
speed_m_s = 6.0

[microphones]
gain_db = 1.0
dead = 2
"""


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "dog.wav", 0.1 * rng.standard_normal((16_000, 2)), 16_000)
    file = tmp_path / "scene.toml"
    file.write_text(SETTINGS)
    return file


def test_a_scene_is_what_its_settings_say(path):
    settings = load_scene_settings(path)
    assert settings.array == path.parent / "array.json"
    assert settings.room == Room((6.0, 3.0, 5.0), (3.0, 1.2, 0.3), 0.3)
    scene = build_scene(settings, n_mics=16)
    assert (scene.n_samples, scene.rate_hz, scene.temperature_c) == (32_000, 16_000, 10)
    dog, tone = scene.sources
    both, _ = soundfile.read(path.parent / "dog.wav")
    np.testing.assert_allclose(dog.samples, both.mean(axis=1)[4_000:12_000], atol=1e-6)
    assert (dog.label, dog.start_s) == ("dog", 1.0)
    np.testing.assert_array_equal(dog.place.at(9.9), [0.5, 0, 2])
    # A tone of a second, 6 dB below full scale.
    assert len(tone.samples) == 16_000
    assert 20 * np.log10(np.std(tone.samples)) == pytest.approx(-6, abs=0.01)
    np.testing.assert_array_equal(tone.place.at(2.5), [0, 0, 2])
    assert (scene.noises[0].kind, scene.noises[0].wind.speed_m_s) == ("wind", 6.0)
    assert scene.microphones.dead.sum() == 2


def test_changes_take_the_place_of_values(path):
    settings = load_scene_settings(path, ["seed=7", "room.rt60_s=0.5", "microphones.dead=0"])
    assert (settings.seed, settings.room.rt60_s, settings.microphones.dead) == (7, 0.5, 0)


def test_the_least_there_can_be_is_silence(tmp_path):
    (tmp_path / "scene.toml").write_text("seconds = 1\nrate_hz = 8000\n")
    scene = build_scene(load_scene_settings(tmp_path / "scene.toml"), 4)
    assert (scene.sources, scene.noises, scene.room, scene.microphones) == ((), (), None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seconds = 2.0", "second = 2.0", "unknown key second; did you mean seconds?"),
        ("rt60_s = 0.3", "rt60 = 0.3", "room: unknown key rt60; did you mean rt60_s?"),
        ("rt60_s = 0.3", "", "room: lacks rt60_s: reverberation time"),
        ("rt60_s = 0.3", "rt60_s = 0.05", "room: rt60_s is 0.05; expected 0.13"),
        ("[6.0, 3.0, 5.0]", "[6.0, 3.0]", "room: size_m is [6.0, 3.0]; expected a list of 3"),
        ("[room]", "[[room]]", "room is [{'size_m'"),
        ("position_m = [0.5, 0.0, 2]", "", "source 0: expected one of position_m and path"),
        ('file = "dog.wav"', "", "source 0: expected one of file, tone_hz, chirp_hz, noise"),
        ("tone_hz = 1000", "chirp_hz = [900, 200]", "source 1: chirp_hz is [900.0, 200.0]"),
        ("[5, 1.0, 0.0, 2.0]", "[0, 1.0, 0.0, 2.0]", "source 1: path: trajectory: point 1"),
        ("[5, 1.0, 0.0, 2.0]", "[5, 1.0, 0.0]", "expected a list of points [time in seconds"),
        ('kind = "wind"', 'kind = "pink"', "noise 0: kind is pink; expected one of diffuse"),
        ('kind = "wind"', 'kind = "self"', "noise 0: speed_m_s is only of kind wind"),
        ('kind = "wind"', "", "noise 0: lacks kind"),
        ("snr_db = 20", "", "noise 0: wind noise: expected one of snr_db and level_dbfs"),
        ("dead = 2", "dead = 2.5", "microphones: dead is 2.5; expected a whole number"),
        ("[[noise]]", "[noise]", "noise is no list of tables; expected [[noise]]"),
        ("seed = 4", "seed = ", "cannot be read as TOML"),
    ],
)
def test_what_settings_cannot_say_is_refused_in_one_line(path, old, new, message):
    assert old in SETTINGS
    path.write_text(SETTINGS.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_scene_settings(path)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tone_hz = 1000", "tone_hz = 8000", r"source 1: 8000 Hz; expected below half of rate_hz"),
        ("from_s = 0.25", "from_s = 1.5", "source 0: from_s is 1.5; expected a time within"),
    ],
)
def test_sounds_that_cannot_be_made_are_refused(path, old, new, message):
    path.write_text(SETTINGS.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        build_scene(load_scene_settings(path), 16)


def test_a_missing_sound_file_is_named(path):
    (path.parent / "dog.wav").unlink()
    with pytest.raises(InputError, match=r"dog\.wav: cannot be read"):
        build_scene(load_scene_settings(path), 16)
