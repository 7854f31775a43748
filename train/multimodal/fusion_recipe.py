"""The recipe of li2018: a network that hears, pretrained ones that see, fused class by class.

Published micro-F1 stands under names such as `dcase2017_testing_fused`: the data set's kind, the
split ("validation" for what the weights and thresholds were chosen on) and the branch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.multimodal.fusion import BETTER_WEIGHT
from soundpost.train.multimodal.key_frames import KEY_FRAMES
from soundpost.train.multimodal.mil_crnn import FRONT_END, MilCrnnSettings, MilTrainingSettings
from soundpost.train.multimodal.objects import TOP_OBJECTS
from soundpost.train.multimodal.tagging_recipe import ClipSettings, PictureSettings
from soundpost.train.recipe import Check, build_settings, check_all, read_tables

# model.kind of these recipes.
KIND = "li2018"
VALIDATION = "validation"
BRANCHES = ("audio", "video", "fused")


@dataclass(frozen=True)
class FusionClips(ClipSettings):
    """Which clips of which data set; see tagging_recipe.ClipSettings.

    needs : media that a clip must have to be learnt from; to be judged it needs both
    test : splits, each judged by itself
    validation_share : of the training clips that is held out, balanced, where validation is empty
    validation_seed : of which are; apart from the training's, so that several seeds share them
    """

    test: tuple[str, ...] = ("testing", "evaluation")
    needs: tuple[str, ...] = ("audio",)
    validation_share: float = 0.0223
    validation_seed: int = 0


@dataclass(frozen=True)
class MilModel(MilCrnnSettings):
    """The network that hears; see mil_crnn.MilCrnnSettings."""

    kind: str = KIND


@dataclass(frozen=True)
class VideoSettings:
    """From pictures to events.

    features : frozen network whose embedding tells key frames apart
    objects : frozen network that names what is in them; both as visual.backbone of yin2021
    features_file, objects_file : their weights, where they are not in the cache
    online : fetch weights where they are not
    object_names : file with the name of each class of `objects` in a line (ImageNet's
        synset_words.txt will do), where they do not come with the network
    word_vectors : GloVe text file
    least_cosine : of an object and an event, for the one to speak for the other
    """

    features: str = "alexnet"
    features_file: str = ""
    objects: str = "inception_v4"
    objects_file: str = ""
    online: bool = False
    object_names: str = ""
    word_vectors: str = ""
    frames_per_second: float = 24.0
    key_frames: int = KEY_FRAMES
    top_objects: int = TOP_OBJECTS
    least_cosine: float = -1.0

    def network(self, which: str) -> PictureSettings:
        """Settings of the network that gives "features", or of that which names "objects"."""
        return PictureSettings(
            getattr(self, which),
            getattr(self, f"{which}_file"),
            self.online,
            {"features": "embedding", "objects": "scores"}[which],
            self.frames_per_second,
        )


@dataclass(frozen=True)
class FusionSettings:
    """better_weight : of the branch that is better at a class on validation clips"""

    better_weight: float = BETTER_WEIGHT


@dataclass(frozen=True)
class FusionRecipe:
    """Everything that decides a run, beside its data."""

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    front_end: FrontEnd = FRONT_END
    model: MilModel = field(default_factory=MilModel)
    data: FusionClips = field(default_factory=FusionClips)
    visual: VideoSettings = field(default_factory=VideoSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    training: MilTrainingSettings = field(default_factory=MilTrainingSettings)

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie."""
        tables = dataclasses.asdict(self)
        del tables["visual"]["online"]
        for table, keys in _PLACES.items():
            for key in keys:
                del tables[table][key]
        return tables

    def places(self) -> dict[str, dict[str, str]]:
        """The paths, absolute, by table and key; "" where there is none."""
        tables = {"data": self.data, "visual": self.visual}
        found = {
            table: {key: _absolute(getattr(tables[table], key)) for key in keys}
            for table, keys in _PLACES.items()
        }
        for which in ("features", "objects"):
            settings = self.visual.network(which)
            if settings.is_run:
                found["visual"][f"{which}_file"] = _absolute(settings.file or settings.backbone)
        return found

    def at(self, places: dict[str, dict[str, str]]) -> FusionRecipe:
        """The recipe with other paths."""
        data: dict[str, Any] = dict(places.get("data", {}))
        visual: dict[str, Any] = dict(places.get("visual", {}))
        return dataclasses.replace(
            self,
            data=dataclasses.replace(self.data, **data),
            visual=dataclasses.replace(self.visual, **visual),
        )


_PLACES = {
    "data": ("audio", "video"),
    "visual": ("features_file", "objects_file", "object_names", "word_vectors"),
}


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def load_fusion_recipe(path: Path, changes: list[str]) -> FusionRecipe:
    """Read a recipe and apply changes such as "training.epochs=50".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    return fusion_recipe_from_dict(read_tables(path, changes), str(path))


def fusion_recipe_from_dict(values: dict[str, Any], where: str) -> FusionRecipe:
    """Recipe from nested tables; raises ConfigError as load_fusion_recipe does."""
    recipe: FusionRecipe = build_settings(FusionRecipe, values, where)
    data, visual, model, better = (
        recipe.data,
        recipe.visual,
        recipe.model,
        recipe.fusion.better_weight,
    )
    checks: list[Check] = [
        (model.kind == KIND, "model.kind", model.kind, KIND),
        *data.checks(),
        ("audio" in data.needs, "data.needs", list(data.needs), "audio, at least"),
        (
            VALIDATION not in data.test,
            "data.test",
            list(data.test),
            f"no {VALIDATION} among them, which is judged anyway",
        ),
        (
            0 < data.validation_share <= 0.5,
            "data.validation_share",
            data.validation_share,
            "above 0, up to 0.5",
        ),
        (
            data.seconds * recipe.front_end.sample_rate_hz >= recipe.front_end.hop_length,
            "data.seconds",
            data.seconds,
            "a hop of the front end, at least",
        ),
        (
            visual.frames_per_second > 0,
            "visual.frames_per_second",
            visual.frames_per_second,
            "above 0",
        ),
        (-1 <= visual.least_cosine <= 1, "visual.least_cosine", visual.least_cosine, "-1 to 1"),
        (0.5 <= better <= 1, "fusion.better_weight", better, "0.5 to 1"),
    ]
    checks += [
        (value >= low, key, value, f"at least {low}")
        for key, value, low in (
            ("data.validation_seed", data.validation_seed, 0),
            ("visual.key_frames", visual.key_frames, 1),
            ("visual.top_objects", visual.top_objects, 1),
        )
    ]
    check_all([*checks, *model.checks()], where)
    recipe.training.check(where)
    _check_published(recipe.published, where)
    return recipe


def _check_published(published: dict[str, float], where: str) -> None:
    for name in published:
        kind, _, rest = name.partition("_")
        split, _, branch = rest.rpartition("_")
        if kind not in KIND_NAMES or branch not in BRANCHES or not split:
            raise ConfigError(
                f"{where}: unknown figure {name} in [published]; expected such as "
                "dcase2017_testing_fused"
            )
