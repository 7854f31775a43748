"""One training run of joint tagging and detection: a folder that holds everything about it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.checkpoint import load_weights, save_tensors
from soundpost.train.run import SETTINGS, WEIGHTS, claim, finished_settings, git_revision
from soundpost.train.sed.event_filter import EventWindows, Rule, event_windows
from soundpost.train.sed.fitting import EpochSource, Validation, fit_pair
from soundpost.train.sed.networks import TeacherStudent
from soundpost.train.sed.recipe import (
    DetectionRecipe,
    FilterSettings,
    detection_recipe_from_dict,
)
from soundpost.train.sed.scenes import SceneSet, digest

SCHEMA = "soundpost.detection_run/1"
DECISION = "decision.json"


@dataclass(frozen=True)
class DetectionRun:
    """A finished run.

    pair : teacher and student, for evaluation
    windows : median filters that the training scenes gave
    decision : the recipe's post-processing, with the thresholds that were chosen on validation; the
        recipe's own until they are
    """

    folder: Path
    labels: tuple[str, ...]
    recipe: DetectionRecipe
    windows: EventWindows
    pair: TeacherStudent
    decision: FilterSettings


def train_detection(
    recipe: DetectionRecipe,
    scenes: SceneSet,
    data: EpochSource,
    run: Path,
    device: torch.device,
    *,
    validation: Validation | None = None,
    n_steps: int | None = None,
    quiet: bool = False,
) -> DetectionRun:
    """Train on scenes and write the run folder; goes on where an earlier call was killed.

    Parameters
    ----------
    scenes : what is trained on; gives the labels, and from its strong scenes the filters' windows
    data : batches of these scenes
    run : made if need be; then holds settings.json, metrics.jsonl, a checkpoint and the weights

    Raises ConfigError where the folder holds another run.
    """
    windows = event_windows(
        scenes.scenes, scenes.labels, cast(Rule, recipe.filter.rule), recipe.filter.eta
    )
    counts = {
        f"n_{kind}": sum(scene.labelling == kind for scene in scenes.scenes)
        for kind in ("strong", "weak", "unlabelled")
    }
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(scenes.labels),
        "data": {"sha256": digest(scenes)} | counts,
        "path": str(scenes.folder.resolve()),
        "recipe": dataclasses.asdict(recipe),
        "windows": dataclasses.asdict(windows),
        "git": git_revision(),
        "torch": torch.__version__,
    }
    claim(run, settings)
    pair = fit_pair(
        recipe, len(scenes.labels), data, run, device,
        validation=validation, n_steps=n_steps, quiet=quiet,
    )  # fmt: skip
    save_tensors(run / WEIGHTS, pair.state_dict(), {"labels": list(scenes.labels)})
    return DetectionRun(run, scenes.labels, recipe, windows, pair, recipe.filter)


def save_decision(run: Path, decision: FilterSettings) -> None:
    """Write decision.json: the thresholds that were chosen on validation recordings."""
    table = {"threshold": decision.threshold, "tag_threshold": decision.tag_threshold}
    write_atomically(run / DECISION, (json.dumps(table, indent=1) + "\n").encode())


def _load_decision(run: Path, published: FilterSettings) -> FilterSettings:
    path = run / DECISION
    if not path.is_file():
        return published
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        threshold, tag_threshold = float(table["threshold"]), float(table["tag_threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); run the same training again: it writes it anew"
        ) from error
    return replace(published, threshold=threshold, tag_threshold=tag_threshold)


def load_detection_run(folder: Path) -> DetectionRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    settings = finished_settings(folder, SCHEMA, "a run of a detection recipe, such as full")
    recipe = detection_recipe_from_dict(settings["recipe"], str(path))
    labels = tuple(settings["labels"])
    pair = TeacherStudent(
        len(labels),
        recipe.front_end.n_mels,
        recipe.model,
        mean_teacher=recipe.method.kind == "mean_teacher",
        distil=recipe.method.distillation != "none",
        frozen=recipe.method.projection == "frozen",
    )
    load_weights(pair, folder / WEIGHTS)
    kept = settings["windows"]
    windows = EventWindows(kept["rule"], kept["window_s"], tuple(kept["fallbacks"]))
    decision = _load_decision(folder, recipe.filter)
    return DetectionRun(folder, labels, recipe, windows, pair.eval(), decision)
