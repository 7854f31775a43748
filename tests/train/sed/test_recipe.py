"""The recipes are the rows of the paper's table 1."""

from importlib import resources

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.sed.recipe import load_detection_recipe

RECIPES = resources.files("soundpost.train.recipes")

# Table 1, evaluation set: event-F1, segment-F1, AT-F1. Then what distinguishes the row.
TABLE_1 = {
    "mean_teacher": (25.8, 53.7, 45.8),
    "guided": (40.5, 66.5, 70.2),
    "pts_no_bgru": (39.4, 61.0, 69.1),
    "pts": (40.9, 68.1, 73.4),
    "dfd_mse": (41.3, 69.6, 68.7),
    "dfd_d": (41.7, 71.1, 72.9),
    "tfd": (45.4, 70.2, 77.1),
    "tfd_dfd_d": (40.1, 72.0, 73.3),
    "tfd_afl": (47.1, 74.0, 78.1),
    "full": (49.8, 75.9, 81.2),
}


def recipe(name, *changes):
    return load_detection_recipe(RECIPES / f"{name}.toml", list(changes))


@pytest.mark.parametrize("name", TABLE_1)
def test_published_figures_are_the_papers(name):
    published = recipe(name).published
    percent = [100 * published[key] for key in ("event_f1", "segment_f1", "clip_f1")]
    assert percent == pytest.approx(TABLE_1[name])
    assert recipe(name).name == name


def test_rows_differ_in_what_they_say():
    rows = {name: recipe(name) for name in TABLE_1}
    assert rows["mean_teacher"].method.kind == "mean_teacher"
    assert [name for name, r in rows.items() if r.model.branches == "joint"] == [
        "mean_teacher", "guided",
    ]  # fmt: skip
    assert [n for n, r in rows.items() if r.model.gru_layers == 0] == ["guided", "pts_no_bgru"]
    distilling = {n: r.method.distillation for n, r in rows.items()}
    assert {n: kind for n, kind in distilling.items() if kind != "none"} == {
        "dfd_mse": "dfd_mse", "dfd_d": "dfd_d", "tfd": "tfd", "tfd_dfd_d": "tfd_dfd_d",
        "tfd_afl": "tfd", "full": "tfd",
    }  # fmt: skip
    assert [n for n, r in rows.items() if r.method.focal] == ["tfd_afl", "full"]
    assert [n for n, r in rows.items() if r.filter.rule == "esp"] == ["full"]
    assert (rows["full"].method.tau, rows["full"].method.gamma) == (15, 2.0)


# Table 2, evaluation set: tau and gamma, then the figures.
TABLE_2 = {
    "tfd_afl": (15, 2, 47.1, 74.0, 78.1),
    "tfd_afl_tau_10": (10, 2, 47.0, 75.1, 76.6),
    "tfd_afl_tau_30": (30, 2, 47.1, 70.1, 76.4),
    "tfd_afl_gamma_1": (15, 1, 44.8, 73.3, 74.4),
    "tfd_afl_gamma_3": (15, 3, 46.6, 74.0, 75.2),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_is_two_keys(name):
    row = recipe(name)
    tau, gamma, *percent = TABLE_2[name]
    assert (row.method.tau, row.method.gamma, row.method.focal) == (tau, gamma, True)
    published = [100 * row.published[key] for key in ("event_f1", "segment_f1", "clip_f1")]
    assert published == pytest.approx(percent)
    assert (row.model, row.batch, row.filter) == (
        recipe("tfd_afl").model,
        recipe("tfd_afl").batch,
        recipe("tfd_afl").filter,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.distilation=tfd", r"unknown key distilation; did you mean distillation\?"),
        ("method.distillation=mse", r"expected none, dfd_mse, dfd_d, tfd, tfd_dfd_d"),
        ("method.focal_form=lin", r"focal_form is lin; expected printed, focal"),
        ("model.student.kernels=[5, 5]", r"student.kernels is \[5, 5\]; expected 3 numbers"),
        ("model.student.kernels=[5, 4, 3]", r"expected odd numbers"),
        ("model.student.kernels=5", r"expected a list of whole numbers"),
        ("model.kind=mobilenet_v2", r"model.kind is mobilenet_v2; expected pts"),
        ("training.epochs=0", r"training.epochs is 0; expected at least 1"),
        ("batch.strong=-1", r"strong -1, .*expected none below 0"),
        ("filter.rule=median", r"filter.rule is median; expected esp, average, fixed, none"),
        ("filter.threshold=1.5", r"filter.threshold is 1.5; expected above 0, up to 1"),
        ("filter.threshold=0", r"filter.threshold is 0(.0)?; expected above 0, up to 1"),
        ("filter.tag_threshold=-0.1", r"filter.tag_threshold is -0.1; expected at least 0"),
        ("filter.tag_threshold=1.1", r"filter.tag_threshold is 1.1; expected 0 to 1"),
        ("method.gamma=0", r"method.gamma is 0(.0)?; expected above 0"),
        ("batch.seed=3", r"unknown key seed"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        recipe("pts", change)


def test_a_mean_teacher_has_nothing_to_distil_from():
    with pytest.raises(ConfigError, match=r"method.distillation is tfd; expected none"):
        recipe("mean_teacher", "method.distillation=tfd")


def test_a_base_gives_what_is_not_said(tmp_path):
    (tmp_path / "a.toml").write_text(
        "[published]\nevent_f1 = 1.0\n[method]\ntau = 3\ngamma = 1.0\n[training]\nepochs = 7\n"
    )
    (tmp_path / "b.toml").write_text('base = "a"\n[method]\ngamma = 3.0\n')
    row = load_detection_recipe(tmp_path / "b.toml", [])
    assert (row.method.tau, row.method.gamma, row.training.epochs) == (3, 3.0, 7)
    # Published figures belong to the row that states them.
    assert row.published == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "r"', r"r.toml: base r leads back to itself"),
        ('base = "absent"', r"absent.toml: no such recipe"),
        ("base = 3", r"base is 3; expected the name of a recipe"),
    ],
)
def test_a_base_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_detection_recipe(path, [])


def test_a_vocabulary_is_a_list_of_labels():
    assert recipe("full").reading.labels == ()
    assert recipe("full", 'reading.labels=["cat", "dog"]').reading.labels == ("cat", "dog")
    for wrong in ("[1, 2]", '"cat"'):
        with pytest.raises(ConfigError, match=r"labels is .*; expected a list of texts"):
            recipe("full", f"reading.labels={wrong}")
