"""Recipes of perez2020: one TOML file for each column of tables 1 to 3."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.action_networks import INPUTS, STUDENTS, TEACHER_CLIP_S
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.generalised import GeneralisedSettings
from soundpost.train.recipe import build_settings, check_all, read_tables

# model.kind of these recipes; those of other methods have another.
KIND = "actions"
# Of data.location: every scenario together.
ALL = 0


@dataclass(frozen=True)
class ActionModel:
    """network : one of action_networks.INPUTS."""

    kind: str = KIND
    network: str = "hearnet"


@dataclass(frozen=True)
class ActionData:
    """What is learnt from and judged on (datasets/action_splits.py).

    location : scenario to train in, from 1; 0 for all of them. What is trained in one is judged on
        its test parts, and on all parts of each other one.
    part_s, limit_s : length of the parts that are drawn, and what counts of a recording
    clip_s : what a student hears at a time; a teacher is shown a second
    split_by : what is drawn for training, validation and test: a "part", as published, or a whole
        "recording"
    """

    location: int = ALL
    part_s: float = 10.0
    limit_s: float = 30.0
    clip_s: float = 5.0
    split_by: str = "part"


@dataclass(frozen=True)
class WeightsSettings:
    """Published weights that a network stands on: ResNet-50 of those that look, SoundNet-5.

    backbone : of train/backbones/published.py; "stub" needs no weights and knows nothing; "none"
        lets SoundNet begin at random
    file : of the weights, where they are not in the cache; online : fetch them where they are not
    """

    backbone: str = "resnet50"
    file: str = ""
    online: bool = False


@dataclass(frozen=True)
class ActionRecipe:
    """Everything that decides a run, beside its data.

    distillation : of a student with a teacher (`--teacher RUN`); published : accuracies by the
        scenarios of training and test, such as `1_2` and `all_all`
    taught : whether a teacher must be given
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    taught: bool = False
    model: ActionModel = field(default_factory=ActionModel)
    data: ActionData = field(default_factory=ActionData)
    weights: WeightsSettings = field(default_factory=WeightsSettings)
    distillation: GeneralisedSettings = field(default_factory=GeneralisedSettings)
    training: FitSettings = field(default_factory=lambda: FitSettings(epochs=100))

    @property
    def clip_s(self) -> float:
        """What the network takes at a time."""
        return self.data.clip_s if self.model.network in STUDENTS else TEACHER_CLIP_S

    @property
    def trained_in(self) -> str:
        """Scenario of training, as published figures name it."""
        return "all" if self.data.location == ALL else str(self.data.location)

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie."""
        tables = dataclasses.asdict(self)
        for key in ("file", "online"):
            del tables["weights"][key]
        return tables


def load_action_recipe(path: Path, changes: list[str]) -> ActionRecipe:
    """Read a recipe and apply changes; raises ConfigError naming file, key, found and expected."""
    return action_recipe_from_dict(read_tables(path, changes), str(path))


def action_recipe_from_dict(values: dict[str, Any], where: str) -> ActionRecipe:
    """Recipe from nested tables; raises ConfigError as load_action_recipe does."""
    recipe: ActionRecipe = build_settings(ActionRecipe, values, where)
    data, network = recipe.data, recipe.model.network
    one_of = [
        ("model.kind", recipe.model.kind, (KIND,)),
        ("model.network", network, tuple(INPUTS)),
        ("data.split_by", data.split_by, ("part", "recording")),
    ]
    checks: list[tuple[bool, str, object, str]] = [
        (found in known, key, found, ", ".join(known)) for key, found, known in one_of
    ]
    checks += [
        (
            data.location >= ALL,
            "data.location",
            data.location,
            "0 (all of them) or a number from 1",
        ),
        (
            data.clip_s >= TEACHER_CLIP_S and data.clip_s == int(data.clip_s),
            "data.clip_s",
            data.clip_s,
            "whole seconds, for a teacher is shown one at a time",
        ),
        (data.part_s >= recipe.clip_s, "data.part_s", data.part_s, f"{recipe.clip_s:g} or more"),
        (data.limit_s >= data.part_s, "data.limit_s", data.limit_s, f"{data.part_s:g} or more"),
        (
            not recipe.taught or network in STUDENTS,
            "taught",
            str(recipe.taught).lower(),
            f"false, for {network} is a teacher",
        ),
    ]
    check_all(checks, where)
    recipe.training.check(where)
    for name in recipe.published:
        trained, _, tested = name.partition("_")
        if not all(part == "all" or part.isdecimal() for part in (trained, tested)):
            near = difflib.get_close_matches(name, ("all_all", "1_1", "1_2"), n=1)
            hint = f"did you mean {near[0]}?" if near else "expected such as 1_2 or all_all"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")
    return recipe
