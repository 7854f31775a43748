"""Recipe of the streaming student: what it is, what it learns from, how it then decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.features import FrontEnd
from soundpost.device.manifest import MAX_LOOK_AHEAD_S
from soundpost.train.recipe import build_settings, check_all, read_tables
from soundpost.train.sed.distil import DistilSettings
from soundpost.train.sed.event_filter import RULES
from soundpost.train.sed.recipe import ReadingSettings, SceneSettings
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

# model.kind of this recipe.
KIND = "streaming_crnn"


@dataclass(frozen=True)
class StreamingModelSettings(StreamingSettings):
    """The student's shape; see train/sed/streaming.py."""

    kind: str = KIND

    def shape(self) -> StreamingSettings:
        """The same without its kind."""
        return StreamingSettings(self.channels, self.pools, self.hidden_size, self.dropout)


@dataclass(frozen=True)
class DetectorChoice:
    """How the sensor's detector is set.

    rule, eta : of the medians' windows, from the strong training scenes (train/sed/event_filter.py)
    look_ahead_frames : of the future in a median window, at most; 200 ms of them
    chunk_frames : that the sensor hears at a time
    """

    rule: str = "esp"
    eta: float = 1 / 3
    look_ahead_frames: int = 20
    chunk_frames: int = 10


@dataclass(frozen=True)
class SoftLabelNames:
    """How labels are called in soft labels (`--soft-labels`); without them, not used.

    rename : what a label of the recordings is called there, where that differs
    """

    rename: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamingRecipe:
    """Everything that decides a run, beside its data and its teacher."""

    name: str = "recipe"
    source: str = ""
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: StreamingModelSettings = field(default_factory=StreamingModelSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    batch: SceneSettings = field(default_factory=SceneSettings)
    training: DistilSettings = field(default_factory=DistilSettings)
    detector: DetectorChoice = field(default_factory=DetectorChoice)
    soft_labels: SoftLabelNames = field(default_factory=SoftLabelNames)


def load_streaming_recipe(path: Path, changes: list[str]) -> StreamingRecipe:
    """Read a recipe and apply changes such as "training.epochs=10"; raises ConfigError."""
    return streaming_recipe_from_dict(read_tables(path, changes), str(path))


def streaming_recipe_from_dict(values: dict[str, Any], where: str) -> StreamingRecipe:
    """Recipe from nested tables; raises ConfigError."""
    recipe: StreamingRecipe = build_settings(StreamingRecipe, values, where)
    front_end, detector, rate = recipe.front_end, recipe.detector, recipe.training.learning_rate
    most = int(MAX_LOOK_AHEAD_S * front_end.sample_rate_hz / front_end.hop_length + 1e-9)
    check_all(
        [
            *recipe.reading.checks(),
            (recipe.model.kind == KIND, "model.kind", recipe.model.kind, KIND),
            (detector.rule in RULES, "detector.rule", detector.rule, ", ".join(RULES)),
            (detector.eta > 0, "detector.eta", detector.eta, "above 0"),
            (
                0 <= detector.look_ahead_frames <= most,
                "detector.look_ahead_frames",
                detector.look_ahead_frames,
                f"0 to {most} ({1000 * MAX_LOOK_AHEAD_S:g} ms)",
            ),
            (
                10 <= detector.chunk_frames <= 25,
                "detector.chunk_frames",
                detector.chunk_frames,
                "10 to 25",
            ),
            (recipe.batch.size >= 2, "the batch's size", recipe.batch.size, "at least 2"),
            (recipe.batch.seconds >= 1, "batch.seconds", recipe.batch.seconds, "at least 1"),
            (rate > 0, "training.learning_rate", rate, "above 0"),
        ],
        where,
    )
    return recipe


def check_shape(recipe: StreamingRecipe, n_labels: int) -> None:
    """Raise ConfigError where no student has this shape; before anything is written."""
    StreamingCRNN(n_labels, recipe.model.shape(), recipe.front_end)
