"""Teachers that hear what the student hears."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.train.multimodal.live_teachers import live_teachers
from soundpost.train.recipe import Recipe, load_recipe
from soundpost.train.run import TrainedRun

CPU = torch.device("cpu")


FRONT_END = FrontEnd()


class Loudness(nn.Module):
    """A hand-made network: label k's logit is gain x mean of band k."""

    def __init__(self, n_labels, gain):
        super().__init__()
        self.n_labels, self.gain = n_labels, nn.Parameter(torch.tensor(gain))

    def forward(self, patch):
        bands = patch[:, 0, :, : self.n_labels].mean(1)
        return self.gain * bands, bands


def run(folder, labels, gain, front_end=FRONT_END, patch_frames=100):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(str(gain).encode())
    settings = {"recipe": {"data": {"patch_frames": patch_frames}}}
    network = Loudness(len(labels), gain)
    return TrainedRun(folder, labels, front_end, Recipe().model, settings, network)


def test_they_say_the_mean_of_what_each_hears_in_the_very_patches(tmp_path):
    labels = ("cat", "dog", "siren")
    # Of the second teacher, the columns are elsewhere, and nobody knows the siren.
    first = run(tmp_path / "first", ("cat", "dog"), 0.5)
    second = run(tmp_path / "second", ("dog", "hen", "cat"), -0.25)
    teachers = live_teachers([first, second], labels, Recipe(), CPU)
    # Multiples of a half are themselves in bfloat16, and so are these means.
    rng = np.random.default_rng(1)
    values = rng.integers(-4, 5, (5, 1, 1, 64)) / 2
    patches = torch.from_numpy(np.broadcast_to(values, (5, 1, 100, 64)).astype(np.float32))
    targets = torch.tensor([[0.3, 0.0, 0.7]] * 5)
    joined = teachers.hear(patches, targets).numpy()
    assert joined.shape == (5, 6)
    np.testing.assert_array_equal(joined[:, :3], targets)
    bands = values[:, 0, 0]
    for column, (of_first, of_second) in enumerate(((0, 2), (1, 0))):
        expected = [1 / (1 + np.exp(-0.5 * bands[:, of_first]))]
        expected += [1 / (1 + np.exp(0.25 * bands[:, of_second]))]
        np.testing.assert_allclose(joined[:, 3 + column], np.mean(expected, 0), atol=2e-3)
    np.testing.assert_allclose(joined[:, 5], 0.7, atol=1e-6)
    for of, teacher in zip((first, second), teachers.teachers, strict=True):
        assert teacher.name == of.folder.name
        assert teacher.sha256 == hashlib.sha256(of.weights.read_bytes()).hexdigest()


def test_they_do_not_learn(tmp_path):
    teacher = run(tmp_path / "first", ("cat", "dog"), 0.5)
    heard = live_teachers([teacher], ("cat", "dog"), Recipe(), CPU)
    said = heard.hear(torch.ones(2, 1, 100, 64, requires_grad=True), torch.zeros(2, 2))
    assert not said.requires_grad
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert not teacher.network.training


def test_one_that_hears_other_windows_is_sent_to_distil(tmp_path):
    other_hop = dataclasses.replace(FRONT_END, hop_length=200)
    for name, more in (("hop", {"front_end": other_hop}), ("long", {"patch_frames": 200})):
        teacher = run(tmp_path / name, ("cat",), 1.0, **more)
        with pytest.raises(InputError, match=rf"{name}: hears other windows .* --soft-labels"):
            live_teachers([teacher], ("cat",), Recipe(), CPU)


def test_one_that_knows_no_label_is_refused(tmp_path):
    teacher = run(tmp_path / "birds", ("crow", "hen"), 1.0)
    with pytest.raises(InputError, match=r"birds: knows none of the clips' labels"):
        live_teachers([teacher], ("cat",), Recipe(), CPU)


# --- the whole chain, on tones --------------------------------------------------------------------

RECIPE = """
name = "tones"
[model]
kind = "KIND"
width = 0.25
dropout = 0.0
[data]
validation_fraction = 0.25
[augment]
mix_probability = 0.5
speed = 1.02
[training]
epochs = EPOCHS
batch_size = 8
learning_rate = 3e-3
warmup_epochs = 1.0
average_decay = 0.9
label_smoothing = 0.0
report_every = 100
[soft_labels]
teacher_weight = 1.0
"""


def written(folder, kind, epochs):
    path = folder / f"{kind}.toml"
    path.write_text(RECIPE.replace("KIND", kind).replace("EPOCHS", str(epochs)))
    return path


def train(recipe, data, out, *more, **options):
    command = [
        sys.executable, "-m", "soundpost.device", "train", str(recipe), "--data", str(data),
        "--out", str(out), "--fold", "4", "--quiet", "--threads", "1", "--device", "cpu", *more,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(scope="module")
def teacher(tone_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    out = folder / "teacher"
    done = train(written(folder, "audio_cnn", 12), tone_clips, out, check=True)
    following = f"esc50_taught --data {tone_clips} --fold 4 --live-teacher {out}"
    assert f"next: soundpost train {following}" in done.stdout
    return out


@pytest.fixture(scope="module")
def taught(teacher, tone_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    recipe = written(folder, "mobilenet_v2", 24)
    more = "--live-teacher", str(teacher)
    train(recipe, tone_clips, folder / "taught", *more, check=True)
    return recipe, folder / "taught"


def test_a_student_of_its_teacher_alone_says_what_it_says(teacher, taught):
    # teacher_weight = 1: what it knows of the labels it has from the teacher.
    scores = np.load(taught[1] / "scores.npz")
    # By chance it would be a third.
    assert (scores["test_scores"].argmax(1) == scores["test_truth"]).mean() >= 0.9
    settings = json.loads((taught[1] / "settings.json").read_text())
    sha256 = hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    assert settings["live_teachers"] == [{"name": "teacher", "sha256": sha256}]
    assert f"from what teacher ({sha256[:12]}) heard" in (taught[1] / "report.md").read_text()


def test_begun_with_another_teacher_it_is_refused(taught, tone_clips):
    recipe, out = taught
    done = train(recipe, tone_clips, out, "--live-teacher", str(out))
    assert done.returncode == 2
    assert "holds a run with another live_teachers" in done.stderr


def test_a_teacher_that_has_learnt_from_the_fold_to_be_judged_on_is_refused(
    taught, teacher, tone_clips, tmp_path
):
    command = [
        sys.executable, "-m", "soundpost.device", "train", str(taught[0]), "--data",
        str(tone_clips), "--out", str(tmp_path / "out"), "--quiet", "--threads", "1",
        "--live-teacher", str(teacher), "--fold", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 3
    assert "has learnt from fold 1, which is held out here" in done.stderr
    assert "train it with --fold 1" in done.stderr
    assert not (tmp_path / "out").exists()


def test_soft_labels_beside_it_are_refused(taught, teacher, tone_clips, tmp_path):
    more = "--live-teacher", str(teacher), "--soft-labels", str(tmp_path)
    done = train(taught[0], tone_clips, tmp_path / "out", *more)
    assert done.returncode == 2
    assert "a student takes one of them" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_teacher_starts_from_no_students_weights(taught, tone_clips, tmp_path):
    recipe = written(tmp_path, "audio_cnn", 1)
    done = train(recipe, tone_clips, tmp_path / "out", "--init", str(taught[1]))
    assert done.returncode == 3
    assert "set model.kind and model.width to the same" in done.stderr


def test_no_sensor_runs_a_teacher(teacher, tmp_path):
    pytest.importorskip("soundpost.export.pipeline")
    command = [sys.executable, "-m", "soundpost.device", "export", str(teacher)]
    out = tmp_path / "teacher.bundle"
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 3
    assert "kind audio_cnn, which no sensor runs; distil a mobilenet_v2 from it" in done.stderr
    assert not out.exists()


def test_our_recipes_of_esc50_differ_in_their_teacher_alone():
    folder = Path(__file__).parents[3] / "train" / "recipes"
    labels, taught = (load_recipe(folder / f"esc50_{n}.toml", []) for n in ("labels", "taught"))
    same = dataclasses.replace(
        taught, name=labels.name, source=labels.source, soft_labels=labels.soft_labels
    )
    assert same == labels
    assert load_recipe(folder / "esc50_teacher.toml", []).front_end == labels.front_end
