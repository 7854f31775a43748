"""`soundpost dataset world`: what it makes, says and refuses."""

import argparse
import json

import pytest

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.datasets.command import COMMAND


def run(*arguments):
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_args(["world", *map(str, arguments)]))


SMALL = ["classes=['cat', 'dog']", "looks={}", "takes=1", "microphones=8"]


def test_a_world_is_made_and_told_of(world_toml, world_clips, tmp_path, capsys):
    out = tmp_path / "set"
    rest = ["--data", world_clips, "--out", out, "--workers", 1]
    assert run(world_toml, *SMALL, *rest) == 0
    assert capsys.readouterr().out == (
        "train 2, validation 0, test 2 takes\n"
        f"what sounds when: {out}/events.csv\ncredits: {out}/attribution.csv\n"
    )
    # All is there: nothing is rendered again.
    assert run(world_toml, *SMALL, *rest, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"train": 2, "validation": 0, "test": 2}


def test_a_plan_says_how_large_it_would_be_and_what_an_eye_could_know(
    world_toml, world_clips, capsys
):
    assert run(world_toml, "--data", world_clips, "--plan") == 0
    out = capsys.readouterr().out
    assert out.startswith("8 recordings of 2 x 1 s, 0.00 h, about 4 MB each, 0.0 GB in all\n")
    assert "\ntakes: train 8, test 8\na perfect eye: mAP 0." in out
    assert run(world_toml, "--data", world_clips, "--plan", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert table["takes"] == {"train": 8, "test": 8}
    assert 0 < table["perfect_eye"]["mean_average_precision"] <= 1


def test_what_cannot_be_is_refused_in_one_line(world_toml, world_clips, tmp_path):
    data = ["--data", world_clips]
    with pytest.raises(UsageError, match=r"^no settings tiny; ours: full, small"):
        run("tiny", *data, "--plan")
    with pytest.raises(UsageError, match=r"--out is missing; give the folder to fill, or --plan"):
        run(world_toml, *data)
    with pytest.raises(UsageError, match=r"--workers 0: expected 1 to 256"):
        run(world_toml, *data, "--plan", "--workers", 0)
    with pytest.raises(ConfigError, match=r"takes is -1; expected 1 to 1000"):
        run(world_toml, "takes=-1", *data, "--plan")
    with pytest.raises(InputError, match=r"no such folder; give --data a folder with clips.csv"):
        run(world_toml, "--data", tmp_path / "nowhere", "--plan")
