"""`soundpost train perez2020_...`: teachers, students, and what one says of the other's clips."""

import json
import re
from importlib import resources

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.datasets.acoustic_actions import read_actions
from soundpost.train.datasets.action_splits import action_parts
from soundpost.train.multimodal import action_run
from soundpost.train.multimodal.action_inputs import ActionBatches, cut_clips
from soundpost.train.multimodal.action_protocol import open_actions
from soundpost.train.multimodal.action_recipe import WeightsSettings, load_action_recipe
from soundpost.train.multimodal.action_run import load_action_run, teacher_logits

RECIPES = resources.files("soundpost.train.recipes")
# Rows "all scenarios" of tables 1 to 3, and two more cells of each column.
PUBLISHED = {
    "perez2020_dualcamnet": {"all_all": 0.7702, "1_2": 0.2938, "3_1": 0.2309},
    "perez2020_resnet50": {"all_all": 0.6335, "1_2": 0.2955, "3_1": 0.1479},
    "perez2020_temporal_resnet50": {"all_all": 0.6393, "1_2": 0.2616, "3_1": 0.1571},
    "perez2020_avnet": {"all_all": 0.8412, "1_2": 0.3490, "3_1": 0.2767},
    "perez2020_soundnet": {"all_all": 0.4102, "1_2": 0.4114, "3_1": 0.3796},
    "perez2020_soundnet_dualcamnet": {"all_all": 0.5299, "1_2": 0.4669, "3_1": 0.4352},
    "perez2020_soundnet_resnet50": {"all_all": 0.4145, "1_2": 0.4378, "3_1": 0.3955},
    "perez2020_hearnet": {"all_all": 0.6966, "1_1": 0.6548, "3_1": 0.3307},
    "perez2020_hearnet_dualcamnet": {"all_all": 0.7009, "1_1": 0.7857, "3_1": 0.3770},
    "perez2020_hearnet_resnet50": {"all_all": 0.6282, "1_1": 0.7262, "3_1": 0.4405},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_the_papers(name):
    row = load_action_recipe(RECIPES / f"{name}.toml", [])
    assert row.name == name
    assert {cell: row.published[cell] for cell in PUBLISHED[name]} == PUBLISHED[name]
    assert len(row.published) == 10
    assert row.taught == (name.startswith(("perez2020_hearnet_", "perez2020_soundnet_")))
    # "100 epochs with batches of 32 elements using the Adam optimizer"
    assert (row.training.epochs, row.training.batch_size) == (100, 32)
    assert (row.distillation.temperature, row.distillation.imitation) == (1.0, 0.5)


def test_every_column_has_a_recipe():
    ours = {entry.name for entry in RECIPES.iterdir() if entry.name.startswith("perez2020")}
    assert ours == {f"{name}.toml" for name in PUBLISHED}


def test_a_teacher_becomes_a_run(dualcam_run):
    assert {path.name for path in dualcam_run.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "scores.npz", "figures.json", "report.md", "curves.png", "confusion_all.png",
    }  # fmt: skip
    figures = json.loads((dualcam_run / "figures.json").read_text())
    # Sixteen parts: twelve to learn from, one to watch, three to judge on.
    assert figures["n_clips"] == {"validation": 1, "all": 3}
    assert figures["accuracy"] == {"all_all": 1.0}
    assert re.search(
        r"\| all \| all \| 3 \| 1.0000 \| 0.7702 \|", (dualcam_run / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("name", "rate"), [("perez2020_resnet50", "3e-2"), ("perez2020_avnet", "1e-3")]
)
def test_teachers_that_look(name, rate, train_hums, tmp_path):
    changes = [f"training.learning_rate={rate}", "training.epochs=6"]
    if name == "perez2020_avnet":
        changes.append("model.width=0.25")
    run = train_hums(name, tmp_path / "run", *changes)
    figures = json.loads((run / "figures.json").read_text())
    assert figures["accuracy"]["all_all"] == 1.0
    assert json.loads((run / "settings.json").read_text())["picture_size"] == 128


def test_across_scenarios_all_parts_of_the_other_are_judged(train_hums, tmp_path):
    run = train_hums("perez2020_hearnet", tmp_path / "run", "data.location=1", "training.epochs=2")
    figures = json.loads((run / "figures.json").read_text())
    # Of eight parts six are learnt from and none is left for validation; all eight of the other.
    assert figures["n_clips"] == {"1": 2, "2": 8}
    assert figures["accuracy"].keys() == {"1_1", "1_2"}
    kept = np.load(run / "scores.npz")
    right = kept["2_scores"].argmax(1) == kept["2_truth"]
    assert right.mean() == pytest.approx(figures["accuracy"]["1_2"])


def test_a_student_hears_a_microphone_that_works(train_hums, tmp_path):
    run = train_hums("perez2020_hearnet", tmp_path / "run")
    assert json.loads((run / "figures.json").read_text())["accuracy"]["all_all"] == 1.0


def test_a_teacher_teaches(train_hums, dualcam_run, hums, tmp_path):
    run = train_hums("perez2020_hearnet_dualcamnet", tmp_path / "run", "--teacher", dualcam_run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    # Equation 1: half of each term, weighed by lambda.
    for line in lines:
        assert line["loss"] == pytest.approx(0.5 * line["hard"] + 0.5 * line["soft"], abs=2e-6)
    assert "taught by a run of sha256" in (run / "report.md").read_text()
    assert [line["stage"] for line in lines] == ["student"] * 4


def test_what_a_teacher_says_of_a_clip_is_the_mean_over_its_seconds(hums, dualcam_run):
    recipe = load_action_recipe(
        RECIPES / "perez2020_hearnet.toml", ["data.part_s=2.0", "data.clip_s=2.0"]
    )
    opened = open_actions(recipe, hums, None, quiet=True)
    trained = load_action_run(dualcam_run)
    found = teacher_logits(
        trained, opened, torch.device("cpu"), weights=WeightsSettings(), quiet=True
    )
    assert found.shape == (8, 2)
    recording = opened.clips.clips[5].recording
    images = torch.from_numpy(recording.load_images())
    with torch.no_grad():
        # Each second by itself: what is filtered along time does not cross from one to the next.
        seconds = torch.stack([trained.network(images[None, i : i + 12])[0] for i in (0, 12)])
    torch.testing.assert_close(found[5], seconds.mean(0), atol=2e-2, rtol=1e-2)


def test_clips_tile_their_parts(hums):
    parts = action_parts(read_actions(hums)[0], 2.0, None)
    clips = cut_clips(parts[:1], 0.75)
    # 24 frames hold two clips of 9.
    assert [(clip.first, clip.n_frames) for clip in clips] == [(0, 9), (9, 9)]
    with pytest.raises(InputError, match=r"a part of 2 s holds no clip of 3 s; set data.part_s"):
        cut_clips(parts, 3.0)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    train_hums, dualcam_run, tmp_path, monkeypatch
):
    class Stopping(ActionBatches):
        def batch(self, epoch, number):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    arguments = ("perez2020_hearnet_dualcamnet", tmp_path / "stopped", "--teacher", dualcam_run)
    with monkeypatch.context() as patch:
        patch.setattr(action_run, "ActionBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train_hums(*arguments)
    train_hums(*arguments)
    whole = train_hums("perez2020_hearnet_dualcamnet", tmp_path / "whole", "--teacher", dualcam_run)
    found, expected = (load_file(run / "model.safetensors") for run in (arguments[1], whole))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_teacher_that_sees_motion(train_hums, tmp_path, hums):
    run = train_hums(
        "perez2020_temporal_resnet50", tmp_path / "run", "weights.backbone=none",
        "model.learns=all", "model.width=0.1", "model.frame_px=32", "training.epochs=2",
    )  # fmt: skip
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["picture_size"], settings["start"]) == (0, None)
    trained = load_action_run(run)
    opened = open_actions(trained.recipe, hums, None, quiet=True)
    (frames,) = opened.clips.inputs(np.array([0, 3]), ("frames",))
    assert (frames.dtype, frames.shape) == (torch.uint8, (2, 5, 3, 32, 32))
    # The first recording is red.
    assert (frames[0, :, 0] > 150).all()
    assert (frames[0, :, 2] < 50).all()
    kept = np.load(run / "scores.npz")
    numbers = opened.held["all"]
    with torch.no_grad():
        scores = trained.network(*opened.clips.inputs(numbers, ("frames",))).softmax(1)
    np.testing.assert_allclose(kept["all_scores"], scores, atol=1e-5)


def test_it_starts_from_resnet50_only_with_its_weights(train_hums, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"resnet50: no weights at .*resnet50-0676ba61.pth"):
        train_hums("perez2020_temporal_resnet50", tmp_path / "a", "weights.backbone=resnet50")
    assert not (tmp_path / "a").exists()


def test_whole_subjects_are_held_out(train_hums, tmp_path):
    change = ("data.split_by=subject", "data.test_subjects=[2]", "training.epochs=1")
    run = train_hums(
        "perez2020_hearnet", tmp_path / "run", *change, "data.location=1", "model.width=0.1"
    )
    figures = json.loads((run / "figures.json").read_text())
    # Two actions of two seconds: nothing to validate on, and of the other place one subject alone.
    assert figures["n_clips"] == {"1": 4, "2": 4}
    assert "subjects 2" in (run / "report.md").read_text()
    with pytest.raises(ConfigError, match=r"has no world.json that names subjects; set data.val"):
        train_hums("perez2020_hearnet", tmp_path / "other", *change[:1])


def test_a_world_names_its_subjects(hums, tmp_path):
    recipe = load_action_recipe(
        RECIPES / "perez2020_hearnet.toml", ["data.split_by=subject", "data.part_s=5"]
    )
    note = {"validation_subjects": [4], "test_subjects": [5, 6]}
    (tmp_path / "world.json").write_text(
        json.dumps({"schema": "soundpost.world/1", "settings": note})
    )
    data = recipe.held_out(tmp_path).data
    assert (data.validation_subjects, data.test_subjects) == ((4,), (5, 6))
    # Who is named in the recipe goes before.
    named = load_action_recipe(
        RECIPES / "perez2020_hearnet.toml", ["data.split_by=subject", "data.test_subjects=[1]"]
    )
    assert named.held_out(tmp_path) == named
    (tmp_path / "world.json").write_text("{}")
    with pytest.raises(InputError, match=r"world.json: cannot be used .*expected soundpost.world"):
        recipe.held_out(tmp_path)


def test_soundnet_starts_at_random_only_if_asked(train_hums, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"soundnet5: no weights at .*soundnet_models_public.zip"):
        train_hums("perez2020_soundnet", tmp_path / "a", "weights.backbone=soundnet5")
    run = train_hums(
        "perez2020_soundnet", tmp_path / "b", "weights.backbone=none", "training.epochs=1"
    )
    assert (run / "report.md").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.network=hearnett", r"model.network is hearnett; expected dualcamnet, .*soundnet5"),
        ("data.clip_s=2.5", r"data.clip_s is 2.5; expected whole seconds"),
        ("data.part_s=4.0", r"data.part_s is 4.0; expected 5 or more"),
        ("data.limit_s=5.0", r"data.limit_s is 5.0; expected 10 or more"),
        ("data.location=-1", r"data.location is -1; expected 0"),
        ("data.split_by=clip", r"data.split_by is clip; expected part, recording, subject"),
        ("data.test_subjects=[1]", r"is \[1\]; expected none, for data.split_by is \"part\""),
        ("model.width=3.0", r"model.width is 3.0; expected 0.05 to 2"),
        ("model.frame_px=16", r"model.frame_px is 16; expected 32 to 448"),
        ("distillation.imitation=2.0", r"imitation 2.0: expected 0 to 1"),
        ("published.all=0.5", r"unknown figure all in \[published\]"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        load_action_recipe(RECIPES / "perez2020_hearnet.toml", [change])


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("soundnet", ["model.width=0.5"], r"model.width is 0.5; expected 1, for soundnet5 stands"),
        ("temporal_resnet50", ["model.width=0.5"], r"expected 1, for temporal_resnet50 stands"),
        ("temporal_resnet50", ["weights.backbone=none"], r"model.learns is new; expected all"),
        ("temporal_resnet50", ["weights.backbone=stub"], r"is stub; expected resnet50, none"),
        (
            "hearnet",
            ["data.split_by=subject", "data.test_subjects=[1]", "data.validation_subjects=[1]"],
            r"is \[\[1\], \[1\]\]; expected different subjects",
        ),
        (
            "hearnet",
            ["data.split_by=subject", "data.validation_subjects=[1]"],
            r"is \[\[1\], \[\]\]; expected different subjects, and one to test on",
        ),
    ],
)
def test_refuses_together(recipe, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_action_recipe(RECIPES / f"perez2020_{recipe}.toml", changes)


def test_teachers_are_checked(train_hums, dualcam_run, tmp_path):
    with pytest.raises(UsageError, match="--teacher RUN is missing: give a run of its teacher"):
        train_hums("perez2020_hearnet_dualcamnet", tmp_path / "a")
    # A teacher that was split otherwise has learnt from what this student is judged on.
    for change in ("training.seed=7", "data.location=1", "data.split_by=recording"):
        with pytest.raises(UsageError, match=r"holds out other clips .*training\.seed"):
            train_hums(
                "perez2020_hearnet_dualcamnet", tmp_path / "c", change, "--teacher", dualcam_run
            )
    with pytest.raises(UsageError, match="--teacher RUN is for students"):
        train_hums("perez2020_dualcamnet", tmp_path / "b", "--teacher", dualcam_run)
    with pytest.raises(InputError, match=r"location 7 has no parts; expected one of 1, 2"):
        train_hums("perez2020_hearnet", tmp_path / "c", "data.location=7")
    with pytest.raises(ConfigError, match="taught is true; expected false, for dualcamnet"):
        train_hums("perez2020_dualcamnet", tmp_path / "d", "taught=true")
