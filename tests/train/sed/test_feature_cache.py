"""Features on disk: those of the front end, made once, and again when anything changes."""

import os

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose

import soundpost.train.sed.feature_cache as module
from soundpost.device.audio import read_clip
from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.sed.feature_cache import encode, open_features
from soundpost.train.sed.scenes import Scene, SceneSet

FRONT_END = FrontEnd()


@pytest.fixture
def scenes(tmp_path):
    rng = np.random.default_rng(1)
    found = []
    for name, seconds in (("a.flac", 2.0), ("b.flac", 1.5), ("c.flac", 2.4)):
        path = tmp_path / name
        sound = rng.uniform(-1, 1, round(seconds * 16_000)) * np.linspace(0, 1, 3)[len(found)]
        soundfile.write(path, sound, 16_000)
        found.append(Scene(path, "unlabelled", seconds))
    return SceneSet(tmp_path, tuple(found), ("x",))


def counted(monkeypatch):
    calls = []
    monkeypatch.setattr(
        module, "read_clip", lambda *given: calls.append(given[0].name) or read_clip(*given)
    )
    return calls


def test_features_are_those_of_the_front_end(scenes):
    features = open_features(scenes, FRONT_END, 2.0, quiet=True)
    found = features.log_mel([2, 0, 1]).numpy()
    assert found.dtype == np.float32
    assert found.shape == (3, features.n_frames, 64) == (3, 198, 64)
    # Half of a 65,534th of the clamped range: (5 + 7) / 65534 / 2.
    for row, scene in zip(found, (scenes.scenes[i] for i in (2, 0, 1)), strict=True):
        sound = np.pad(read_clip(scene.path), (0, 32_000))[:32_000]
        assert_allclose(row, log_mel(sound, FRONT_END), atol=9.2e-5 + 1e-6)


def test_codes_span_the_clamped_range():
    codes = encode(np.array([-9.0, -7.0, -1.0, 5.0], np.float32), FRONT_END)
    assert codes.tolist() == [-32_767, -32_767, 0, 32_767]


def test_computed_once(scenes, monkeypatch):
    calls = counted(monkeypatch)
    first = open_features(scenes, FRONT_END, 2.0, quiet=True).log_mel([0, 1, 2])
    assert calls == ["a.flac", "b.flac", "c.flac"]
    second = open_features(scenes, FRONT_END, 2.0, quiet=True).log_mel([0, 1, 2])
    assert len(calls) == 3
    assert np.array_equal(first, second)


def test_computed_again_when_something_changed(scenes, monkeypatch):
    calls = counted(monkeypatch)
    open_features(scenes, FRONT_END, 2.0, quiet=True)
    open_features(scenes, FRONT_END, 1.0, quiet=True)
    open_features(scenes, FrontEnd(n_mels=40), 2.0, quiet=True)
    assert len(calls) == 9
    path = scenes.scenes[0].path
    soundfile.write(path, np.zeros(32_000), 16_000)
    os.utime(path, (1, 1))
    features = open_features(scenes, FRONT_END, 2.0, quiet=True)
    assert len(calls) == 12
    silence = np.full((198, 64), np.log(FRONT_END.log_offset))
    assert_allclose(features.log_mel([0])[0], silence, atol=1e-4)


def test_a_damaged_or_half_made_file_is_made_again(scenes, monkeypatch):
    open_features(scenes, FRONT_END, 2.0, quiet=True)
    (path,) = (scenes.folder / "features").glob("*.npy")
    whole = path.read_bytes()
    path.write_bytes(whole[:1_000])
    # What a run that was killed leaves.
    path.with_suffix(".part").write_bytes(whole[:5_000])
    open_features(scenes, FRONT_END, 2.0, quiet=True)
    assert path.read_bytes() == whole
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", path.name]


def test_a_run_that_fails_leaves_no_features(scenes):
    scenes.scenes[1].path.write_bytes(b"not sound")
    with pytest.raises(InputError, match=r"b\.flac"):
        open_features(scenes, FRONT_END, 2.0, quiet=True)
    assert [p.name for p in (scenes.folder / "features").iterdir()] == [".lock"]


def test_an_empty_set(tmp_path):
    with pytest.raises(InputError, match=r"has no recordings"):
        open_features(SceneSet(tmp_path, (), ("x",)), FRONT_END, 2.0, quiet=True)
