"""The tables of families agree with the families."""

import importlib
import subprocess
import sys

import pytest

from soundpost.device.errors import ConfigError
from soundpost.train import kinds
from soundpost.train.kinds import kind_named, kind_of_run

# Each family's runs, and the recipes of ours that make them.
MADE_BY = {
    "soundpost.train.run": ("mobilenet_v2", "audio_cnn", "audio_resnet", "vggish"),
    "soundpost.train.sed.run": ("pts",),
    "soundpost.train.sed.streaming_run": ("streaming_crnn",),
    "soundpost.train.multimodal.tagging_run": ("tagging",),
    "soundpost.train.multimodal.action_run": ("actions",),
    "soundpost.train.multimodal.picture_run": ("pictures",),
    "soundpost.train.multimodal.machine_run": ("machine_labels",),
    "soundpost.train.multimodal.transfer_run": ("transfer",),
    "soundpost.train.multimodal.fusion_run": ("li2018",),
}


@pytest.mark.parametrize("module", MADE_BY)
def test_a_run_is_of_the_family_that_trained_it(module):
    schema = importlib.import_module(module).SCHEMA
    found = kind_of_run(schema)
    assert found is not None
    for name in MADE_BY[module]:
        assert kind_named(name, "recipe") is found


def test_every_family_is_named():
    assert set(kinds._SCHEMAS) == {name for names in MADE_BY.values() for name in names}
    assert set(kinds._SCHEMAS.values()) == set(kinds._FAMILIES)


def test_unknown_ones():
    assert kind_of_run("soundpost.other_run/1") is None
    assert kind_of_run("") is None
    with pytest.raises(ConfigError, match=r"mine: model\.kind 'taging': unknown.*tagging"):
        kind_named("taging", "mine")


def test_only_the_family_that_is_asked_for_is_imported():
    program = (
        "import sys; from soundpost.train.kinds import kind_of_run; kind_of_run('soundpost.run/1');"
        "print([name for name in sys.modules if name.endswith('_kind') or 'scene_kinds' in name])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "['soundpost.train.clip_kind']"
