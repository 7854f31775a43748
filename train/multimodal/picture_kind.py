"""Networks that tell what is in a picture, in `soundpost train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.picture_recipe import load_picture_recipe
from soundpost.train.multimodal.picture_run import train_pictures
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train pictures`."""
    out = arguments.out
    recipe = load_picture_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    figures = train_pictures(recipe, arguments.data, out, device, quiet=arguments.quiet)
    return Outcome(
        figures.to_dict(),
        (
            f"validation: {figures.line()}",
            f"report: {out / 'report.md'}",
            f"next: soundpost train yin2021 --data DIR --out RUN visual.backbone={out}",
        ),
    )


PICTURES = RunKind(takes=frozenset(), train=train)
