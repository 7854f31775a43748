"""One run of audio tagging with the help of video, from a recipe and a data set to a run folder.

It holds settings.json, metrics.jsonl, a checkpoint, model.safetensors (the student, or the network
of a teacher's recipe), teacher.safetensors where a teacher was trained beside it, scores.npz of
what was judged, figures.json, pictures and report.md. Where the student is one of the sensor's
networks, device.safetensors is that network alone, as it is exported and as others start from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from soundpost.device.errors import UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.checkpoint import load_weights, save_tensors
from soundpost.train.mobilenet_v2 import MobileNetV2
from soundpost.train.multimodal.acoustic_inputs import LogMelInput, noted_feature
from soundpost.train.multimodal.device_students import FrameStudent, WindowStudent
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.method import Method, Stage
from soundpost.train.multimodal.mutual_networks import TaggingBatch
from soundpost.train.multimodal.tagging_inputs import (
    backbone_note,
    open_features,
    open_inputs,
    open_visual,
    standardise,
)
from soundpost.train.multimodal.tagging_judging import Judged, judge_network, write_scores
from soundpost.train.multimodal.tagging_methods import tagging_method
from soundpost.train.multimodal.tagging_recipe import TaggingRecipe, tagging_recipe_from_dict
from soundpost.train.multimodal.tagging_report import write_tagging_report
from soundpost.train.multimodal.tagging_sets import (
    IntArray,
    TaggingBatches,
    TaggingSet,
    require_media,
)
from soundpost.train.run import (
    SETTINGS,
    WEIGHTS,
    claim,
    finished_settings,
    git_revision,
    initialise,
    schema_of,
)
from soundpost.train.sed.streaming import StreamingCRNN

SCHEMA = "soundpost.tagging_run/1"
TEACHER_WEIGHTS = "teacher.safetensors"
DEVICE_WEIGHTS = "device.safetensors"


@dataclass(frozen=True)
class TaggingRun:
    """A finished run.

    student : what is judged and kept; it looks at pictures where the recipe is a teacher's
    teacher : trained beside it, or None
    visual_size : elements of a picture's vector; 0 where nobody looks
    backbone : what the run notes of it; empty where nobody looks
    acoustic : what it notes of each feature of the sound
    settings : all that it notes
    """

    folder: Path
    labels: tuple[str, ...]
    recipe: TaggingRecipe
    student: nn.Module
    teacher: nn.Module | None
    visual_size: int
    backbone: dict[str, Any]
    acoustic: tuple[dict[str, Any], ...]
    settings: dict[str, Any]

    @property
    def data(self) -> Path:
        """Where the data set's tables were."""
        return Path(self.settings["path"])

    @property
    def device_network(self) -> MobileNetV2 | StreamingCRNN | None:
        """The sensor's network that the student is, if it is one."""
        student = self.student
        return student.network if isinstance(student, WindowStudent | FrameStudent) else None

    def hears(self, who: str) -> tuple[str, ...]:
        """Names of the features that its "student" or its "teacher" takes of the sound."""
        return self.recipe.heard_by(who)

    def sees(self, who: str) -> bool:
        """Whether its "student" or its "teacher" looks at pictures."""
        return who == "teacher" or self.recipe.student_sees


def train_tagging(
    recipe: TaggingRecipe,
    folder: Path,
    run: Path,
    device: torch.device,
    *,
    teacher: Path | None = None,
    init: str | None = None,
    quiet: bool = False,
) -> dict[str, dict[str, Judged]]:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    Parameters
    ----------
    folder : of the data set's tables
    teacher : a finished run of yin2021_fusion, whose network takes the place of a first stage in
        which the teacher learns
    init : "starter", a run folder of a clip student or its weights: what a student that is
        MobileNet_v2 starts from

    Returns
    -------
    by split, "validation" and "test", by network: "student", and "teacher" on the clips that have
    pictures

    Raises
    ------
    InputError
        The set, a clip or the backbone's weights cannot be used; the loss is no number any more.
    UsageError
        A teacher is given to a method that has no such stage, or one that does not fit; or weights
        to a student of another kind.
    ConfigError
        The folder holds another run.
    """
    data = recipe.data
    best_by = recipe.training.best_by("{}_map", validated=bool(data.validation))
    visual = open_visual(recipe.visual, device, quiet=quiet) if recipe.sees else None
    features = open_features(recipe, device, quiet=quiet)
    inputs = open_inputs(recipe, folder, features, visual, quiet=quiet)
    train = inputs.open(data.train, to_learn=True)
    clips = require_media(train, see=recipe.sees, skip=data.skip, where=", ".join(data.train))
    held = {}
    for name, splits in (("validation", data.validation), ("test", data.test)):
        if splits:
            of = inputs.open(splits)
            held[name] = (
                of,
                require_media(of, see=recipe.student_sees, skip=data.skip, where=", ".join(splits)),
            )
    size = visual.size if visual else 0
    torch.manual_seed(recipe.training.seed)
    notes = tuple(feature.note() for feature in features)
    method = _method(recipe, len(train.labels), size, notes)
    standardise(method, train, clips)
    if init is not None:
        _start_from(init, method.student, train.labels)
    if teacher is not None:
        _take_teacher(method, _load_teacher(teacher, train, recipe, size, notes))
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(train.labels),
        "data": {"train": _note(train, clips)} | {name: _note(*of) for name, of in held.items()},
        "path": str(folder.resolve()),
        "places": recipe.places(),
        "recipe": recipe.without_places(),
        "visual_size": size,
        "backbone": backbone_note(visual),
        "teacher": file_sha256(teacher / WEIGHTS) if teacher else None,
        "git": git_revision(),
        "torch": torch.__version__,
    }
    # Runs of before there was a choice go on.
    if recipe.acoustic.embeddings:
        settings["acoustic"] = list(notes)
    if init is not None:
        settings["init"] = init
    claim(run, settings)

    def judge_all(name: str) -> dict[str, Judged]:
        of, usable = held[name]
        see = recipe.student_sees
        judged = {"student": judge_network(method.student, of, usable, device, see=see)}
        seen = of.usable(see=True)
        network = getattr(method, "teacher", None)
        if network is not None and len(seen):
            judged["teacher"] = judge_network(network, of, seen, device, see=True)
        return judged

    def judge(stage: Stage) -> dict[str, Any]:
        watched = next(iter(held))
        line: dict[str, Any] = {"judged": watched}
        for who, one in judge_all(watched).items():
            if who in stage.trains:
                line[f"{who}_map"] = round(one.figures.mean_average_precision, 4)
                line[f"{who}_mauc"] = round(one.figures.mean_auc, 4)
        return line

    training = recipe.training
    source = TaggingBatches(train, clips, training.batch_size, training.seed, see=recipe.sees)
    fit_method(method, source, training, run, device, judge=judge, best_by=best_by, quiet=quiet)
    student: nn.Module = method.student
    if isinstance(student, WindowStudent | FrameStudent):
        alone = student.network.state_dict()
        save_tensors(run / DEVICE_WEIGHTS, alone, {"labels": list(train.labels)})
    for who, file in _networks(method).items():
        network: nn.Module = getattr(method, who)
        save_tensors(run / file, network.state_dict(), {"labels": list(train.labels)})
    judged = {name: judge_all(name) for name in held}
    write_scores(run, judged)
    write_tagging_report(run, recipe, settings, judged)
    return judged


def is_tagging_run(folder: Path) -> bool:
    """Whether a folder is a run of yin2021 or one of its rows, finished or not."""
    return schema_of(folder) == SCHEMA


def load_tagging_run(folder: Path) -> TaggingRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    settings = finished_settings(folder, SCHEMA, "a run of a tagging recipe, such as yin2021")
    recipe = tagging_recipe_from_dict(settings["recipe"], str(path)).at(settings.get("places", {}))
    labels, size = tuple(settings["labels"]), int(settings["visual_size"])
    notes = tuple(settings.get("acoustic", (LogMelInput(recipe.front_end).note(),)))
    method = _method(recipe, len(labels), size, notes)
    for who, file in _networks(method).items():
        load_weights(getattr(method, who), folder / file)
    method.eval()
    teacher: nn.Module | None = getattr(method, "teacher", None)
    return TaggingRun(
        folder,
        labels,
        recipe,
        method.student,
        teacher,
        size,
        settings["backbone"],
        notes,
        settings,
    )


def _method(
    recipe: TaggingRecipe, n_labels: int, visual_size: int, acoustic: tuple[dict[str, Any], ...]
) -> Method[TaggingBatch]:
    # A network that nobody asks to look has the least there can be.
    networks = recipe.networks(max(1, visual_size), tuple(map(noted_feature, acoustic)))
    return tagging_method(
        recipe.method, n_labels, networks, recipe.mutual, recipe.hints, recipe.device
    )


def _start_from(init: str, student: nn.Module, labels: tuple[str, ...]) -> None:
    if not isinstance(student, WindowStudent):
        raise UsageError(
            "--init FROM: is for students that are MobileNet_v2 (model.student=mobilenet_v2); "
            "leave it out"
        )
    initialise(student.network, labels, init)


def _networks(method: nn.Module) -> dict[str, str]:
    """Networks of a method that are kept, and their files; the student's is written last."""
    teacher = {"teacher": TEACHER_WEIGHTS} if hasattr(method, "teacher") else {}
    return teacher | {"student": WEIGHTS}


def _note(of: TaggingSet, clips: IntArray) -> dict[str, Any]:
    return {"n_clips": len(clips), "n_listed": len(of.clips), "sha256": of.digest()}


def _take_teacher(method: Method[TaggingBatch], teacher: nn.Module) -> None:
    """Put a trained teacher in the place of the first stage."""
    if method.stages[0].name != "teacher":
        raise UsageError(
            "--teacher RUN: this method's teacher learns together with its student, or there is "
            "none; leave it out"
        )
    network: nn.Module = getattr(method, "teacher")  # noqa: B009
    network.load_state_dict(teacher.state_dict())
    method.stages = method.stages[1:]


def _load_teacher(
    folder: Path,
    train: TaggingSet,
    recipe: TaggingRecipe,
    visual_size: int,
    acoustic: tuple[dict[str, Any], ...],
) -> nn.Module:
    """The network of a finished run of "fusion"; UsageError where it cannot teach this recipe."""
    trained = load_tagging_run(folder)
    its = trained.recipe
    for name, found, wanted in (
        ("method", its.method, "fusion"),
        ("labels", trained.labels, train.labels),
        ("model", its.model, replace(recipe.model, student=its.model.student)),
        ("front_end", its.front_end, recipe.front_end),
        ("visual_size", trained.visual_size, visual_size),
        ("acoustic features", trained.acoustic, acoustic),
        # One that has learnt from others may have learnt from what its student is judged on.
        ("training clips", trained.settings["data"]["train"]["sha256"], train.digest()),
    ):
        if found != wanted:
            raise UsageError(
                f"--teacher {folder}: its {name} is {str(found)[:100]}, expected "
                f"{str(wanted)[:100]}; give a run of yin2021_fusion on the same data set"
            )
    return trained.student
