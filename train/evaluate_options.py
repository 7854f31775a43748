"""Options of `soundpost evaluate` that not every model takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.device.errors import UsageError


def refuse(arguments: argparse.Namespace, why: str, *options: str) -> None:
    """UsageError for an option that is given and not taken. why : such as "runs have --part"."""
    for option in options:
        # Without an option: None, "" or False.
        if getattr(arguments, option) not in (None, "", False):
            raise UsageError(f"--{option}: is not used for {arguments.models[0]}; {why}")


def one_model(arguments: argparse.Namespace) -> Path:
    """The model; UsageError where there are several."""
    model, *others = arguments.models
    if others:
        raise UsageError(
            f"{others[0]}: only runs of some families are judged together, such as those of "
            f"yin2021, whose scores are averaged; give one beside {model}"
        )
    chosen: Path = model
    return chosen
