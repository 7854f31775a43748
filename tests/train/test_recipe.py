import pytest

from soundpost.device.errors import ConfigError
from soundpost.train.recipe import load_recipe


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('name = "r"\n[training]\nepochs = 3\n[augment]\ngain_db = [-3, 3]\n')
    return path


def test_reads_and_changes(recipe):
    r = load_recipe(recipe, ["training.epochs=7", "model.width=0.5", "training.schedule=cosine"])
    assert r.training.epochs == 7
    assert r.model.width == 0.5
    assert r.augment.gain_db == (-3.0, 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epoch=7", r"unknown key epoch; did you mean epochs\?"),
        ("trainin.epochs=7", r"unknown key trainin; did you mean training\?"),
        ("training.epochs=many", r"training: epochs is 'many'; expected int"),
        ("training.epochs=0", r"training.epochs is 0; expected at least 1"),
        ("training.schedule=linear", r"expected cosine or exponential"),
        ("augment.gain_db=[3, -3]", r"gain_db is \[3, -3\]; expected \[lowest, highest\]"),
        ("model.kind=resnet", r"model.kind is resnet; expected one of mobilenet_v2"),
        ("epochs", r"expected key=value"),
        ("front_end.fmax_hz=9000.0", r"front end"),
    ],
)
def test_refuses(recipe, change, message):
    from soundpost.device.errors import SoundpostError

    with pytest.raises(SoundpostError, match=message):
        load_recipe(recipe, [change])


def test_not_toml(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"x.toml: cannot be read as TOML"):
        load_recipe(path, [])
    with pytest.raises(ConfigError, match=r"no such recipe"):
        load_recipe(tmp_path / "absent.toml", [])
