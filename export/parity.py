"""The same real windows through torch, ONNX Runtime, float TFLite and int8 TFLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import nn
from tqdm import tqdm

from soundpost.device.errors import ExportError
from soundpost.device.features import FloatArray
from soundpost.device.interpreter import Interpreter, load_interpreter, sigmoid
from soundpost.export.gates import top1_agreement
from soundpost.export.tflite import TFLiteModels
from soundpost.export.windows import LabelledWindows
from soundpost.train.loop import score_patches
from soundpost.train.metrics import ClipFigures, clip_figures, clip_means, label_matrix

TORCH, ONNX, FLOAT_TFLITE, INT8_TFLITE = "torch", "ONNX Runtime", "float32 TFLite", "int8 TFLite"
ENGINES = (TORCH, ONNX, FLOAT_TFLITE, INT8_TFLITE)


@dataclass(frozen=True)
class ParityBounds:
    """How much the int8 model may lose against torch; past one of these the export fails.

    top1_agreement : least share of windows whose best label is the same
    accuracy_drop : of clip top-1 accuracy, as a share (0.01 is one point)
    class_drop : of one label's average precision over clips, where it has `class_clips` or more:
        with fewer, one clip that changes place is a larger step than that
    """

    top1_agreement: float = 0.97
    accuracy_drop: float = 0.010
    class_drop: float = 0.10
    class_clips: int = 5


@dataclass(frozen=True)
class EngineParity:
    """One engine against torch, over all windows.

    max_difference, mean_difference : of probabilities
    top1_agreement : share of windows whose best label is torch's
    figures : over recorded clips
    average_precision : by label, over all clips, so that synthesised alarms have one too
    """

    engine: str
    max_difference: float
    mean_difference: float
    top1_agreement: float
    figures: ClipFigures
    average_precision: dict[str, float]


@dataclass(frozen=True)
class Parity:
    """All engines, torch first, and their logits (n_windows, n_labels) by engine."""

    engines: tuple[EngineParity, ...]
    logits: dict[str, FloatArray]
    n_windows: int
    runtime: str

    def of(self, engine: str) -> EngineParity:
        """One engine's row."""
        return next(row for row in self.engines if row.engine == engine)

    def class_drop(self, label: str) -> float:
        """Average precision that a label loses from torch to int8 (negative: it gains)."""
        before, after = (self.of(e).average_precision for e in (TORCH, INT8_TFLITE))
        return before[label] - after[label]


def _onnx_scorer(model: bytes) -> Callable[[FloatArray], FloatArray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def score(patch: FloatArray) -> FloatArray:
        logits: FloatArray = session.run(["logits"], {"patch": patch[None, None]})[0][0]
        return logits

    return score


def _tflite_scorer(interpreter: Interpreter) -> Callable[[FloatArray], FloatArray]:
    return lambda patch: interpreter.run(patch).logits


def score_all(
    student: nn.Module,
    onnx_model: bytes,
    models: TFLiteModels,
    patches: FloatArray,
    *,
    quiet: bool = False,
) -> tuple[dict[str, FloatArray], str]:
    """Logits (n, n_labels) of patches (n, n_frames, n_mels) by engine, and the TFLite runtime."""
    # Activations of a larger batch are returned to the kernel and faulted in again: 3 x slower.
    logits = {TORCH: score_patches(student, patches, torch.device("cpu"), batch=32)}
    interpreters = {
        FLOAT_TFLITE: load_interpreter(models.float32),
        INT8_TFLITE: load_interpreter(models.int8),
    }
    scorers = {ONNX: _onnx_scorer(onnx_model)}
    scorers |= {name: _tflite_scorer(interpreter) for name, interpreter in interpreters.items()}
    for name, score in scorers.items():
        bar = tqdm(patches, f"scoring with {name}", unit="window", disable=quiet, leave=False)
        logits[name] = np.stack([score(patch) for patch in bar])
    return logits, interpreters[INT8_TFLITE].runtime


def measure_parity(
    logits: dict[str, FloatArray], windows: LabelledWindows, labels: Sequence[str], runtime: str
) -> Parity:
    """Compare engines on windows, and on the clips that those belong to."""
    reference = logits[TORCH]
    expected = sigmoid(reference)
    rows = []
    for engine in ENGINES:
        scores = sigmoid(logits[engine])
        differences = np.abs(scores - expected)
        rows.append(
            EngineParity(
                engine,
                float(differences.max()),
                float(differences.mean()),
                top1_agreement(reference, logits[engine]),
                *figures_of(logits[engine], windows, labels),
            )
        )
    return Parity(tuple(rows), logits, len(reference), runtime)


def figures_of(
    logits: FloatArray, windows: LabelledWindows, labels: Sequence[str]
) -> tuple[ClipFigures, dict[str, float]]:
    """Figures over recorded clips with a label, and average precision by label over all clips."""
    truth = label_matrix(windows.clip_labels, len(labels))
    means = clip_means(sigmoid(logits), windows.clips, len(truth))
    recorded = ~windows.synthesised & truth.any(axis=1)
    precision = {
        label: float(average_precision_score(truth[:, index], means[:, index]))
        for index, label in enumerate(labels)
        if truth[:, index].any()
    }
    return clip_figures(means[recorded], truth[recorded], labels), precision


def check_parity(
    parity: Parity, windows: LabelledWindows, labels: Sequence[str], bounds: ParityBounds
) -> None:
    """Raise ExportError where int8 loses more than the bounds allow, naming the label that does."""
    torch_row, int8_row = parity.of(TORCH), parity.of(INT8_TFLITE)
    truth = label_matrix(windows.clip_labels, len(labels))
    worst = _worst_label(parity.logits, truth[windows.clips], labels)
    if int8_row.top1_agreement < bounds.top1_agreement:
        raise ExportError(
            f"int8 model: best label agrees with torch in {int8_row.top1_agreement:.3f} of the "
            f"windows: expected at least {bounds.top1_agreement:g}; it is worst on '{worst}'; "
            "train longer or with more weight decay"
        )
    drop = torch_row.figures.top1 - int8_row.figures.top1
    if drop > bounds.accuracy_drop + 1e-9:
        raise ExportError(
            f"int8 model: clip accuracy falls by {100 * drop:.1f} points from "
            f"{100 * torch_row.figures.top1:.1f} %: expected at most "
            f"{100 * bounds.accuracy_drop:g}; it is worst on '{worst}'"
        )
    counts = truth.sum(axis=0)
    drops = {
        label: parity.class_drop(label)
        for index, label in enumerate(labels)
        if counts[index] >= bounds.class_clips
    }
    label = max(drops, key=lambda name: drops[name], default="")
    if label and drops[label] > bounds.class_drop:
        raise ExportError(
            f"int8 model: average precision of '{label}' falls by {drops[label]:.3f} from "
            f"{torch_row.average_precision[label]:.3f}: expected at most "
            f"{bounds.class_drop:g}; give it more training clips"
        )


def _worst_label(
    logits: dict[str, FloatArray], has: NDArray[np.bool_], labels: Sequence[str]
) -> str:
    """Label whose windows, True in has (n_windows, n_labels), agree least: torch and int8."""
    present = [int(k) for k in np.flatnonzero(has.any(axis=0))]
    a, b = logits[TORCH], logits[INT8_TFLITE]
    agreement = [top1_agreement(a[has[:, k]], b[has[:, k]]) for k in present]
    return labels[present[int(np.argmin(agreement))]]
