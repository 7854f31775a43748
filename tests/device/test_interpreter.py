"""The interpreter returns what the matrices in the file say, in every runtime."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.errors import BundleError, MissingExtraError, UsageError
from soundpost.device.interpreter import (
    RUNTIMES,
    Quantisation,
    Signature,
    available_runtimes,
    load_interpreter,
    sigmoid,
)

LIGHT = [name for name in RUNTIMES if name != "tensorflow"]


def runtime_or_skip(name: str) -> str:
    if name not in available_runtimes():
        extra = "tflite" if name == "tflite-runtime" else "device"
        pytest.skip(f"{name} is missing: pip install 'soundpost[{extra}]'")
    return name


def patches(tiny: ModuleType, n: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    return rng.uniform(-7, 5, (n, tiny.N_FRAMES, tiny.N_MELS)).astype(np.float32)


@pytest.mark.parametrize("runtime", LIGHT)
@pytest.mark.parametrize("quantised", [True, False], ids=["int8", "float32"])
def test_outputs_are_the_matrix_product(tiny: ModuleType, runtime: str, quantised: bool) -> None:
    student = tiny.tiny_student(quantised=quantised)
    interpreter = load_interpreter(student.model, runtime_or_skip(runtime))
    assert interpreter.runtime == runtime
    assert interpreter.input_shape == (tiny.N_FRAMES, tiny.N_MELS)
    assert (interpreter.n_labels, interpreter.n_embedding) == (3, 2)
    for patch in patches(tiny, 20):
        outputs = interpreter.run(patch)
        for name in ("logits", "embedding"):
            # One rounding to an output step, and the runtime's fixed-point multiplier.
            bound = 0.51 * tiny.OUTPUTS[name].scale if quantised else 1e-4
            expected = student.outputs(patch, name)
            if quantised:
                how = tiny.OUTPUTS[name]
                low, high = ((end - how.zero_point) * how.scale for end in (-128, 127))
                expected = expected.clip(low, high)
            np.testing.assert_allclose(getattr(outputs, name), expected, atol=bound, rtol=0)


def test_outputs_of_one_call_survive_the_next(tiny: ModuleType) -> None:
    for quantised in (True, False):
        interpreter = load_interpreter(tiny.tiny_student(quantised=quantised).model)
        one, two = patches(tiny, 2)
        first = interpreter.run(one)
        kept = first.logits.copy()
        interpreter.run(two)
        np.testing.assert_array_equal(first.logits, kept)


@pytest.mark.parametrize("runtime", ["tflite-runtime"])
def test_portable_kernels_agree(runtime: str) -> None:
    """The starter's own layers, over log-mel values from end to end of their range."""
    # To the last bit on x86_64; on ARM their versions round apart (four steps were seen).
    most_steps = 0 if platform.machine() == "x86_64" else 6
    bundle = open_bundle(starter_bundle_path(), "portable")[0]
    one, other = (bundle.load_interpreter(name) for name in ("portable", runtime_or_skip(runtime)))
    assert one.runtime != other.runtime
    rng = np.random.default_rng(5)
    for _ in range(10):
        centre = rng.uniform(-6, 4, (1, one.input_shape[1]))
        patch = (centre + rng.normal(0, 1.5, one.input_shape)).clip(-7, 5).astype(np.float32)
        a, b = one.run(patch), other.run(patch)
        for name in ("logits", "embedding"):
            most = most_steps * one.quantisation[name].scale
            np.testing.assert_allclose(
                getattr(a, name), getattr(b, name), rtol=0, atol=1.001 * most
            )
    assert "portable" in one.runtime


@given(
    scale=st.floats(1e-4, 1.0),
    zero_point=st.integers(-128, 127),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50),
)
def test_quantising_rounds_to_nearest_and_clips(
    scale: float, zero_point: int, values: list[float]
) -> None:
    how = Quantisation(float(np.float32(scale)), zero_point)
    real = np.array(values, np.float32)
    back = how.dequantise(how.quantise(real)).astype(np.float64)
    low, high = ((end - zero_point) * how.scale for end in (-128, 127))
    inside = (real >= low) & (real <= high)
    # Half a step, and float32's own rounding of values up to 255 steps.
    assert (np.abs(back - real)[inside] <= how.scale * (0.5 + 1e-4)).all()
    np.testing.assert_allclose(back[real > high], high, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back[real < low], low, rtol=1e-5, atol=1e-6)


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_every_step_comes_back(zero_point: int, step: int) -> None:
    how = Quantisation(0.0627, zero_point)
    assert how.quantise(how.dequantise(np.array([step], np.int8)))[0] == step


def test_sigmoid_of_known_values() -> None:
    found = sigmoid(np.array([0.0, np.log(3.0), -8.0], np.float32))
    np.testing.assert_allclose(found, [0.5, 0.75, 1 / (1 + np.exp(8.0))], rtol=1e-6)


def test_a_patch_of_another_shape_is_refused(tiny: ModuleType) -> None:
    interpreter = load_interpreter(tiny.tiny_student().model)
    with pytest.raises(ValueError, match=r"\(64, 10\).*\(10, 64\)"):
        interpreter.run(np.zeros((tiny.N_MELS, tiny.N_FRAMES), np.float32))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\0\0\0TFL3" + bytes(64)])
@pytest.mark.parametrize("runtime", LIGHT)
def test_what_is_no_model_is_refused(content: bytes, runtime: str) -> None:
    with pytest.raises(BundleError, match="cannot load it"):
        load_interpreter(content, runtime_or_skip(runtime))


def test_a_tensor_that_is_float_and_quantised_is_refused(tiny: ModuleType) -> None:
    schema = tiny.schema
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(tiny.tiny_student().model, 0))
    model.subgraphs[0].tensors[0].type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(BundleError, match="model: "):
        load_interpreter(bytes(builder.Output()))


def test_another_signature_is_refused(tiny: ModuleType) -> None:
    with pytest.raises(BundleError, match="no signature scores"):
        load_interpreter(tiny.tiny_student(signature="serving_default").model)
    with pytest.raises(BundleError, match="chroma"):
        load_interpreter(tiny.tiny_student().model, signature=Signature(input="chroma"))


def test_wrong_settings_are_refused(tiny: ModuleType) -> None:
    model = tiny.tiny_student().model
    with pytest.raises(UsageError, match=r"tflite.*ai-edge-litert"):
        load_interpreter(model, "tflite")
    with pytest.raises(UsageError, match="threads 0"):
        load_interpreter(model, threads=0)


def test_a_missing_runtime_is_named_with_its_extra(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "tflite-runtime", "no_such_package.interpreter")
    with pytest.raises(MissingExtraError, match=r"soundpost\[tflite\]"):
        load_interpreter(tiny.tiny_student().model, "tflite-runtime")
    for name in RUNTIMES:
        monkeypatch.setitem(RUNTIMES, name, "no_such_package.interpreter")
    with pytest.raises(MissingExtraError, match=r"soundpost\[device\]"):
        load_interpreter(tiny.tiny_student().model)


def test_loading_writes_nothing_of_the_runtimes_own(
    tiny: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    os.write(2, b"before\n")
    load_interpreter(tiny.tiny_student(quantised=False).model)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_importing_it_pulls_in_no_runtime() -> None:
    program = (
        "import sys, soundpost.device.interpreter, soundpost.device.bundle\n"
        "heavy = {'torch', 'tensorflow', 'ai_edge_litert', 'tflite_runtime', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'scipy.signal' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tflite_runtime_after_tensorflow_says_what_to_do(tiny: ModuleType, tmp_path: Path) -> None:
    import tensorflow  # noqa: F401  (a process of its own imports it: here it only has to be there)
    import tflite_runtime  # noqa: F401

    model = tmp_path / "model.tflite"
    model.write_bytes(tiny.tiny_student(quantised=False).model)
    program = (
        "import sys, pathlib\n"
        "import {first}, {second}\n"
        "from soundpost.device.interpreter import load_interpreter\n"
        "load_interpreter(pathlib.Path(sys.argv[1]).read_bytes(), 'tflite-runtime')\n"
    )

    def loaded(first: str, second: str) -> subprocess.CompletedProcess[str]:
        source = program.format(first=first, second=second)
        command = [sys.executable, "-c", source, str(model)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert loaded("tflite_runtime.interpreter", "tensorflow").returncode == 0
    late = loaded("tensorflow", "tflite_runtime.interpreter")
    assert late.returncode != 0
    assert "UsageError: tflite-runtime cannot work where tensorflow was imported" in late.stderr
    assert "import tflite_runtime.interpreter first, or choose ai-edge-litert" in late.stderr
