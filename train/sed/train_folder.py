"""Training on a folder in DESED's layout: what `soundpost train` does for a detection recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from soundpost.train.checkpoint import save_arrays
from soundpost.train.run import SCORES, git_revision
from soundpost.train.sed.batches import Batches, in_order
from soundpost.train.sed.desed import check_judged, read_desed
from soundpost.train.sed.event_filter import Rule, detect, event_windows
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.fitting import FloatArray, Validation, score_scenes
from soundpost.train.sed.frame_grid import frame_targets
from soundpost.train.sed.judging import Judged, choose_published, judge_published
from soundpost.train.sed.recipe import DetectionRecipe
from soundpost.train.sed.report import check_published
from soundpost.train.sed.run import save_decision, train_detection
from soundpost.train.sed.run_report import write_run_report
from soundpost.train.sed.scenes import SceneBatch, SceneSet

_JUDGED_AT_ONCE = 16


@dataclass(frozen=True)
class _InOrder:
    """A set's batches for judging, as often as they are asked for."""

    features: FeatureCache

    def __iter__(self) -> Iterator[SceneBatch]:
        return in_order(self.features, _JUDGED_AT_ONCE)


def frame_and_clip_f1(
    features: FeatureCache, windows: tuple[int, ...], recipe: DetectionRecipe
) -> Validation:
    """Macro F1 of frames and of tags after post-processing: how a run is going, not its report."""
    scenes, labels = features.scenes.scenes, features.scenes.labels
    truth = np.stack(
        [frame_targets(s.events, labels, features.front_end, features.n_frames) for s in scenes]
    )
    tags = np.array([[label in scene.tags for label in labels] for scene in scenes])

    def judge(frames: FloatArray, clips: FloatArray) -> dict[str, float]:
        limits = recipe.filter.threshold, recipe.filter.tag_threshold
        gate = recipe.filter.gate
        found = [
            detect(f, c, windows, *limits, gate=gate) for f, c in zip(frames, clips, strict=True)
        ]
        heard = np.concatenate([one.frames for one in found])
        options = {"average": "macro", "zero_division": 0.0}
        return {
            "frame_f1": round(
                float(f1_score(truth.reshape(heard.shape) > 0.5, heard, **options)), 4
            ),
            "clip_f1": round(
                float(f1_score(tags, np.stack([o.tags for o in found]), **options)), 4
            ),
        }

    return Validation(_InOrder(features), judge)


def train_folder(
    recipe: DetectionRecipe, folder: Path, run: Path, device: torch.device, *, quiet: bool = False
) -> dict[str, Judged]:
    """Train, judge as published, and write the run folder; goes on where an earlier was killed.

    scores.npz then holds `validation_frames` (n_scenes, n_frames, n_labels) and `validation_clips`
    (n_scenes, n_labels), float32 in the order of `validation_paths`, and the same of `test` where
    the folder has one.

    Returns "validation" and, where the folder has one, "test".
    """
    check_published(recipe.published, recipe.name)
    front_end, seconds = recipe.front_end, recipe.batch.seconds
    reading = recipe.reading.reading(seconds, front_end.sample_rate_hz)
    sets = read_desed(folder, reading, recipe.reading.labels, quiet=quiet)
    check_judged(sets)
    features = open_features(sets.train, front_end, seconds, quiet=quiet)
    batches = Batches(features, recipe.batch, recipe.training.seed)
    held_out = {"validation": sets.validation} | ({"test": sets.test} if sets.test else {})
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    held = {
        name: open_features(scene_set, front_end, seconds, quiet=quiet)
        for name, scene_set in held_out.items()
    }
    windows = event_windows(
        sets.train.scenes, sets.train.labels, cast(Rule, recipe.filter.rule), recipe.filter.eta
    ).frames(sets.train.labels, hop_s)
    going = frame_and_clip_f1(held["validation"], windows, recipe)
    trained = train_detection(
        recipe, sets.train, batches, run, device,
        validation=going, n_steps=batches.n_batches, quiet=quiet,
    )  # fmt: skip
    arrays: dict[str, NDArray[np.generic]] = {}
    judged, chosen = {}, {}
    settings = recipe.filter
    # "validation" comes first.
    for name, features_of in held.items():
        frames, clips = score_scenes(trained.pair.student, _InOrder(features_of), device)
        scenes = features_of.scenes.scenes
        decided = (scenes, trained.labels, frames, clips, windows)
        if name == "validation":
            settings = choose_published(*decided, recipe.filter, front_end, quiet=quiet)
            save_decision(run, settings)
        judged[name] = judge_published(*decided, recipe.filter, front_end)
        chosen[name] = judge_published(*decided, settings, front_end).figures
        arrays[f"{name}_frames"], arrays[f"{name}_clips"] = frames, clips
        arrays[f"{name}_paths"] = np.array([s.path.relative_to(folder) for s in scenes], str)
    save_arrays(run / SCORES, arrays)
    last = list(held)[-1]
    write_run_report(
        run,
        recipe.name,
        recipe.source,
        (_made(recipe, folder, sets.train),),
        judged[last],
        held[last],
        judged["validation"],
        published=recipe.published,
        published_on="DCASE 2019 task 4, evaluation set",
        chosen=(
            chosen[last],
            f"with {settings.threshold:g} and {settings.tag_threshold:g}, chosen on validation",
        ),
    )
    return judged


def _departures(recipe: DetectionRecipe) -> str:
    """Where the losses are not those of the text, for whoever compares with its figures."""
    method = recipe.method
    found = []
    if method.tags_of_strong:
        found.append("weak losses count the tags of strongly labelled recordings too")
    if method.focal and method.focal_clips == "own":
        found.append("K of equation 4 counts each term's own recordings")
    return f"Not as printed: {', '.join(found)}. " if found else ""


def _made(recipe: DetectionRecipe, folder: Path, train: SceneSet) -> str:
    counts = Counter(scene.labelling for scene in train.scenes)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("strong", "weak", "unlabelled"))
    return (
        f"Trained on {len(train.scenes)} recordings of {folder} ({kinds}), width "
        f"{recipe.model.width:g}, {recipe.training.epochs} epochs, seed {recipe.training.seed}, "
        f"code {git_revision()}. {_departures(recipe)}Decided as published: "
        f"{'gate by the tags, ' if recipe.filter.gate else ''}centred medians, "
        f"thresholds of {recipe.filter.threshold:g} and {recipe.filter.tag_threshold:g}."
    )
