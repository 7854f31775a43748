"""The recipes are the rows of yin2021's tables 1 to 5, and what the sensor learns by them."""

from importlib import resources

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.mutual import MutualSettings
from soundpost.train.multimodal.tagging_recipe import (
    is_run,
    load_tagging_recipe,
    tagging_recipe_from_dict,
)
from soundpost.train.recipe import Recipe
from soundpost.train.sed.streaming import StreamingSettings

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
    # Table 4: pre-trained acoustic representations, alone and beside log-mel.
    "yin2021_plain_soundnet_alone": ("plain", 0.4256, 0.8581, 0.7426, 0.9168),
    "yin2021_plain_vggish_alone": ("plain", 0.5786, 0.9179, 0.8408, 0.9582),
    "yin2021_plain_soundnet": ("plain", 0.6149, 0.9216, 0.8633, 0.9553),
    "yin2021_plain_vggish": ("plain", 0.6480, 0.9278, 0.8824, 0.9678),
    # Table 5: the same in the proposed student.
    "yin2021_soundnet_alone": ("mutual", 0.4419, 0.8709, 0.7676, 0.9295),
    "yin2021_vggish_alone": ("mutual", 0.5965, 0.9248, 0.8580, 0.9635),
    "yin2021_soundnet": ("mutual", 0.6366, 0.9269, 0.8845, 0.9626),
    "yin2021_vggish": ("mutual", 0.6690, 0.9353, 0.9059, 0.9704),
}
# Students of our own, of which nothing is published.
OURS = {"yin2021_mobilenet_v2": "mobilenet_v2", "yin2021_streaming": "streaming"}


def recipe(name, *changes):
    return load_tagging_recipe(RECIPES / f"{name}.toml", list(changes))


def test_every_row_has_a_recipe():
    ours = {entry.name for entry in RECIPES.iterdir() if entry.name.startswith("yin2021")}
    assert ours == {f"{name}.toml" for name in (*PUBLISHED, *OURS)}


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


def test_a_folder_called_like_a_published_network_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg16").mkdir()
    (tmp_path / "eye").mkdir()
    assert not is_run("vgg16")
    assert not is_run("stub")
    assert is_run("eye")
    assert is_run("runs/eye")
    # Elsewhere, by where the run noted that it lies.
    monkeypatch.chdir("/")
    assert not is_run("eye")
    assert is_run("eye", str(tmp_path / "eye"))
    assert not is_run("vgg16", str(tmp_path / "eye"))


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


def test_rows_of_tables_4_and_5_hear_what_their_names_say():
    for name in PUBLISHED:
        row, alone = recipe(name), name.endswith("_alone")
        extra = next((kind for kind in ("soundnet", "vggish") if kind in name), None)
        expected = (() if alone else ("log_mel",)) + (() if extra is None else (extra,))
        assert row.acoustic.features == expected
    published = {row: recipe(row).acoustic.embeddings for row in ("yin2021_vggish", "yin2021")}
    assert published["yin2021_vggish"]["vggish"].backbone == "vggish"
    assert published["yin2021"] == {}


@pytest.mark.parametrize(("name", "student"), OURS.items())
def test_the_sensors_students_learn_as_the_papers_does(name, student):
    row, papers = recipe(name), recipe("yin2021")
    assert row.model.student == row.device.student == student
    assert row.published == {}
    assert (row.method, row.mutual, row.training) == ("mutual", papers.mutual, papers.training)
    # The network itself is that of the recipes which learn from labels alone.
    starter = Recipe().model
    windows = row.mobilenet_v2
    assert (windows.width, windows.embedding_size) == (starter.width, starter.embedding_size)
    assert row.streaming == StreamingSettings()


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
        ("model.student=crnn", r"model.student is crnn; expected paper, mobilenet_v2, streaming"),
        ("model.student=streaming", r"data.validation is empty; expected .*thresholds are chosen"),
        ("mobilenet_v2.windows=0", r"windows 0: expected 32 or more, 1 or more"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method=fusion", r"method is fusion; expected one that trains a student"),
        ('acoustic.features=["vggish"]', r"expected log_mel first: it is what a sensor hears"),
        # A window of 100 frames spans 99 hops of 10 ms and one of 25 ms.
        ("data.seconds=1.014", r"data.seconds is 1.014; expected 1.015 or more"),
        ("mobilenet_v2.width=9.0", r"width 9.0.*expected 0.1 to 4"),
    ],
)
def test_the_sensors_students_refuse(change, message):
    with pytest.raises(ConfigError, match=message):
        recipe("yin2021_mobilenet_v2", change)


def test_runs_of_before_there_was_a_choice_go_on():
    tables = recipe("yin2021").without_places()
    assert not {"acoustic", "mobilenet_v2", "streaming"} & tables.keys()
    assert "student" not in tables["model"]
    device = recipe("yin2021_streaming").without_places()
    assert "mobilenet_v2" not in device
    assert tagging_recipe_from_dict(device, "settings.json").without_places() == device


def test_plain_students_may_learn_from_sound_alone():
    assert recipe("yin2021_plain", 'data.needs=["audio"]').data.needs == ("audio",)


def test_a_run_is_the_same_wherever_its_files_lie():
    row = recipe("yin2021", "data.video=/here", "visual.file=/there.pth", "visual.online=true")
    tables = row.without_places()
    assert tables == recipe("yin2021").without_places()
    again = tagging_recipe_from_dict(tables, "settings.json")
    assert again.without_places() == tables
    assert again.data.folders(RECIPES).video is None
