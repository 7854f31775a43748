"""Recipes of perez2020: one TOML file for each column of tables 1 to 3."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from soundpost.device.errors import ConfigError
from soundpost.train.datasets.action_splits import SPLIT_BY, SplitBy, SplitRule
from soundpost.train.datasets.world_subjects import held_out_subjects
from soundpost.train.multimodal.action_networks import (
    INPUTS,
    SCALABLE,
    STUDENTS,
    TEACHER_CLIP_S,
    NetworkSettings,
)
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.generalised import GeneralisedSettings
from soundpost.train.recipe import build_settings, check_all, read_tables

# model.kind of these recipes; those of other methods have another.
KIND = "actions"
# Of data.location: every scenario together.
ALL = 0
# Networks that begin with published weights, and go on to change them.
STARTS: Final = {"temporal_resnet50": "resnet50", "soundnet5": "soundnet5"}
# Whether it is right, key, found, expected: see check_all.
_Checks = list[tuple[bool, str, object, str]]


@dataclass(frozen=True)
class ActionModel:
    """network : one of action_networks.INPUTS.

    width : factor on its channels, 1 as published; narrower ones are for two cores
    frame_px : side of what Temporal ResNet-50 sees of a picture, 224 as published
    learns : of Temporal ResNet-50, "new" or "all" (action_networks.py)
    """

    kind: str = KIND
    network: str = "hearnet"
    width: float = 1.0
    frame_px: int = 224
    learns: str = "new"


@dataclass(frozen=True)
class ActionData:
    """What is learnt from and judged on (datasets/action_splits.py).

    location : scenario to train in, from 1; 0 for all of them. What is trained in one is judged on
        its test parts, and on all parts of each other one (by "subject": on the test subjects').
    part_s, limit_s : length of the parts that are drawn, and what counts of a recording
    clip_s : what a student hears at a time; a teacher is shown a second
    split_by : what is drawn for training, validation and test: a "part", as published, or a whole
        "recording"; or "subject", where whole subjects are held out
    validation_subjects, test_subjects : numbers, for "subject"; of a generated world, by default
        those that its world.json names
    """

    location: int = ALL
    part_s: float = 10.0
    limit_s: float = 30.0
    clip_s: float = 5.0
    split_by: str = "part"
    validation_subjects: tuple[int, ...] = ()
    test_subjects: tuple[int, ...] = ()


@dataclass(frozen=True)
class WeightsSettings:
    """Published weights that a network stands on: ResNet-50 of those that look, SoundNet-5.

    backbone : of train/backbones/published.py; "stub" needs no weights and knows nothing; "none"
        lets SoundNet or Temporal ResNet-50 begin at random
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

    @property
    def split_rule(self) -> SplitRule:
        """Who learns from which clips, once `held_out` has named the subjects."""
        data = self.data
        return SplitRule(
            cast(SplitBy, data.split_by),
            self.training.seed,
            data.validation_subjects,
            data.test_subjects,
        )

    @property
    def judges(self) -> str:
        """Which clips are held out, in words; alike of a teacher and the student that it teaches.

        Of drawn ones the seed decides, of named subjects it does not.
        """
        data, rule = self.data, self.split_rule
        subjects = [*rule.validation_subjects, *rule.test_subjects]
        drawn = f"subjects {subjects}" if rule.by == "subject" else f"seed {rule.seed}"
        return (
            f"scenario {self.trained_in}, by {rule.by}, {drawn}, parts of {data.part_s:g} s of "
            f"{data.limit_s:g} s"
        )

    def held_out(self, folder: Path) -> ActionRecipe:
        """The same with the subjects that are held out, where the recipe leaves them to a world.

        Raises ConfigError where they are wanted and named nowhere.
        """
        data = self.data
        if data.split_by != "subject" or data.test_subjects:
            return self
        named = held_out_subjects(folder)
        if named is None:
            raise ConfigError(
                f'{self.name}: data.split_by is "subject", and {folder} has no world.json that '
                "names subjects; set data.validation_subjects and data.test_subjects"
            )
        validation, test = named
        data = replace(data, validation_subjects=validation, test_subjects=test)
        return replace(self, data=data)

    def network(self, n_classes: int, picture_size: int) -> NetworkSettings:
        """Its network; picture_size : see NetworkSettings."""
        model = self.model
        return NetworkSettings(model.network, n_classes, picture_size, model.width, model.learns)

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
        ("data.split_by", data.split_by, SPLIT_BY),
        ("model.learns", recipe.model.learns, ("new", "all")),
    ]
    if network in STARTS:
        one_of.append(("weights.backbone", recipe.weights.backbone, (STARTS[network], "none")))
    checks: _Checks = [
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
    checks += _model_checks(recipe) + _subject_checks(data)
    check_all(checks, where)
    recipe.training.check(where)
    for name in recipe.published:
        trained, _, tested = name.partition("_")
        if not all(part == "all" or part.isdecimal() for part in (trained, tested)):
            near = difflib.get_close_matches(name, ("all_all", "1_1", "1_2"), n=1)
            hint = f"did you mean {near[0]}?" if near else "expected such as 1_2 or all_all"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")
    return recipe


def _model_checks(recipe: ActionRecipe) -> _Checks:
    model, at_random = recipe.model, recipe.weights.backbone == "none"
    scalable = model.network in SCALABLE and (model.network != "temporal_resnet50" or at_random)
    width_of = "0.05 to 2" if scalable else f"1, for {model.network} stands on published weights"
    return [
        (
            0.05 <= model.width <= 2 if scalable else model.width == 1,
            "model.width",
            model.width,
            width_of,
        ),
        (32 <= model.frame_px <= 448, "model.frame_px", model.frame_px, "32 to 448"),
        (
            model.network != "temporal_resnet50" or not at_random or model.learns == "all",
            "model.learns",
            model.learns,
            "all, for weights.backbone is none: the rest would stay random",
        ),
    ]


def _subject_checks(data: ActionData) -> _Checks:
    held = (*data.validation_subjects, *data.test_subjects)
    return [
        (
            data.split_by == "subject" or not held,
            "data.validation_subjects, data.test_subjects",
            list(held),
            f'none, for data.split_by is "{data.split_by}"',
        ),
        (
            len(set(held)) == len(held) and (not held or bool(data.test_subjects)),
            "data.validation_subjects, data.test_subjects",
            [list(data.validation_subjects), list(data.test_subjects)],
            "different subjects, and one to test on",
        ),
    ]
