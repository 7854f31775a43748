"""Transfer of jia2019, and the same from scratch, in `soundpost train`, `evaluate` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.evaluate_options import Judge
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.transfer_evaluate import evaluate_transfer, transfer_labeller
from soundpost.train.multimodal.transfer_recipe import load_transfer_recipe
from soundpost.train.multimodal.transfer_run import train_transfer
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train jia2019_esc50` and the like."""
    out = arguments.out
    judged = train_transfer(
        load_transfer_recipe(path, arguments.changes),
        arguments.data,
        out,
        choose_device(arguments.device),
        fold=arguments.fold,
        init=arguments.init,
        quiet=arguments.quiet,
    )
    return Outcome(
        {split: of.to_dict() for split, of in judged.items()},
        (
            *(f"{split}: {of.line()}" for split, of in judged.items()),
            f"report: {out / 'report.md'}",
            f"next: soundpost distil {out} --data DIR --kind KIND --out soft_labels",
        ),
    )


def evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of one run, or of the mean of several."""
    runs, part = arguments.models, arguments.part or "test"
    judged = evaluate_transfer(
        runs,
        arguments.data,
        choose_device(arguments.device),
        part=part,
        audio=arguments.audio,
        video=arguments.video,
        quiet=arguments.quiet,
    )
    precision = judged.tagging.average_precision
    return Outcome(
        {"models": [str(run) for run in runs], "part": part} | judged.to_dict(),
        (
            f"{'mean of ' if len(runs) > 1 else ''}{', '.join(map(str, runs))}; {part}",
            judged.line(),
            f"{'label':<32} {'AP':>6}",
            *(f"{label:<32} {precision[label]:>6.3f}"
              for label in sorted(precision, key=lambda label: precision[label])),
        ),
    )  # fmt: skip


TRANSFER = RunKind(
    takes=frozenset({"fold", "init"}),
    train=train,
    evaluate=Judge(evaluate, frozenset({"part", "audio", "video"})),
    labeller=transfer_labeller,
)
