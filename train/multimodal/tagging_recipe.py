"""Recipes of audio tagging with the help of video: one TOML file for each row of yin2021's tables.

Published figures stand under names such as `dcase2017_map`: the data set's kind and the figure.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.multimodal.acoustic_inputs import LOG_MEL
from soundpost.train.multimodal.baselines import HintSettings
from soundpost.train.multimodal.device_students import (
    DEVICE_STUDENTS,
    PAPER,
    DeviceSettings,
    WindowStudentSettings,
    shortest_clip_s,
)
from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.multimodal.mutual import MutualSettings
from soundpost.train.multimodal.mutual_networks import AcousticFeature, TaggingSettings
from soundpost.train.multimodal.set_settings import SetSettings
from soundpost.train.multimodal.tagging_methods import NETWORKS, STUDENTS
from soundpost.train.recipe import Check, build_settings, check_all, read_tables
from soundpost.train.sed.streaming import StreamingSettings

# model.kind of these recipes; those of other methods have another.
KIND = "tagging"
# A visual backbone that needs no weights; see StubBackbone.
STUB = "stub"
FIGURES = ("map", "mauc", "precision", "recall", "f1")


@dataclass(frozen=True)
class ClipSettings(SetSettings):
    """Which clips of which data set; see SetSettings.

    train, validation, test : names of splits; validation may be empty
    needs : media that a clip must have to be learnt from: also for methods that do not look, so
        that all rows of a table learn from the same clips. To be judged, a student needs sound.
    seconds : to which each clip is cut or padded
    """

    train: tuple[str, ...] = ("training",)
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ("testing",)
    needs: tuple[str, ...] = ("audio", "video")
    seconds: float = 10.0

    def checks(self) -> list[Check]:
        """What they must be."""
        media = ("audio", "video")
        return [
            *super().checks(),
            *((need in media, "data.needs", need, ", ".join(media)) for need in self.needs),
            *(
                (bool(splits), f"data.{name}", "empty", "the name of a split or more")
                for name, splits in (("train", self.train), ("test", self.test))
            ),
            (self.seconds > 0, "data.seconds", self.seconds, "above 0"),
        ]


def is_run(backbone: str, file: str = "") -> bool:
    """Whether a backbone is meant to be the folder of a run.

    Not where it is a published network's name, whatever lies in the working directory. file : where
    it is now; the weights of a published network are no folder
    """
    if backbone in (STUB, *PUBLISHED):
        return False
    return "/" in backbone or any(Path(path).is_dir() for path in (backbone, file) if path)


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
        return is_run(self.backbone, self.file)


@dataclass(frozen=True)
class EmbeddingSettings:
    """A pretrained audio network whose vectors are a feature.

    backbone : by default the published network of the feature (train/backbones/published.py); the
        run folder of a network that tells what a clip is, which stands in for it; or "stub", which
        needs no weights and knows little
    file : its weights, where they are not in the cache; online : fetch them where they are not
    """

    backbone: str = ""
    file: str = ""
    online: bool = False

    @property
    def is_run(self) -> bool:
        """Whether the network is a run of ours."""
        return is_run(self.backbone, self.file)


@dataclass(frozen=True)
class AcousticSettings:
    """What the audio sides take of the sound, each feature through a sub-network of its own.

    features : of "log_mel", "vggish" and "soundnet" one or more; log_mel, where it is one, is first
    """

    features: tuple[str, ...] = (LOG_MEL,)
    vggish: EmbeddingSettings = EmbeddingSettings()
    soundnet: EmbeddingSettings = EmbeddingSettings()

    @property
    def embeddings(self) -> dict[str, EmbeddingSettings]:
        """Pretrained networks of the features, by the feature's name."""
        known = {"vggish": ("vggish", self.vggish), "soundnet": ("soundnet5", self.soundnet)}
        found = {}
        for name in self.features:
            if name != LOG_MEL:
                published, settings = known[name]
                backbone = settings.backbone or published
                found[name] = dataclasses.replace(settings, backbone=backbone)
        return found

    def checks(self) -> list[tuple[bool, str, object, str]]:
        """Of the features, as check_all takes them."""
        features = self.features
        known = (LOG_MEL, "vggish", "soundnet")
        right = bool(features) and set(features) <= set(known)
        first = LOG_MEL not in features[1:]
        return [
            (
                right and first and len(set(features)) == len(features),
                "acoustic.features",
                list(features),
                f"each of {', '.join(known)} at most once, one or more, log_mel first",
            )
        ]


@dataclass(frozen=True)
class TaggingModel:
    """Sizes of the networks; see mutual_networks.TaggingSettings.

    student : "paper", or one of the sensor's networks (device_students.py), whose sizes stand in a
        table of its name; channels, visual_units and width are then the teacher's
    """

    kind: str = KIND
    student: str = PAPER
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512)
    visual_units: int = 128
    width: float = 1.0


@dataclass(frozen=True)
class TaggingRecipe:
    """Everything that decides a run, beside its data.

    method : one of tagging_methods.STUDENTS or NETWORKS
    mutual, hints : settings of the methods "mutual" and "fitnets"
    mobilenet_v2, streaming : the student, where it is one of the sensor's networks
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    method: str = "mutual"
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: TaggingModel = field(default_factory=TaggingModel)
    data: ClipSettings = field(default_factory=ClipSettings)
    acoustic: AcousticSettings = field(default_factory=AcousticSettings)
    visual: PictureSettings = field(default_factory=PictureSettings)
    mutual: MutualSettings = field(default_factory=MutualSettings)
    hints: HintSettings = field(default_factory=HintSettings)
    mobilenet_v2: WindowStudentSettings = field(default_factory=WindowStudentSettings)
    streaming: StreamingSettings = field(default_factory=StreamingSettings)
    training: FitSettings = field(default_factory=FitSettings)

    @property
    def sees(self) -> bool:
        """Whether some network of the method looks at pictures."""
        return self.method != "plain"

    @property
    def student_sees(self) -> bool:
        """Whether the network that is judged and kept does."""
        return self.method in NETWORKS

    @property
    def device(self) -> DeviceSettings | None:
        """The student, where it is one of the sensor's networks."""
        if self.model.student == PAPER:
            return None
        return DeviceSettings(self.model.student, self.front_end, self.mobilenet_v2, self.streaming)

    def heard_by(self, who: str) -> tuple[str, ...]:
        """Features that the "student" or the "teacher" takes of the sound."""
        alone = self.device is not None and who == "student"
        return (LOG_MEL,) if alone else self.acoustic.features

    def networks(
        self, visual_size: int, acoustic: tuple[AcousticFeature, ...] | None = None
    ) -> TaggingSettings:
        """Sizes of the networks.

        visual_size : elements of a picture's vector
        acoustic : features of the sound; log-mel alone by default
        """
        model = self.model
        return TaggingSettings(
            acoustic or (AcousticFeature(size=self.front_end.n_mels),),
            visual_size,
            model.visual_units,
            model.channels,
            model.width,
        )

    def without_places(self) -> dict[str, Any]:
        """As tables, without the paths: what a run is, wherever its files lie.

        Nor with what is not used of the sound and of students: runs of before there was a choice go
        on.
        """
        tables = dataclasses.asdict(self)
        for table, keys in (("data", ("audio", "video")), ("visual", ("file", "online"))):
            for key in keys:
                del tables[table][key]
        acoustic = tables.pop("acoustic")
        for student in DEVICE_STUDENTS:
            if student != self.model.student:
                del tables[student]
        if self.device is None:
            del tables["model"]["student"]
        used = self.acoustic.embeddings
        if used:
            tables["acoustic"] = {"features": acoustic["features"]} | {
                name: {"backbone": settings.backbone} for name, settings in used.items()
            }
        return tables

    def places(self) -> dict[str, str]:
        """Where files lie, as absolute paths: what `without_places` leaves out and `at` puts in."""
        found = {"audio": self.data.audio, "video": self.data.video}
        backbones: dict[str, PictureSettings | EmbeddingSettings] = {
            "visual": self.visual,
            **self.acoustic.embeddings,
        }
        for name, settings in backbones.items():
            found[name] = settings.file or (settings.backbone if settings.is_run else "")
        return {name: str(Path(path).resolve()) for name, path in found.items() if path}

    def at(self, places: Mapping[str, str]) -> TaggingRecipe:
        """The same with its files where `places` said that they lie, as far as they still do."""
        there = {name: path for name, path in places.items() if Path(path).exists()}
        acoustic = self.acoustic
        for name, settings in acoustic.embeddings.items():
            found: dict[str, Any] = {name: dataclasses.replace(settings, file=there.get(name, ""))}
            acoustic = dataclasses.replace(acoustic, **found)
        media: dict[str, Any] = {key: there.get(key, "") for key in ("audio", "video")}
        return dataclasses.replace(
            self,
            data=dataclasses.replace(self.data, **media),
            visual=dataclasses.replace(self.visual, file=there.get("visual", "")),
            acoustic=acoustic,
        )


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
        ("model.student", model.student, (PAPER, *DEVICE_STUDENTS)),
        ("visual.output", visual.output, ("embedding", "scores")),
    ]
    checks: list[Check] = [
        (found in known, key, found, ", ".join(known)) for key, found, known in one_of
    ]
    checks += [*recipe.acoustic.checks(), *data.checks()]
    checks += [
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
    check_all(_device_checks(recipe), where)
    recipe.training.check(where)
    # Raises ConfigError for channels that cannot be.
    recipe.networks(1)
    check_published(recipe.published, where)
    return recipe


def _device_checks(recipe: TaggingRecipe) -> list[tuple[bool, str, object, str]]:
    """Of a student that a sensor is to run."""
    device, data = recipe.device, recipe.data
    if device is None:
        return []
    shortest_s = shortest_clip_s(device)
    return [
        (
            recipe.method in STUDENTS,
            "method",
            recipe.method,
            f"one that trains a student ({', '.join(STUDENTS)}), or model.student=paper",
        ),
        (
            recipe.acoustic.features[0] == LOG_MEL,
            "acoustic.features",
            list(recipe.acoustic.features),
            "log_mel first: it is what a sensor hears",
        ),
        (
            bool(data.validation),
            "data.validation",
            "empty",
            "the name of a split or more, on which the sensor's thresholds are chosen",
        ),
        (data.seconds >= shortest_s, "data.seconds", data.seconds, f"{shortest_s:g} or more"),
    ]


def check_published(published: dict[str, float], where: str) -> None:
    """ConfigError for a published figure under a name that the report does not know."""
    known = [f"{kind}_{figure}" for kind in KIND_NAMES for figure in FIGURES]
    for name in published:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "expected such as dcase2017_map"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")
