"""A model that remembers, against the two lines of numpy that it is, in every runtime."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from soundpost.device.errors import BundleError
from soundpost.device.frame_interpreter import (
    FrameInterpreter,
    load_frame_interpreter,
    stated_quantisation,
)
from soundpost.device.interpreter import Quantisation, available_runtimes

RUNTIMES = [name for name in available_runtimes() if name != "tensorflow"]


def load(frames: ModuleType, runtime: str, *, quantised: bool) -> FrameInterpreter:
    student = frames.tiny_frames(quantised=quantised)
    states = frames.tiny_states(quantised=quantised)
    return load_frame_interpreter(student.model, frames.SIGNATURE, states, runtime)


def chunks(n_chunks: int, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Where no logit is clipped.
    levels = rng.uniform(-5.8, -2, (n_chunks, 1, 1))
    return (levels + rng.uniform(-0.5, 0.5, (n_chunks, 10, 64))).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float_equals_the_equations_over_a_long_stream(frames: ModuleType, runtime: str) -> None:
    student, interpreter = (
        frames.tiny_frames(quantised=False),
        load(frames, runtime, quantised=False),
    )
    state, memory = interpreter.initial_state(), np.full((1, 2), 0.25)
    for chunk in chunks(50):
        expected, memory = student.outputs(chunk, memory)
        outputs = interpreter.run(chunk, state)
        state = outputs.state
        np.testing.assert_allclose(outputs.logits, expected, atol=1e-4)
        np.testing.assert_allclose(interpreter.real_state(state)[0], memory, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_follows_them_within_its_steps(frames: ModuleType, runtime: str) -> None:
    """Zero points of the memory differ by one between out and in."""
    student, interpreter = frames.tiny_frames(), load(frames, runtime, quantised=True)
    state, memory = interpreter.initial_state(), np.full((1, 2), 0.25)
    errors = []
    for chunk in chunks(200):
        expected, memory = student.outputs(chunk, memory)
        outputs = interpreter.run(chunk, state)
        state = outputs.state
        assert np.abs(outputs.logits - expected).max() <= 1.5 * frames.LOGITS.scale + 0.02
        errors.append(interpreter.real_state(state)[0] - memory)
    # Mean over the stream: a walk of one sign shows, rounding of both signs does not. Passed on as
    # bytes: 1.5 to 2 steps; as real values: up to half a step, by tflite-runtime's rounding.
    assert np.abs(np.mean(errors)) < 0.6 * frames.MEMORY_OUT.scale
    assert np.abs(errors).max() <= 2.5 * frames.MEMORY_OUT.scale


def test_a_state_is_a_moment_that_nothing_changes(frames: ModuleType) -> None:
    """Streams may take turns, and one may be gone on with from any moment."""
    interpreter = load(frames, "auto", quantised=True)
    one, two = chunks(6, seed=1), chunks(6, seed=2)

    def alone(parts: np.ndarray) -> list[np.ndarray]:
        state, found = interpreter.initial_state(), []
        for chunk in parts:
            outputs = interpreter.run(chunk, state)
            state = outputs.state
            found.append(outputs.logits)
        return found

    expected = alone(one), alone(two)
    states = [interpreter.initial_state(), interpreter.initial_state()]
    kept = None
    for index in range(6):
        for stream, parts in enumerate((one, two)):
            outputs = interpreter.run(parts[index], states[stream])
            np.testing.assert_array_equal(outputs.logits, expected[stream][index])
            states[stream] = outputs.state
        kept = states[0] if index == 2 else kept
    assert kept is not None
    np.testing.assert_array_equal(interpreter.run(one[3], kept).logits, expected[0][3])


def test_names_and_not_places_tell_tensors_apart(frames: ModuleType) -> None:
    """The file lists its memory before its chunk, and the signature the other way round."""
    interpreter = load(frames, "auto", quantised=True)
    assert interpreter.input_shape == (10, 64)
    assert interpreter.n_labels == 2
    stated = stated_quantisation(frames.frames_manifest())
    found = interpreter.quantisation | interpreter.state_quantisation
    assert {name: how.zero_point for name, how in found.items()} == {
        name: how.zero_point for name, how in stated.items()
    }
    assert found["memory"] != found["next_memory"]


def test_what_does_not_fit_the_manifest_is_refused(frames: ModuleType) -> None:
    model, (memory,) = frames.tiny_frames().model, frames.tiny_states()
    for states, words in (
        ((), "2 inputs and 2 outputs: expected one of each and 0 states"),
        ((replace(memory, shape=(2, 1)),), r"state memory is \(1, 2\), the manifest says \(2, 1\)"),
        (
            (replace(memory, output="rest"),),
            r"no signature frames\(chunk, memory\) -> logits, rest",
        ),
    ):
        with pytest.raises(BundleError, match=words):
            load_frame_interpreter(model, frames.SIGNATURE, states)
    other = replace(frames.SIGNATURE, name="scores")
    with pytest.raises(BundleError, match="no signature scores"):
        load_frame_interpreter(model, other, (memory,))


def test_a_window_model_is_no_frame_model(frames: ModuleType, tiny: ModuleType) -> None:
    signature = replace(frames.SIGNATURE, name="scores", input="patch")
    with pytest.raises(BundleError, match=r"takes \(1, 10, 64, 1\) and gives \(1, 3\)"):
        load_frame_interpreter(tiny.tiny_student().model, signature, ())


def test_a_chunk_of_another_shape_is_refused(frames: ModuleType) -> None:
    interpreter = load(frames, "auto", quantised=True)
    with pytest.raises(ValueError, match=r"chunk \(64, 10\): expected \(10, 64\)"):
        interpreter.run(np.zeros((64, 10), np.float32), interpreter.initial_state())


def test_the_initial_state_is_the_nearest_to_what_the_manifest_says(frames: ModuleType) -> None:
    interpreter = load(frames, "auto", quantised=True)
    (memory,) = interpreter.initial_state()
    assert memory.dtype == np.int8
    assert memory.tolist() == [[28, 28]]
    assert Quantisation(0.01, 3).dequantise(memory)[0, 0] == pytest.approx(0.25)
