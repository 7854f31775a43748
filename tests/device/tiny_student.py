"""A student small enough to work out by hand: one matrix from the patch to each output.

Written as a TFLite file with the format's own schema, without any converter, so that what the
interpreter returns can be compared with two lines of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from soundpost.device.bundle import Golden, Manifest, TrainingData
from soundpost.device.detection import ClassSettings
from soundpost.device.features import FrontEnd, log_mel
from soundpost.device.interpreter import Quantisation, load_interpreter

N_FRAMES, N_MELS, N_EMBEDDING = 10, 64, 2
LABELS = ("clap", "smoke_alarm", "water drops")

# Scales of the int8 student; a float one has none.
INPUT = Quantisation(12.0 / 255, 21)
WEIGHT_SCALE = 0.001
OUTPUTS = {"logits": Quantisation(16.0 / 255, 0), "embedding": Quantisation(0.05, -5)}


@dataclass(frozen=True)
class TinyStudent:
    """The file and the matrices in it, as (n_frames * n_mels, n_outputs) real values."""

    model: bytes
    weights: dict[str, NDArray[np.float64]]
    quantised: bool

    def outputs(self, patch: NDArray[np.float32], name: str) -> NDArray[np.float64]:
        """What the file must return, without any rounding of the result."""
        values = patch.astype(np.float64).reshape(-1)
        if self.quantised:
            steps = np.clip(np.floor(values / INPUT.scale + 0.5) + INPUT.zero_point, -128, 127)
            values = (steps - INPUT.zero_point) * INPUT.scale
        return values @ self.weights[name]


def tiny_student(
    *,
    quantised: bool = True,
    n_labels: int = len(LABELS),
    signature: str = "scores",
    zero: bool = False,
) -> TinyStudent:
    rng = np.random.default_rng(7)
    size = N_FRAMES * N_MELS
    sizes = {"logits": n_labels, "embedding": N_EMBEDDING}
    steps = {name: rng.integers(-20, 21, (n, size)).astype(np.int8) for name, n in sizes.items()}
    steps = {name: value * (not zero) for name, value in steps.items()}
    real = {name: value.astype(np.float64) * WEIGHT_SCALE for name, value in steps.items()}
    types = schema.TensorType
    kind = types.INT8 if quantised else types.FLOAT32
    buffers = [schema.BufferT()]
    tensors: list[schema.TensorT] = []

    def tensor(
        name: str, shape: list[int], dtype: int, how: Quantisation | None, data: bytes = b""
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name.encode(), shape, dtype
        if data:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            buffers.append(buffer)
            made.buffer = len(buffers) - 1
        if how is not None and quantised:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = [how.scale]
            made.quantization.zeroPoint = [how.zero_point]
        tensors.append(made)
        return len(tensors) - 1

    entry = tensor("patch", [1, N_FRAMES, N_MELS, 1], kind, INPUT)
    shape = tensor("shape", [2], types.INT32, None, np.array([1, size], np.int32).tobytes())
    flat = tensor("flat", [1, size], kind, INPUT)

    def operator(code: int, inputs: list[int], output: int, options: object, which: int) -> object:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        made.builtinOptions, made.builtinOptionsType = options, which
        return made

    options = schema.BuiltinOptions
    operators = [
        operator(0, [entry, shape], flat, schema.ReshapeOptionsT(), options.ReshapeOptions)
    ]
    exits = {}
    for name, n in sizes.items():
        content = steps[name] if quantised else real[name].astype(np.float32)
        weights = tensor(
            f"{name}/w", [n, size], kind, Quantisation(WEIGHT_SCALE, 0), content.tobytes()
        )
        exits[name] = tensor(name, [1, n], kind, OUTPUTS[name])
        operators.append(
            operator(
                1,
                [flat, weights, -1],
                exits[name],
                schema.FullyConnectedOptionsT(),
                options.FullyConnectedOptions,
            )
        )

    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, operators
    graph.inputs, graph.outputs = [entry], [exits["embedding"], exits["logits"]]
    codes = []
    for builtin, version in (
        (schema.BuiltinOperator.RESHAPE, 1),
        (schema.BuiltinOperator.FULLY_CONNECTED, 4 if quantised else 1),
    ):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = version
        codes.append(code)

    def named(name: str, index: int) -> object:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), index
        return made

    definition = schema.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = signature.encode(), 0
    definition.inputs = [named("patch", entry)]
    definition.outputs = [named(name, index) for name, index in exits.items()]
    model = schema.ModelT()
    model.version, model.description = 3, b"tiny"
    model.operatorCodes, model.subgraphs, model.buffers = codes, [graph], buffers
    model.signatureDefs = [definition]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    matrices = {name: value.T for name, value in real.items()}
    return TinyStudent(bytes(builder.Output()), matrices, quantised)


def tiny_manifest(labels: tuple[str, ...] = LABELS, *, quantised: bool = True) -> Manifest:
    """A manifest with every field filled."""
    front_end = FrontEnd()
    none = Quantisation()
    return Manifest(
        name="tiny",
        version="1.2.0-rc.1",
        created="2026-11-20T10:00:01.250000Z",
        labels=labels,
        front_end=front_end,
        window_samples=front_end.samples_of(N_FRAMES),
        hop_samples=5 * front_end.hop_length,
        classes=tuple(
            ClassSettings(
                label,
                onset=0.62,
                release=0.4,
                smoothing="none" if label == "smoke_alarm" else "median",
                smoothing_windows=1 if label == "smoke_alarm" else 3,
                min_duration_s=0.25,
                min_gap_s=1.5,
                cadence="T3" if label == "smoke_alarm" else None,
            )
            for label in labels
        ),
        quantisation={
            "input": Quantisation(float(np.float32(INPUT.scale)), INPUT.zero_point),
            "logits": Quantisation(float(np.float32(OUTPUTS["logits"].scale)), 0),
            "embedding": Quantisation(float(np.float32(OUTPUTS["embedding"].scale)), -5),
        }
        if quantised
        else {"input": none, "logits": none, "embedding": none},
        licence="CC-BY-4.0",
        training_data=(
            TrainingData("claps", 3, {"CC-BY-4.0": 1, "CC0-1.0": 2}, ("A clap by Zoë",)),
        ),
    )


def tiny_golden(student: TinyStudent, manifest: Manifest, n_windows: int = 3) -> Golden:
    front_end = manifest.front_end
    hop = manifest.hop_samples // front_end.hop_length
    n_samples = manifest.window_samples + (n_windows - 1) * manifest.hop_samples
    samples = np.random.default_rng(3).uniform(-0.5, 0.5, n_samples).astype(np.float32)
    features = log_mel(samples, front_end)
    interpreter = load_interpreter(student.model)
    outputs = [interpreter.run(features[i * hop :][:N_FRAMES]) for i in range(n_windows)]
    return Golden(
        samples,
        features,
        np.stack([output.logits for output in outputs]),
        np.stack([output.embedding for output in outputs]),
    )
