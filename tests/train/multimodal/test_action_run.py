"""`soundpost train perez2020_...`: teachers, students, and what one says of the other's clips."""

import json
import re
from importlib import resources

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.commands import TRAIN
from soundpost.train.datasets.acoustic_actions import ActionSettings, read_actions
from soundpost.train.datasets.action_splits import action_parts
from soundpost.train.datasets.action_writer import RecordingWriter, write_settings
from soundpost.train.multimodal import action_run
from soundpost.train.multimodal.action_inputs import ActionBatches, cut_clips, open_action_clips
from soundpost.train.multimodal.action_recipe import WeightsSettings, load_action_recipe
from soundpost.train.multimodal.action_run import load_action_run, teacher_logits

RECIPES = resources.files("soundpost.train.recipes")
# Rows "all scenarios" of tables 1 to 3, and two more cells of each column.
PUBLISHED = {
    "perez2020_dualcamnet": {"all_all": 0.7702, "1_2": 0.2938, "3_1": 0.2309},
    "perez2020_resnet50": {"all_all": 0.6335, "1_2": 0.2955, "3_1": 0.1479},
    "perez2020_avnet": {"all_all": 0.8412, "1_2": 0.3490, "3_1": 0.2767},
    "perez2020_soundnet": {"all_all": 0.4102, "1_2": 0.4114, "3_1": 0.3796},
    "perez2020_soundnet_dualcamnet": {"all_all": 0.5299, "1_2": 0.4669, "3_1": 0.4352},
    "perez2020_soundnet_resnet50": {"all_all": 0.4145, "1_2": 0.4378, "3_1": 0.3955},
    "perez2020_hearnet": {"all_all": 0.6966, "1_1": 0.6548, "3_1": 0.3307},
    "perez2020_hearnet_dualcamnet": {"all_all": 0.7009, "1_1": 0.7857, "3_1": 0.3770},
    "perez2020_hearnet_resnet50": {"all_all": 0.6282, "1_1": 0.7262, "3_1": 0.4405},
}
SETTINGS = ActionSettings(
    "tiny", {1: "hum", 2: "hiss"}, {1: "anechoic", 2: "office"}, n_microphones=2,
    broken_microphones=(0,),
)  # fmt: skip
SMALL = (
    "data.part_s=1.0", "data.limit_s=2.0", "data.clip_s=1.0", "weights.backbone=stub",
    "training.epochs=4", "training.batch_size=8", "training.report_every=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    """Two actions by two subjects in two places: a hum, red, on the left; a hiss, blue, right."""
    folder = tmp_path_factory.mktemp("actions")
    write_settings(folder, SETTINGS)
    rng = np.random.default_rng(0)
    for location in (1, 2):
        for subject in (1, 2):
            for action in (1, 2):
                with RecordingWriter(folder, SETTINGS, location, subject, action) as writer:
                    for frame in range(24):
                        image = rng.normal(size=(36, 48, 12)).astype(np.float32)
                        image[:, slice(0, 24) if action == 1 else slice(24, 48)] += 2.0
                        n = frame * 1024 + np.arange(1024)
                        hz = 300.0 if action == 1 else 4_000.0
                        tone = 0.3 * np.sin(2 * np.pi * hz * n / 12_288)
                        # The first microphone is broken: whoever listens to it learns nothing.
                        sound = np.stack([rng.normal(size=1024) * 0.3, tone], 1)
                        picture = np.zeros((48, 64, 3), np.uint8)
                        picture[..., 0 if action == 1 else 2] = 200
                        writer.write(image, sound.astype(np.float32), picture)
    return folder


@pytest.fixture(scope="module")
def train(tiny, actions):
    def run(recipe, out, *more):
        assert tiny.run(
            TRAIN, recipe, *SMALL, "--data", actions, "--out", out, "--quiet", "--threads", 1,
            "--device", "cpu", *more,
        ) == 0  # fmt: skip
        return out

    return run


@pytest.fixture(scope="module")
def teacher(train, tmp_path_factory):
    return train("perez2020_dualcamnet", tmp_path_factory.mktemp("runs") / "dcn")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_the_papers(name):
    row = load_action_recipe(RECIPES / f"{name}.toml", [])
    assert row.name == name
    assert {cell: row.published[cell] for cell in PUBLISHED[name]} == PUBLISHED[name]
    assert len(row.published) == 10
    assert row.taught == (name.count("_") == 2)
    # "100 epochs with batches of 32 elements using the Adam optimizer"
    assert (row.training.epochs, row.training.batch_size) == (100, 32)
    assert (row.distillation.temperature, row.distillation.imitation) == (1.0, 0.5)


def test_every_column_has_a_recipe():
    ours = {entry.name for entry in RECIPES.iterdir() if entry.name.startswith("perez2020")}
    assert ours == {f"{name}.toml" for name in PUBLISHED}


def test_a_teacher_becomes_a_run(teacher):
    assert {path.name for path in teacher.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "scores.npz", "figures.json", "report.md", "curves.png", "confusion_all.png",
    }  # fmt: skip
    figures = json.loads((teacher / "figures.json").read_text())
    # Sixteen parts: twelve to learn from, one to watch, three to judge on.
    assert figures["n_clips"] == {"validation": 1, "all": 3}
    assert figures["accuracy"] == {"all_all": 1.0}
    assert re.search(
        r"\| all \| all \| 3 \| 1.0000 \| 0.7702 \|", (teacher / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("name", "rate"), [("perez2020_resnet50", "3e-2"), ("perez2020_avnet", "1e-3")]
)
def test_teachers_that_look(name, rate, train, tmp_path):
    run = train(name, tmp_path / "run", f"training.learning_rate={rate}", "training.epochs=6")
    figures = json.loads((run / "figures.json").read_text())
    assert figures["accuracy"]["all_all"] == 1.0
    assert json.loads((run / "settings.json").read_text())["picture_size"] == 128


def test_across_scenarios_all_parts_of_the_other_are_judged(train, tmp_path):
    run = train("perez2020_hearnet", tmp_path / "run", "data.location=1", "training.epochs=2")
    figures = json.loads((run / "figures.json").read_text())
    # Of eight parts six are learnt from and none is left for validation; all eight of the other.
    assert figures["n_clips"] == {"1": 2, "2": 8}
    assert figures["accuracy"].keys() == {"1_1", "1_2"}
    kept = np.load(run / "scores.npz")
    right = kept["2_scores"].argmax(1) == kept["2_truth"]
    assert right.mean() == pytest.approx(figures["accuracy"]["1_2"])


def test_a_student_hears_a_microphone_that_works(train, tmp_path):
    run = train("perez2020_hearnet", tmp_path / "run")
    assert json.loads((run / "figures.json").read_text())["accuracy"]["all_all"] == 1.0


def test_a_teacher_teaches(train, teacher, actions, tmp_path):
    run = train("perez2020_hearnet_dualcamnet", tmp_path / "run", "--teacher", teacher)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    # Equation 1: half of each term, weighed by lambda.
    for line in lines:
        assert line["loss"] == pytest.approx(0.5 * line["hard"] + 0.5 * line["soft"], abs=2e-6)
    assert "taught by a run of sha256" in (run / "report.md").read_text()
    assert [line["stage"] for line in lines] == ["student"] * 4


def test_what_a_teacher_says_of_a_clip_is_the_mean_over_its_seconds(actions, teacher, tmp_path):
    read = read_actions(actions)[0]
    parts = action_parts(read, 2.0, None)
    clips = open_action_clips(read, parts, 2.0, ("sound",), tmp_path, quiet=True)
    trained = load_action_run(teacher)
    found = teacher_logits(
        trained, read, clips, tmp_path, torch.device("cpu"), weights=WeightsSettings(), quiet=True
    )
    assert found.shape == (8, 2)
    recording = clips.clips[5].recording
    images = torch.from_numpy(recording.load_images())
    with torch.no_grad():
        # Each second by itself: what is filtered along time does not cross from one to the next.
        seconds = torch.stack([trained.network(images[None, i : i + 12])[0] for i in (0, 12)])
    torch.testing.assert_close(found[5], seconds.mean(0), atol=2e-2, rtol=1e-2)


def test_clips_tile_their_parts(actions):
    parts = action_parts(read_actions(actions)[0], 2.0, None)
    clips = cut_clips(parts[:1], 0.75)
    # 24 frames hold two clips of 9.
    assert [(clip.first, clip.n_frames) for clip in clips] == [(0, 9), (9, 9)]
    with pytest.raises(InputError, match=r"a part of 2 s holds no clip of 3 s; set data.part_s"):
        cut_clips(parts, 3.0)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(train, teacher, tmp_path, monkeypatch):
    class Stopping(ActionBatches):
        def batch(self, epoch, number):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    arguments = ("perez2020_hearnet_dualcamnet", tmp_path / "stopped", "--teacher", teacher)
    with monkeypatch.context() as patch:
        patch.setattr(action_run, "ActionBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)
    train(*arguments)
    whole = train("perez2020_hearnet_dualcamnet", tmp_path / "whole", "--teacher", teacher)
    found, expected = (load_file(run / "model.safetensors") for run in (arguments[1], whole))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_soundnet_starts_at_random_only_if_asked(train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"soundnet5: no weights at .*soundnet_models_public.zip"):
        train("perez2020_soundnet", tmp_path / "a", "weights.backbone=soundnet5")
    run = train("perez2020_soundnet", tmp_path / "b", "weights.backbone=none", "training.epochs=1")
    assert (run / "report.md").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.network=hearnett", r"model.network is hearnett; expected dualcamnet, .*soundnet5"),
        ("data.clip_s=2.5", r"data.clip_s is 2.5; expected whole seconds"),
        ("data.part_s=4.0", r"data.part_s is 4.0; expected 5 or more"),
        ("data.limit_s=5.0", r"data.limit_s is 5.0; expected 10 or more"),
        ("data.location=-1", r"data.location is -1; expected 0"),
        ("data.split_by=clip", r"data.split_by is clip; expected part, recording"),
        ("distillation.imitation=2.0", r"imitation 2.0: expected 0 to 1"),
        ("published.all=0.5", r"unknown figure all in \[published\]"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        load_action_recipe(RECIPES / "perez2020_hearnet.toml", [change])


def test_teachers_are_checked(train, teacher, tmp_path):
    with pytest.raises(UsageError, match="--teacher RUN is missing: give a run of its teacher"):
        train("perez2020_hearnet_dualcamnet", tmp_path / "a")
    with pytest.raises(UsageError, match="--teacher RUN is for students"):
        train("perez2020_dualcamnet", tmp_path / "b", "--teacher", teacher)
    with pytest.raises(InputError, match=r"location 7 has no parts; expected one of 1, 2"):
        train("perez2020_hearnet", tmp_path / "c", "data.location=7")
    with pytest.raises(ConfigError, match="taught is true; expected false, for dualcamnet"):
        train("perez2020_dualcamnet", tmp_path / "d", "taught=true")
