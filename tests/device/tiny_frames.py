"""A streaming student small enough to work out by hand: two matrices and a leaky memory.

    logits[t] = W chunk[t] + bias + memory
    memory' = memory / 2 + V mean(chunk)

Written as a TFLite file with the format's own schema, without any converter, like tiny_student. In
the int8 one, the memory goes in and comes out with zero points one apart, as converters make them.
"""

from __future__ import annotations

from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from soundpost.device.bundle import Golden, Manifest, score_features
from soundpost.device.detection import ClassSettings
from soundpost.device.features import FrontEnd, log_mel
from soundpost.device.frame_interpreter import load_frame_interpreter
from soundpost.device.interpreter import Quantisation, Signature
from soundpost.device.manifest import FrameSettings, StateTensor

N_FRAMES, N_MELS = 10, 64
# "high" hears the upper half of the mel bands, "low" the lower one.
LABELS = ("high", "low")
SIGNATURE = Signature("frames", "chunk", "logits", "")

INPUT = Quantisation(12.0 / 255, 21)
LOGITS = Quantisation(16.0 / 255, 0)
MEMORY_IN, MEMORY_OUT = Quantisation(0.01, 3), Quantisation(0.01, 2)
WEIGHT_STEP, MIX_STEP, LEAK_STEP = 0.001, 0.00001, 0.5 / 127


@dataclass(frozen=True)
class TinyFrames:
    """The file and what is in it, as real values."""

    model: bytes
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    mix: NDArray[np.float64]
    quantised: bool

    def outputs(
        self, chunk: NDArray[np.float32], memory: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits (n_frames, 2) and the next memory (1, 2), without any rounding of results."""
        values = chunk.astype(np.float64)
        if self.quantised:
            steps = np.clip(np.floor(values / INPUT.scale + 0.5) + INPUT.zero_point, -128, 127)
            values = (steps - INPUT.zero_point) * INPUT.scale
        logits = values @ self.weights + self.bias + memory
        return logits, memory / 2 + values.reshape(1, -1) @ self.mix


def tiny_frames(*, quantised: bool = True) -> TinyFrames:
    steps = np.zeros((2, N_MELS), np.int8)
    steps[0, 32:], steps[1, :32] = 90, 90
    bias_steps = np.round(np.full(2, 10.0) / (WEIGHT_STEP * INPUT.scale)).astype(np.int32)
    mix_steps = np.zeros((2, N_FRAMES * N_MELS), np.int8)
    mix_steps[0].reshape(N_FRAMES, N_MELS)[:, 32:] = 20
    mix_steps[1].reshape(N_FRAMES, N_MELS)[:, :32] = -20
    leak_steps = np.array([[127, 0], [0, 127]], np.int8)
    weights, mix = steps * WEIGHT_STEP, mix_steps * MIX_STEP
    bias = bias_steps * (WEIGHT_STEP * INPUT.scale)
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

    def constant(name: str, stored: NDArray[np.int8], step: float) -> int:
        content = stored if quantised else (stored * step).astype(np.float32)
        return tensor(name, list(stored.shape), kind, Quantisation(step, 0), content.tobytes())

    chunk = tensor("chunk", [1, N_FRAMES, N_MELS, 1], kind, INPUT)
    memory = tensor("memory", [1, 2], kind, MEMORY_IN)
    options = schema.BuiltinOptions
    operators: list[object] = []

    def operator(
        code: int, inputs: list[int], output: int, made_options: object, which: int
    ) -> int:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        made.builtinOptions, made.builtinOptionsType = made_options, which
        operators.append(made)
        return output

    def reshape(name: str, shape: list[int]) -> int:
        size = np.array(shape, np.int32).tobytes()
        wanted = tensor(f"{name} shape", [len(shape)], types.INT32, None, size)
        output = tensor(name, shape, kind, INPUT)
        which = options.ReshapeOptions
        return operator(0, [chunk, wanted], output, schema.ReshapeOptionsT(), which)

    def dense(name: str, inputs: list[int], shape: list[int], how: Quantisation) -> int:
        output = tensor(name, shape, kind, how)
        which = options.FullyConnectedOptions
        return operator(1, inputs, output, schema.FullyConnectedOptionsT(), which)

    def add(name: str, inputs: list[int], shape: list[int], how: Quantisation) -> int:
        output = tensor(name, shape, kind, how)
        return operator(2, inputs, output, schema.AddOptionsT(), options.AddOptions)

    content = bias_steps if quantised else bias.astype(np.float32)
    bias_kind = types.INT32 if quantised else types.FLOAT32
    bias_how = Quantisation(WEIGHT_STEP * INPUT.scale, 0)
    biases = tensor("bias", [2], bias_kind, bias_how, content.tobytes())
    heard = dense(
        "heard",
        [reshape("frames", [N_FRAMES, N_MELS]), constant("w", steps, WEIGHT_STEP), biases],
        [N_FRAMES, 2],
        LOGITS,
    )
    logits = add("logits", [heard, memory], [N_FRAMES, 2], LOGITS)
    mixed = dense(
        "mixed",
        [reshape("flat", [1, N_FRAMES * N_MELS]), constant("v", mix_steps, MIX_STEP), -1],
        [1, 2],
        MEMORY_OUT,
    )
    kept = dense("kept", [memory, constant("leak", leak_steps, LEAK_STEP), -1], [1, 2], MEMORY_OUT)
    following = add("next_memory", [mixed, kept], [1, 2], MEMORY_OUT)

    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, operators
    # In another order than the signature's.
    graph.inputs, graph.outputs = [memory, chunk], [following, logits]
    codes = []
    for builtin, version in (
        (schema.BuiltinOperator.RESHAPE, 1),
        (schema.BuiltinOperator.FULLY_CONNECTED, 4 if quantised else 1),
        (schema.BuiltinOperator.ADD, 2 if quantised else 1),
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
    definition.signatureKey, definition.subgraphIndex = b"frames", 0
    definition.inputs = [named("chunk", chunk), named("memory", memory)]
    definition.outputs = [named("logits", logits), named("next_memory", following)]
    model = schema.ModelT()
    model.version, model.description = 3, b"tiny frames"
    model.operatorCodes, model.subgraphs, model.buffers = codes, [graph], buffers
    model.signatureDefs = [definition]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return TinyFrames(bytes(builder.Output()), weights.T, bias, mix.T, quantised)


def as_stored(how: Quantisation, quantised: bool) -> Quantisation:
    """As a file holds it: scales are float32."""
    return (
        Quantisation(float(np.float32(how.scale)), how.zero_point) if quantised else Quantisation()
    )


def tiny_states(*, quantised: bool = True) -> tuple[StateTensor, ...]:
    into, out_of = (as_stored(how, quantised) for how in (MEMORY_IN, MEMORY_OUT))
    return (StateTensor("memory", "next_memory", (1, 2), 0.25, into, out_of),)


def frames_manifest(*, quantised: bool = True) -> Manifest:
    front_end = FrontEnd()
    return Manifest(
        name="tiny-frames",
        version="1.0.0",
        created="2026-11-20T10:00:01.250000Z",
        labels=LABELS,
        front_end=front_end,
        window_samples=front_end.samples_of(N_FRAMES),
        hop_samples=N_FRAMES * front_end.hop_length,
        classes=tuple(
            ClassSettings(
                label,
                onset=0.6,
                release=0.4,
                smoothing="median" if label == "low" else "none",
                smoothing_windows=9 if label == "low" else 1,
                min_duration_s=0.05,
                min_gap_s=0.3,
            )
            for label in LABELS
        ),
        quantisation={
            "input": as_stored(INPUT, quantised),
            "logits": as_stored(LOGITS, quantised),
        },
        signature=SIGNATURE,
        kind="frames",
        frames=FrameSettings(20, tiny_states(quantised=quantised)),
    )


def frames_golden(student: TinyFrames, manifest: Manifest, n_chunks: int = 5) -> Golden:
    front_end = manifest.front_end
    n_samples = front_end.samples_of(n_chunks * N_FRAMES)
    rng = np.random.default_rng(3)
    samples = (rng.uniform(-0.5, 0.5, n_samples) * np.linspace(0, 0.2, n_samples) ** 2).astype(
        np.float32
    )
    features = log_mel(samples, front_end)
    states = tiny_states(quantised=student.quantised)
    interpreter = load_frame_interpreter(student.model, SIGNATURE, states)
    logits = score_features(features, manifest, interpreter)
    return Golden(samples, features, logits, np.zeros((n_chunks, 0), np.float32))
