"""A run of `streaming` to a bundle of kind `frames`: the detector set and judged on int8 scores."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ExportError, UsageError
from soundpost.device.features import FloatArray
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import sigmoid
from soundpost.device.manifest import TrainingData
from soundpost.export.frame_bundle import FrameBundleOptions, FrameExport, export_frames
from soundpost.export.frames import score_recording
from soundpost.export.identity import bundle_name, check_out, created_at
from soundpost.train.run import WEIGHTS
from soundpost.train.sed.detector_choice import choose_detector, windows_for
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.judging import Judged, judge_on_device
from soundpost.train.sed.report import HEADLINES, written
from soundpost.train.sed.scenes import SceneSet, digest
from soundpost.train.sed.streaming_run import (
    StreamingRun,
    load_streaming_run,
    read_scenes,
    score_student,
)

# Training recordings whose chunks set the int8 ranges, of which a few hundred are drawn, and
# validation recordings that int8 and float are compared on, frame by frame.
_N_REPRESENTATIVE = _N_COMPARED = 100


@dataclass(frozen=True)
class FrameRunExport:
    """What was written, and how float and int8 decide on the same recordings.

    judged_on : "test" or "validation"
    """

    export: FrameExport
    judged_on: str
    float_judged: Judged
    int8_judged: Judged


def export_streaming_run(
    folder: Path,
    data: Path | None,
    out: Path,
    *,
    name: str = "",
    version: str = "1.0.0",
    licence: str = "",
    notes: str = "",
    most_event_f1_drop: float = 0.015,
    quiet: bool = False,
) -> FrameRunExport:
    """Export a run; the bundle appears under its name only when every gate has passed.

    Parameters
    ----------
    folder : what `soundpost train streaming` wrote
    data : the recordings it was trained with; where the run says they are, by default
    most_event_f1_drop : of int8 against float on the held-out recordings, a share

    Raises
    ------
    InputError
        The run or its data cannot be used, or the bundle cannot be written.
    ExportError
        The conversion failed, or the int8 model is not as good as the float one.
    """
    check_out(out)
    if not 0 <= most_event_f1_drop <= 1:
        raise UsageError(f"--most-event-drop {100 * most_event_f1_drop:g}: expected 0 to 100")
    run = load_streaming_run(folder)
    title = bundle_name(name, run.recipe.name, version)
    sets = read_scenes(run.recipe, data or run.data, quiet=quiet)
    if digest(sets.train) != run.settings["data"]["sha256"]:
        raise UsageError(
            f"--data {data or run.data}: its training recordings are not those of {folder}; give "
            "the folder that the run was trained with"
        )
    seconds, front_end = run.recipe.batch.seconds, run.recipe.front_end
    training = open_features(sets.train, front_end, seconds, quiet=quiet)
    validation = open_features(sets.validation, front_end, seconds, quiet=quiet)
    judged_on, judged_set = ("test", sets.test) if sets.test else ("validation", sets.validation)
    held_out = open_features(judged_set, front_end, seconds, quiet=quiet)
    judgements: dict[str, Judged] = {}

    def choose(interpreter: FrameInterpreter) -> Sequence[ClassSettings]:
        return choose_detector(
            sets.validation.scenes,
            _int8_scores(interpreter, validation, quiet=quiet),
            run.student.labels,
            windows_for(sets.train, run.recipe.detector),
            front_end,
            run.recipe.detector,
            quiet=quiet,
        ).classes

    def judge(interpreter: FrameInterpreter, classes: Sequence[ClassSettings]) -> str:
        float_scores = score_student(run.student.network, held_out)
        int8_scores = _int8_scores(interpreter, held_out, quiet=quiet)
        # Each with thresholds of its own, chosen on its validation scores.
        judgements["float"] = _judge(run, held_out, float_scores, run.detector.classes)
        judgements["int8"] = _judge(run, held_out, int8_scores, classes)
        _check_drop(judgements, judged_on, most_event_f1_drop)
        return _figures_text(judgements, judged_on)

    options = FrameBundleOptions(
        name=title,
        created=created_at(folder / WEIGHTS),
        version=version,
        licence=licence,
        notes=notes,
        training_data=(scene_training_data(sets.train),),
        chunk_frames=run.detector.chunk_frames,
        look_ahead_frames=run.detector.look_ahead_frames,
        seed=run.recipe.training.seed,
    )
    export = export_frames(
        run.student.network,
        run.student.labels,
        front_end,
        _drawn(training, _N_REPRESENTATIVE, run.recipe.training.seed),
        _drawn(validation, _N_COMPARED, run.recipe.training.seed),
        choose,
        out,
        options,
        judge=judge,
        quiet=quiet,
    )
    return FrameRunExport(export, judged_on, judgements["float"], judgements["int8"])


def _drawn(features: FeatureCache, n: int, seed: int) -> list[FloatArray]:
    """Log-mel of so many recordings of a set, of every kind as it comes."""
    rng = np.random.default_rng([seed, 0xD4A])
    drawn = np.sort(rng.permutation(len(features.codes))[:n])
    return list(features.log_mel(drawn).numpy())


def _int8_scores(
    interpreter: FrameInterpreter, features: FeatureCache, *, quiet: bool
) -> list[FloatArray]:
    bar = tqdm(
        range(len(features.codes)), "int8 scores", unit="recording", disable=quiet, leave=False
    )
    return [
        sigmoid(score_recording(interpreter, features.log_mel([index])[0].numpy())) for index in bar
    ]


def _judge(
    run: StreamingRun,
    features: FeatureCache,
    scores: Sequence[FloatArray],
    classes: Sequence[ClassSettings],
) -> Judged:
    return judge_on_device(
        features.scenes.scenes,
        scores,
        classes,
        features.front_end,
        run.detector.look_ahead_frames,
        run.detector.chunk_frames,
    )


def _check_drop(judgements: dict[str, Judged], judged_on: str, most: float) -> None:
    before, after = (judgements[form].figures.headline()["event_f1"] for form in ("float", "int8"))
    if not before - after <= most:
        raise ExportError(
            f"int8 model: event F1 on {judged_on} recordings is {after:.1%}, the float student's "
            f"{before:.1%}: expected at most {100 * most:.1f} points less; train longer or with "
            "more weight decay"
        )


def figures_table(judgements: dict[str, Judged]) -> list[str]:
    """Markdown lines: float and int8 beside each other."""
    headlines = {form: judged.figures.headline() for form, judged in judgements.items()}
    lines = ["| figure | " + " | ".join(headlines) + " |", "|---|" + "---|" * len(headlines)]
    for name, (title, kind) in HEADLINES.items():
        cells = [written(of[name], kind) for of in headlines.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _figures_text(judgements: dict[str, Judged], judged_on: str) -> str:
    events = judgements["int8"].figures.events
    return "\n".join(
        [
            "## Events",
            "",
            f"On {events.n_recordings} {judged_on} recordings, {events.n_seconds / 60:.0f} "
            f"minutes, {sum(events.n_reference.values())} events, with the thresholds below (the "
            "float student with its own), as the sensor's detector decides. The delay ends when "
            "the chunk that decided a start was heard.",
            "",
            *figures_table(judgements),
        ]
    )


def scene_training_data(scenes: SceneSet) -> TrainingData:
    """What the recordings were made of, by attribution.csv of `soundpost soundscapes`.

    Without one, the recordings themselves, of a licence that is not stated.
    """
    name, path = scenes.folder.name, scenes.folder / "attribution.csv"
    if not path.is_file():
        return TrainingData(name, len(scenes.scenes), {"not stated": len(scenes.scenes)})
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split") == "train"]
    licences = Counter(row.get("licence") or "not stated" for row in rows)
    credits = {
        f"{row['attribution']} ({row.get('licence') or 'licence not stated'})"
        for row in rows
        if row.get("attribution")
    }
    return TrainingData(name, len(rows), dict(sorted(licences.items())), tuple(sorted(credits)))
