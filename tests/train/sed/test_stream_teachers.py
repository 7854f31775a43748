"""Soft labels of recordings, from any teacher, on the streaming student's frames."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from soundpost.device.errors import ConfigError, InputError
from soundpost.device.features import FrontEnd
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.sed.batches import in_order
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.frame_grid import frame_targets
from soundpost.train.sed.scenes import Event, Scene, SceneSet
from soundpost.train.sed.stream_teachers import open_stores
from soundpost.train.sed.streaming_recipe import streaming_recipe_from_dict
from soundpost.train.sed.streaming_run import (
    load_streaming_run,
    read_scenes,
    score_student,
    train_streaming,
)

CPU = torch.device("cpu")
FRONT_END = FrontEnd()
N_FRAMES = 98
LABELS = ("cat", "dog")
FOLDER = Path("/scenes")


@pytest.fixture(scope="module")
def tone_pair():
    path = Path(__file__).with_name("tone_pair.py")
    specification = spec_from_file_location("tone_pair", path)
    module = module_from_spec(specification)
    sys.modules["tone_pair"] = module
    specification.loader.exec_module(module)
    return module


def scene(name, labelling, tags=(), seconds=1.0):
    events = (Event("cat", 0.2, 0.6),) if labelling == "strong" else ()
    path = FOLDER / "audio" / name
    return Scene(path, labelling, seconds, events, frozenset(tags))


SCENES = SceneSet(
    FOLDER,
    (
        scene("u.wav", "unlabelled"),
        scene("w.wav", "weak", ("dog",)),
        scene("s.wav", "strong", ("cat",)),
        scene("short.wav", "unlabelled", seconds=0.5),
    ),
    LABELS,
)


def written(folder, labels, rows_of, teacher="half seconds"):
    """A store of rows of half a second each."""
    with SoftLabelWriter(folder, Teacher(teacher, "0" * 64), labels) as writer:
        for name, rows in rows_of.items():
            writer.add(f"audio/{name}", np.array(rows, np.float32), 0.0, 0.5, 0.5)
    return folder


ROWS = {
    "u.wav": [[0.9, 0.1, 0.4], [0.2, 0.1, 0.6]],
    "w.wav": [[0.9, 0.1, 0.4], [0.2, 0.1, 0.6]],
    "s.wav": [[0.9, 0.1, 0.4], [0.2, 0.1, 0.6]],
    "short.wav": [[0.9, 0.1, 0.4]],
}


def recipe(**more):
    return streaming_recipe_from_dict({"name": "soft"} | more, "here")


def features():
    codes = np.zeros((len(SCENES.scenes), N_FRAMES, 64), np.uint8)
    return FeatureCache(SCENES, FRONT_END, codes)


def test_seconds_become_frames_and_known_tags_the_gate(tmp_path):
    # The store's labels stand in another order, and one is not the student's.
    store = written(tmp_path / "store", ("dog", "hen", "cat"), ROWS)
    teacher = open_stores([store], SCENES, recipe())
    said = teacher.posteriors(features(), CPU)
    assert said.shape == (4, N_FRAMES, 2)
    # Frame i stands for the 10 ms from i * 160 + 120 samples on: 49 is the one with 0.5 s in it.
    early, late = (0.4, 0.9), (0.6, 0.2)
    np.testing.assert_allclose(said[0, :49], np.tile(early, (49, 1)), atol=1e-3)
    np.testing.assert_allclose(said[0, 50:], np.tile(late, (48, 1)), atol=1e-3)
    share = (8_000 - (49 * 160 + 120)) / 160
    between = share * np.array(early) + (1 - share) * np.array(late)
    np.testing.assert_allclose(said[0, 49], between, atol=1e-3)
    np.testing.assert_array_equal(said[1], said[0] * np.array([0, 1]))
    np.testing.assert_array_equal(said[2], said[0] * np.array([1, 0]))
    np.testing.assert_allclose(said[3, :49], said[0, :49])
    # Behind its end, where the recording is padded, nothing sounds.
    assert not said[3, 50:].any()


def test_several_teachers_are_averaged_under_names_of_their_own(tmp_path):
    first = written(tmp_path / "first", ("feline", "hen", "dog"), ROWS, "first")
    doubled = {name: np.array(rows) / 2 for name, rows in ROWS.items()}
    second = written(tmp_path / "second", ("feline", "hen", "dog"), doubled, "second")
    teacher = open_stores(
        [first, second], SCENES, recipe(soft_labels={"rename": {"cat": "feline"}})
    )
    said = teacher.posteriors(features(), CPU)
    np.testing.assert_allclose(said[0, 10], 0.75 * np.array([0.9, 0.4]), atol=1e-3)
    assert [one["name"] for one in teacher.identity()["soft_labels"]] == ["first", "second"]


def test_a_recording_without_soft_labels_is_named(tmp_path):
    some = {name: rows for name, rows in ROWS.items() if name != "w.wav"}
    store = written(tmp_path / "store", ("dog", "hen", "cat"), some)
    with pytest.raises(InputError, match=r"1 of 4 recordings have none, the first audio/w\.wav;"):
        open_stores([store], SCENES, recipe())


def test_a_label_that_the_teacher_lacks_is_named(tmp_path):
    store = written(tmp_path / "store", ("dog", "hen", "feline"), ROWS)
    with pytest.raises(InputError, match="cat"):
        open_stores([store], SCENES, recipe())
    with pytest.raises(ConfigError, match=r"soft_labels\.rename: the clips have no label 'cow'"):
        open_stores([store], SCENES, recipe(soft_labels={"rename": {"cow": "feline"}}))


def test_part_of_a_recording_is_too_little(tmp_path):
    half = ROWS | {"u.wav": ROWS["u.wav"][:1]}
    store = written(tmp_path / "store", ("dog", "hen", "cat"), half)
    teacher = open_stores([store], SCENES, recipe())
    with pytest.raises(InputError, match=r"audio/u\.wav: soft labels cover 0\.000 to 0\.500 s"):
        teacher.posteriors(features(), CPU)


# --- a student of soft labels alone ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tones(tone_pair, tmp_path_factory):
    """Recordings of tones, and a run of a pair that hears them."""
    folder, runs = tmp_path_factory.mktemp("tones"), tmp_path_factory.mktemp("runs")
    counts = {"train/synthetic": 4, "train/weak": 4, "train/unlabel_in_domain": 8}
    tone_pair.write_tones(folder, counts | {"validation/validation": 4, "eval/test": 4})
    return folder, runs


def test_the_student_learns_what_they_say_wherever_they_come_from(tone_pair, tones, tmp_path):
    # A teacher that hears in steps of 37 ms: how loud each tone is.
    folder, _ = tones
    wanted = tone_pair.streaming_recipe()
    sets = read_scenes(wanted, folder, quiet=True)
    known = open_features(sets.train, FRONT_END, tone_pair.SECONDS, quiet=True)
    bands = [tone_pair.band_of(tone_pair.TONES_HZ[label]) for label in sets.train.labels]
    hop_s = 0.037
    with SoftLabelWriter(tmp_path / "store", Teacher("ear", "1" * 64), sets.train.labels) as writer:
        log_mel = torch.cat([batch.log_mel for batch in in_order(known, 4)]).numpy()
        for number, one in enumerate(sets.train.scenes):
            n_rows = int(np.ceil(one.seconds / hop_s))
            frames = np.minimum((np.arange(n_rows) * hop_s + hop_s / 2) / 0.01, 10**9).astype(int)
            frames = np.minimum(frames, log_mel.shape[1] - 1)
            loud = log_mel[number][frames][:, bands] > -1.0
            clip_id = one.path.relative_to(folder).as_posix()
            writer.add(clip_id, loud.astype(np.float32), 0.0, hop_s, hop_s)
    run = tmp_path / "run"
    train_streaming(wanted, folder, None, run, CPU, soft_labels=[tmp_path / "store"], quiet=True)
    held_out = open_features(sets.validation, FRONT_END, tone_pair.SECONDS, quiet=True)
    scores = np.stack(score_student(load_streaming_run(run).student.network, held_out))
    truth = np.stack(
        [
            frame_targets(scene.events, sets.validation.labels, FRONT_END, held_out.n_frames)
            for scene in sets.validation.scenes
        ]
    )
    said = scores > 0.5
    assert said[truth == 1].mean() > 0.85
    assert said[truth == 0].mean() < 0.05
    settings = json.loads((run / "settings.json").read_text())
    assert settings["soft_labels"] == [{"name": "ear", "sha256": "1" * 64}]
    assert "soft labels of ear (111111111111)" in (run / "report.md").read_text()


def test_one_kind_of_teacher_is_wanted(tmp_path):
    base = [sys.executable, "-m", "soundpost.device", "train", "streaming", "--data", str(tmp_path)]
    base += ["--out", str(tmp_path / "run")]
    none = subprocess.run(base, capture_output=True, text=True)
    assert none.returncode == 2
    assert "--teacher RUN is missing" in none.stderr
    assert "--soft-labels STORE" in none.stderr
    both = [*base, "--teacher", str(tmp_path), "--soft-labels", str(tmp_path)]
    done = subprocess.run(both, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a student takes one of them" in done.stderr
