"""Options of `soundpost evaluate` that not every model takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soundpost.device.errors import UsageError

if TYPE_CHECKING:
    from soundpost.train.kinds import Outcome

_HELD_OUT: Final = "what others held out they know themselves"
_TIMES: Final = "it is for recordings with times"
# What each option is for.
JUDGED_WITH: Final = {
    "fold": f"it is for clip students; {_HELD_OUT}",
    "part": f"it is for recordings with times and for runs with data.test; {_HELD_OUT}",
    "split": "it is for a bundle and --kind KIND",
    "kind": "it is for --layers and for bundles",
    "lengths": _TIMES,
    "overlaps": _TIMES,
    "missing": _TIMES,
    "chosen": "it is for runs that tell when sounds begin and end",
    "audio": "it is for runs of yin2021, li2018 and jia2019, and for --kind",
    "video": "it is for runs of yin2021, li2018 and jia2019, and for --kind",
    "weights": "it is for runs that look",
    "layers": "it is for runs of perez2020",
    "out": "it is for runs of perez2020",
}


@dataclass(frozen=True)
class Judge:
    """How models of one sort are judged.

    judge : of the parsed options of `soundpost evaluate`, whose first model is of this sort
    takes : keys of JUDGED_WITH
    needs_data : whether it must have --data
    """

    judge: Callable[[argparse.Namespace], Outcome]
    takes: frozenset[str]
    needs_data: bool = True

    def __call__(self, arguments: argparse.Namespace) -> Outcome:
        """Judge; UsageError for an option that is given and not taken, or that is missing."""
        for option, what_for in JUDGED_WITH.items():
            if option not in self.takes:
                refuse(arguments, what_for, option)
        if self.needs_data and arguments.data is None:
            raise UsageError(
                "--data is missing: give the labelled clips that "
                f"{arguments.models[0]} is judged on"
            )
        return self.judge(arguments)


def refuse(arguments: argparse.Namespace, why: str, *options: str) -> None:
    """UsageError for an option that is given and not taken. why : such as "runs have --part"."""
    for option in options:
        # Without an option: None, "", False or no list.
        if getattr(arguments, option) not in (None, "", False, []):
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
