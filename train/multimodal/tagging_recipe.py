"""Recipes of audio tagging with the help of video: one TOML file for each row of yin2021's tables.

Published figures stand under names such as `dcase2017_map`: the data set's kind and the figure.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.baselines import HintSettings
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.mutual import MutualSettings
from soundpost.train.multimodal.mutual_networks import AcousticFeature, TaggingSettings
from soundpost.train.multimodal.tagging_methods import NETWORKS, STUDENTS
from soundpost.train.recipe import build_settings, check_all, read_tables

# model.kind of these recipes; those of other methods have another.
KIND = "tagging"
# A visual backbone that needs no weights; see StubBackbone.
STUB = "stub"
FIGURES = ("map", "mauc", "precision", "recall", "f1")


@dataclass(frozen=True)
class ClipSettings:
    """Which clips of which data set.

    kind : published layout (`soundpost dataset --help` lists them)
    train, validation, test : names of splits; validation may be empty
    needs : media that a clip must have to be learnt from: also for methods that do not look, so
        that all rows of a table learn from the same clips. To be judged, a student needs sound.
    seconds : to which each clip is cut or padded
    problems : of tables and files: "refuse", or "skip" what cannot be used, with a warning
    audio, video, whole_videos : where sound and video lie, if not below the tables, and whether
        they are cut to the clips; as of `soundpost dataset`
    """

    kind: str = "dcase2017"
    train: tuple[str, ...] = ("training",)
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ("testing",)
    needs: tuple[str, ...] = ("audio", "video")
    seconds: float = 10.0
    problems: str = "refuse"
    audio: str = ""
    video: str = ""
    whole_videos: bool = False

    @property
    def skip(self) -> bool:
        """Whether what cannot be used is left out."""
        return self.problems == "skip"

    def folders(self, tables: Path) -> Folders:
        """Where everything lies."""
        audio, video = (Path(path) if path else None for path in (self.audio, self.video))
        return Folders(tables, audio, video, self.whole_videos)


@dataclass(frozen=True)
class PictureSettings:
    """How pictures become vectors.

    backbone : frozen network (train/backbones/published.py); the folder of a run of the recipe
        pictures; or "stub", which needs no weights and knows nothing: to try a recipe out
    file : its weights, where they are not in the cache; online : fetch them where they are not
    output : "embedding" (4,096 of VGG16) or "scores" (its 1,000)
    """

    backbone: str = "vgg16"
    file: str = ""
    online: bool = False
    output: str = "embedding"
    frames_per_second: float = 1.0

    @property
    def is_run(self) -> bool:
        """Whether the backbone is a run of ours."""
        return "/" in self.backbone or Path(self.backbone).is_dir()


@dataclass(frozen=True)
class TaggingModel:
    """Sizes of the networks; see mutual_networks.TaggingSettings."""

    kind: str = KIND
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512)
    visual_units: int = 128
    width: float = 1.0


@dataclass(frozen=True)
class TaggingRecipe:
    """Everything that decides a run, beside its data.

    method : one of tagging_methods.STUDENTS or NETWORKS
    mutual, hints : settings of the methods "mutual" and "fitnets"
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    method: str = "mutual"
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: TaggingModel = field(default_factory=TaggingModel)
    data: ClipSettings = field(default_factory=ClipSettings)
    visual: PictureSettings = field(default_factory=PictureSettings)
    mutual: MutualSettings = field(default_factory=MutualSettings)
    hints: HintSettings = field(default_factory=HintSettings)
    training: FitSettings = field(default_factory=FitSettings)

    @property
    def sees(self) -> bool:
        """Whether some network of the method looks at pictures."""
        return self.method != "plain"

    @property
    def student_sees(self) -> bool:
        """Whether the network that is judged and kept does."""
        return self.method in NETWORKS

    def networks(self, visual_size: int) -> TaggingSettings:
        """Sizes of the networks; visual_size : elements of a picture's vector."""
        model = self.model
        return TaggingSettings(
            (AcousticFeature(size=self.front_end.n_mels),),
            visual_size,
            model.visual_units,
            model.channels,
            model.width,
        )

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie."""
        tables = dataclasses.asdict(self)
        for table, keys in (("data", ("audio", "video")), ("visual", ("file", "online"))):
            for key in keys:
                del tables[table][key]
        return tables


def load_tagging_recipe(path: Path, changes: list[str]) -> TaggingRecipe:
    """Read a recipe and apply changes such as "training.epochs=50".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    return tagging_recipe_from_dict(read_tables(path, changes), str(path))


def tagging_recipe_from_dict(values: dict[str, Any], where: str) -> TaggingRecipe:
    """Recipe from nested tables; raises ConfigError as load_tagging_recipe does."""
    recipe: TaggingRecipe = build_settings(TaggingRecipe, values, where)
    data, visual, model = recipe.data, recipe.visual, recipe.model
    methods = STUDENTS + NETWORKS
    one_of: list[tuple[str, str, tuple[str, ...]]] = [
        ("model.kind", model.kind, (KIND,)),
        ("method", recipe.method, methods),
        ("data.kind", data.kind, KIND_NAMES),
        ("data.problems", data.problems, ("refuse", "skip")),
        ("visual.output", visual.output, ("embedding", "scores")),
        *(("data.needs", need, ("audio", "video")) for need in data.needs),
    ]
    checks: list[tuple[bool, str, object, str]] = [
        (found in known, key, found, ", ".join(known)) for key, found, known in one_of
    ]
    checks += [
        (bool(splits), f"data.{name}", "empty", "the name of a split or more")
        for name, splits in (("train", data.train), ("test", data.test))
    ]
    checks += [
        (data.seconds > 0, "data.seconds", data.seconds, "above 0"),
        (
            visual.frames_per_second > 0,
            "visual.frames_per_second",
            visual.frames_per_second,
            "above 0",
        ),
        (
            {"audio"} | ({"video"} if recipe.sees else set()) <= set(data.needs),
            "data.needs",
            list(data.needs),
            "audio, and video where a network of the method looks",
        ),
        (0.01 <= model.width <= 4, "model.width", model.width, "0.01 to 4"),
        (model.visual_units >= 1, "model.visual_units", model.visual_units, "at least 1"),
        (
            data.seconds * recipe.front_end.sample_rate_hz >= recipe.front_end.window_length,
            "data.seconds",
            data.seconds,
            "a window of the front end, at least",
        ),
    ]
    check_all(checks, where)
    recipe.training.check(where)
    # Raises ConfigError for channels that cannot be.
    recipe.networks(1)
    check_published(recipe.published, where)
    return recipe


def check_published(published: dict[str, float], where: str) -> None:
    """ConfigError for a published figure under a name that the report does not know."""
    known = [f"{kind}_{figure}" for kind in KIND_NAMES for figure in FIGURES]
    for name in published:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "expected such as dcase2017_map"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")
