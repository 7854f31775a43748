"""A run folder to a model bundle: torch, ONNX, TFLite, gates, parity, thresholds, card."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from soundpost.device.bundle import Manifest, TrainingData, write_bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.interpreter import load_interpreter, sigmoid
from soundpost.export.gates import (
    RuntimeAgreement,
    check_float,
    check_full_int8,
    check_operators,
    check_runtimes,
)
from soundpost.export.golden import golden_tolerance, make_golden
from soundpost.export.identity import bundle_name, check_out, created_at
from soundpost.export.model_card import CardFacts, HeardRow, render_card, training_data
from soundpost.export.onnx_export import export_onnx
from soundpost.export.parity import (
    FLOAT_TFLITE,
    INT8_TFLITE,
    ONNX,
    TORCH,
    Parity,
    ParityBounds,
    check_parity,
    figures_of,
    measure_parity,
    score_all,
)
from soundpost.export.representative import draw_representative
from soundpost.export.tflite import TFLiteModels, convert_to_tflite
from soundpost.export.thresholds import ThresholdRule, choose_classes, clip_peaks
from soundpost.export.windows import (
    ExportWindows,
    LabelledWindows,
    load_windows,
    recipe_of,
)
from soundpost.train.metrics import ClipFigures, label_matrix
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT
from soundpost.train.recipe import SENSOR_KIND
from soundpost.train.run import SCHEMA as CLIPS_SCHEMA
from soundpost.train.run import WEIGHTS, TrainedRun, load_run, schema_of
from soundpost.train.sed.run import SCHEMA as PAIR_SCHEMA
from soundpost.train.windows import HOP_FRAMES

# Windows that both device runtimes are compared on; tflite-runtime takes 5 ms for each.
N_RUNTIME_WINDOWS = 200
# Words of labels, as in AudioSet's ontology, that mean intelligible voices.
_SPEECH_WORDS = frozenset(
    ("conversation", "narration", "shout", "speaking", "speech", "talking", "voice", "whispering")
)


@dataclass(frozen=True)
class ExportOptions:
    """What a person may choose.

    name : of the bundle; the recipe's by default
    version : semantic version
    licence : of the weights, in the exporter's words
    notes : Markdown for the model card
    bounds, rule : see ParityBounds and ThresholdRule
    """

    name: str = ""
    version: str = "1.0.0"
    licence: str = ""
    notes: str = ""
    bounds: ParityBounds = field(default_factory=ParityBounds)
    rule: ThresholdRule = field(default_factory=ThresholdRule)


@dataclass(frozen=True)
class ExportResult:
    """What was written and how it compares."""

    out: Path
    sha256: str
    manifest: Manifest
    facts: CardFacts


@dataclass(frozen=True)
class WindowModel:
    """A trained student of windows, as the export takes it.

    network : (1, 1, n_frames, n_mels) log-mel to logits and embedding
    recipe : name of what it was trained by; of the bundle where it is given no other
    weights : the file that says when it was trained
    training_data : what it was trained on
    provenance : rows of the card
    """

    network: nn.Module
    labels: tuple[str, ...]
    front_end: FrontEnd
    n_frames: int
    seed: int
    recipe: str
    weights: Path
    training_data: tuple[TrainingData, ...]
    provenance: tuple[tuple[str, str], ...]


def export_run(
    folder: Path,
    data: Path | None,
    out: Path,
    options: ExportOptions,
    *,
    quiet: bool = False,
) -> ExportResult:
    """Export a run; the bundle appears under its name only when every check has passed.

    Parameters
    ----------
    folder : what `soundpost train` wrote
    data : the clips it was trained with; where the run says they are, by default
    out : the bundle to write

    Raises
    ------
    InputError
        The run or its data cannot be used, or the bundle cannot be written.
    ExportError
        The conversion failed, or the int8 model is not as good as the float one.
    """
    check_out(out)
    check_exportable(folder)
    run = load_run(folder)
    recipe = recipe_of(run)
    # Names that no manifest takes are refused before the long work.
    bundle_name(options.name, recipe.name, options.version)
    where = data or Path(run.settings["data"]["path"])
    windows = load_windows(run, where, quiet=quiet)
    model = WindowModel(
        run.network,
        run.labels,
        run.front_end,
        run.n_frames,
        recipe.training.seed,
        recipe.name,
        folder / WEIGHTS,
        training_data(windows.trained_on, Path(run.settings["data"]["path"]).name),
        _provenance(run),
    )
    return export_windows(model, windows, out, options, quiet=quiet)


def export_windows(
    model: WindowModel,
    windows: ExportWindows,
    out: Path,
    options: ExportOptions,
    *,
    quiet: bool = False,
) -> ExportResult:
    """Export a student of windows, judged on some; raises as `export_run` does."""
    check_out(out)
    name = bundle_name(options.name, model.recipe, options.version)
    created = created_at(model.weights)
    converted = _convert(model, windows, quiet)
    judged = _judge(model, converted, windows, options, quiet)
    manifest = _manifest(model, name, options, created, converted, judged)
    facts = CardFacts(
        parity=judged.parity,
        bounds=options.bounds,
        rule=options.rule,
        figures=judged.figures,
        heard=judged.heard,
        heard_on="on test clips" if windows.test else "on the validation clips themselves",
        runtimes=judged.runtimes,
        operators=converted.operators,
        n_representative=converted.n_representative,
        model_bytes=len(converted.models.int8),
        provenance=model.provenance,
        notes=options.notes,
    )
    interpreter = load_interpreter(converted.models.int8)
    golden = make_golden(
        interpreter, model.front_end, manifest.window_samples, manifest.hop_samples
    )
    tolerance = golden_tolerance(converted.models.int8, golden, manifest)
    manifest = replace(manifest, golden=tolerance)
    card = render_card(manifest, facts)
    sha256 = write_bundle(out, manifest, converted.models.int8, golden, card)
    return ExportResult(out, sha256, manifest, facts)


def check_exportable(folder: Path) -> None:
    """Raise InputError for a run that is no sensor's: of a detection recipe, or a teacher."""
    if schema_of(folder) == PAIR_SCHEMA:
        raise InputError(
            f"{folder}: hears ten seconds at once, which a sensor cannot wait for; distil a "
            f"streaming student from it: soundpost train streaming --teacher {folder}"
        )
    if schema_of(folder) == CLIPS_SCHEMA:
        kind = load_run(folder).model.kind
        if kind != SENSOR_KIND:
            raise InputError(
                f"{folder}: is of kind {kind}, which no sensor runs; distil a {SENSOR_KIND} from "
                f"it: soundpost train esc50_taught --data DIR --live-teacher {folder}"
            )


@dataclass(frozen=True)
class _Converted:
    onnx: bytes
    models: TFLiteModels
    operators: Counter[tuple[str, int]]
    n_representative: int


def _convert(model: WindowModel, windows: ExportWindows, quiet: bool) -> _Converted:
    onnx_model = export_onnx(model.network, model.n_frames, model.front_end.n_mels)
    training = windows.training
    representative = draw_representative(
        training.patches, training.window_labels, model.front_end, model.seed
    )
    models = convert_to_tflite(onnx_model, representative, quiet=quiet)
    check_operators(models.float32)
    operators = check_operators(models.int8)
    check_full_int8(models.int8, model.front_end)
    return _Converted(onnx_model, models, operators, len(representative))


@dataclass(frozen=True)
class _Judged:
    parity: Parity
    runtimes: RuntimeAgreement | None
    classes: tuple[ClassSettings, ...]
    figures: dict[str, tuple[ClipFigures, ClipFigures]]
    heard: dict[str, HeardRow]


def _judge(
    model: WindowModel,
    converted: _Converted,
    windows: ExportWindows,
    options: ExportOptions,
    quiet: bool,
) -> _Judged:
    validation, test, labels = windows.validation, windows.test, model.labels
    held_out = validation.joined(test) if test else validation
    logits, runtime = score_all(
        model.network, converted.onnx, converted.models, held_out.patches, quiet=quiet
    )
    for engine in (ONNX, FLOAT_TFLITE):
        check_float(logits[TORCH], logits[engine], engine)
    step = -(-len(held_out.patches) // N_RUNTIME_WINDOWS)
    runtimes = check_runtimes(converted.models.int8, held_out.patches[::step])
    parity = measure_parity(logits, held_out, labels, runtime)
    check_parity(parity, held_out, labels, options.bounds)

    n_validation = len(validation.patches)
    roles = {"validation": (validation, slice(0, n_validation))}
    if test:
        roles["test"] = (test, slice(n_validation, None))
    figures = {
        name: (
            figures_of(logits[TORCH][part], clips, labels)[0],
            figures_of(logits[INT8_TFLITE][part], clips, labels)[0],
        )
        for name, (clips, part) in roles.items()
    }
    scores = sigmoid(logits[INT8_TFLITE])
    classes = choose_classes(
        scores[:n_validation], validation.clips, validation.clip_labels, labels, options.rule
    )
    clips, part = list(roles.values())[-1]
    return _Judged(parity, runtimes, classes, figures, heard_at(scores[part], clips, classes))


def heard_at(
    scores: FloatArray, windows: LabelledWindows, classes: tuple[ClassSettings, ...]
) -> dict[str, HeardRow]:
    """In how many clips each label reaches its onset, rightly and wrongly.

    Parameters
    ----------
    scores : (n_windows, n_labels)
    """
    rows = {}
    truth = label_matrix(windows.clip_labels, len(classes))
    for index, settings in enumerate(classes):
        peaks = clip_peaks(scores[:, index : index + 1], windows.clips, settings)
        heard = peaks[:, 0] >= settings.onset
        positive = truth[:, index]
        rows[settings.label] = HeardRow(
            int(positive.sum()),
            int((heard & positive).sum()),
            int((~positive).sum()),
            int((heard & ~positive).sum()),
        )
    return rows


def means_speech(label: str) -> bool:
    """Whether a label names people who speak, such as `speech` or `Male speech, man speaking`."""
    return not _SPEECH_WORDS.isdisjoint(re.findall(r"[a-z]+", label.lower()))


def _manifest(
    model: WindowModel,
    name: str,
    options: ExportOptions,
    created: str,
    converted: _Converted,
    judged: _Judged,
) -> Manifest:
    return Manifest(
        name=name,
        version=options.version,
        created=created,
        labels=model.labels,
        front_end=model.front_end,
        window_samples=model.front_end.samples_of(model.n_frames),
        hop_samples=HOP_FRAMES * model.front_end.hop_length,
        classes=judged.classes,
        quantisation=load_interpreter(converted.models.int8).quantisation,
        logit_limit=LOGIT_LIMIT,
        speech_labels=tuple(label for label in model.labels if means_speech(label)),
        licence=options.licence,
        training_data=model.training_data,
    )


def _provenance(run: TrainedRun) -> tuple[tuple[str, str], ...]:
    settings, recipe = run.settings, recipe_of(run)
    data = settings["data"]
    rows = [
        ("recipe", f"{recipe.name}, {recipe.training.epochs} epochs, seed {recipe.training.seed}"),
        ("student", f"{recipe.model.kind}, width {recipe.model.width:g}"),
        ("code", str(settings.get("git", "unknown"))),
        ("training folds", ", ".join(map(str, data["folds_train"]))),
        ("clips trained on", str(data["n_train"])),
        ("clips for thresholds (of the training folds, other groups)", str(data["n_validation"])),
        ("fold held out for the report", str(data["fold_test"])),
    ]
    if recipe.data.alarms:
        rows.append(("synthesised alarms and beepers", f"{recipe.data.alarms} of each alarm label"))
    return tuple(rows)
