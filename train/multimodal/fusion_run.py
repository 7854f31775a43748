"""One run of li2018, from a recipe and a data set to a run folder.

It holds settings.json, metrics.jsonl, a checkpoint, best.safetensors (the network that hears, after
the epoch that was best on validation clips), fusion.json (what was decided on these),
model.safetensors, scores.npz of what was judged, figures.json, pictures and report.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from soundpost.device.features import FloatArray
from soundpost.train.checkpoint import load_weights, save_tensors
from soundpost.train.multimodal.class_thresholds import micro_f1_thresholds
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.fusion_inputs import Part, mil_logits, open_fusion_inputs
from soundpost.train.multimodal.fusion_judging import (
    Decision,
    JudgedPart,
    branch_figures,
    choose,
    judge_part,
    write_scores,
)
from soundpost.train.multimodal.fusion_recipe import (
    VALIDATION,
    FusionRecipe,
    fusion_recipe_from_dict,
)
from soundpost.train.multimodal.fusion_report import draw_key_frames, write_fusion_report
from soundpost.train.multimodal.method import Stage
from soundpost.train.multimodal.mil_crnn import MilCrnn, MilMethod
from soundpost.train.multimodal.tagging_inputs import backbone_note
from soundpost.train.multimodal.tagging_sets import TaggingBatches
from soundpost.train.multimodal.video_branch import (
    VideoBranch,
    object_names,
    open_branch,
    open_mapping,
    video_scores,
)
from soundpost.train.run import SETTINGS, WEIGHTS, claim, finished_settings, git_revision

SCHEMA = "soundpost.fusion_run/1"


@dataclass(frozen=True)
class FusionRun:
    """A finished run.

    recipe : with the paths that it was trained with
    network : that hears, in evaluation mode
    backbones : what the run notes of those that see, "features" and "objects"
    """

    folder: Path
    recipe: FusionRecipe
    network: MilCrnn
    decision: Decision
    backbones: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the scores' columns."""
        return self.decision.labels


def train_fusion(
    recipe: FusionRecipe,
    folder: Path,
    run: Path,
    device: torch.device,
    *,
    quiet: bool = False,
) -> dict[str, JudgedPart]:
    """Train, choose, judge and write the run folder; goes on where an earlier call was killed.

    folder : of the data set's tables

    Returns what was judged, by split; "validation" is what weights and thresholds were chosen on.

    Raises
    ------
    InputError
        The set, a clip, weights, names or word vectors cannot be used; the loss is no number any
        more.
    ConfigError
        The folder holds another run.
    """
    inputs = open_fusion_inputs(recipe, folder, quiet=quiet)
    labels, visual = inputs.read.clips.labels, recipe.visual
    branch = open_branch(visual, device, quiet=quiet)
    names = object_names(visual, branch.objects, labels)
    mapping, vectors_sha256 = open_mapping(visual, names, labels, quiet=quiet)
    train, held = inputs.parts(branch)
    # Early, for a set on which nothing can be chosen is better known before the training.
    seen = {
        name: video_scores(part.rows(), mapping, visual.top_objects) for name, part in held.items()
    }
    torch.manual_seed(recipe.training.seed)
    network = MilCrnn(len(labels), recipe.front_end.n_mels, recipe.model)
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(labels),
        "data": {"train": _note(train)} | {name: _note(part) for name, part in held.items()},
        "path": str(folder.resolve()),
        "places": recipe.places(),
        "recipe": recipe.without_places(),
        "backbones": branch_note(branch),
        "objects": list(mapping.objects),
        "word_vectors": vectors_sha256,
        "git": git_revision(),
        "torch": torch.__version__,
    }
    claim(run, settings)
    validation = held[VALIDATION]
    truth = validation.truth()

    def judge(_stage: Stage) -> dict[str, Any]:
        logits = mil_logits(network, validation, device)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth))
        scores = _probabilities(logits)
        thresholds = micro_f1_thresholds(scores, truth, recipe.training.seed).thresholds
        figures = branch_figures(scores, truth, labels, thresholds)
        return {
            "judged": VALIDATION,
            "validation_loss": round(float(loss), 6),
            "validation_f1": round(figures.f1, 6),
            "validation_map": round(figures.mean_average_precision, 4),
        }

    training = recipe.training
    source = TaggingBatches(train.of, train.clips, training.batch_size, training.seed, see=False)
    fit_method(
        MilMethod(network),
        source,
        training,
        run,
        device,
        judge=judge,
        best_by=lambda _stage: "validation_f1",
        quiet=quiet,
    )
    heard = {name: _probabilities(mil_logits(network, part, device)) for name, part in held.items()}
    weights, thresholds = choose(
        heard[VALIDATION], seen[VALIDATION], truth, recipe.fusion.better_weight, training.seed
    )
    decision = Decision(weights, thresholds, mapping, visual.top_objects)
    decision.write(run)
    save_tensors(run / WEIGHTS, network.state_dict(), {"labels": list(labels)})
    judged = {
        name: judge_part(part.clip_ids(), part.truth(), heard[name], seen[name], decision)
        for name, part in held.items()
    }
    write_scores(run, judged)
    draw_key_frames(
        validation, inputs.read.media, decision, visual.frames_per_second, run / "key_frames.png"
    )
    rows = {name: part.rows() for name, part in held.items()}
    write_fusion_report(run, recipe, settings, judged, decision, mapping, rows)
    return judged


def load_fusion_run(folder: Path) -> FusionRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    settings = finished_settings(folder, SCHEMA, "a run of li2018")
    recipe = fusion_recipe_from_dict(settings["recipe"], str(folder / SETTINGS))
    decision = Decision.read(folder)
    network = MilCrnn(len(decision.labels), recipe.front_end.n_mels, recipe.model)
    load_weights(network, folder / WEIGHTS)
    # Where its files lay, as far as they still do.
    there = {
        table: {key: path for key, path in paths.items() if Path(path).exists()}
        for table, paths in settings["places"].items()
    }
    recipe = recipe.at(there)
    return FusionRun(folder, recipe, network.eval(), decision, settings["backbones"])


def branch_note(branch: VideoBranch) -> dict[str, Any]:
    """What a run notes of the networks that see."""
    return {"features": backbone_note(branch.features), "objects": backbone_note(branch.objects)}


def _note(part: Part) -> dict[str, Any]:
    listed = len(part.of.clips)
    return {"n_clips": len(part.clips), "n_listed": listed, "sha256": part.of.digest()}


def _probabilities(logits: torch.Tensor) -> FloatArray:
    return np.asarray(logits.sigmoid().numpy(), np.float32)
