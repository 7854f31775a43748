"""What a converted model must satisfy before any figure about it is believed.

Several failures of the conversion are silent, so that each is looked for: operators that a runtime
lacks or has in another version, float left inside int8, scales that say nothing, axes swapped,
kernels that disagree.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from soundpost.device.errors import ExportError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.interpreter import (
    INT8_HIGH,
    INT8_LOW,
    Interpreter,
    available_runtimes,
    load_interpreter,
    sigmoid,
)

# Highest version of each operator that tflite-runtime 2.14 (TensorFlow 2.14) registers and that our
# students were seen to run with; ai-edge-litert has them all.
ALLOWED_OPERATORS = {
    "ADD": 4,
    "AVERAGE_POOL_2D": 3,
    "CONCATENATION": 3,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "FULLY_CONNECTED": 9,
    "GATHER": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 4,
    "MEAN": 3,
    "MINIMUM": 4,
    "MUL": 6,
    "PACK": 2,
    "PAD": 4,
    "PADV2": 4,
    "RELU": 2,
    "RELU6": 2,
    "RESHAPE": 1,
    "STRIDED_SLICE": 5,
    "SUB": 3,
    "TANH": 2,
    "TRANSPOSE": 4,
    "UNPACK": 2,
}

FLOAT_TOLERANCE = 1e-4
# Two runtimes' int8 kernels round each layer differently (XNNPACK: to nearest even; reference: away
# from zero), and 50 layers carry that on: half a step to two steps of the logits on average, 0.001
# to 0.006 in probability, and the best label of one window in 25, mostly unsure ones. A runtime
# that misreads a model is far beyond this.
MEAN_SCORE_DIFFERENCE = 0.02
LEAST_RUNTIME_AGREEMENT = 0.92
# The input scale must spend its 255 steps on the clamped range, give or take this share.
_RANGE_SLACK = 0.05

_OPERATOR_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
_FLOAT_TYPES = (
    schema.TensorType.FLOAT32,
    schema.TensorType.FLOAT16,
    schema.TensorType.FLOAT64,
)


@dataclass(frozen=True)
class RuntimeAgreement:
    """How far two runtimes are apart on the same patches: in steps of the logits, in scores."""

    runtimes: tuple[str, str]
    mean_quanta: float
    max_quanta: float
    mean_score: float
    max_score: float
    top1_agreement: float


def _parse(model: bytes) -> schema.ModelT:
    try:
        parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    except (ValueError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise ExportError(f"converted model: is no TFLite file ({error})") from error
    if not parsed.subgraphs or parsed.operatorCodes is None:
        raise ExportError("converted model: is empty")
    return parsed


def operators(model: bytes) -> Counter[tuple[str, int]]:
    """Number of operators by (name, version); a custom one is named "CUSTOM:its code"."""
    parsed = _parse(model)
    counts: Counter[tuple[str, int]] = Counter()
    for graph in parsed.subgraphs:
        for operator in graph.operators:
            code = parsed.operatorCodes[operator.opcodeIndex]
            # Older files hold codes below 127 in the deprecated field only.
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            name = _OPERATOR_NAMES.get(number, f"operator {number}")
            if number == schema.BuiltinOperator.CUSTOM:
                name = f"CUSTOM:{(code.customCode or b'?').decode('utf-8', 'replace')}"
            counts[name, code.version] += 1
    return counts


def check_operators(model: bytes) -> Counter[tuple[str, int]]:
    """Only operators of the allow-list, in versions that both runtimes have; returns them."""
    found = operators(model)
    for name, version in sorted(found):
        if name not in ALLOWED_OPERATORS:
            raise ExportError(
                f"operator {name} (version {version}) is not in the allow-list; write the student "
                "without it"
            )
        if version > ALLOWED_OPERATORS[name]:
            raise ExportError(
                f"operator {name} has version {version}: tflite-runtime has up to "
                f"{ALLOWED_OPERATORS[name]}; write the student without it"
            )
    return found


def check_full_int8(model: bytes, front_end: FrontEnd, inputs: Sequence[str] = ()) -> None:
    """No float inside, convolutions scaled per channel, the input scale fits the front end.

    inputs : names of those that hold log-mel values; the only one by default
    """
    parsed = _parse(model)
    graph = parsed.subgraphs[0]
    convolutions = 0
    for operator in graph.operators:
        code = parsed.operatorCodes[operator.opcodeIndex]
        name = _OPERATOR_NAMES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "?")
        for index in [*operator.inputs, *operator.outputs]:
            if index >= 0 and graph.tensors[index].type in _FLOAT_TYPES:
                raise ExportError(f"int8 model: operator {name} works in float")
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weights = graph.tensors[operator.inputs[1]]
            n_channels = weights.shape[0 if name == "CONV_2D" else 3]
            scales = weights.quantization.scale
            if scales is None or len(scales) != n_channels:
                raise ExportError(f"int8 model: {name} is not quantised per channel")
            if not (np.isfinite(scales).all() and (np.asarray(scales) > 0).all()):
                raise ExportError(f"int8 model: {name} has a scale that is no positive number")
            convolutions += 1
    if not convolutions:
        raise ExportError("int8 model: has no convolutions")
    places = signature_inputs(model)
    for entry in [places[name] for name in inputs] or [graph.inputs[0]]:
        covered = covered_range(graph.tensors[entry])
        wanted = (front_end.clamp_low, front_end.clamp_high)
        # A range that does not hold zero is widened to it: 0 must be a whole step.
        wanted = (min(wanted[0], 0.0), max(wanted[1], 0.0))
        slack = _RANGE_SLACK * (wanted[1] - wanted[0])
        if max(abs(covered[0] - wanted[0]), abs(covered[1] - wanted[1])) > slack:
            raise ExportError(
                f"int8 model: its input covers {covered[0]:.2f} to {covered[1]:.2f}, the front end "
                f"{wanted[0]:g} to {wanted[1]:g}: the representative set does not span the range"
            )
    for index in graph.outputs:
        scales = graph.tensors[index].quantization.scale
        if not 1e-6 < float(scales[0]) < 10.0:
            raise ExportError(f"int8 model: output scale {float(scales[0]):.2g} carries nothing")


def signature_inputs(model: bytes) -> dict[str, int]:
    """Tensor numbers of a model's inputs by their names within its first signature."""
    definitions = _parse(model).signatureDefs or []
    return {
        known.name.decode(): int(known.tensorIndex)
        for definition in definitions[:1]
        for known in definition.inputs
    }


def covered_range(tensor: schema.TensorT) -> tuple[float, float]:
    """Least and greatest real value that an int8 tensor can hold."""
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    return (INT8_LOW - zero_point) * scale, (INT8_HIGH - zero_point) * scale


def run_patches(interpreter: Interpreter, patches: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logits (n, n_labels) and embedding (n, n_embedding) of patches (n, n_frames, n_mels)."""
    outputs = [interpreter.run(patch) for patch in patches]
    return np.stack([o.logits for o in outputs]), np.stack([o.embedding for o in outputs])


def top1_agreement(a: FloatArray, b: FloatArray) -> float:
    """Share of rows (n, n_labels) whose best label is the same."""
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def check_float(expected: FloatArray, found: FloatArray, stage: str) -> float:
    """Float outputs equal torch's within FLOAT_TOLERANCE, relative where they are large."""
    error = float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())
    if not error <= FLOAT_TOLERANCE:
        raise ExportError(
            f"{stage}: differs from torch by {error:.2g}: expected at most {FLOAT_TOLERANCE:g}"
        )
    return error


def check_runtimes(model: bytes, patches: FloatArray) -> RuntimeAgreement | None:
    """Both device runtimes give the same scores, a few int8 steps apart; None with one installed.

    Parameters
    ----------
    patches : (n, n_frames, n_mels) float32, real ones

    Raises ExportError where a runtime refuses the model or they disagree.
    """
    names = [name for name in available_runtimes() if name != "tensorflow"]
    if len(names) < 2:
        return None
    first, second = (load_interpreter(model, name) for name in names[:2])
    a, b = (run_patches(interpreter, patches)[0] for interpreter in (first, second))
    quanta = np.abs(a - b) / (first.quantisation["logits"].scale or 1.0)
    differences = np.abs(sigmoid(a) - sigmoid(b))
    agreement = RuntimeAgreement(
        (first.runtime, second.runtime),
        float(quanta.mean()),
        float(quanta.max()),
        float(differences.mean()),
        float(differences.max()),
        top1_agreement(a, b),
    )
    if (
        agreement.mean_score > MEAN_SCORE_DIFFERENCE
        or agreement.top1_agreement < LEAST_RUNTIME_AGREEMENT
    ):
        raise ExportError(
            f"{first.runtime} and {second.runtime} disagree on the int8 model: scores "
            f"by {agreement.mean_score:.2g} on average, best label in "
            f"{1 - agreement.top1_agreement:.3f} of the windows: expected at most "
            f"{MEAN_SCORE_DIFFERENCE:g} and {1 - LEAST_RUNTIME_AGREEMENT:.2g}"
        )
    return agreement
