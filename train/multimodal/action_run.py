"""One run of perez2020: a network that tells actions, taught by another or not, to a run folder.

A teacher learns from seconds. What it says of a student's clip is the mean of its logits over the
clip's seconds, computed once; then the student learns by equation 1. The folder holds
settings.json, metrics.jsonl, a checkpoint, model.safetensors, scores.npz, figures.json, pictures
and report.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.weights import LoadedBackbone, load_backbone
from soundpost.train.checkpoint import load_weights, save_arrays, save_tensors
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND
from soundpost.train.multimodal.action_inputs import (
    ActionBatches,
    action_logits,
    open_action_clips,
)
from soundpost.train.multimodal.action_networks import (
    INPUTS,
    STUDENTS,
    TEACHER_CLIP_S,
    HeardActions,
    action_network,
)
from soundpost.train.multimodal.action_protocol import (
    JudgedActions,
    OpenedActions,
    judge_actions,
    open_actions,
    scores_of,
)
from soundpost.train.multimodal.action_recipe import (
    STARTS,
    ActionRecipe,
    WeightsSettings,
    action_recipe_from_dict,
)
from soundpost.train.multimodal.action_report import (
    VALIDATION,
    ActionFigures,
    write_action_report,
)
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.generalised import GeneralisedDistillation
from soundpost.train.multimodal.method import Stage
from soundpost.train.multimodal.tagging_features import VisualInput
from soundpost.train.multimodal.tagging_inputs import backbone_note, open_visual
from soundpost.train.multimodal.tagging_recipe import PictureSettings
from soundpost.train.run import SCORES, SETTINGS, WEIGHTS, claim, finished_settings, git_revision

SCHEMA = "soundpost.action_run/1"


@dataclass(frozen=True)
class ActionRun:
    """A finished run.

    picture_size : elements of a picture's embedding; 0 where no embeddings are taken
    backbone : what the run notes of the network that makes them; empty without one
    """

    folder: Path
    labels: tuple[str, ...]
    recipe: ActionRecipe
    network: nn.Module
    picture_size: int
    backbone: dict[str, Any]

    @property
    def sees(self) -> bool:
        """Whether its network takes embeddings of pictures."""
        return "pictures" in INPUTS[self.recipe.model.network]


def train_actions(
    recipe: ActionRecipe,
    folder: Path,
    run: Path,
    device: torch.device,
    *,
    teacher: Path | None = None,
    quiet: bool = False,
) -> ActionFigures:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    Parameters
    ----------
    folder : of the set, in the layout of `actions`
    teacher : a finished run of a teacher of perez2020 on the same set, for a student

    Raises
    ------
    InputError
        The set cannot be used, weights are missing, the loss is no number any more.
    ConfigError
        Subjects are to be held out, and nobody names them.
    UsageError
        A teacher is missing, is not used, or is none of this set.
    """
    name = recipe.model.network
    if recipe.taught and teacher is None:
        raise UsageError(f"{recipe.name}: --teacher RUN is missing: give a run of its teacher")
    if teacher is not None and name not in STUDENTS:
        raise UsageError(f"{recipe.name}: --teacher RUN is for students, such as perez2020_hearnet")
    visual = _open_visual(recipe.weights, device, quiet) if "pictures" in INPUTS[name] else None
    start = _load_start(recipe, quiet)
    opened = open_actions(recipe, folder, visual, quiet=quiet)
    recipe, labels = opened.recipe, opened.labels
    soft = None
    if teacher is not None:
        taught_by = load_action_run(teacher)
        refuse_learnt(taught_by, recipe)
        soft = teacher_logits(taught_by, opened, device, weights=recipe.weights, quiet=quiet)
    torch.manual_seed(recipe.training.seed)
    size = visual.size if visual else 0
    begun = cast("ResNet | SoundNet5", start.network) if start else None
    network = action_network(recipe.network(len(labels), size), begun)
    if isinstance(network, HeardActions):
        blocks = np.array_split(opened.train, -(-len(opened.train) // 32))
        network.fit_range(opened.clips.inputs(block, INPUTS[name])[0] for block in blocks)
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(labels),
        "data": {
            "n_train": len(opened.train),
            "train": opened.clips.digest(opened.train),
            "held": {part: opened.clips.digest(clips) for part, clips in opened.held.items()},
        },
        "path": str(folder.resolve()),
        "recipe": recipe.without_places(),
        "picture_size": size,
        "backbone": backbone_note(visual),
        "start": start.record() if start else None,
        "teacher": file_sha256(teacher / WEIGHTS) if teacher else None,
        "git": git_revision(),
        "torch": torch.__version__,
    }
    claim(run, settings)
    method = GeneralisedDistillation(
        None if soft is None else nn.Identity(), network, recipe.distillation
    )
    # What the teacher says is known: it takes its own logits and gives them back.
    method.stages = method.stages[-1:]
    watched = opened.held[VALIDATION]

    def judge(stage: Stage) -> dict[str, Any]:
        found = scores_of(network, opened, watched, device, quiet=quiet).argmax(1)
        return {"accuracy": round(float((found == opened.clips.targets[watched]).mean()), 4)}

    training = recipe.training
    source = ActionBatches(
        opened.clips, opened.train, INPUTS[name], training.batch_size, training.seed, soft
    )
    fit_method(
        method,
        source,
        training,
        run,
        device,
        judge=judge if len(watched) else None,
        best_by=training.best_by("accuracy", validated=bool(len(watched))),
        quiet=quiet,
    )
    save_tensors(run / WEIGHTS, network.state_dict(), {"labels": list(labels)})
    judged = judge_actions(network, opened, device, quiet=quiet)
    _write_scores(run, judged)
    write_action_report(run, recipe, settings, judged.figures)
    return judged.figures


def refuse_learnt(teacher: ActionRun, recipe: ActionRecipe) -> None:
    """UsageError where a teacher has learnt from clips that its student is to be judged on.

    recipe : the student's, with the subjects that are held out
    """
    theirs, ours = teacher.recipe.judges, recipe.judges
    if theirs != ours:
        raise UsageError(
            f"--teacher {teacher.folder}: holds out other clips ({theirs}, here {ours}), so that "
            "it has learnt from what its student is judged on; give one with the same "
            "data.location, data.split_by and training.seed"
        )


def teacher_logits(
    teacher: ActionRun,
    of: OpenedActions,
    device: torch.device,
    *,
    weights: WeightsSettings,
    quiet: bool,
) -> Tensor:
    """What a teacher says of a student's clips: mean logits of their seconds, (n_clips, n_classes).

    Raises UsageError where it is no teacher, or of other actions.
    """
    recipe = teacher.recipe
    name = recipe.model.network
    if name in STUDENTS or teacher.labels != of.labels:
        raise UsageError(
            f"--teacher {teacher.folder}: is a run of {name} with {len(teacher.labels)} actions; "
            "give one of a teacher on the same set"
        )
    # A student that starts from weights of its own says nothing of its teacher's.
    same = weights.backbone == recipe.weights.backbone
    visual = open_visual_of(
        teacher, weights if same else WeightsSettings(recipe.weights.backbone), device, quiet=quiet
    )
    clips, kinds = of.clips.clips, INPUTS[name]
    seconds = open_action_clips(
        of.actions, clips, TEACHER_CLIP_S, kinds, of.features,
        visual=visual, frame_px=recipe.model.frame_px, quiet=quiet,
    )  # fmt: skip
    numbers = np.arange(len(seconds.clips))
    logits = action_logits(
        teacher.network.to(device), seconds, numbers, kinds, device, title="teacher", quiet=quiet
    )
    per_clip = clips[0].n_frames // round(TEACHER_CLIP_S * FRAMES_PER_SECOND)
    return logits.view(len(clips), per_clip, -1).mean(1)


def load_action_run(folder: Path) -> ActionRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    settings = finished_settings(folder, SCHEMA, "a run of a recipe of perez2020")
    recipe = action_recipe_from_dict(settings["recipe"], str(path))
    labels, size = tuple(settings["labels"]), int(settings["picture_size"])
    network = action_network(recipe.network(len(labels), size))
    load_weights(network, folder / WEIGHTS)
    return ActionRun(folder, labels, recipe, network.eval(), size, settings["backbone"])


def open_visual_of(
    run: ActionRun, weights: WeightsSettings, device: torch.device, *, quiet: bool
) -> VisualInput | None:
    """What made the embeddings that a run was trained on; None where its network takes none.

    weights : where they are

    Raises InputError where they are missing, or others.
    """
    if not run.sees:
        return None
    visual = _open_visual(weights, device, quiet)
    if backbone_note(visual) != run.backbone:
        raise InputError(
            f"{run.folder}: was trained with other weights of {weights.backbone} (sha256 "
            f"{run.backbone.get('sha256', 'unknown')}); put these into the cache, or give their "
            "file"
        )
    return visual


def _open_visual(weights: WeightsSettings, device: torch.device, quiet: bool) -> VisualInput:
    pictures = PictureSettings(weights.backbone, weights.file, weights.online)
    return open_visual(pictures, device, quiet=quiet)


def _load_start(recipe: ActionRecipe, quiet: bool) -> LoadedBackbone | None:
    """Trained weights that a network begins with."""
    weights, name = recipe.weights, recipe.model.network
    if name not in STARTS or weights.backbone == "none":
        return None
    file = Path(weights.file) if weights.file else None
    return load_backbone(weights.backbone, file, online=weights.online, quiet=quiet)


def _write_scores(run: Path, judged: JudgedActions) -> None:
    arrays: dict[str, NDArray[Any]] = {f"{k}_scores": of for k, of in judged.scores.items()}
    arrays |= {f"{k}_truth": of for k, of in judged.truth.items()}
    save_arrays(run / SCORES, arrays)
