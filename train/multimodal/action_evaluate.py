"""Runs of perez2020 judged again: one on a folder, or several as a table of scenarios."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from soundpost.device.errors import InputError
from soundpost.train.multimodal.action_networks import STUDENTS
from soundpost.train.multimodal.action_protocol import judge_actions, open_actions
from soundpost.train.multimodal.action_recipe import ActionRecipe, WeightsSettings
from soundpost.train.multimodal.action_report import FIGURES_FILE, ActionFigures
from soundpost.train.multimodal.action_run import ActionRun, open_visual_of
from soundpost.train.multimodal.cross_scenario import Column, CrossScenario

# In front of our recipes' names.
_PREFIX = "perez2020_"


def evaluate_actions(
    run: ActionRun, folder: Path, device: torch.device, *, weights: str = "", quiet: bool = False
) -> ActionFigures:
    """Judge a run on what its recipe holds out of a folder.

    folder : in the layout of `actions`, with the actions that the run was trained on
    weights : file of its visual network's weights, where it looks and they are not in the cache

    Raises InputError where the set cannot be used or has other actions, or weights are missing.
    """
    places = WeightsSettings(run.recipe.weights.backbone, weights)
    visual = open_visual_of(run, places, device, quiet=quiet)
    opened = open_actions(run.recipe, folder, visual, quiet=quiet)
    if opened.labels != run.labels:
        raise InputError(
            f"{folder}: its {len(opened.labels)} actions are not the {len(run.labels)} of "
            f"{run.folder}; give a set with the actions that it was trained on"
        )
    return judge_actions(run.network.to(device), opened, device, quiet=quiet).figures


def written_cells(folder: Path) -> dict[str, float]:
    """Accuracies that a run wrote when it was trained, by scenarios as published figures are.

    Raises InputError where the run is not finished.
    """
    path = folder / FIGURES_FILE
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
        return {str(name): float(value) for name, value in cells.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the figures of a finished run: train it "
            "again, it goes on where it stopped"
        ) from error


def scenario_columns(
    runs: Sequence[tuple[ActionRun, dict[str, float]]],
) -> list[Column]:
    """Runs with their accuracies as columns: teachers, then students, in the order of the runs.

    A column is what has one recipe, its runs differ in scenario and seed; those of one seed are
    one network of tables 1 to 3.

    Raises InputError where runs of one column differ in anything else, two are the same, or runs
    do not have the same actions and split.
    """
    _check_alike([run for run, _ in runs])
    columns: dict[str, dict[int, dict[str, float]]] = {}
    for run, cells in runs:
        seeds = columns.setdefault(run.recipe.name, {})
        seed = seeds.setdefault(run.recipe.training.seed, {})
        twice = sorted(seed.keys() & cells.keys())
        if twice:
            raise InputError(
                f"{run.folder}: another run of {run.recipe.name} has seed "
                f"{run.recipe.training.seed} and scenario {run.recipe.trained_in} too; give each "
                "once"
            )
        seed.update(cells)
    # Recipes of one scenario and another have the same published figures.
    recipes = {run.recipe.name: run.recipe for run, _ in runs}
    ordered = sorted(columns, key=lambda name: recipes[name].model.network in STUDENTS)
    return [
        Column(
            name.removeprefix(_PREFIX),
            {seed: CrossScenario.of_names(cells) for seed, cells in columns[name].items()},
            CrossScenario.of_names(recipes[name].published),
        )
        for name in ordered
    ]


def _check_alike(runs: Sequence[ActionRun]) -> None:
    first = runs[0]
    same: dict[str, ActionRun] = {}
    for run in runs:
        ours, theirs = _of_table(run.recipe), _of_table(first.recipe)
        if run.labels != first.labels or ours != theirs:
            what = "other actions" if run.labels != first.labels else _first_change(ours, theirs)
            raise InputError(
                f"{run.folder}: has {what}, unlike {first.folder}; give runs on one set that hold "
                "out the same"
            )
        column = same.setdefault(run.recipe.name, run)
        ours, theirs = _of_column(run.recipe), _of_column(column.recipe)
        if ours != theirs:
            raise InputError(
                f"{run.folder}: has {_first_change(ours, theirs)}, unlike {column.folder}, and "
                f"both are called {run.recipe.name}; give runs that differ in scenario and seed "
                "alone, or train one with name=..."
            )


def _of_table(recipe: ActionRecipe) -> dict[str, Any]:
    """What all runs of a table share: who is held out. Clips of teachers and students differ."""
    data = dataclasses.asdict(recipe.data)
    return {f"data.{key}": data[key] for key in data if key not in ("location", "clip_s")}


def _of_column(recipe: ActionRecipe) -> dict[str, Any]:
    tables = recipe.without_places()
    del tables["data"]["location"], tables["training"]["seed"]
    return {
        f"{table}.{key}" if isinstance(values, dict) else table: value
        for table, values in tables.items()
        for key, value in (values.items() if isinstance(values, dict) else [(table, values)])
    }


def _first_change(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    key = next(key for key in ours | theirs if ours.get(key) != theirs.get(key))
    return f"{key} {ours.get(key)}, not {theirs.get(key)}"
