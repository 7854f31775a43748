"""Families of recipes by name: how the runs of each are trained, judged and asked.

`model.kind` of a recipe names its family, `schema` of a run's settings.json too. Each family says
in one module what `soundpost train`, `evaluate` and `distil` do with it; the module is imported
when it is needed, for most of them need torch.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from soundpost.device.errors import ConfigError, UsageError
from soundpost.device.settings import nearest

if TYPE_CHECKING:
    import torch

    from soundpost.train.multimodal.soft_labelling import Labeller

# model.kind of a recipe, and where its family stands: module and name.
_FAMILIES: Final = {
    "mobilenet_v2": "soundpost.train.clip_kind:CLIPS",
    "audio_cnn": "soundpost.train.clip_kind:CLIPS",
    "audio_resnet": "soundpost.train.clip_kind:CLIPS",
    "vggish": "soundpost.train.clip_kind:CLIPS",
    "pts": "soundpost.train.sed.scene_kinds:DETECTION",
    "streaming_crnn": "soundpost.train.sed.scene_kinds:STREAMING",
    "tagging": "soundpost.train.multimodal.tagging_kind:TAGGING",
    "actions": "soundpost.train.multimodal.action_kind:ACTIONS",
    "pictures": "soundpost.train.multimodal.picture_kind:PICTURES",
    "li2018": "soundpost.train.multimodal.fusion_kind:FUSION",
}
# Options of `soundpost train` that not every family takes, as they are written.
OPTIONS: Final = {
    "fold": "--fold K",
    "init": "--init FROM",
    "teacher": "--teacher RUN",
    "soft_labels": "--soft-labels STORE",
    "live_teacher": "--live-teacher RUN",
}
# Options of `soundpost evaluate` that are some family's alone.
JUDGED_WITH: Final = ("layers", "kind", "out")


@dataclass(frozen=True)
class Outcome:
    """What a command has to say at its end.

    table : as JSON; lines : for a person
    """

    table: Any
    lines: tuple[str, ...]


@dataclass(frozen=True)
class RunKind:
    """One family.

    schema : of its runs' settings.json
    takes : keys of OPTIONS
    train : of the parsed options of `soundpost train` and the recipe's path
    evaluate : of the parsed options of `soundpost evaluate`, whose first model is one of its runs;
        None where models of this family are not judged by run
    judges_with : keys of JUDGED_WITH that evaluate takes; needs_data : whether it must have --data
    labeller : of a run, the name of its network ("student" or "teacher"), a device, the file of its
        visual backbone's weights or "", and whether to be quiet; None where its runs have nothing
        to say of clips
    instead : what to do without an option that it does not take, by option
    """

    schema: str
    takes: frozenset[str]
    train: Callable[[argparse.Namespace, Path], Outcome]
    evaluate: Callable[[argparse.Namespace], Outcome] | None = None
    judges_with: frozenset[str] = frozenset()
    needs_data: bool = True
    labeller: Callable[[Path, str, torch.device, str, bool], Labeller] | None = None
    instead: dict[str, str] = field(default_factory=dict)

    def check_options(self, arguments: argparse.Namespace, recipe: str) -> None:
        """UsageError for an option of `soundpost train` that is given and not taken."""
        for option, written in OPTIONS.items():
            if getattr(arguments, option) not in (None, []) and option not in self.takes:
                instead = self.instead.get(option, "leave it out")
                raise UsageError(f"{recipe}: {written} is not used by its recipes; {instead}")


def kind_named(name: str, recipe: str) -> RunKind:
    """The family of a recipe by its model.kind; ConfigError where there is none of this name."""
    if name not in _FAMILIES:
        raise ConfigError(f"{recipe}: model.kind {name!r}: unknown{nearest(name, [*_FAMILIES])}")
    return _load(_FAMILIES[name])


def kind_of_run(schema: str) -> RunKind | None:
    """The family of a run by its schema; None where there is none."""
    every = map(_load, dict.fromkeys(_FAMILIES.values()))
    return next((kind for kind in every if kind.schema == schema), None)


def _load(place: str) -> RunKind:
    module, _, name = place.partition(":")
    kind: RunKind = getattr(importlib.import_module(module), name)
    return kind
