"""Variants of a bundle's model: good ones, and such as no sensor should keep.

Each is a real bundle whose golden vector is its own: what a broken training would leave behind, not
a damaged file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from soundpost.device.bundle import Bundle, Golden, model_interpreter, pack_bundle, score_features

Weights = NDArray[np.int8]
Change = Callable[[Weights], Weights]
Operator = schema.BuiltinOperator


def packed(
    bundle: Bundle, model: bytes, version: str, labels: NDArray[np.int64] | None = None
) -> bytes:
    """A bundle of this model; with `labels`, what was its n-th is called by another one's name."""
    manifest = replace(bundle.manifest, version=version)
    interpreter = model_interpreter(manifest, model)
    manifest = replace(manifest, quantisation=dict(interpreter.quantisation))
    if labels is not None:
        names = tuple(manifest.labels[number] for number in labels)
        classes = tuple(
            replace(known, label=name) for known, name in zip(manifest.classes, names, strict=True)
        )
        manifest = replace(manifest, labels=names, classes=classes)
    logits = score_features(bundle.golden.features, manifest, interpreter)
    golden = Golden(bundle.golden.samples, bundle.golden.features, logits, bundle.golden.embedding)
    return pack_bundle(manifest, model, golden, f"# {version}\n")


def off_by_steps(rng: np.random.Generator, share: float) -> Change:
    """So many of the weights are off by up to 12 of 127 steps."""

    def change(weights: Weights) -> Weights:
        steps = rng.integers(-12, 13, len(weights)) * (rng.random(len(weights)) < share)
        return np.clip(weights.astype(int) + steps, -127, 127).astype(np.int8)

    return change


def reweighted(model: bytes, change: Change) -> bytes:
    """With other int8 weights."""
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = parsed.subgraphs[0]
    for operator in graph.operators:
        code = parsed.operatorCodes[operator.opcodeIndex].builtinCode
        if code in (Operator.CONV_2D, Operator.FULLY_CONNECTED):
            buffer = parsed.buffers[graph.tensors[operator.inputs[1]].buffer]
            if buffer.data is not None and len(buffer.data):
                weights = np.frombuffer(bytes(buffer.data), np.int8).copy()
                buffer.data = np.frombuffer(change(weights).tobytes(), np.uint8)
    return _written(parsed)


def slower(model: bytes, times: int) -> bytes:
    """The same scores, computed so many times over."""
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = parsed.subgraphs[0]
    logits = _logits(parsed)
    ours = list(graph.operators)
    found = logits
    for _ in range(times - 1):
        copies: dict[int, int] = {}
        for operator in ours:
            again = copy.deepcopy(operator)
            again.inputs = np.array([copies.get(one, one) for one in operator.inputs], np.int32)
            for one in operator.outputs:
                copies[int(one)] = _tensor(graph, int(one))
            again.outputs = np.array([copies[int(one)] for one in operator.outputs], np.int32)
            graph.operators.append(again)
        # The larger of equals: what is computed again is needed.
        larger = _tensor(graph, logits)
        _operator(parsed, Operator.MAXIMUM, [found, copies[logits]], larger)
        found = larger
    _give(parsed, logits, found)
    return _written(parsed)


def not_a_number_above(model: bytes, highest: float) -> bytes:
    """The same logits, NaN where one is above `highest`."""
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = parsed.subgraphs[0]
    logits = _logits(parsed)
    real, below, root, nothing, given = (_real_tensor(graph, logits) for _ in range(5))
    _operator(parsed, Operator.DEQUANTIZE, [logits], real)
    _operator(parsed, Operator.SUB, [_constant(parsed, highest), real], below, schema.SubOptionsT())
    _operator(parsed, Operator.SQRT, [below], root)
    _operator(parsed, Operator.SUB, [root, root], nothing, schema.SubOptionsT())
    _operator(parsed, Operator.ADD, [real, nothing], given, schema.AddOptionsT())
    _give(parsed, logits, given)
    return _written(parsed)


def _logits(parsed: schema.ModelT) -> int:
    for output in parsed.signatureDefs[0].outputs:
        if output.name in (b"logits", "logits"):
            return int(output.tensorIndex)
    raise AssertionError("the model has no logits")


def _give(parsed: schema.ModelT, instead_of: int, tensor: int) -> None:
    """Let the model return this tensor."""
    graph = parsed.subgraphs[0]
    graph.outputs = np.array(
        [tensor if one == instead_of else one for one in graph.outputs], np.int32
    )
    for output in parsed.signatureDefs[0].outputs:
        if output.tensorIndex == instead_of:
            output.tensorIndex = tensor


def _tensor(graph: schema.SubGraphT, like: int) -> int:
    another = copy.deepcopy(graph.tensors[like])
    another.name = f"{len(graph.tensors)}".encode()
    another.buffer = 0
    graph.tensors.append(another)
    return len(graph.tensors) - 1


def _real_tensor(graph: schema.SubGraphT, like: int) -> int:
    number = _tensor(graph, like)
    graph.tensors[number].type = schema.TensorType.FLOAT32
    graph.tensors[number].quantization = None
    return number


def _constant(parsed: schema.ModelT, value: float) -> int:
    graph = parsed.subgraphs[0]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    parsed.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape = b"lowest", np.array([1], np.int32)
    tensor.type, tensor.buffer = schema.TensorType.FLOAT32, len(parsed.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(
    parsed: schema.ModelT, builtin: int, inputs: list[int], output: int, options: object = None
) -> None:
    codes = [one.builtinCode for one in parsed.operatorCodes]
    if builtin not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = 2 if builtin in (Operator.MAXIMUM, Operator.DEQUANTIZE) else 1
        parsed.operatorCodes.append(code)
        codes.append(builtin)
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.index(builtin)
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = options
    parsed.subgraphs[0].operators.append(operator)


def _written(parsed: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())
