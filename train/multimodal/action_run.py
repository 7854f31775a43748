"""One run of perez2020: a network that tells actions, taught by another or not, to a run folder.

A teacher learns from seconds. What it says of a student's clip is the mean of its logits over the
clip's seconds, computed once; then the student learns by equation 1. The folder holds
settings.json, metrics.jsonl, a checkpoint, model.safetensors, scores.npz, figures.json, pictures
and report.md.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.weights import load_backbone
from soundpost.train.checkpoint import load_tensors, save_tensors
from soundpost.train.datasets.acoustic_actions import ActionSet, read_actions
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND
from soundpost.train.datasets.action_splits import (
    ActionPart,
    action_parts,
    cross_scenario,
    split_parts,
)
from soundpost.train.datasets.media_cache import cache_folder
from soundpost.train.multimodal.action_inputs import (
    ActionBatches,
    ActionClips,
    IntArray,
    action_logits,
    cut_clips,
    open_action_clips,
)
from soundpost.train.multimodal.action_networks import (
    INPUTS,
    STUDENTS,
    TEACHER_CLIP_S,
    HeardActions,
    action_network,
)
from soundpost.train.multimodal.action_recipe import (
    ALL,
    ActionRecipe,
    WeightsSettings,
    action_recipe_from_dict,
)
from soundpost.train.multimodal.action_report import ActionFigures, write_action_report
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.generalised import GeneralisedDistillation
from soundpost.train.multimodal.method import Stage
from soundpost.train.multimodal.tagging_features import VisualInput
from soundpost.train.multimodal.tagging_inputs import FEATURES, backbone_note, open_visual
from soundpost.train.multimodal.tagging_recipe import PictureSettings
from soundpost.train.run import SCORES, SETTINGS, WEIGHTS, claim, finished_settings, git_revision

SCHEMA = "soundpost.action_run/1"


@dataclass(frozen=True)
class ActionRun:
    """A finished run.

    picture_size : elements of a picture's embedding; 0 where nobody looks
    backbone : what the run notes of the network that looks; empty where nobody does
    """

    folder: Path
    labels: tuple[str, ...]
    recipe: ActionRecipe
    network: nn.Module
    picture_size: int
    backbone: dict[str, Any]


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
    UsageError
        A teacher is missing, is not used, or is none of this set.
    """
    network_name, data = recipe.model.network, recipe.data
    if recipe.taught and teacher is None:
        raise UsageError(f"{recipe.name}: --teacher RUN is missing: give a run of its teacher")
    if teacher is not None and network_name not in STUDENTS:
        raise UsageError(f"{recipe.name}: --teacher RUN is for students, such as perez2020_hearnet")
    actions = _read(folder)
    parts = action_parts(actions, data.part_s, data.limit_s)
    kinds = INPUTS[network_name]
    visual = _open_visual(recipe.weights, device, quiet) if "pictures" in kinds else None
    features = cache_folder(folder, FEATURES)
    clips = open_action_clips(
        actions, parts, recipe.clip_s, kinds, features, visual=visual, quiet=quiet
    )
    train, held = _split(recipe, parts, clips)
    labels = tuple(actions.settings.actions.values())
    soft = None
    if teacher is not None:
        soft = teacher_logits(
            load_action_run(teacher), actions, clips, features, device,
            weights=recipe.weights, quiet=quiet,
        )  # fmt: skip
    torch.manual_seed(recipe.training.seed)
    size = visual.size if visual else 0
    network = action_network(network_name, len(labels), size, _start(recipe, quiet))
    if isinstance(network, HeardActions):
        blocks = np.array_split(train, -(-len(train) // 32))
        network.fit_range(clips.inputs(block, kinds)[0] for block in blocks)
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(labels),
        "data": {
            "n_train": len(train),
            "train": clips.digest(train),
            "held": {name: clips.digest(numbers) for name, numbers in held.items()},
        },
        "path": str(folder.resolve()),
        "recipe": recipe.without_places(),
        "picture_size": size,
        "backbone": backbone_note(visual),
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

    def scores_of(numbers: IntArray) -> NDArray[np.float32]:
        logits = action_logits(network, clips, numbers, kinds, device, quiet=quiet)
        scores: NDArray[np.float32] = logits.softmax(1).numpy()
        return scores

    def judge(stage: Stage) -> dict[str, Any]:
        found = scores_of(held["validation"]).argmax(1)
        return {"accuracy": round(float((found == clips.targets[held["validation"]]).mean()), 4)}

    training = recipe.training
    source = ActionBatches(clips, train, kinds, training.batch_size, training.seed, soft)
    watched = judge if len(held["validation"]) else None
    fit_method(method, source, training, run, device, judge=watched, quiet=quiet)
    save_tensors(run / WEIGHTS, network.state_dict(), {"labels": list(labels)})
    scores = {name: scores_of(numbers) for name, numbers in held.items() if len(numbers)}
    truth = {name: clips.targets[held[name]] for name in scores}
    _write_scores(run, scores, truth)
    figures = ActionFigures.of(recipe.trained_in, labels, scores, truth)
    write_action_report(run, recipe, settings, figures)
    return figures


def teacher_logits(
    teacher: ActionRun,
    actions: ActionSet,
    clips: ActionClips,
    features: Path,
    device: torch.device,
    *,
    weights: WeightsSettings,
    quiet: bool,
) -> Tensor:
    """What a teacher says of a student's clips: mean logits of their seconds, (n_clips, n_classes).

    Raises UsageError where it is no teacher, or of other actions.
    """
    name = teacher.recipe.model.network
    if name in STUDENTS or teacher.labels != tuple(actions.settings.actions.values()):
        raise UsageError(
            f"--teacher {teacher.folder}: is a run of {name} with {len(teacher.labels)} actions; "
            "give one of a teacher on the same set"
        )
    kinds = INPUTS[name]
    visual = None
    if "pictures" in kinds:
        # A student that starts from weights of its own says nothing of its teacher's.
        wanted = teacher.recipe.weights.backbone
        places = weights if weights.backbone == wanted else WeightsSettings(wanted)
        visual = _open_visual(places, device, quiet)
        if backbone_note(visual) != teacher.backbone:
            raise InputError(
                f"{teacher.folder}: was trained with other weights of {wanted} (sha256 "
                f"{teacher.backbone.get('sha256', 'unknown')}); put these into the cache"
            )
    seconds = open_action_clips(
        actions, clips.clips, TEACHER_CLIP_S, kinds, features, visual=visual, quiet=quiet
    )
    numbers = np.arange(len(seconds.clips))
    logits = action_logits(
        teacher.network.to(device), seconds, numbers, kinds, device, title="teacher", quiet=quiet
    )
    per_clip = clips.clips[0].n_frames // round(TEACHER_CLIP_S * FRAMES_PER_SECOND)
    return logits.view(len(clips.clips), per_clip, -1).mean(1)


def load_action_run(folder: Path) -> ActionRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    settings = finished_settings(folder, SCHEMA, "a run of a recipe of perez2020")
    recipe = action_recipe_from_dict(settings["recipe"], str(path))
    labels, size = tuple(settings["labels"]), int(settings["picture_size"])
    network = action_network(recipe.model.network, len(labels), size)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{folder / WEIGHTS}: does not fit {SETTINGS}; train again") from error
    return ActionRun(folder, labels, recipe, network.eval(), size, settings["backbone"])


def _read(folder: Path) -> ActionSet:
    actions, problems = read_actions(folder)
    if problems:
        raise InputError(
            problems[0].line()
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; soundpost dataset check lists all"
        )
    return actions


def _split(
    recipe: ActionRecipe, parts: tuple[ActionPart, ...], clips: ActionClips
) -> tuple[IntArray, dict[str, IntArray]]:
    """Clips to learn from, and by name those that are judged: "validation" and each scenario's."""
    data = recipe.data
    by = cast(Literal["part", "recording"], data.split_by)
    seed = recipe.training.seed
    if data.location == ALL:
        split, others = split_parts(parts, seed, by), dict[int, tuple[ActionPart, ...]]()
    else:
        split, others = cross_scenario(parts, data.location, seed, by)
    held = {"validation": split.validation, recipe.trained_in: split.test}
    held |= {str(location): of for location, of in others.items()}

    def numbers(of: tuple[ActionPart, ...]) -> IntArray:
        return clips.numbers(cut_clips(of, recipe.clip_s))

    return numbers(split.train), {name: numbers(of) for name, of in held.items()}


def _open_visual(weights: WeightsSettings, device: torch.device, quiet: bool) -> VisualInput:
    pictures = PictureSettings(weights.backbone, weights.file, weights.online)
    return open_visual(pictures, device, quiet=quiet)


def _start(recipe: ActionRecipe, quiet: bool) -> SoundNet5 | None:
    """Trained weights that SoundNet begins with."""
    weights = recipe.weights
    if recipe.model.network != "soundnet5" or weights.backbone == "none":
        return None
    file = Path(weights.file) if weights.file else None
    loaded = load_backbone("soundnet5", file, online=weights.online, quiet=quiet)
    return cast(SoundNet5, loaded.network)


def _write_scores(
    run: Path, scores: dict[str, NDArray[np.float32]], truth: dict[str, IntArray]
) -> None:
    arrays: dict[str, NDArray[Any]] = {f"{name}_scores": of for name, of in scores.items()}
    arrays |= {f"{name}_truth": of for name, of in truth.items()}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    write_atomically(run / SCORES, packed.getvalue())
