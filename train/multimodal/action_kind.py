"""perez2020 in `soundpost train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.action_recipe import load_action_recipe
from soundpost.train.multimodal.action_run import SCHEMA, train_actions
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train perez2020_hearnet` and the like."""
    out = arguments.out
    recipe = load_action_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    figures = train_actions(
        recipe, arguments.data, out, device, teacher=arguments.teacher, quiet=arguments.quiet
    )
    return Outcome(figures.to_dict(), (figures.line(), f"report: {out / 'report.md'}"))


_RECIPE_SAYS = (
    "it is for clip students; here the recipe says what is held out, and what networks start from"
)

ACTIONS = RunKind(
    schema=SCHEMA,
    takes=frozenset({"teacher"}),
    train=train,
    instead={"fold": _RECIPE_SAYS, "init": _RECIPE_SAYS},
)
