"""Child process of `soundpost.export.tflite`: ONNX to float and int8 TFLite.

Run as `python -m soundpost.export.convert_worker FOLDER`. It reads model.onnx,
interface.json and an array of examples for each input there and writes float32.tflite and
int8.tflite; each step is announced as a line on standard output, and everything that the converters
print, from C++ too, goes to convert.log.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

STEPS = (
    "starting TensorFlow",
    "ONNX to TensorFlow",
    "TensorFlow to float32 TFLite",
    "calibration and int8 TFLite",
)


def _redirect(log: Path) -> Callable[[str], None]:
    """Send descriptors 1 and 2 to the log; returns how to announce a step on the old output."""
    announce = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    return lambda step: print(step, file=announce, flush=True)


def _shaped(values: Any, index: int) -> Any:
    """An example of an input: a patch with its batch and channel, anything else as it is."""
    return (values[np.newaxis, :, :, np.newaxis] if index == 0 else values).astype(np.float32)


def _representative(
    arrays: list[Any], names: list[str], signature: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for values in zip(*arrays, strict=True):
        shaped = [_shaped(value, index) for index, value in enumerate(values)]
        yield signature, dict(zip(names, shaped, strict=True))


def convert(folder: Path, announce: Callable[[str], None]) -> None:
    """Do all steps within a folder that nobody else uses."""
    announce(STEPS[0])
    import onnx2tf
    import tensorflow as tf

    announce(STEPS[1])
    # onnx2tf rewrites its input file.
    interface = json.loads((folder / "interface.json").read_text(encoding="utf-8"))
    signature, names, outputs = (interface[key] for key in ("signature", "inputs", "outputs"))
    private = folder / "private.onnx"
    shutil.copyfile(folder / "model.onnx", private)
    keras_model = onnx2tf.convert(
        input_onnx_file_path=str(private),
        output_folder_path=str(folder / "onnx2tf"),
        disable_model_save=True,
        non_verbose=True,
        enable_rnn_unroll=interface["unroll"],
    )
    arrays = [
        np.load(folder / f"representative_{index}.npy", allow_pickle=False)
        for index in range(len(names))
    ]
    expected = [_shaped(array[0], index).shape for index, array in enumerate(arrays)]
    found = [tuple(entry.shape) for entry in keras_model.inputs]
    # A single input has lost its name; several must not have changed places.
    named = len(names) == 1 or [entry.name for entry in keras_model.inputs] == names
    if found != expected or not named or len(keras_model.outputs) != len(outputs):
        raise RuntimeError(
            f"onnx2tf made inputs {keras_model.inputs} and outputs {keras_model.outputs}: "
            f"expected {dict(zip(names, expected, strict=True))} and {len(outputs)} outputs"
        )

    def scores(*inputs: Any) -> dict[str, Any]:
        made = keras_model(inputs[0] if len(inputs) == 1 else list(inputs))
        return dict(zip(outputs, made, strict=True))

    module = tf.Module()
    module.student = keras_model
    specification = [
        tf.TensorSpec(shape, tf.float32, name=name)
        for name, shape in zip(names, expected, strict=True)
    ]
    module.scores = tf.function(scores, input_signature=specification)
    # By way of a SavedModel: only there do the tensors keep the names of the signature.
    saved = str(folder / "saved_model")
    tf.saved_model.save(
        module, saved, signatures={signature: module.scores.get_concrete_function()}
    )

    def converter() -> Any:
        made = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[signature])
        made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # Per-channel dense layers ask for a FULLY_CONNECTED that tflite-runtime refuses.
        made._experimental_disable_per_channel_quantization_for_dense_layers = True
        return made

    announce(STEPS[2])
    (folder / "float32.tflite").write_bytes(converter().convert())

    announce(STEPS[3])
    full_int8 = converter()
    full_int8.optimizations = [tf.lite.Optimize.DEFAULT]
    full_int8.representative_dataset = lambda: _representative(arrays, names, signature)
    full_int8.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    full_int8.inference_input_type = tf.int8
    full_int8.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(full_int8.convert())


if __name__ == "__main__":
    working_folder = Path(sys.argv[1])
    convert(working_folder, _redirect(working_folder / "convert.log"))
