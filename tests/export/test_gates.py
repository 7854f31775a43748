"""Each silent failure of the conversion is seen: on hand-made files that have it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from soundpost.device.errors import ExportError
from soundpost.device.features import FrontEnd
from soundpost.export.gates import (
    check_float,
    check_full_int8,
    check_operators,
    check_runtimes,
    operators,
    top1_agreement,
)


def changed(model: bytes, change: Callable[[Any], object]) -> bytes:
    table = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    change(table)
    builder = flatbuffers.Builder(1024)
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def convolutional(table: Any) -> None:
    """Turn the dense layers of the tiny student into 1x1 convolutions, scaled per channel."""
    code = table.operatorCodes[1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 3
    graph = table.subgraphs[0]
    for operator in graph.operators[1:]:
        weights = graph.tensors[operator.inputs[1]]
        weights.quantization.scale = [0.001] * int(weights.shape[0])
        weights.quantization.zeroPoint = [0] * int(weights.shape[0])


@pytest.fixture
def int8_model(tiny: ModuleType) -> bytes:
    return changed(tiny.tiny_student().model, convolutional)


def test_operators_are_counted_by_version(tiny: ModuleType) -> None:
    assert operators(tiny.tiny_student().model) == {("RESHAPE", 1): 1, ("FULLY_CONNECTED", 4): 2}
    assert check_operators(tiny.tiny_student(quantised=False).model)["FULLY_CONNECTED", 1] == 2


def test_newer_versions_are_refused(tiny: ModuleType) -> None:
    model = changed(tiny.tiny_student().model, lambda t: setattr(t.operatorCodes[1], "version", 12))
    with pytest.raises(ExportError, match=r"FULLY_CONNECTED has version 12: .* up to 9"):
        check_operators(model)


def test_custom_and_flex_operators_are_refused(tiny: ModuleType) -> None:
    def custom(table: Any) -> None:
        code = table.operatorCodes[1]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = b"FlexErf"

    with pytest.raises(ExportError, match="CUSTOM:FlexErf"):
        check_operators(changed(tiny.tiny_student().model, custom))


def test_operators_beyond_the_list_are_refused(tiny: ModuleType) -> None:
    def loop(table: Any) -> None:
        code = table.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE

    with pytest.raises(ExportError, match="WHILE"):
        check_operators(changed(tiny.tiny_student().model, loop))


def test_what_is_no_model_is_refused() -> None:
    for content in (b"", b"no model at all", b"\x10\0\0\0TFL3"):
        with pytest.raises(ExportError):
            operators(content)


def test_a_full_int8_model_passes(int8_model: bytes) -> None:
    check_full_int8(int8_model, FrontEnd())


def test_float_inside_int8_is_refused(tiny: ModuleType, int8_model: bytes) -> None:
    with pytest.raises(ExportError, match="works in float"):
        check_full_int8(tiny.tiny_student(quantised=False).model, FrontEnd())

    def one(table: Any) -> None:
        table.subgraphs[0].tensors[2].type = schema.TensorType.FLOAT32

    with pytest.raises(ExportError, match="RESHAPE works in float"):
        check_full_int8(changed(int8_model, one), FrontEnd())


def test_per_tensor_scales_are_refused(int8_model: bytes) -> None:
    def per_tensor(table: Any) -> None:
        for tensor in table.subgraphs[0].tensors:
            if tensor.name == b"logits/w":
                tensor.quantization.scale = [0.001]

    with pytest.raises(ExportError, match="not quantised per channel"):
        check_full_int8(changed(int8_model, per_tensor), FrontEnd())


def test_an_input_scale_that_misses_the_range_is_refused(int8_model: bytes) -> None:
    # Calibrated with noise of 0 to 1, as went wrong once.
    def noise(table: Any) -> None:
        quantisation = table.subgraphs[0].tensors[0].quantization
        quantisation.scale, quantisation.zeroPoint = [1 / 255], [-128]

    with pytest.raises(ExportError, match=r"covers 0\.00 to 1\.00, the front end -7 to 5"):
        check_full_int8(changed(int8_model, noise), FrontEnd())


def test_an_output_scale_that_carries_nothing_is_refused(int8_model: bytes) -> None:
    def zeros(table: Any) -> None:
        graph = table.subgraphs[0]
        graph.tensors[graph.outputs[1]].quantization.scale = [8e-9]

    with pytest.raises(ExportError, match="output scale 8e-09"):
        check_full_int8(changed(int8_model, zeros), FrontEnd())


def test_float_outputs_may_differ_by_a_ten_thousandth() -> None:
    expected = np.array([[0.5, -8.0]], np.float32)
    assert check_float(expected, expected + np.float32(5e-5), "x") == pytest.approx(5e-5, rel=0.02)
    with pytest.raises(ExportError, match="x: differs from torch"):
        check_float(expected, expected + np.float32(2e-4), "x")
    with pytest.raises(ExportError, match="differs from torch by nan"):
        check_float(expected, expected * np.float32("nan"), "x")


def test_top1_agreement_of_known_rows() -> None:
    a = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    b = np.array([[2, 1], [3, 1], [9, 0], [0, 1]], np.float32)
    assert top1_agreement(a, b) == 0.75


def test_both_runtimes_agree_on_the_tiny_student(tiny: ModuleType) -> None:
    rng = np.random.default_rng(2)
    patches = rng.uniform(-7, 5, (50, tiny.N_FRAMES, tiny.N_MELS)).astype(np.float32)
    agreement = check_runtimes(tiny.tiny_student().model, patches)
    if agreement is None:
        pytest.skip("tflite-runtime is missing: pip install 'soundpost[tflite]'")
    assert agreement.runtimes == ("ai-edge-litert", "tflite-runtime")
    assert agreement.max_quanta <= 1.01
    assert agreement.top1_agreement >= 0.95
