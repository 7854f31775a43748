"""perez2020 in `soundpost train`, `evaluate` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.device.errors import UsageError
from soundpost.train.evaluate_options import Judge, one_model, refuse
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.action_evaluate import (
    evaluate_actions,
    scenario_columns,
    written_cells,
)
from soundpost.train.multimodal.action_labelling import action_labeller
from soundpost.train.multimodal.action_recipe import load_action_recipe
from soundpost.train.multimodal.action_run import load_action_run, train_actions
from soundpost.train.multimodal.cross_scenario import scenario_figures, scenario_table
from soundpost.train.multimodal.layer_features import judge_run_layers, write_layers
from soundpost.train.multimodal.scenario_report import write_scenarios
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train perez2020_hearnet` and the like."""
    out = arguments.out
    recipe = load_action_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    figures = train_actions(
        recipe, arguments.data, out, device, teacher=arguments.teacher, quiet=arguments.quiet
    )
    return Outcome(
        figures.to_dict(),
        (
            figures.line(),
            f"report: {out / 'report.md'}",
            f"next: soundpost distil {out} --data DIR --kind actions --out soft_labels",
        ),
    )


def evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of a run, of several as a table of scenarios, or of a run's layers."""
    if arguments.layers:
        return _layers(arguments)
    refuse(arguments, "it is for --layers", "kind")
    device = choose_device(arguments.device)
    runs = [load_action_run(folder) for folder in arguments.models]
    if arguments.data is None:
        cells = [written_cells(run.folder) for run in runs]
    else:
        figures = [
            evaluate_actions(
                run, arguments.data, device, weights=arguments.weights, quiet=arguments.quiet
            )
            for run in runs
        ]
        if len(runs) == 1 and arguments.out is None:
            return Outcome(figures[0].to_dict(), (figures[0].line(),))
        cells = [of.cells() for of in figures]
    columns = scenario_columns(list(zip(runs, cells, strict=True)))
    lines = [scenario_table(columns)]
    if arguments.out is not None:
        write_scenarios(columns, arguments.out)
        lines.append(f"in {arguments.out}")
    return Outcome(scenario_figures(columns), tuple(lines))


def _layers(arguments: argparse.Namespace) -> Outcome:
    folder = one_model(arguments)
    refuse(arguments, "layers that are judged only listen", "weights")
    for option in ("data", "kind"):
        if getattr(arguments, option) is None:
            raise UsageError(
                f"--{option} is missing: --layers judges them on a labelled data set; give --data "
                "DIR and --kind, its layout, such as scenes"
            )
    judged = judge_run_layers(
        load_action_run(folder),
        arguments.kind,
        arguments.data,
        choose_device(arguments.device),
        quiet=arguments.quiet,
    )
    lines = [judged.line(), judged.table()]
    if arguments.out is not None:
        write_layers(judged, arguments.out)
        lines.append(f"in {arguments.out}")
    return Outcome(judged.to_dict(), tuple(lines))


_RECIPE_SAYS = (
    "it is for clip students; here the recipe says what is held out, and what networks start from"
)

ACTIONS = RunKind(
    takes=frozenset({"teacher"}),
    train=train,
    evaluate=Judge(evaluate, frozenset({"layers", "kind", "out", "weights"}), needs_data=False),
    labeller=action_labeller,
    instead={"fold": _RECIPE_SAYS, "init": _RECIPE_SAYS},
)
