"""Runs a student: the only module that imports a TFLite runtime.

Three runtimes read the same file. ai-edge-litert comes first (its int8 kernels go through XNNPACK
and are an order of magnitude faster), then tflite-runtime, then TensorFlow's own. XNNPACK is on by
default in all three, but rounds int8 otherwise than the runtimes' own kernels. "portable" asks for
those: on x86_64 they agree to the last bit, so that the same bundle gives the same events; on ARM
(emulated) ai-edge-litert 2.3 and tflite-runtime 2.14 were up to four int8 steps apart.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import BundleError, MissingExtraError, UsageError
from soundpost.device.features import FloatArray

logger = logging.getLogger(__name__)

# Name of a runtime as settings give it, and the module whose attribute Interpreter runs models.
# TensorFlow makes that attribute of its own only when it is imported as a whole.
RUNTIMES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}

PORTABLE = "portable"
RUNTIME_CHOICES = ("auto", *RUNTIMES, PORTABLE)

INT8_LOW, INT8_HIGH = -128, 127


@dataclass(frozen=True)
class Signature:
    """Names within the model file: output order differs between formats, names do not.

    embedding : empty where the model gives none
    """

    name: str = "scores"
    input: str = "patch"
    logits: str = "logits"
    embedding: str = "embedding"


@dataclass(frozen=True)
class Quantisation:
    """Affine map of one tensor: real = scale * (stored - zero_point); scale 0 means float32."""

    scale: float = 0.0
    zero_point: int = 0

    @property
    def is_float(self) -> bool:
        """True where the tensor holds float32 as it is."""
        return self.scale == 0.0

    def quantise(self, values: FloatArray) -> NDArray[np.int8]:
        """Nearest int8 of real values, clipped at both ends (never truncated or wrapped)."""
        stored = np.rint(values / np.float32(self.scale)) + self.zero_point
        clipped: NDArray[np.int8] = np.clip(stored, INT8_LOW, INT8_HIGH).astype(np.int8)
        return clipped

    def dequantise(self, stored: NDArray[np.int8]) -> FloatArray:
        """Real values of int8 ones, float32."""
        real = (stored.astype(np.int32) - self.zero_point) * np.float32(self.scale)
        return real.astype(np.float32)


@dataclass(frozen=True)
class Outputs:
    """What a student says about one patch.

    logits : (n_labels,) float32, within ±8
    embedding : (n_embedding,) float32
    """

    logits: FloatArray
    embedding: FloatArray

    @property
    def scores(self) -> FloatArray:
        """(n_labels,) float32: the logistic function of the logits, each label on its own."""
        return sigmoid(self.logits)


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-logits)), float32; safe for logits within ±80."""
    scores: FloatArray = 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float32)))
    return scores


def available_runtimes() -> list[str]:
    """Names of the installed runtimes in order of preference; imports none of them."""
    return [name for name, module in RUNTIMES.items() if find_spec(module.partition(".")[0])]


class Interpreter:
    """A model in memory, ready to score patches. Not to be shared between threads.

    Attributes
    ----------
    runtime : "ai-edge-litert", "tflite-runtime" or "tensorflow"
    input_shape : (n_frames, n_mels) of a patch
    n_labels, n_embedding : sizes of the outputs
    quantisation : of "input", "logits" and "embedding"
    """

    def __init__(self, model: Any, runtime: str, signature: Signature) -> None:
        self.runtime = runtime
        self._model = model
        names = (signature.logits, signature.embedding)
        try:
            inputs, outputs = signature_details(model, signature.name)
            entry, exits = inputs[signature.input], [outputs[name] for name in names]
        except (ValueError, KeyError) as error:
            raise BundleError(
                f"model: has no signature {signature.name}({signature.input}) -> {', '.join(names)}"
                f" ({error}); export it with `soundpost export`"
            ) from error
        shape = tuple(int(n) for n in entry["shape"])
        if len(inputs) != 1 or len(shape) != 4 or (shape[0], shape[3]) != (1, 1):
            raise BundleError(
                f"model: {len(inputs)} inputs, the first {shape}: expected one patch "
                "(1, n_frames, n_mels, 1); export it with `soundpost export`"
            )
        self.input_shape: tuple[int, int] = shape[1], shape[2]
        self.n_labels, self.n_embedding = (int(details["shape"][-1]) for details in exits)
        self.quantisation = {
            name: quantisation_of(details)
            for name, details in zip(("input", "logits", "embedding"), (entry, *exits), strict=True)
        }
        self._input_shape = shape
        self._input_index = entry["index"]
        self._output_indices = [details["index"] for details in exits]

    def run(self, patch: FloatArray) -> Outputs:
        """Score one patch.

        Parameters
        ----------
        patch : (n_frames, n_mels) float32, finite log-mel values

        Returns
        -------
        Outputs, in arrays of their own
        """
        if patch.shape != self.input_shape:
            raise ValueError(f"patch {patch.shape}: expected {self.input_shape}")
        how = self.quantisation["input"]
        stored = np.asarray(patch, np.float32) if how.is_float else how.quantise(patch)
        self._model.set_tensor(self._input_index, stored.reshape(self._input_shape))
        self._model.invoke()
        logits, embedding = (
            self._real(name, index)
            for name, index in zip(("logits", "embedding"), self._output_indices, strict=True)
        )
        return Outputs(logits, embedding)

    def _real(self, name: str, index: int) -> FloatArray:
        values: Any = self._model.get_tensor(index).reshape(-1)
        how = self.quantisation[name]
        real: FloatArray = values if how.is_float else how.dequantise(values)
        return real


def signature_details(
    model: Any, name: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Details of a signature's inputs and outputs by name; raises ValueError where it is not."""
    # The runner keeps a reference that forbids invoke(): used for its names, then dropped.
    runner = model.get_signature_runner(name)
    return runner.get_input_details(), runner.get_output_details()


def quantisation_of(details: dict[str, Any]) -> Quantisation:
    """How a tensor is stored; raises BundleError on other types than int8 and float32."""
    if details["dtype"] not in (np.int8, np.float32):
        raise BundleError(
            f"model: tensor {details['name']} is {np.dtype(details['dtype'])}: expected "
            "int8 or float32; export it with `soundpost export`"
        )
    how = Quantisation(*details["quantization"])
    if (details["dtype"] == np.float32) != how.is_float:
        raise BundleError(
            f"model: tensor {details['name']} is {np.dtype(details['dtype'])} with scale "
            f"{how.scale:g}: expected int8 with a scale, or float32 without; export it "
            "with `soundpost export`"
        )
    return how


def load_interpreter(
    model: bytes, runtime: str = "auto", threads: int = 1, signature: Signature | None = None
) -> Interpreter:
    """Load a TFLite model of kind `window`; parameters and errors as `load_model` has them.

    signature : names within the file
    """
    return Interpreter(*load_model(model, runtime, threads), signature or Signature())


def load_model(model: bytes, runtime: str = "auto", threads: int = 1) -> tuple[Any, str]:
    """Load a TFLite file: the runtime's own interpreter, ready to be invoked, and its name.

    Parameters
    ----------
    model : content of a .tflite file
    runtime : "auto" for the first one installed, a name of RUNTIMES, or "portable" for the first
        one installed with its own kernels
    threads : of the runtime's kernels; 1 is fastest for these small students

    Raises
    ------
    MissingExtraError
        No runtime, or not the one asked for, is installed.
    UsageError
        No such runtime, or tflite-runtime in a process that has imported tensorflow before it.
    BundleError
        The file is no model, needs operators that the runtime lacks, or has other tensors.
    """
    if runtime not in RUNTIME_CHOICES:
        raise UsageError(f"runtime '{runtime}': expected {', '.join(RUNTIME_CHOICES)}")
    if threads < 1:
        raise UsageError(f"threads {threads}: expected 1 or more")
    installed = available_runtimes()
    any_will_do = runtime in ("auto", PORTABLE)
    chosen = next(iter(installed), "") if any_will_do else runtime
    if chosen not in installed:
        wanted = "none" if any_will_do else f"not {runtime}"
        extra = "tflite" if runtime == "tflite-runtime" else "device"
        raise MissingExtraError(
            f"{wanted} of the TFLite runtimes is installed: install soundpost[{extra}]"
        )
    try:
        module = importlib.import_module(RUNTIMES[chosen])
        module = module.lite if chosen == "tensorflow" else module
        options: dict[str, Any] = {}
        if runtime == PORTABLE:
            resolvers = (module.experimental if chosen == "tensorflow" else module).OpResolverType
            options["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with _without_chatter():
            interpreter = module.Interpreter(model_content=model, num_threads=threads, **options)
            interpreter.allocate_tensors()
    except SystemError as error:
        # tflite-runtime 2.14 imports with numpy 2 and fails only here.
        raise MissingExtraError(
            f"{chosen} cannot work with numpy {np.__version__} ({error}); "
            "install soundpost[device] (ai-edge-litert) or numpy<2"
        ) from error
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        # C++ symbols that both have: whichever comes second uses the other's.
        if chosen == "tflite-runtime" and "tensorflow" in sys.modules and "vector::" in reason:
            raise UsageError(
                f"tflite-runtime cannot work where tensorflow was imported before it ({reason}): "
                "import tflite_runtime.interpreter first, or choose ai-edge-litert"
            ) from error
        raise BundleError(
            f"model: {chosen} cannot load it: {reason}; export it with `soundpost export`"
        ) from error
    if runtime == PORTABLE:
        chosen = f"{chosen}, portable kernels"
    logger.info("model loaded by %s, %d threads", chosen, threads)
    return interpreter, chosen


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep the runtime's INFO lines off standard error; pass on everything else.

    The C++ code writes to file descriptor 2, so that Python cannot filter it.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed: nothing to filter
        yield
        return
    reader, writer = os.pipe()
    # A runtime that says more than a pipe holds must not block: what is past that is dropped.
    os.set_blocking(writer, False)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        with os.fdopen(reader, "rb") as caught:
            for line in caught:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
