"""The recipes are the rows of yin2021's tables 1 to 3."""

from importlib import resources

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.mutual import MutualSettings
from soundpost.train.multimodal.tagging_recipe import (
    load_tagging_recipe,
    tagging_recipe_from_dict,
)

RECIPES = resources.files("soundpost.train.recipes")

# mAP and mAUC on DCASE17, then on DCASE18; what table, and the method.
PUBLISHED = {
    # Table 3: teacher-student transfer.
    "yin2021_plain": ("plain", 0.5918, 0.9162, 0.8637, 0.9512),
    "yin2021_distillation": ("distillation", 0.6138, 0.9203, 0.8642, 0.9563),
    "yin2021_enhanced_feature": ("enhanced_feature", 0.5961, 0.9144, 0.8619, 0.9549),
    "yin2021_fitnets": ("fitnets", 0.6250, 0.9184, 0.8639, 0.9583),
    "yin2021_deep_mutual": ("deep_mutual", 0.6229, 0.9217, 0.8633, 0.9566),
    "yin2021": ("mutual", 0.6421, 0.9292, 0.8855, 0.9645),
    # Table 2: one part left out.
    "yin2021_no_mutual": ("mutual", 0.6359, 0.9239, 0.8760, 0.9599),
    "yin2021_no_single": ("mutual", 0.6317, 0.9234, 0.8702, 0.9625),
    "yin2021_no_cross": ("mutual", 0.6353, 0.9280, 0.8775, 0.9618),
    # Table 1: pictures alone, and both; VGG-4096 and VGG-1000.
    "yin2021_visual": ("visual", 0.5225, 0.8752, 0.7750, 0.9298),
    "yin2021_fusion": ("fusion", 0.6824, 0.9375, 0.9222, 0.9773),
    "yin2021_visual_1000": ("visual", 0.4512, 0.8525, 0.6930, 0.8991),
    "yin2021_fusion_1000": ("fusion", 0.6763, 0.9396, 0.8818, 0.9617),
}


def recipe(name, *changes):
    return load_tagging_recipe(RECIPES / f"{name}.toml", list(changes))


def test_every_row_has_a_recipe():
    ours = {entry.name for entry in RECIPES.iterdir() if entry.name.startswith("yin2021")}
    assert ours == {f"{name}.toml" for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_the_papers(name):
    method, *figures = PUBLISHED[name]
    row = recipe(name)
    names = ("dcase2017_map", "dcase2017_mauc", "dcase2018_map", "dcase2018_mauc")
    assert [row.published[key] for key in names] == figures
    assert (row.name, row.method) == (name, method)


def test_the_best_row_of_table_6():
    published = recipe("yin2021").published
    at_a_quarter = [published[f"dcase2017_{name}"] for name in ("precision", "recall", "f1")]
    assert at_a_quarter == [0.577, 0.642, 0.608]


def test_all_rows_are_trained_alike():
    rows = [recipe(name) for name in PUBLISHED]
    # "Adam optimizer with a batch size of 32. The learning rate is set to 0.001"; 10 s, 64 bands.
    for row in rows:
        assert (row.training.batch_size, row.training.learning_rate) == (32, 0.001)
        assert (row.data.seconds, row.front_end.n_mels, row.visual.backbone) == (10.0, 64, "vgg16")
        assert (row.training, row.model, row.data) == (
            rows[0].training,
            rows[0].model,
            rows[0].data,
        )
    assert {row.name for row in rows if row.visual.output == "scores"} == {
        "yin2021_visual_1000", "yin2021_fusion_1000",
    }  # fmt: skip


def test_rows_of_table_2_leave_out_one_part_each():
    # "lambda, gamma and omega are empirically set to 1"
    assert recipe("yin2021").mutual == MutualSettings()
    assert recipe("yin2021_no_mutual").mutual == MutualSettings(mutual=False)
    assert recipe("yin2021_no_single").mutual == MutualSettings(single=False)
    assert recipe("yin2021_no_cross").mutual == MutualSettings(cross=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method=mutuall", r"method is mutuall; expected plain, .*mutual, visual, fusion"),
        ("metod=plain", r"unknown key metod; did you mean method\?"),
        ("data.kind=dcase17", r"data.kind is dcase17; expected audioset, dcase2017"),
        ("data.train=[]", r"data.train is empty; expected the name of a split"),
        ('data.needs=["audio"]', r"needs is \['audio'\]; expected audio, and video where"),
        ('data.needs=["sound"]', r"data.needs is sound; expected audio, video"),
        ("data.problems=ignore", r"data.problems is ignore; expected refuse, skip"),
        ("data.seconds=0.01", r"data.seconds is 0.01; expected a window of the front end"),
        ("visual.output=logits", r"visual.output is logits; expected embedding, scores"),
        ("visual.frames_per_second=0", r"frames_per_second is 0.0; expected above 0"),
        ("model.kind=pts", r"model.kind is pts; expected tagging"),
        ("model.channels=[64]", r"1 channels: expected an even number"),
        ("mutual.lambda_s=-1.0", r"lambda_s -1.0: expected 0 or more"),
        ("training.epochs=0", r"training.epochs is 0; expected at least 1"),
        ("published.dcase2017_mpa=0.5", r"unknown figure dcase2017_mpa in \[published\]; did you"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        recipe("yin2021", change)


def test_plain_students_may_learn_from_sound_alone():
    assert recipe("yin2021_plain", 'data.needs=["audio"]').data.needs == ("audio",)


def test_a_run_is_the_same_wherever_its_files_lie():
    row = recipe("yin2021", "data.video=/here", "visual.file=/there.pth", "visual.online=true")
    tables = row.without_places()
    assert tables == recipe("yin2021").without_places()
    again = tagging_recipe_from_dict(tables, "settings.json")
    assert again.without_places() == tables
    assert again.data.folders(RECIPES).video is None
