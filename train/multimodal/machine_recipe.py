"""Recipes of jia2019's pre-training: one TOML file for each of its networks."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.multimodal.audio_networks import NETWORKS, AudioModel
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.recognition import FIGURES
from soundpost.train.multimodal.set_settings import SetSettings
from soundpost.train.recipe import Check, build_settings, check_all, read_tables

# model.kind of these recipes.
KIND = "machine_labels"
CROPS = ("seconds", "anywhere")
# What the paper transfers to.
BENCHMARKS: Final = ("esc50", "audioset", "tut2018")


@dataclass(frozen=True)
class MachineModel(AudioModel):
    """The network that learns; see AudioModel."""

    kind: str = KIND


@dataclass(frozen=True)
class MachineData(SetSettings):
    """Which clips are learnt from, and from which labels.

    labels : folder that `soundpost distil --seen-by ... --heard-by ...` wrote
    splits : of the set; all labelled clips by default
    crops : the second that is learnt from is one of a clip's "seconds", which do not overlap, as
        published, or begins "anywhere"
    validation_share : of the clips, by the hash of their videos or ids, kept to watch the training
        (published: one of 15 million)
    validation_clips : that are judged of these at most
    """

    kind: str = "audioset"
    labels: str = ""
    problems: str = "skip"
    splits: tuple[str, ...] = ()
    crops: str = "seconds"
    validation_share: float = 1 / 15
    validation_clips: int = 10_000


@dataclass(frozen=True)
class RegularisationSettings:
    """L2: penalty * factor / 2 * the sum of the squares of all kernels, added to the loss.

    The paper prints a penalty of 1.0. By itself (factor 1) that is a million times what its
    transfer has: kernels fall to zero and nothing is learnt. In YouTube-8M's public starter code,
    with the same batches of 1,024, a penalty of 1.0 is the weight of the layers' own, 1e-8 each.
    """

    penalty: float = 1.0
    factor: float = 1e-8

    @property
    def l2(self) -> float:
        """Both together."""
        return self.penalty * self.factor


@dataclass(frozen=True)
class MachineRecipe:
    """Everything that decides a run, beside its data.

    published : what the paper's network reaches after transfer, such as `esc50_top1`
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: MachineModel = field(default_factory=MachineModel)
    data: MachineData = field(default_factory=MachineData)
    regularisation: RegularisationSettings = field(default_factory=RegularisationSettings)
    training: FitSettings = field(
        default_factory=lambda: FitSettings(
            epochs=30, batch_size=1_024, learning_rate=1e-4, decay=0.9
        )
    )

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie."""
        tables = dataclasses.asdict(self)
        for key in ("labels", "audio", "video"):
            del tables["data"][key]
        return tables


def load_machine_recipe(path: Path, changes: list[str]) -> MachineRecipe:
    """Read a recipe and apply changes; raises ConfigError naming file, key, found and expected."""
    return machine_recipe_from_dict(read_tables(path, changes), str(path))


def machine_recipe_from_dict(values: dict[str, Any], where: str) -> MachineRecipe:
    """Recipe from nested tables; raises ConfigError as load_machine_recipe does."""
    recipe: MachineRecipe = build_settings(MachineRecipe, values, where)
    data, regularisation = recipe.data, recipe.regularisation
    check_all(
        [
            *model_checks(recipe.model, NETWORKS),
            *data.checks(),
            (recipe.model.kind == KIND, "model.kind", recipe.model.kind, KIND),
            (data.crops in CROPS, "data.crops", data.crops, ", ".join(CROPS)),
            (
                0 <= data.validation_share <= 0.5,
                "data.validation_share",
                data.validation_share,
                "0 to 0.5",
            ),
            (
                data.validation_clips >= 2,
                "data.validation_clips",
                data.validation_clips,
                "2 or more",
            ),
            (
                min(regularisation.penalty, regularisation.factor) >= 0,
                "regularisation",
                regularisation,
                "0 or more",
            ),
        ],
        where,
    )
    recipe.training.check(where)
    known = [f"{benchmark}_{figure}" for benchmark in BENCHMARKS for figure in FIGURES]
    check_names(recipe.published, known, where)
    return recipe


def model_checks(model: AudioModel, networks: dict[str, Any] | tuple[str, ...]) -> list[Check]:
    """What a network must be."""
    return [
        (model.network in networks, "model.network", repr(model.network), ", ".join(networks)),
        (0.01 <= model.width <= 4, "model.width", model.width, "0.01 to 4"),
        (model.embedding_size >= 1, "model.embedding_size", model.embedding_size, "at least 1"),
        (0 <= model.dropout < 1, "model.dropout", model.dropout, "0 to below 1"),
    ]


def check_names(published: dict[str, float], known: list[str], where: str) -> None:
    """ConfigError for a published figure under a name that the report does not know."""
    for name in published:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected such as {known[0]}"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")
