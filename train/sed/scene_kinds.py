"""Detection recipes and the streaming student in `soundpost train` and `soundpost evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.device.errors import UsageError
from soundpost.train.evaluate_options import Judge, one_model
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.run import choose_device
from soundpost.train.sed import streaming_run
from soundpost.train.sed.evaluate import evaluate_scenes
from soundpost.train.sed.recipe import ReadingSettings, load_detection_recipe
from soundpost.train.sed.report import figure_lines
from soundpost.train.sed.streaming_recipe import load_streaming_recipe
from soundpost.train.sed.train_folder import train_folder

_READING = ("lengths", "overlaps", "missing")


def train_pair(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train full` and the like."""
    data, out = arguments.data, arguments.out
    recipe = load_detection_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    judged = train_folder(recipe, data, out, device, quiet=arguments.quiet)
    return Outcome(
        {name: of.figures.to_dict() for name, of in judged.items()},
        (
            *(f"{name}: {of.figures.line()}" for name, of in judged.items()),
            f"report: {out / 'report.md'}",
            f"next: soundpost train streaming --data {data} --teacher {out} --out "
            f"{out.parent / 'streaming'}",
        ),
    )


def train_student(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train streaming`."""
    if arguments.teacher is None and not arguments.soft_labels:
        raise UsageError(
            f"{path.stem}: --teacher RUN is missing: give a run of a recipe such as full, or what "
            "soundpost distil wrote as --soft-labels STORE"
        )
    if arguments.teacher is not None and arguments.soft_labels:
        raise UsageError(
            f"{path.stem}: --teacher, --soft-labels: both are given, a student takes one of them; "
            "leave one out"
        )
    out = arguments.out
    recipe = load_streaming_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    judged = streaming_run.train_streaming(
        recipe,
        arguments.data,
        arguments.teacher,
        out,
        device,
        soft_labels=arguments.soft_labels,
        quiet=arguments.quiet,
    )
    return Outcome(
        {name: of.figures.to_dict() for name, of in judged.items()},
        (
            *(f"{name}: {of.figures.line()}" for name, of in judged.items()),
            f"report: {out / 'report.md'}",
            f"next: soundpost export {out} --out {out.name}.bundle",
        ),
    )


def _evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of a run or a bundle on recordings with times."""
    model = one_model(arguments)
    given = {name: value for name in _READING if (value := getattr(arguments, name)) is not None}
    result = evaluate_scenes(
        model,
        arguments.data,
        part=arguments.part or "test",
        seconds=arguments.seconds,
        reading=ReadingSettings(**given) if given else None,
        chosen=arguments.chosen,
        runtime=arguments.runtime,
        device=arguments.device,
        quiet=arguments.quiet,
    )
    table = {"model": result.model, "runtime": result.runtime, "part": result.part}
    return Outcome(
        table | result.figures.to_dict(),
        (
            f"{result.model}, {result.runtime}, {result.part}",
            result.figures.line(),
            *figure_lines(result.figures),
        ),
    )


_AT_RANDOM = (
    "it is for clip students; the folder of a detection recipe says itself what is trained on "
    "(metadata/train), and it starts at random"
)

JUDGE = Judge(_evaluate, frozenset({"part", "chosen", *_READING}))
DETECTION = RunKind(
    takes=frozenset(),
    train=train_pair,
    evaluate=JUDGE,
    instead={"fold": _AT_RANDOM, "init": _AT_RANDOM},
)
STREAMING = RunKind(
    takes=frozenset({"teacher", "soft_labels"}),
    train=train_student,
    evaluate=JUDGE,
    instead={"fold": _AT_RANDOM, "init": _AT_RANDOM},
)
