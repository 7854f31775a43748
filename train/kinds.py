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

    from soundpost.train.evaluate_options import Judge
    from soundpost.train.multimodal.soft_labelling import Labeller

# Where each family stands, module and name, by the schema of its runs' settings.json.
_FAMILIES: Final = {
    "soundpost.run/1": "soundpost.train.clip_kind:CLIPS",
    "soundpost.detection_run/1": "soundpost.train.sed.scene_kinds:DETECTION",
    "soundpost.streaming_run/1": "soundpost.train.sed.scene_kinds:STREAMING",
    "soundpost.tagging_run/1": "soundpost.train.multimodal.tagging_kind:TAGGING",
    "soundpost.action_run/1": "soundpost.train.multimodal.action_kind:ACTIONS",
    "soundpost.picture_run/1": "soundpost.train.multimodal.picture_kind:PICTURES",
    "soundpost.machine_run/1": "soundpost.train.multimodal.machine_kind:MACHINE_LABELS",
    "soundpost.transfer_run/1": "soundpost.train.multimodal.transfer_kind:TRANSFER",
    "soundpost.fusion_run/1": "soundpost.train.multimodal.fusion_kind:FUSION",
}
# The same by model.kind of a recipe.
_SCHEMAS: Final = {
    **dict.fromkeys(("mobilenet_v2", "audio_cnn", "audio_resnet", "vggish"), "soundpost.run/1"),
    "pts": "soundpost.detection_run/1",
    "streaming_crnn": "soundpost.streaming_run/1",
    "tagging": "soundpost.tagging_run/1",
    "actions": "soundpost.action_run/1",
    "pictures": "soundpost.picture_run/1",
    "machine_labels": "soundpost.machine_run/1",
    "transfer": "soundpost.transfer_run/1",
    "li2018": "soundpost.fusion_run/1",
}
# Options of `soundpost train` that not every family takes, as they are written.
OPTIONS: Final = {
    "fold": "--fold K",
    "init": "--init FROM",
    "teacher": "--teacher RUN",
    "soft_labels": "--soft-labels STORE",
    "live_teacher": "--live-teacher RUN",
}


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

    takes : keys of OPTIONS
    train : of the parsed options of `soundpost train` and the recipe's path
    evaluate : how its runs are judged; None where they are not judged on clips
    labeller : of a run, the name of its network ("student" or "teacher"), a device, the file of its
        visual backbone's weights or "", and whether to be quiet; None where its runs have nothing
        to say of clips
    instead : what to do without an option that it does not take, by option
    """

    takes: frozenset[str]
    train: Callable[[argparse.Namespace, Path], Outcome]
    evaluate: Judge | None = None
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
    if name not in _SCHEMAS:
        raise ConfigError(f"{recipe}: model.kind {name!r}: unknown{nearest(name, [*_SCHEMAS])}")
    return _load(_FAMILIES[_SCHEMAS[name]])


def kind_of_run(schema: str) -> RunKind | None:
    """The family of a run by its schema; None where there is none."""
    return _load(_FAMILIES[schema]) if schema in _FAMILIES else None


def _load(place: str) -> RunKind:
    module, _, name = place.partition(":")
    kind: RunKind = getattr(importlib.import_module(module), name)
    return kind
