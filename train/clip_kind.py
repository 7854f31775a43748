"""Clip students, such as starter and finetune, in `soundpost train`, `evaluate` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.evaluate import evaluate
from soundpost.train.evaluate_options import Judge, one_model
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.soft_labelling import clip_labeller
from soundpost.train.recipe import load_recipe
from soundpost.train.run import train_run


def train_clips(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train starter` and the like."""
    out = arguments.out
    recipe = load_recipe(path, arguments.changes)
    figures = train_run(
        recipe,
        arguments.data,
        out,
        arguments.fold,
        init=arguments.init,
        soft_labels=arguments.soft_labels,
        live=arguments.live_teacher,
        device=arguments.device,
        quiet=arguments.quiet,
    )
    following = f"export {out} --out {out.name}.bundle"
    if not recipe.model.for_the_sensor:
        fold = "" if arguments.fold is None else f" --fold {arguments.fold}"
        following = (
            f"train esc50_taught --data {arguments.data}{fold} --live-teacher {out} --out taught"
        )
    return Outcome(
        {name: of.to_dict() for name, of in figures.items()},
        (
            *(f"{name}: {of.line()}" for name, of in figures.items()),
            f"report: {out / 'report.md'}",
            f"next: soundpost {following}",
        ),
    )


def _evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of a run or a bundle on labelled clips."""
    model = one_model(arguments)
    result = evaluate(
        model,
        arguments.data,
        arguments.fold,
        runtime=arguments.runtime,
        device=arguments.device,
        quiet=arguments.quiet,
    )
    figures = result.figures
    table = {"model": result.model, "runtime": result.runtime, "skipped": result.skipped}
    lines = [f"{result.model}, {result.runtime}", figures.line()]
    if result.skipped:
        lines.append(f"{result.skipped} clips left out: their labels are not the model's")
    lines.append(f"{'label':<20} {'recall':>7} {'AP':>6}")
    for label, recall in sorted(figures.recall.items(), key=lambda item: item[1]):
        lines.append(f"{label:<20} {recall:>7.1%} {figures.average_precision[label]:>6.3f}")
    return Outcome(table | figures.to_dict(), tuple(lines))


JUDGE = Judge(_evaluate, frozenset({"fold"}))
CLIPS = RunKind(
    takes=frozenset({"fold", "init", "soft_labels", "live_teacher"}),
    train=train_clips,
    evaluate=JUDGE,
    labeller=clip_labeller,
)
