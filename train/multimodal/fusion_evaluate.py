"""Judging a finished run of li2018 again, and opening the networks that it sees with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.multimodal.fusion_inputs import mil_logits, open_fusion_inputs
from soundpost.train.multimodal.fusion_judging import JudgedPart, judge_part
from soundpost.train.multimodal.fusion_run import FusionRun, branch_note, load_fusion_run
from soundpost.train.multimodal.video_branch import VideoBranch, open_branch, video_scores


def branch_of(run: FusionRun, weights: str, device: torch.device, *, quiet: bool) -> VideoBranch:
    """The networks that a run sees with.

    weights : folder that holds their files by their published names, or the run that both are;
        "" for where they were when this run was trained

    Raises UsageError where it is no folder, InputError where weights are missing or others.
    """
    visual = run.recipe.visual
    if weights:
        folder = Path(weights)
        if not folder.is_dir():
            raise UsageError(
                f"--weights {weights}: is no folder; {run.folder} sees with two networks, "
                f"{visual.features} and {visual.objects}: give the folder that holds both files by "
                "their published names"
            )
        files: dict[str, Any] = {}
        for which in ("features", "objects"):
            network = visual.network(which)
            if network.is_run:
                files[f"{which}_file"] = str(folder)
            elif network.backbone in PUBLISHED:
                path = folder / PUBLISHED[network.backbone].file_name
                files[f"{which}_file"] = str(path)
        visual = replace(visual, **files)
    branch = open_branch(visual, device, quiet=quiet)
    found = branch_note(branch)
    for which, note in run.backbones.items():
        if found[which] != note:
            raise InputError(
                f"{run.folder}: was trained with other weights of {note.get('name', which)} "
                f"(sha256 {note.get('sha256', 'unknown')}); give the folder of these with --weights"
            )
    return branch


def evaluate_fusion(
    path: Path,
    folder: Path,
    device: torch.device,
    *,
    part: str = "test",
    audio: str = "",
    video: str = "",
    weights: str = "",
    quiet: bool = False,
) -> dict[str, JudgedPart]:
    """Judge all branches with the weights and thresholds that a run chose.

    Parameters
    ----------
    folder : of the data set's tables
    part : "test", the splits that the recipe calls so, or "validation"
    audio, video : folders of sound and video, where they are not below the tables; "" for where
        they were
    weights : as of branch_of

    Returns by split. Raises InputError where the run is not finished or the set has other labels.
    """
    run = load_fusion_run(path)
    elsewhere = {"audio": audio, "video": video}
    run = replace(run, recipe=run.recipe.at({"data": {k: v for k, v in elsewhere.items() if v}}))
    branch = branch_of(run, weights, device, quiet=quiet)
    inputs = open_fusion_inputs(run.recipe, folder, quiet=quiet)
    found = inputs.read.clips.labels
    if found != run.labels:
        raise InputError(
            f"{folder}: its {len(found)} labels are not the {len(run.labels)} of {path}; give the "
            "data set that it was trained on"
        )
    network = run.network.to(device)
    judged = {}
    for name, clips in inputs.judged(part, branch).items():
        scores = mil_logits(network, clips, device).sigmoid().numpy()
        seen = video_scores(clips.rows(), run.decision.objects, run.decision.top_objects)
        judged[name] = judge_part(clips.clip_ids(), clips.truth(), scores, seen, run.decision)
    return judged
