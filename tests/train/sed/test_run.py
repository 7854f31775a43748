"""A run folder is read back as it was trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.run import load_run
from soundpost.train.sed.fitting import score_scenes
from soundpost.train.sed.run import load_detection_run, save_decision, train_detection
from soundpost.train.sed.scenes import Event, Scene, SceneSet

CPU = torch.device("cpu")
SCENES = SceneSet(
    Path("scenes"),
    (
        Scene(Path("a.wav"), "strong", 1.0, (Event("high", 0.0, 0.6), Event("low", 0.2, 0.5))),
        Scene(Path("b.wav"), "weak", 1.0, tags=frozenset({"middle"})),
    ),
    ("high", "low", "middle"),
)


@pytest.fixture(scope="module")
def trained(synthetic, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    recipe = synthetic.recipe_of(
        training={"epochs": 1}, filter={"rule": "esp"}, method={"distillation": "tfd"}
    )
    return train_detection(recipe, SCENES, synthetic.Synthetic(2), run, CPU, quiet=True)


def test_is_read_back_as_it_was(trained, synthetic):
    read = load_detection_run(trained.folder)
    assert read.recipe == trained.recipe
    assert read.labels == ("high", "low", "middle")
    # A third of 0.6 s and of 0.3 s; no strong example of "middle": the median of both.
    assert read.windows.window_s == pytest.approx({"high": 0.2, "low": 0.1, "middle": 0.15})
    assert read.windows.fallbacks == ("middle",)
    batch = synthetic.make_batch(7)
    for ours, theirs in (
        (trained.pair.student, read.pair.student),
        (trained.pair.teacher, read.pair.teacher),
    ):
        for a, b in zip(
            score_scenes(ours, [batch], CPU), score_scenes(theirs, [batch], CPU), strict=True
        ):
            assert (a == b).all()


def test_another_recipe_in_the_same_folder_is_refused(trained, synthetic):
    training = dataclasses.replace(trained.recipe.training, epochs=2)
    other = dataclasses.replace(trained.recipe, training=training)
    with pytest.raises(ConfigError, match="holds a run with another recipe"):
        train_detection(other, SCENES, synthetic.Synthetic(2), trained.folder, CPU, quiet=True)


def test_folders_that_are_no_finished_run_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        load_detection_run(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_bytes((trained.folder / "settings.json").read_bytes())
    with pytest.raises(InputError, match="training is not finished"):
        load_detection_run(tmp_path)
    settings.write_text(json.dumps({"schema": "soundpost.run/1"}))
    with pytest.raises(InputError, match="give a run of a detection recipe"):
        load_detection_run(tmp_path)
    # And the other way round: what exports clip students says that this is none.
    with pytest.raises(InputError, match=r"schema is 'soundpost.detection_run/1'"):
        load_run(trained.folder)


def test_a_run_decides_as_its_recipe_does_until_thresholds_are_chosen(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    published = trained.recipe.filter
    assert trained.decision == load_detection_run(run).decision == published
    chosen = dataclasses.replace(published, threshold=0.3, tag_threshold=0.2)
    save_decision(run, chosen)
    read = load_detection_run(run)
    # The thresholds alone are chosen: what the recipe says stays as it was.
    assert read.decision == chosen
    assert read.recipe.filter == published
    assert (published.threshold, published.tag_threshold) == (0.5, 0.5)


@pytest.mark.parametrize("text", ["", "[]", '{"threshold": 0.3}', '{"threshold": "low"}'])
def test_a_decision_that_cannot_be_read_is_named(trained, tmp_path, text):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    (run / "decision.json").write_text(text)
    with pytest.raises(InputError, match=r"decision\.json: cannot be read .*: it writes it anew"):
        load_detection_run(run)
