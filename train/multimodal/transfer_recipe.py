"""Recipes of jia2019's transfer, and of learning the same from scratch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from soundpost.device.errors import ConfigError, UsageError
from soundpost.device.features import FrontEnd
from soundpost.train.datasets.catalogue import MediaSet
from soundpost.train.multimodal.audio_networks import NETWORKS, AudioModel
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.machine_recipe import (
    check_names,
    model_checks,
)
from soundpost.train.multimodal.recognition import FIGURES
from soundpost.train.multimodal.set_settings import SetSettings
from soundpost.train.multimodal.transfer import TransferSettings
from soundpost.train.recipe import build_settings, check_all, read_tables

# model.kind of these recipes.
KIND = "transfer"
LEARNS = ("classifier", "all")
LABELS = ("one", "several")
# Rows of tables 2 to 4, by which figures are published, and how they are called there.
ROWS: Final = {
    "human": "human",
    "baseline": "baseline",
    "convrbm": "FBEs + ConvRBM-BANK",
    "hershey2017": "ResNet-50 of Hershey et al.",
    "youtube100m": "VGGish, YouTube-100M",
    "vggish": "VGGish",
    "vggish_bn": "VGGish, batch normalisation",
    "vggish_fc": "VGGish, fully convolutional",
    "mobilenet_v2": "MobileNet_v2",
    "resnet50": "ResNet-50",
}


@dataclass(frozen=True)
class TransferModel:
    """The network that hears a second.

    network, width, embedding_size : as of AudioModel. With `--init RUN` they are those of the run,
        and network may be empty
    """

    kind: str = KIND
    network: str = ""
    width: float = 1.0
    embedding_size: int = 128

    def audio(self) -> AudioModel:
        """The network alone."""
        return AudioModel(self.network, self.width, self.embedding_size)


@dataclass(frozen=True)
class TransferData(SetSettings):
    """What is learnt from and judged on.

    train, validation, test : names of splits; without any, `--fold K` holds a fold out
    seconds : of each clip; see transfer.same_length
    labels : "one" of each clip, or "several"
    share : of the clips of train that are learnt from, drawn by the hash of their ids and the seed
    """

    kind: str = "esc50"
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    seconds: int = 5
    labels: str = "one"
    share: float = 1.0

    @property
    def one(self) -> bool:
        """Whether each clip has one label."""
        return self.labels == "one"

    def held_out(self, clips: MediaSet, fold: int | None, recipe: str) -> TransferData:
        """The same with a fold held out, where the recipe names no splits; raises UsageError."""
        folds = clips.splits()
        if self.train:
            if fold is not None:
                raise UsageError(
                    f"{recipe}: --fold {fold}: the recipe says what is held out (data.test); leave "
                    "it out"
                )
            return self
        if fold is None or str(fold) not in folds:
            found = "is missing" if fold is None else f"{fold}: there is no such fold"
            raise UsageError(
                f"{recipe}: --fold {found}; give one to hold out and judge on, of "
                f"{', '.join(folds)}"
            )
        others = tuple(one for one in folds if one != str(fold))
        return replace(self, train=others, test=(str(fold),))


@dataclass(frozen=True)
class TransferRecipe:
    """Everything that decides a run, beside its data and what it begins with.

    published : by rows of ROWS and figures, such as `mobilenet_v2_top1`
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: TransferModel = field(default_factory=TransferModel)
    data: TransferData = field(default_factory=TransferData)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    training: FitSettings = field(
        default_factory=lambda: FitSettings(epochs=200, batch_size=128, learning_rate=2e-4)
    )

    @property
    def learns_all(self) -> bool:
        """Whether every layer learns."""
        return self.transfer.learns == "all"

    def begun_with(self, model: AudioModel, front_end: FrontEnd) -> TransferRecipe:
        """The same with a pre-training run's network; ConfigError where it asks for another."""
        if self.model.network not in ("", model.network):
            raise ConfigError(
                f"{self.name}: model.network is {self.model.network}, but --init is a run of "
                f"{model.network}; leave one of them out"
            )
        own = replace(
            self.model, network=model.network, width=model.width,
            embedding_size=model.embedding_size,
        )  # fmt: skip
        return replace(self, model=own, front_end=front_end)

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie."""
        tables = dataclasses.asdict(self)
        for key in ("audio", "video"):
            del tables["data"][key]
        return tables


def load_transfer_recipe(path: Path, changes: list[str]) -> TransferRecipe:
    """Read a recipe and apply changes; raises ConfigError naming file, key, found and expected."""
    return transfer_recipe_from_dict(read_tables(path, changes), str(path))


def transfer_recipe_from_dict(values: dict[str, Any], where: str) -> TransferRecipe:
    """Recipe from nested tables; raises ConfigError as load_transfer_recipe does."""
    recipe: TransferRecipe = build_settings(TransferRecipe, values, where)
    data, transfer = recipe.data, recipe.transfer
    check_all(
        [
            *model_checks(recipe.model.audio(), ("", *NETWORKS)),
            *data.checks(),
            (recipe.model.kind == KIND, "model.kind", recipe.model.kind, KIND),
            (transfer.learns in LEARNS, "transfer.learns", transfer.learns, ", ".join(LEARNS)),
            (0 <= transfer.dropout < 1, "transfer.dropout", transfer.dropout, "0 to below 1"),
            (transfer.l2 >= 0, "transfer.l2", transfer.l2, "0 or more"),
            (data.labels in LABELS, "data.labels", data.labels, ", ".join(LABELS)),
            (data.seconds >= 1, "data.seconds", data.seconds, "at least 1"),
            (0 < data.share <= 1, "data.share", data.share, "above 0, up to 1"),
            (
                bool(data.train) == bool(data.test),
                "data.test",
                list(data.test),
                "splits where data.train has some, and none where it has none (--fold K)",
            ),
        ],
        where,
    )
    recipe.training.check(where)
    check_names(recipe.published, [f"{row}_{name}" for row in ROWS for name in FIGURES], where)
    return recipe
