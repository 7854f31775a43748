"""Runs a student of kind `frames`: a chunk and a state in, frame logits and the next state out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import BundleError
from soundpost.device.features import FloatArray
from soundpost.device.interpreter import (
    Quantisation,
    Signature,
    load_model,
    quantisation_of,
    signature_details,
)
from soundpost.device.manifest import Manifest, StateTensor

_REMEDY = "export it with `soundpost export`"

# One array for each state tensor, as the model stores it. A new one comes out of every chunk and
# nothing changes it afterwards: whoever holds it holds that moment of the stream.
State = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class FrameOutputs:
    """What a student says about one chunk.

    logits : (n_frames, n_labels) float32, within ±8
    state : for the chunk that follows
    """

    logits: FloatArray
    state: State


class FrameInterpreter:
    """A model in memory, ready to score chunks. Not to be shared between threads.

    It remembers nothing itself: the state goes in with a chunk and comes out after it, so that one
    model may serve a stream, its golden vector and the stream after the next gap in turn.

    Attributes
    ----------
    runtime : "ai-edge-litert", "tflite-runtime" or "tensorflow"
    input_shape : (n_frames, n_mels) of a chunk
    n_labels : columns of the logits
    quantisation : of "input" and "logits"
    state_quantisation : by the states' names within the signature
    states : what the manifest says of them, checked against the model
    """

    def __init__(
        self, model: Any, runtime: str, signature: Signature, states: Sequence[StateTensor]
    ) -> None:
        self.runtime = runtime
        self._model = model
        self.states = tuple(states)
        try:
            inputs, outputs = signature_details(model, signature.name)
            entry, exit_ = inputs[signature.input], outputs[signature.logits]
            entries = [inputs[state.input] for state in states]
            exits = [outputs[state.output] for state in states]
        except (ValueError, KeyError) as error:
            wanted = ", ".join([signature.input, *(state.input for state in states)])
            given = ", ".join([signature.logits, *(state.output for state in states)])
            raise BundleError(
                f"model: has no signature {signature.name}({wanted}) -> {given} ({error}); "
                f"{_REMEDY}"
            ) from error
        shape = tuple(int(n) for n in entry["shape"])
        out = tuple(int(n) for n in exit_["shape"])
        if len(shape) != 4 or (shape[0], shape[3]) != (1, 1) or out[:-1] != (shape[1],):
            raise BundleError(
                f"model: takes {shape} and gives {out}: expected a chunk (1, n_frames, n_mels, 1) "
                f"and (n_frames, n_labels); {_REMEDY}"
            )
        if len(inputs) != 1 + len(states) or len(outputs) != 1 + len(states):
            raise BundleError(
                f"model: has {len(inputs)} inputs and {len(outputs)} outputs: expected one of each "
                f"and {len(states)} states; {_REMEDY}"
            )
        self.input_shape: tuple[int, int] = shape[1], shape[2]
        self.n_labels = out[1]
        self.quantisation = {"input": quantisation_of(entry), "logits": quantisation_of(exit_)}
        self._shape, self._entry, self._exit = shape, entry["index"], exit_["index"]
        self._carried = [
            _Carried(known, details, given)
            for known, details, given in zip(states, entries, exits, strict=True)
        ]
        self.state_quantisation: dict[str, Quantisation] = {}
        for known, carried in zip(states, self._carried, strict=True):
            self.state_quantisation |= {known.input: carried.into, known.output: carried.out_of}

    def initial_state(self) -> State:
        """Of a stream that begins, or goes on after a gap."""
        return tuple(carried.initial for carried in self._carried)

    def run(self, chunk: FloatArray, state: State) -> FrameOutputs:
        """Score one chunk.

        Parameters
        ----------
        chunk : (n_frames, n_mels) float32, finite log-mel values
        state : of `initial_state`, or after the chunk before this one

        Returns
        -------
        FrameOutputs, in arrays of their own
        """
        if chunk.shape != self.input_shape:
            raise ValueError(f"chunk {chunk.shape}: expected {self.input_shape}")
        model = self._model
        how = self.quantisation["input"]
        stored = np.asarray(chunk, np.float32) if how.is_float else how.quantise(chunk)
        model.set_tensor(self._entry, stored.reshape(self._shape))
        for carried, values in zip(self._carried, state, strict=True):
            model.set_tensor(carried.entry, values)
        model.invoke()
        values = model.get_tensor(self._exit)
        how = self.quantisation["logits"]
        logits: FloatArray = values if how.is_float else how.dequantise(values)
        return FrameOutputs(
            logits,
            tuple(carried.passed_on(model.get_tensor(carried.exit)) for carried in self._carried),
        )

    def real_state(self, state: State) -> list[FloatArray]:
        """Real values of a state, float32, in the shapes that the manifest gives."""
        return [
            carried.into.dequantise(values) if not carried.into.is_float else values.copy()
            for carried, values in zip(self._carried, state, strict=True)
        ]


class _Carried:
    """One state tensor: where it goes in, where it comes out, and how it is stored there."""

    def __init__(self, known: StateTensor, entry: dict[str, Any], given: dict[str, Any]) -> None:
        for name, details in ((known.input, entry), (known.output, given)):
            found = tuple(int(n) for n in details["shape"])
            if found != known.shape:
                raise BundleError(
                    f"model: state {name} is {found}, the manifest says {known.shape}; {_REMEDY}"
                )
        self.into, self.out_of = quantisation_of(entry), quantisation_of(given)
        self.entry, self.exit = entry["index"], given["index"]
        initial = np.full(known.shape, known.initial, np.float32)
        self.initial = initial if self.into.is_float else self.into.quantise(initial)

    def passed_on(self, values: NDArray[Any]) -> NDArray[Any]:
        """What came out, as it must go in."""
        if self.into == self.out_of:
            return values
        real = values if self.out_of.is_float else self.out_of.dequantise(values)
        return real if self.into.is_float else self.into.quantise(real)


def load_frame_interpreter(
    model: bytes,
    signature: Signature,
    states: Sequence[StateTensor],
    runtime: str = "auto",
    threads: int = 1,
) -> FrameInterpreter:
    """Load a TFLite model of kind `frames`; parameters and errors as `load_model` has them."""
    return FrameInterpreter(*load_model(model, runtime, threads), signature, states)


def stated_quantisation(manifest: Manifest) -> dict[str, Quantisation]:
    """Every quantisation that a manifest states, by the tensor's name in messages."""
    stated = dict(manifest.quantisation)
    if manifest.frames is not None:
        for state in manifest.frames.states:
            stated[state.input] = state.input_quantisation
            stated[state.output] = state.output_quantisation
    return stated
