"""Recipes of jia2019: numbers of its text and tables 2 to 4, typed here a second time."""

from importlib import resources
from pathlib import Path

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.audio_networks import NETWORKS
from soundpost.train.multimodal.machine_recipe import BENCHMARKS, load_machine_recipe
from soundpost.train.multimodal.transfer_recipe import load_transfer_recipe
from soundpost.train.multimodal.transfer_report import published_rows

# Top-1, top-5, mAP, AUC in percent; None where the paper has none.
TABLES = {
    "audioset": {
        "vggish": (58.3, 78.1, 27.0, 95.0), "vggish_bn": (59.1, 78.5, 28.6, 95.2),
        "vggish_fc": (59.9, 79.4, 30.6, 95.5), "mobilenet_v2": (55.1, 74.3, 21.8, 93.7),
        "resnet50": (60.9, 81.1, 32.3, 96.0), "youtube100m": (55.3, 74.9, 23.1, 94.3),
    },
    "esc50": {
        "vggish": (87.3, None, 91.7, None), "vggish_bn": (90.3, None, 95.2, None),
        "vggish_fc": (91.4, None, 95.9, None), "mobilenet_v2": (83.8, None, 89.4, None),
        "resnet50": (91.2, None, 95.5, None), "youtube100m": (81.1, None, 86.1, None),
        "human": (81.3, None, None, None), "convrbm": (86.5, None, None, None),
    },
    "tut2018": {
        "vggish": (68.2, None, 71.6, None), "vggish_bn": (70.1, None, 75.2, None),
        "vggish_fc": (71.4, None, 76.8, None), "mobilenet_v2": (66.2, None, 69.5, None),
        "resnet50": (70.7, None, 75.3, None), "youtube100m": (62.6, None, 67.0, None),
        "baseline": (59.7, None, None, None),
    },
}  # fmt: skip


def ours(name):
    return Path(str(resources.files("soundpost.train.recipes") / f"{name}.toml"))


def as_figures(row):
    names = ("top1", "top5", "map", "auc")
    return {
        name: pytest.approx(value / 100)
        for name, value in zip(names, row, strict=True)
        if value is not None
    }


@pytest.mark.parametrize("network", NETWORKS)
def test_pretraining_is_that_of_section_3(network):
    recipe = load_machine_recipe(ours(f"jia2019_{network}"), [])
    assert recipe.model.network == network
    assert (recipe.model.width, recipe.model.embedding_size) == (1.0, 128)
    training = recipe.training
    assert (training.epochs, training.learning_rate) == (30, 1e-4)
    assert (training.decay, training.decay_epochs) == (0.9, 1)
    assert training.batch_size == (2_048 if network == "mobilenet_v2" else 1_024)
    assert recipe.regularisation.penalty == 1.0
    assert recipe.data.crops == "seconds"
    assert recipe.data.validation_share == pytest.approx(1 / 15, abs=1e-6)
    # 16 kHz, 25 ms, 10 ms, 64 bands.
    front_end = recipe.front_end
    assert (front_end.sample_rate_hz, front_end.window_length) == (16_000, 400)
    assert (front_end.hop_length, front_end.n_mels) == (160, 64)
    expected = {
        f"{benchmark}_{name}": value
        for benchmark in BENCHMARKS
        for name, value in as_figures(TABLES[benchmark][network]).items()
    }
    assert recipe.published == expected


@pytest.mark.parametrize(
    ("benchmark", "kind", "seconds", "labels", "dropout"),
    [
        ("esc50", "esc50", 5, "one", 0.3),
        ("audioset", "audioset", 10, "several", 0.5),
        ("tut2018", "scenes", 10, "one", 0.5),
    ],
)
def test_transfer_is_that_of_section_4(benchmark, kind, seconds, labels, dropout):
    recipe = load_transfer_recipe(ours(f"jia2019_{benchmark}"), [])
    assert (recipe.training.learning_rate, recipe.training.batch_size) == (2e-4, 128)
    assert (recipe.transfer.l2, recipe.transfer.dropout) == (1e-6, dropout)
    assert recipe.transfer.learns == "classifier"
    data = recipe.data
    assert (data.kind, data.seconds, data.labels, data.share) == (kind, seconds, labels, 1.0)
    expected = {row: as_figures(figures) for row, figures in TABLES[benchmark].items()}
    found = published_rows(recipe)
    found.pop("hershey2017", None)
    assert found == expected


def test_scratch_differs_by_what_it_begins_with_and_how_long_it_learns():
    for name in ("esc50", "audioset", "tut2018", "world"):
        transfer, scratch = (
            load_transfer_recipe(ours(f"jia2019_{name}{more}"), []) for more in ("", "_scratch")
        )
        assert scratch.learns_all
        assert not transfer.learns_all
        assert (scratch.data, scratch.front_end) == (transfer.data, transfer.front_end)
        assert scratch.transfer.dropout == transfer.transfer.dropout
        assert scratch.published == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.network=resnet", r"model.network is 'resnet'; expected vggish, .*resnet50"),
        ("model.width=0", r"model.width is 0.0; expected 0.01 to 4"),
        ("data.crops=all", r"data.crops is all; expected seconds, anywhere"),
        ("data.kind=esc", r"data.kind is esc; expected audioset, "),
        ("data.validation_share=0.9", r"data.validation_share is 0.9; expected 0 to 0.5"),
        ("regularisation.factor=-1", r"regularisation is .*; expected 0 or more"),
        ("published.esc50_top2=1", r"unknown figure esc50_top2 in \[published\]; did you mean esc"),
        ("data.label=x", r"data: unknown key label; did you mean labels\?"),
    ],
)
def test_wrong_keys_of_pretraining_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        load_machine_recipe(ours("jia2019_vggish"), [change])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("transfer.learns=most", r"transfer.learns is most; expected classifier, all"),
        ("transfer.dropout=1.0", r"transfer.dropout is 1.0; expected 0 to below 1"),
        ("data.labels=two", r"data.labels is two; expected one, several"),
        ("data.share=0.0", r"data.share is 0.0; expected above 0, up to 1"),
        ('data.train=["1"]', r"data.test is \[\]; expected splits where data.train has some"),
        ("data.problems=ask", r"data.problems is ask; expected refuse, skip"),
        ("published.vgg_top1=1", r"unknown figure vgg_top1 in \[published\]; did you mean vggish"),
    ],
)
def test_wrong_keys_of_transfer_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        load_transfer_recipe(ours("jia2019_esc50"), [change])
