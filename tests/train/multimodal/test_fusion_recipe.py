"""The recipe of li2018: the paper's numbers, and what is refused."""

import dataclasses
import re
from importlib import resources
from pathlib import Path

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.fusion_recipe import FusionRecipe, load_fusion_recipe
from soundpost.train.multimodal.mil_crnn import FRONT_END, MilTrainingSettings

OURS = Path(str(resources.files("soundpost.train.recipes") / "li2018.toml"))


def test_ours_has_the_papers_numbers():
    recipe = load_fusion_recipe(OURS, [])
    assert recipe.front_end == FRONT_END
    assert recipe.training == MilTrainingSettings(
        epochs=18, batch_size=95, learning_rate=0.1, momentum=0.8, decay=0.8, patience_epochs=3,
        clip_value=1e-3,
    )  # fmt: skip
    assert (recipe.visual.key_frames, recipe.visual.top_objects) == (4, 10)
    assert recipe.visual.frames_per_second * recipe.data.seconds == 240
    assert recipe.fusion.better_weight == 0.8
    # 1,142 of 51,172.
    assert round(recipe.data.validation_share * 51_172) == pytest.approx(1_142, abs=1)
    # Table 1, in percent.
    found = {name: round(100 * value, 1) for name, value in recipe.published.items()}
    assert found == {
        "dcase2017_validation_audio": 50.1, "dcase2017_validation_fused": 60.6,
        "dcase2017_testing_audio": 54.9, "dcase2017_testing_fused": 60.9,
        "dcase2017_evaluation_audio": 50.6, "dcase2017_evaluation_fused": 55.9,
    }  # fmt: skip


def test_defaults_are_those_of_ours():
    ours = dataclasses.replace(load_fusion_recipe(OURS, []), name="recipe", source="", published={})
    assert ours == FusionRecipe()


def test_hop_and_channels_can_be_set():
    recipe = load_fusion_recipe(
        OURS,
        ["front_end.hop_length=400", "model.channels=[8, 16, 32]", "model.time_pools=[5, 1, 1]"],
    )
    assert recipe.front_end.hop_length == 400
    assert recipe.model.channels == (8, 16, 32)


def test_paths_do_not_make_another_run(tmp_path):
    recipe = load_fusion_recipe(
        OURS, [f"visual.word_vectors={tmp_path}/glove.txt", "visual.online=true"]
    )
    assert recipe.without_places() == load_fusion_recipe(OURS, []).without_places()
    places = recipe.places()
    assert places["visual"]["word_vectors"] == f"{tmp_path}/glove.txt"
    assert FusionRecipe().at(places).visual.word_vectors == f"{tmp_path}/glove.txt"


def test_a_run_that_sees_is_found_again_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_fusion_recipe(OURS, ["visual.features=runs/eye"])
    places = recipe.places()["visual"]
    assert places["features_file"] == f"{tmp_path}/runs/eye"
    assert places["objects_file"] == ""
    assert recipe.without_places() == recipe.at({"visual": places}).without_places()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.kind=tagging", "model.kind is tagging; expected li2018"),
        ("data.kind=dcase17", "data.kind is dcase17; expected audioset"),
        ("data.test=[]", "data.test is empty; expected the name of a split"),
        ('data.test=["validation"]', "data.test is ['validation']; expected no validation among"),
        ('data.needs=["video"]', "data.needs is ['video']; expected audio"),
        ("data.validation_share=0.6", "data.validation_share is 0.6; expected above 0, up to 0.5"),
        ("data.seconds=0.001", "data.seconds is 0.001; expected a hop"),
        ("model.time_pools=[5, 4]", "model.time_pools is [5, 4]; expected 3 numbers of 1 or more"),
        ("model.kernel=4", "model.kernel is 4; expected odd"),
        ("visual.key_frames=0", "visual.key_frames is 0; expected at least 1"),
        ("visual.frames_per_second=0", "visual.frames_per_second is 0.0; expected above 0"),
        ("fusion.better_weight=0.4", "fusion.better_weight is 0.4; expected 0.5 to 1"),
        ("training.momentum=1.0", "training.momentum is 1.0; expected 0 to below 1"),
        ("training.report_every=5", "unknown key report_every"),
        ("published.dcase2017_audio=0.5", "unknown figure dcase2017_audio in [published]"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_fusion_recipe(OURS, [change])
