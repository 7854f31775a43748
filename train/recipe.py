"""Recipes: the settings of a training run, from one TOML file and `key=value` changes."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# model.kind of networks on windows of clips: the sensor's, and those that may teach it.
SENSOR_KIND = "mobilenet_v2"
CLIP_KINDS = (SENSOR_KIND, "audio_cnn", "audio_resnet", "vggish")


@dataclass(frozen=True)
class ModelSettings:
    """Student, or a larger network as its teacher; see train/clip_networks.py.

    kind : "mobilenet_v2", the sensor's; or "audio_cnn", "audio_resnet", "vggish"
    width : multiplier on every channel count (of vggish, on the units of its hidden layers)
    """

    kind: str = SENSOR_KIND
    width: float = 1.0
    embedding_size: int = 128
    dropout: float = 0.3

    @property
    def for_the_sensor(self) -> bool:
        """Whether it is the sensor's student; else it is a teacher."""
        return self.kind == SENSOR_KIND


@dataclass(frozen=True)
class DataSettings:
    """What is trained on.

    patch_frames : frames of one window (100 = 1.015 s)
    validation_fraction : share of the training folds, whole groups, that is kept for thresholds
    silence_db : a window this far below its clip's loudest one carries no label
    alarms, beepers : synthesised clips per alarm class, and of other beeping things without a label
    alarm_share : windows with an alarm or beeper, per window without, in an epoch
    alarm_snr_db : range of the alarm's level over the real clip that it is mixed into
    """

    patch_frames: int = 100
    validation_fraction: float = 0.0
    silence_db: float = 30.0
    alarms: int = 0
    beepers: int = 0
    alarm_share: float = 0.12
    alarm_snr_db: tuple[float, float] = (-5.0, 25.0)


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to each training window; a probability of 0 switches one off.

    gain_db : level
    speed : playback rate, drawn log-uniformly in [1/speed, speed]
    mix_probability, mix_alpha : two windows added, weights from Beta(alpha, alpha) as in
        Tokozume et al., "Learning from between-class examples" (2018)
    noise_probability, noise_snr_db : another clip or coloured noise added without its label
    filter_db : random smooth filter over the mel bands, ± this much
    time_mask_frames, frequency_mask_bands : largest mask of SpecAugment (Park et al. 2019)
    masks : masks of each kind
    """

    gain_db: tuple[float, float] = (-12.0, 6.0)
    speed: float = 1.2
    mix_probability: float = 0.7
    mix_alpha: float = 1.0
    noise_probability: float = 0.2
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    filter_db: float = 6.0
    time_mask_frames: int = 20
    frequency_mask_bands: int = 10
    masks: int = 1


@dataclass(frozen=True)
class TrainingSettings:
    """Optimisation.

    schedule : "cosine" to zero, or "exponential" by decay per epoch (0.9 in jia2019)
    average_decay : of the exponential moving average of the weights, per step; 0 switches it off
    softmax_weight : weight of a softmax cross entropy beside the sigmoid one
    crops_per_clip : windows drawn from each clip in an epoch
    report_every : epochs between two evaluations
    """

    epochs: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    decay: float = 0.9
    warmup_epochs: float = 5.0
    weight_decay: float = 0.02
    average_decay: float = 0.999
    label_smoothing: float = 0.05
    softmax_weight: float = 0.5
    crops_per_clip: int = 1
    report_every: int = 20
    seed: int = 0
    compile: bool = False


@dataclass(frozen=True)
class SoftLabelSettings:
    """How much a student learns from its teachers (`--soft-labels`, `--live-teacher`).

    Without them, not used.

    teacher_weight : 0 (labels alone) to 1 (soft labels alone)
    temperature : by which teacher's and student's logits are divided
    rename : what a label of the clips is called among the soft labels, where that differs
    """

    teacher_weight: float = 0.5
    temperature: float = 1.0
    rename: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, beside its data."""

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    soft_labels: SoftLabelSettings = field(default_factory=SoftLabelSettings)


def load_recipe(path: Path, changes: list[str]) -> Recipe:
    """Read a recipe and apply changes such as "training.epochs=50".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    recipe = recipe_from_dict(read_tables(path, changes), str(path))
    _check(recipe, str(path))
    return recipe


def read_tables(path: Path, changes: list[str]) -> dict[str, Any]:
    """A recipe's tables as they stand in the file, over those of its base, with changes applied.

    `base = "pts"` at the top of a recipe takes pts.toml beside it and states only what differs.
    `[published]` belongs to one row of one paper and is never taken over.
    """
    values = _read_file(path, ())
    for change in changes:
        _apply(change, values)
    return values


def kind_of(tables: dict[str, Any]) -> str:
    """model.kind of a recipe's tables: which method it is a recipe of."""
    model = tables.get("model", {})
    return str(model.get("kind", ModelSettings.kind)) if isinstance(model, dict) else ""


def _read_file(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """heirs : the files whose base this one is."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such recipe; `ls train/recipes` shows ours") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base is {base!r}; expected the name of a recipe beside it")
    below = path.with_name(f"{base.removesuffix('.toml')}.toml")
    if below in (*heirs, path):
        raise ConfigError(f"{path}: base {base} leads back to itself; give one that has no base")
    inherited = _read_file(below, (*heirs, path))
    inherited.pop("published", None)
    return _over(inherited, values)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; what stands above wins."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            value = _over(under, value)
        merged[key] = value
    return merged


def _apply(change: str, values: dict[str, Any]) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"'{change}': expected key=value, such as training.epochs=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = values
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"'{change}': {parent} is a value, not a table")
    table[last] = value


def recipe_from_dict(values: dict[str, Any], where: str) -> Recipe:
    """Recipe from nested tables, refusing unknown keys with the nearest known name."""
    recipe: Recipe = build_settings(Recipe, values, where)
    return recipe


def build_settings(cls: Any, values: dict[str, Any], where: str) -> Any:
    """Frozen settings of a dataclass from nested tables; raises ConfigError on a key or type."""
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(hints))}"
            raise ConfigError(f"{where}: unknown key {key}; {hint}")
    return cls(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected a table")
        return build_settings(kind, value, where)
    if isinstance(kind, types.GenericAlias) and kind.__args__ == (int, ...):
        if not isinstance(value, list | tuple) or not all(type(n) is int for n in value):
            raise ConfigError(f"{where} is {value!r}; expected a list of whole numbers")
        return tuple(value)
    if isinstance(kind, types.GenericAlias) and kind.__args__ == (str, ...):
        if not isinstance(value, list | tuple) or not all(type(text) is str for text in value):
            raise ConfigError(f"{where} is {value!r}; expected a list of texts")
        return tuple(value)
    if isinstance(kind, types.GenericAlias) and kind.__origin__ is tuple:
        if not isinstance(value, list | tuple) or len(value) != 2 or value[0] > value[1]:
            raise ConfigError(f"{where} is {value!r}; expected [lowest, highest]")
        return float(value[0]), float(value[1])
    if isinstance(kind, types.GenericAlias):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected a table")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} is {value!r}; expected {kind.__name__}")
    return value


# Whether a value is right, its key, the value and what is expected of it.
Check = tuple[bool, str, object, str]


def check_all(checks: Iterable[tuple[bool, str, object, str]], where: str) -> None:
    """Raise ConfigError for the first of (right, key, found, expected) that is not right."""
    for right, key, found, expected in checks:
        if not right:
            raise ConfigError(f"{where}: {key} is {found}; expected {expected}")


def _check(recipe: Recipe, where: str) -> None:
    data, augment, training = recipe.data, recipe.augment, recipe.training
    soft = recipe.soft_labels
    checks = (
        (
            recipe.model.kind in CLIP_KINDS,
            "model.kind",
            recipe.model.kind,
            f"one of {', '.join(CLIP_KINDS)}",
        ),
        (0.1 <= recipe.model.width <= 4, "model.width", recipe.model.width, "0.1 to 4"),
        (0 <= recipe.model.dropout < 1, "model.dropout", recipe.model.dropout, "0 to below 1"),
        (
            0 <= data.validation_fraction <= 0.5,
            "data.validation_fraction",
            data.validation_fraction,
            "0 to 0.5",
        ),
        (data.patch_frames >= 32, "data.patch_frames", data.patch_frames, "at least 32"),
        (augment.speed >= 1, "augment.speed", augment.speed, "at least 1"),
        (training.epochs >= 1, "training.epochs", training.epochs, "at least 1"),
        (training.batch_size >= 2, "training.batch_size", training.batch_size, "at least 2"),
        (training.learning_rate > 0, "training.learning_rate", training.learning_rate, "above 0"),
        (
            training.schedule in ("cosine", "exponential"),
            "training.schedule",
            training.schedule,
            "cosine or exponential",
        ),
        (
            0 <= training.average_decay < 1,
            "training.average_decay",
            training.average_decay,
            "0 to below 1",
        ),
        (
            0 <= soft.teacher_weight <= 1,
            "soft_labels.teacher_weight",
            soft.teacher_weight,
            "0 to 1",
        ),
        (soft.temperature > 0, "soft_labels.temperature", soft.temperature, "above 0"),
    )
    check_all(checks, where)
