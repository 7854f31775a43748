"""Training on a folder in DESED's layout: what `soundpost train` does for a detection recipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from soundpost.device.files import write_atomically
from soundpost.train.run import SCORES
from soundpost.train.sed.batches import Batches, in_order
from soundpost.train.sed.desed import Reading, read_desed
from soundpost.train.sed.event_filter import Rule, detect, event_windows
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.fitting import FloatArray, Validation, score_scenes
from soundpost.train.sed.frame_grid import frame_targets
from soundpost.train.sed.recipe import DetectionRecipe
from soundpost.train.sed.run import train_detection
from soundpost.train.sed.scenes import SceneBatch

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
        found = [detect(f, c, windows, *limits) for f, c in zip(frames, clips, strict=True)]
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
) -> dict[str, dict[str, float]]:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    scores.npz then holds `validation_frames` (n_scenes, n_frames, n_labels) and `validation_clips`
    (n_scenes, n_labels), float32 in the order of `validation_paths`, and the same of `test` where
    the folder has one.

    Returns macro frame and clip F1 of "validation" and "test".
    """
    front_end, seconds = recipe.front_end, recipe.batch.seconds
    reading = Reading(seconds=seconds, rate_hz=front_end.sample_rate_hz)
    sets = read_desed(folder, reading, quiet=quiet)
    features = open_features(sets.train, front_end, seconds, quiet=quiet)
    batches = Batches(features, replace(recipe.batch, seed=recipe.training.seed))
    held_out = {"validation": sets.validation} | ({"test": sets.test} if sets.test else {})
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    judged = {}
    windows = event_windows(
        sets.train.scenes, sets.train.labels, cast(Rule, recipe.filter.rule), recipe.filter.eta
    ).frames(sets.train.labels, hop_s)
    for name, scene_set in held_out.items():
        held = open_features(scene_set, front_end, seconds, quiet=quiet)
        judged[name] = frame_and_clip_f1(held, windows, recipe)
    trained = train_detection(
        recipe, sets.train, batches, run, device,
        validation=judged["validation"], n_steps=batches.n_batches, quiet=quiet,
    )  # fmt: skip
    arrays: dict[str, NDArray[np.generic]] = {}
    figures = {}
    for name, scene_set in held_out.items():
        frames, clips = score_scenes(trained.pair.student, judged[name].batches, device)
        figures[name] = judged[name].judge(frames, clips)
        arrays[f"{name}_frames"], arrays[f"{name}_clips"] = frames, clips
        arrays[f"{name}_paths"] = np.array(
            [s.path.relative_to(folder) for s in scene_set.scenes], str
        )
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    write_atomically(run / SCORES, packed.getvalue())
    return figures
