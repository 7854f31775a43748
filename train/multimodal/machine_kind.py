"""Pre-training of jia2019 in `soundpost train` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.machine_labeller import machine_labeller
from soundpost.train.multimodal.machine_recipe import load_machine_recipe
from soundpost.train.multimodal.machine_run import train_machine
from soundpost.train.recipe import ModelSettings
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train jia2019_mobilenet_v2` and the like."""
    out = arguments.out
    recipe = load_machine_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    judged = train_machine(recipe, arguments.data, out, device, quiet=arguments.quiet)
    lines = [f"validation: {judged.line()}"] if judged is not None else []
    lines += [
        f"report: {out / 'report.md'}",
        f"next: soundpost train jia2019_esc50 --data DIR --init {out} --out RUN --fold 1",
    ]
    if recipe.model.network == "mobilenet_v2":
        model, usual = recipe.model, ModelSettings()
        changes = "".join(
            f" model.{name}={getattr(model, name):g}"
            for name in ("width", "embedding_size")
            if getattr(model, name) != getattr(usual, name)
        )
        lines.append(f"  or: soundpost train finetune{changes} --data DIR --init {out} --out RUN")
    return Outcome({"validation": judged and judged.to_dict()}, tuple(lines))


MACHINE_LABELS = RunKind(
    takes=frozenset(),
    train=train,
    labeller=machine_labeller,
    instead={
        "fold": "data.splits and data.validation_share say what is learnt from",
        "soft_labels": "labels by machine are given as data.labels=LABELS",
    },
)
