"""Training the sensor's student: from a folder in DESED's layout and a trained pair to a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.checkpoint import save_arrays
from soundpost.train.run import SCORES, SETTINGS, claim, git_revision, schema_of
from soundpost.train.sed.batches import Batches, check_kinds, in_order
from soundpost.train.sed.desed import DesedFolder, check_judged, read_desed
from soundpost.train.sed.detector_choice import (
    ChosenDetector,
    choose_detector,
    load_detector,
    save_detector,
    windows_for,
)
from soundpost.train.sed.distil import DistilBatch, StreamingStudent, distil, load_student
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.judging import Judged, judge_on_device
from soundpost.train.sed.run import load_detection_run
from soundpost.train.sed.run_report import write_run_report
from soundpost.train.sed.scenes import Scene, digest
from soundpost.train.sed.stream_teachers import StreamTeacher, open_pair, open_stores
from soundpost.train.sed.streaming import StreamingCRNN
from soundpost.train.sed.streaming_recipe import (
    StreamingRecipe,
    check_shape,
    streaming_recipe_from_dict,
)

SCHEMA = "soundpost.streaming_run/1"
_AT_ONCE = 16


@dataclass(frozen=True)
class StreamingRun:
    """A finished run."""

    folder: Path
    data: Path
    recipe: StreamingRecipe
    student: StreamingStudent
    detector: ChosenDetector
    settings: dict[str, Any]


@torch.no_grad()
def score_student(
    network: StreamingCRNN, features: FeatureCache, device: torch.device | str = "cpu"
) -> list[FloatArray]:
    """Scores (n_frames, n_labels) of each recording of a set, heard from its beginning."""
    network = network.eval().to(device)
    found: list[FloatArray] = []
    for batch in in_order(features, _AT_ONCE):
        scores = network.forward_sequence(batch.log_mel.to(device)).sigmoid()
        found += list(scores.float().cpu().numpy())
    network.to("cpu")
    return found


def train_streaming(
    recipe: StreamingRecipe,
    folder: Path,
    teacher: Path | None,
    run: Path,
    device: torch.device,
    *,
    soft_labels: Sequence[Path] = (),
    quiet: bool = False,
) -> dict[str, Judged]:
    """Train, set the detector on validation recordings, judge, and write the run folder.

    teacher : run of a pair; None where it learns from soft labels
    soft_labels : stores of all training recordings, averaged

    Goes on where an earlier call was killed. Returns "validation" and "test" as the sensor's
    detector decides on the float student's scores.
    """
    front_end = recipe.front_end
    if teacher is not None:
        # What is no teacher is refused before hours of recordings are read.
        load_detection_run(teacher)
    sets = read_scenes(recipe, folder, quiet=quiet)
    windows = windows_for(sets.train, recipe.detector)
    # All that can be refused is, before the folder is this run's.
    check_judged(sets)
    taught_by: StreamTeacher
    if teacher is not None:
        taught_by = open_pair(teacher, sets.train, front_end)
    else:
        taught_by = open_stores(soft_labels, sets.train, recipe)
    check_kinds(sets.train, recipe.batch)
    check_shape(recipe, len(sets.train.labels))
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(sets.train.labels),
        "data": {"sha256": digest(sets.train), "n_train": len(sets.train.scenes)},
        "path": str(folder.resolve()),
        **taught_by.identity(),
        "recipe": dataclasses.asdict(recipe),
        "windows": dataclasses.asdict(windows),
        "git": git_revision(),
        "torch": torch.__version__,
    }
    if teacher is not None:
        # Not used; runs of before there were any go on.
        del settings["recipe"]["soft_labels"]
    claim(run, settings)
    features = open_features(sets.train, front_end, recipe.batch.seconds, quiet=quiet)
    posteriors = taught_by.posteriors(features, device, quiet=quiet)
    data = Batches(features, recipe.batch, recipe.training.seed, posteriors)

    def batches(epoch: int) -> Iterator[DistilBatch]:
        for batch in data.epoch(epoch):
            assert batch.teacher is not None
            yield DistilBatch(batch.log_mel, batch.teacher, batch.frame_targets, batch.has_frames)

    with tqdm(total=recipe.training.epochs, desc="training", unit="epoch", disable=quiet) as bar:

        def told(epoch: int, loss: float) -> None:
            bar.update(epoch + 1 - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        student = distil(
            sets.train.labels,
            batches,
            recipe.training,
            run,
            shape=recipe.model.shape(),
            front_end=front_end,
            n_batches=data.n_batches,
            device=device,
            told=told,
        )
    held = {
        name: open_features(scene_set, front_end, recipe.batch.seconds, quiet=quiet)
        for name, scene_set in (("validation", sets.validation), ("test", sets.test))
        if scene_set is not None
    }
    scores = {name: score_student(student.network, known, device) for name, known in held.items()}
    detector = choose_detector(
        sets.validation.scenes,
        scores["validation"],
        student.labels,
        windows,
        front_end,
        recipe.detector,
        quiet=quiet,
    )
    judged = {
        name: judge_on_device(
            known.scenes.scenes,
            scores[name],
            detector.classes,
            front_end,
            detector.look_ahead_frames,
            detector.chunk_frames,
        )
        for name, known in held.items()
    }
    _save_scores(run / SCORES, folder, {n: (held[n].scenes.scenes, scores[n]) for n in held})
    last = list(held)[-1]
    write_run_report(
        run,
        recipe.name,
        recipe.source,
        (
            f"Trained on {len(sets.train.scenes)} recordings of {folder} with "
            f"{taught_by.told_of()}, {recipe.training.epochs} epochs, seed "
            f"{recipe.training.seed}, code {settings['git']}. Decided by the sensor's detector, in "
            f"chunks of {detector.chunk_frames} frames, on the float student's scores.",
        ),
        judged[last],
        held[last],
        judged["validation"],
        look_ahead_frames=detector.look_ahead_frames,
        chunk_frames=detector.chunk_frames,
    )
    # Last: the run is finished.
    save_detector(detector, run)
    return judged


def read_scenes(recipe: StreamingRecipe, folder: Path, *, quiet: bool = False) -> DesedFolder:
    """The folder as the recipe reads it."""
    reading = recipe.reading.reading(recipe.batch.seconds, recipe.front_end.sample_rate_hz)
    return read_desed(folder, reading, recipe.reading.labels, quiet=quiet)


def _save_scores(
    path: Path, folder: Path, held: dict[str, tuple[tuple[Scene, ...], list[FloatArray]]]
) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for name, (scenes, scores) in held.items():
        arrays[f"{name}_frames"] = np.stack(scores)
        arrays[f"{name}_paths"] = np.array([s.path.relative_to(folder) for s in scenes], str)
    save_arrays(path, arrays)


def load_streaming_run(folder: Path) -> StreamingRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; train again") from error
    if settings.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema is {settings.get('schema')!r}, expected {SCHEMA!r}")
    detector = load_detector(folder)
    recipe = streaming_recipe_from_dict(settings["recipe"], str(path))
    data = Path(settings["path"])
    return StreamingRun(folder, data, recipe, load_student(folder), detector, settings)


def is_streaming_run(folder: Path) -> bool:
    """Whether a folder is a run of a streaming recipe, finished or not."""
    return schema_of(folder) == SCHEMA
