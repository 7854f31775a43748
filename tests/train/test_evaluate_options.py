"""Each model is judged with the options that it takes; any other is refused before it is read."""

import argparse
from pathlib import Path

import pytest

from soundpost.device.errors import UsageError
from soundpost.train.clip_kind import CLIPS
from soundpost.train.commands import EVALUATE
from soundpost.train.evaluate_options import JUDGED_WITH, Judge, one_model
from soundpost.train.kinds import Outcome, kind_named
from soundpost.train.multimodal.tagging_kind import BUNDLES
from soundpost.train.sed.scene_kinds import JUDGE as SCENES

GIVEN = {
    "fold": ["--fold", "1"],
    "part": ["--part", "validation"],
    "split": ["--split", "test"],
    "kind": ["--kind", "esc50"],
    "lengths": ["--lengths", "fit"],
    "overlaps": ["--overlaps", "merge"],
    "missing": ["--missing", "skip"],
    "chosen": ["--chosen"],
    "audio": ["--audio", "sound"],
    "video": ["--video", "films"],
    "weights": ["--weights", "weights.pth"],
    "layers": ["--layers"],
    "out": ["--out", "table"],
}
# What the help text says of each sort of model.
TAKES = {
    "clips": {"fold"},
    "bundles": {"kind", "split", "audio", "video"},
    "scenes": {"part", "lengths", "overlaps", "missing", "chosen"},
    "tagging": {"part", "audio", "video", "weights"},
    "li2018": {"part", "audio", "video", "weights"},
    "transfer": {"part", "audio", "video"},
    "actions": {"layers", "kind", "out", "weights"},
}
JUDGES = {"clips": CLIPS.evaluate, "bundles": BUNDLES, "scenes": SCENES} | {
    name: kind_named(name, "recipe").evaluate
    for name in ("tagging", "li2018", "transfer", "actions")
}


def parsed(*options):
    parser = argparse.ArgumentParser()
    EVALUATE.add_arguments(parser)
    return parser.parse_args(["model", *options])


def test_every_option_is_tried():
    assert GIVEN.keys() == JUDGED_WITH.keys()


@pytest.mark.parametrize("option", GIVEN)
@pytest.mark.parametrize("sort", JUDGES)
def test_an_option_is_taken_or_refused_by_name(sort, option):
    judge = JUDGES[sort]
    reached = Judge(lambda _: Outcome("judged", ()), judge.takes, judge.needs_data)
    arguments = parsed("--data", "clips", *GIVEN[option])
    if option in TAKES[sort]:
        assert reached(arguments).table == "judged"
    else:
        with pytest.raises(UsageError, match=f"--{option}: is not used for model; it is for"):
            judge(arguments)


@pytest.mark.parametrize("sort", JUDGES)
def test_only_runs_of_perez2020_do_without_data(sort):
    judge = JUDGES[sort]
    reached = Judge(lambda _: Outcome("judged", ()), judge.takes, judge.needs_data)
    if sort == "actions":
        assert reached(parsed()).table == "judged"
    else:
        with pytest.raises(UsageError, match="--data is missing: give the labelled clips that mod"):
            judge(parsed())


def test_one_model_is_asked_for():
    assert one_model(parsed()) == Path("model")
    with pytest.raises(UsageError, match="other: only runs of some families are judged together"):
        one_model(argparse.Namespace(models=[Path("model"), Path("other")]))
