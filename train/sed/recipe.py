"""Recipes of joint tagging and detection: one TOML file for each row of tables 1 and 2."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from soundpost.device.features import FrontEnd
from soundpost.train.recipe import build_settings, check_all, read_tables
from soundpost.train.sed.batches import BatchSettings
from soundpost.train.sed.desed import Reading
from soundpost.train.sed.event_filter import RULES
from soundpost.train.sed.networks import EncoderSettings, PairSettings

# model.kind of these recipes; those of clip students have another.
KIND = "pts"
DISTILLATIONS = ("none", "dfd_mse", "dfd_d", "tfd", "tfd_dfd_d")


@dataclass(frozen=True)
class ReadingSettings:
    """What is done with recordings that are not as expected; train/sed/desed.py.

    lengths : of another length: "refuse", or "fit" (padded with silence, or cut)
    overlaps : events of one label that overlap: "refuse", or "merge"
    missing : files that are absent: "refuse", or "skip"
    labels : vocabulary; without it, every label of the training tables
    """

    labels: tuple[str, ...] = ()
    lengths: str = "refuse"
    overlaps: str = "refuse"
    missing: str = "refuse"

    def reading(self, seconds: float, rate_hz: int) -> Reading:
        """The same with what a recipe says elsewhere."""
        return Reading(
            seconds=seconds,
            rate_hz=rate_hz,
            lengths=cast(Any, self.lengths),
            overlaps=cast(Any, self.overlaps),
            missing=cast(Any, self.missing),
        )

    def checks(self) -> list[tuple[bool, str, object, str]]:
        """For check_all."""
        allowed = {
            "lengths": ("refuse", "fit"),
            "overlaps": ("refuse", "merge"),
            "missing": ("refuse", "skip"),
        }
        found = {name: getattr(self, name) for name in allowed}
        return [
            (found[name] in known, f"reading.{name}", found[name], " or ".join(known))
            for name, known in allowed.items()
        ]


@dataclass(frozen=True)
class SceneSettings(BatchSettings):
    """What a batch holds (train/sed/batches.py), of scenes of what length, in seconds."""

    seconds: float = 10.0


@dataclass(frozen=True)
class MethodSettings:
    """Which losses teach, and when; equations and choices: train/sed/losses.py.

    kind : "guided" (equation 3) or "mean_teacher"
    guidance : what one network takes over from the other: its tags ("hard") or scores ("soft")
    alpha_start, alpha_decay : s, in epochs, and the base of the alpha ramp
    distillation : "none", "dfd_mse", "dfd_d" and "tfd" as in table 1; "tfd_dfd_d" adds to TFD the
        DFD-D of weak and unlabelled clips (row 7)
    beta_ramp : share of the run over which beta, or the mean teacher's weight, rises to its whole
    focal : second stage with the adaptive focal loss
    tau : epochs of the first stage, with binary cross entropy
    gamma : exponent of the focal loss; focal_form: "printed" (1 - p^gamma) or "focal" (1 - p)^gamma
    focal_clips : K of equation 4, all "labelled" clips of the batch, or the term's "own"
    tags_of_strong : clip-level losses count strongly labelled clips too
    projection : W_t and W_s of equation 2 are "learnt" as printed, or W_t is "frozen" and only the
        student follows
    average_decay, consistency_weight, teacher_noise : of the mean teacher; the noise is added to
        its log-mel, standard deviation in nepers (the front end's unit)
    """

    kind: str = "guided"
    guidance: str = "hard"
    alpha_start: float = 30.0
    alpha_decay: float = 0.996
    distillation: str = "none"
    projection: str = "learnt"
    beta_ramp: float = 0.5
    focal: bool = False
    tau: int = 15
    gamma: float = 2.0
    focal_form: str = "printed"
    focal_clips: str = "own"
    tags_of_strong: bool = True
    average_decay: float = 0.999
    consistency_weight: float = 2.0
    teacher_noise: float = 0.5


@dataclass(frozen=True)
class FilterSettings:
    """Post-processing; train/sed/event_filter.py.

    rule : "esp", "average", "fixed" or "none"
    gate : a class that the clip's tags deny has no frames
    eta : scale of equation 7
    threshold, tag_threshold : of frames and of tags
    """

    rule: str = "average"
    eta: float = 1 / 3
    gate: bool = True
    threshold: float = 0.5
    tag_threshold: float = 0.5


@dataclass(frozen=True)
class FitSettings:
    """Optimisation: Adam with steps, as guided learning's authors trained (the paper is silent).

    decay, decay_epochs : the learning rate is multiplied by decay every decay_epochs
    report_every : epochs between two validations
    bfloat16 : autocast on CUDA; on a CPU without bfloat16 instructions it costs eight times as much
    """

    epochs: int = 200
    learning_rate: float = 1.8e-3
    decay: float = 0.8
    decay_epochs: int = 10
    report_every: int = 10
    seed: int = 0
    bfloat16: bool = False


@dataclass(frozen=True)
class DetectionRecipe:
    """Everything that decides a run, beside its data.

    published : figures of the paper's row, shares, by the report's names
    """

    name: str = "recipe"
    source: str = ""
    published: dict[str, float] = field(default_factory=dict)
    front_end: FrontEnd = field(default_factory=FrontEnd)
    model: PairSettings = field(default_factory=PairSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    batch: SceneSettings = field(default_factory=SceneSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    training: FitSettings = field(default_factory=FitSettings)


def load_detection_recipe(path: Path, changes: list[str]) -> DetectionRecipe:
    """Read a recipe and apply changes such as "method.tau=10".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    return detection_recipe_from_dict(read_tables(path, changes), str(path))


def detection_recipe_from_dict(values: dict[str, Any], where: str) -> DetectionRecipe:
    """Recipe from nested tables; raises ConfigError."""
    recipe: DetectionRecipe = build_settings(DetectionRecipe, values, where)
    model, method, training = recipe.model, recipe.method, recipe.training
    one_of = (
        ("model.kind", model.kind, (KIND,)),
        ("model.branches", model.branches, ("separate", "joint")),
        ("method.kind", method.kind, ("guided", "mean_teacher")),
        ("method.guidance", method.guidance, ("hard", "soft")),
        ("method.projection", method.projection, ("learnt", "frozen")),
        ("method.distillation", method.distillation, DISTILLATIONS),
        ("method.focal_form", method.focal_form, ("printed", "focal")),
        ("method.focal_clips", method.focal_clips, ("labelled", "own")),
        ("filter.rule", recipe.filter.rule, RULES),
    )
    at_least = (
        ("model.width", model.width, 0.05),
        ("model.frames_averaged", model.frames_averaged, 1),
        ("model.gru_layers", model.gru_layers, 0),
        # Batch normalisation of a single clip would train on itself alone.
        ("the batch's size", recipe.batch.size, 2),
        ("batch.seconds", recipe.batch.seconds, 0.1),
        ("method.tau", method.tau, 0),
        ("method.gamma", method.gamma, 0.0),
        ("filter.eta", recipe.filter.eta, 0.0),
        ("filter.tag_threshold", recipe.filter.tag_threshold, 0.0),
        ("training.epochs", training.epochs, 1),
        ("training.decay_epochs", training.decay_epochs, 1),
        ("training.report_every", training.report_every, 1),
    )
    checks = recipe.reading.checks()
    checks += [(found in known, key, found, ", ".join(known)) for key, found, known in one_of]
    checks += [(found >= low, key, str(found), f"at least {low}") for key, found, low in at_least]
    checks += [
        (
            training.learning_rate > 0,
            "training.learning_rate",
            str(training.learning_rate),
            "above 0",
        ),
        (
            0 < recipe.filter.threshold <= 1,
            "filter.threshold",
            str(recipe.filter.threshold),
            "above 0, up to 1",
        ),
        (
            recipe.filter.tag_threshold <= 1,
            "filter.tag_threshold",
            str(recipe.filter.tag_threshold),
            "0 to 1",
        ),
        (
            method.gamma > 0 or method.focal_form == "focal",
            "method.gamma",
            str(method.gamma),
            "above 0: the printed weight 1 - p^0 is zero, and nothing would be learnt",
        ),
        (0 < method.beta_ramp <= 1, "method.beta_ramp", str(method.beta_ramp), "above 0, up to 1"),
        (
            method.kind == "guided" or method.distillation == "none",
            "method.distillation",
            method.distillation,
            "none, for a mean teacher has its student's features",
        ),
    ]
    for name, encoder in (("student", model.student), ("teacher", model.teacher)):
        checks += _encoder_checks(f"model.{name}", encoder)
    check_all(checks, where)
    return recipe


def _encoder_checks(key: str, encoder: EncoderSettings) -> list[tuple[bool, str, str, str]]:
    lists = {k: v for k, v in dataclasses.asdict(encoder).items() if isinstance(v, tuple)}
    blocks = len(encoder.channels)
    checks = [(blocks >= 1, f"{key}.channels", "empty", "one number for each block")]
    for name, numbers in lists.items():
        checks.append(
            (
                len(numbers) == blocks and all(n >= 1 for n in numbers),
                f"{key}.{name}",
                str(list(numbers)),
                f"{blocks} numbers from 1, one for each of the blocks in channels",
            )
        )
    odd = all(n % 2 for n in encoder.kernels)
    checks.append((odd, f"{key}.kernels", str(list(encoder.kernels)), "odd numbers"))
    checks.append(
        (0 <= encoder.dropout < 1, f"{key}.dropout", str(encoder.dropout), "0 to below 1")
    )
    return checks
