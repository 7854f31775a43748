"""Judging a detection run, a streaming student or a bundle of kind `frames` on recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from soundpost.device.bundle import open_bundle, score_features
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import sigmoid
from soundpost.device.manifest import Manifest
from soundpost.train.run import SETTINGS, choose_device, schema_of
from soundpost.train.sed import run as pair_run
from soundpost.train.sed import streaming_run
from soundpost.train.sed.batches import in_order
from soundpost.train.sed.desed import read_held_out
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.fitting import score_scenes
from soundpost.train.sed.judging import Judged, judge_on_device, judge_published
from soundpost.train.sed.metrics import SedFigures
from soundpost.train.sed.recipe import ReadingSettings

_AT_ONCE = 16
Part = Literal["test", "validation"]


@dataclass(frozen=True)
class SceneEvaluation:
    """Figures of a model on one part of a folder."""

    model: str
    runtime: str
    part: Part
    figures: SedFigures


def is_scene_model(model: Path, data: Path) -> bool:
    """Whether a model tells when sounds begin and end, or the folder has such recordings."""
    if (data / "metadata").is_dir():
        return True
    return schema_of(model) in (pair_run.SCHEMA, streaming_run.SCHEMA)


def evaluate_scenes(
    model: Path,
    data: Path,
    *,
    part: Part = "test",
    seconds: float = 10.0,
    reading: ReadingSettings | None = None,
    chosen: bool = False,
    runtime: str = "auto",
    device: str = "auto",
    quiet: bool = False,
) -> SceneEvaluation:
    """Score the recordings of a folder in DESED's layout and judge what is found in them.

    Parameters
    ----------
    model : run of a detection recipe (decided as published), run of `streaming` or bundle of kind
        `frames` (both decided by the sensor's detector)
    part : of the folder
    seconds : length of the recordings, where no recipe says it: for a bundle
    reading : what is done with recordings that are not as expected; None: what the run's recipe
        says, or refuse them
    chosen : decide a run of a detection recipe with the thresholds that it chose on validation,
        instead of the published ones

    Raises
    ------
    InputError
        The model is of another kind, or the folder has no such part.
    """
    where = choose_device(device)

    def features_of(
        labels: Sequence[str], front_end: FrontEnd, seconds: float, settings: ReadingSettings
    ) -> FeatureCache:
        how = settings.reading(seconds, front_end.sample_rate_hz)
        scenes = read_held_out(data, part, how, labels, quiet=quiet)
        return open_features(scenes, front_end, seconds, quiet=quiet)

    if not model.is_dir():
        bundle, interpreter, _ = open_bundle(model, runtime)
        if not isinstance(interpreter, FrameInterpreter):
            raise InputError(
                f"{model}: is of kind '{bundle.manifest.kind}', which tells what a clip is, not "
                "when sounds begin and end; give --data a folder of labelled clips, or a bundle "
                "of kind 'frames'"
            )
        manifest = bundle.manifest
        features = features_of(
            manifest.labels, manifest.front_end, seconds, reading or ReadingSettings()
        )
        judged = judge_bundle(manifest, interpreter, features, quiet=quiet)
        name = f"bundle {model} ({manifest.weights})"
        return SceneEvaluation(name, interpreter.runtime, part, judged.figures)
    schema = schema_of(model)
    if schema == streaming_run.SCHEMA:
        run = streaming_run.load_streaming_run(model)
        features = features_of(
            run.student.labels,
            run.recipe.front_end,
            run.recipe.batch.seconds,
            reading or run.recipe.reading,
        )
        judged = judge_on_device(
            features.scenes.scenes,
            streaming_run.score_student(run.student.network, features, where),
            run.detector.classes,
            features.front_end,
            run.detector.look_ahead_frames,
            run.detector.chunk_frames,
        )
    elif schema == pair_run.SCHEMA:
        trained = pair_run.load_detection_run(model)
        recipe = trained.recipe
        features = features_of(
            trained.labels, recipe.front_end, recipe.batch.seconds, reading or recipe.reading
        )
        student = trained.pair.student.to(where)
        frames, clips = score_scenes(student, in_order(features, _AT_ONCE), where)
        hop_s = recipe.front_end.hop_length / recipe.front_end.sample_rate_hz
        judged = judge_published(
            features.scenes.scenes,
            trained.labels,
            frames,
            clips,
            trained.windows.frames(trained.labels, hop_s),
            trained.decision if chosen else recipe.filter,
            recipe.front_end,
        )
    elif not schema:
        raise InputError(
            f"{model}: is not a run folder ({SETTINGS} is missing or broken); give what "
            "`soundpost train --out` wrote"
        )
    else:
        raise InputError(
            f"{model}: tells what a clip is, and {data} holds recordings with times; give --data "
            "a folder of labelled clips"
        )
    engine = f"torch {torch.__version__} on {where.type}"
    return SceneEvaluation(f"run {model}", engine, part, judged.figures)


def judge_bundle(
    manifest: Manifest, interpreter: FrameInterpreter, features: FeatureCache, *, quiet: bool
) -> Judged:
    """What the sensor would find in recordings with this bundle."""
    assert manifest.frames is not None
    bar = tqdm(
        range(len(features.scenes.scenes)), "scoring", unit="recording", disable=quiet, leave=False
    )
    scores: list[FloatArray] = [
        sigmoid(score_features(features.log_mel([index])[0].numpy(), manifest, interpreter))
        for index in bar
    ]
    return judge_on_device(
        features.scenes.scenes,
        scores,
        manifest.classes,
        manifest.front_end,
        manifest.frames.look_ahead_frames,
        manifest.n_frames,
    )
