"""Judging one run of audio tagging, or the average of several: three seeds, as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.multimodal.ensembles import average_scores
from soundpost.train.multimodal.tagging_inputs import (
    open_backbone_of,
    open_features_of,
    open_inputs,
)
from soundpost.train.multimodal.tagging_judging import Judged, judge_scores
from soundpost.train.multimodal.tagging_recipe import TaggingRecipe
from soundpost.train.multimodal.tagging_run import TaggingRun, load_tagging_run
from soundpost.train.multimodal.tagging_sets import IntArray, TaggingSet, require_media, score_clips

PARTS = ("test", "validation")


@dataclass(frozen=True)
class Places:
    """Where files lie now, if not where they were when the run was trained; see tagging_recipe.

    audio, video : folders of sound and video, if not below the tables
    weights : of the visual backbone, if not in the cache
    """

    audio: str = ""
    video: str = ""
    weights: str = ""

    def of(self, recipe: TaggingRecipe) -> TaggingRecipe:
        """The recipe with these paths."""
        data = recipe.data
        audio, video = self.audio or data.audio, self.video or data.video
        return replace(recipe, data=replace(data, audio=audio, video=video))


NOWHERE_ELSE = Places()


def evaluate_tagging(
    runs: Sequence[Path],
    folder: Path,
    device: torch.device,
    *,
    part: str = "test",
    places: Places = NOWHERE_ELSE,
    quiet: bool = False,
) -> Judged:
    """Judge the mean of the students' scores.

    Parameters
    ----------
    runs : finished runs on one data set, of one method or several
    folder : of the data set's tables
    part : "test" or "validation", the splits that each recipe calls so

    Raises
    ------
    InputError
        A run is not finished, has no such part or other labels or clips than the first.
    """
    scores, judged_ids = [], []
    for path in runs:
        run = load_tagging_run(path)
        of, clips = open_part(run, folder, part, device, places=places, quiet=quiet)
        judged_ids.append([of.clips[i].id for i in clips])
        if judged_ids[-1] != judged_ids[0]:
            raise InputError(
                f"{path}: judges {len(clips)} clips that are not the {len(judged_ids[0])} of "
                f"{runs[0]}; average runs whose recipes have the same {part} clips"
            )
        see = run.recipe.student_sees
        scores.append(score_clips(run.student.to(device), of, clips, device, see=see))
    return judge_scores(average_scores(scores), of, clips)


def open_part(
    trained: TaggingRun,
    folder: Path,
    part: str,
    device: torch.device,
    *,
    places: Places = NOWHERE_ELSE,
    quiet: bool = False,
) -> tuple[TaggingSet, IntArray]:
    """The clips of one part of a folder, as a run's student takes them, and those to be judged."""
    recipe = places.of(trained.recipe)
    splits = {"test": recipe.data.test, "validation": recipe.data.validation}[part]
    if not splits:
        raise UsageError(
            f"{trained.folder}: its recipe has no {part} clips; leave --part out, or train with "
            f"data.{part}"
        )
    see = recipe.student_sees
    visual = None
    if see:
        visual = open_backbone_of(
            recipe, trained.backbone, trained.folder, places.weights, device, quiet
        )
    features = open_features_of(
        recipe,
        trained.acoustic,
        trained.folder,
        device,
        names=trained.hears("student"),
        quiet=quiet,
    )
    found = open_inputs(recipe, folder, features, visual, quiet=quiet).open(splits)
    if found.labels != trained.labels:
        raise InputError(
            f"{folder}: its {len(found.labels)} labels are not the {len(trained.labels)} of "
            f"{trained.folder}; give the data set that it was trained on"
        )
    where = ", ".join(splits)
    return found, require_media(found, see=see, skip=recipe.data.skip, where=where)


def to_dict(runs: Sequence[Path], part: str, judged: Judged) -> dict[str, Any]:
    """As JSON."""
    return {"models": [str(run) for run in runs], "part": part} | dataclasses.asdict(judged.figures)
