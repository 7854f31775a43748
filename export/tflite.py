"""ONNX to TFLite, in a child process: the converters print without end and can abort."""

from __future__ import annotations

import io
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soundpost.device.errors import ExportError, MissingExtraError
from soundpost.device.features import FloatArray
from soundpost.device.interpreter import Signature
from soundpost.export.convert_worker import STEPS

# MobileNet_v2 takes half a minute on two cores; a converter that hangs must not hang a night's job.
TIMEOUT_S = 1_800.0

# Lines of Python and absl logs that tell what went wrong, the last one telling it best.
_TELLING = re.compile(r"(Error|ERROR|error|Exception|Killed|Aborted|Segmentation|fault)\b")
_NOISE = re.compile(r"^\s*(\^+|File \"|Traceback|[IW]\d{4} |WARNING: All log messages)")


@dataclass(frozen=True)
class TFLiteModels:
    """Contents of the two .tflite files of one student."""

    float32: bytes
    int8: bytes


@dataclass(frozen=True)
class Interface:
    """What a converted model is called by.

    signature : its name
    inputs, outputs : names in the order of the ONNX model's; the first input is the 4-D one
    unroll : write the steps of a recurrence out, which full int8 needs
    """

    signature: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unroll: bool = False


_NAMES = Signature()
WINDOW = Interface(_NAMES.name, (_NAMES.input,), (_NAMES.logits, _NAMES.embedding))


def convert_to_tflite(
    onnx_model: bytes,
    representative: FloatArray | Mapping[str, FloatArray],
    *,
    interface: Interface | None = None,
    quiet: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> TFLiteModels:
    """Convert a student, with its progress on standard error.

    Parameters
    ----------
    onnx_model : from `export_onnx`
    representative : (n, n_frames, n_mels) float32, real log-mel patches that set the int8 ranges;
        where there are more inputs than a patch, such arrays by the inputs' names
    interface : names of the signature; those of kind `window` by default

    Raises
    ------
    ExportError
        The converter failed, died or took too long: with the last telling line of its log.
    MissingExtraError
        A package of the export extra is missing.
    """
    with tempfile.TemporaryDirectory(prefix="soundpost-export-") as place:
        folder = Path(place)
        try:
            (folder / "model.onnx").write_bytes(onnx_model)
            interface = interface or WINDOW
            (folder / "interface.json").write_text(json.dumps(asdict(interface)), encoding="utf-8")
            if not isinstance(representative, Mapping):
                representative = {interface.inputs[0]: representative}
            for index, name in enumerate(interface.inputs):
                array = io.BytesIO()
                np.save(array, np.asarray(representative[name], np.float32), allow_pickle=False)
                (folder / f"representative_{index}.npy").write_bytes(array.getvalue())
        except OSError as error:
            raise ExportError(
                f"{folder}: cannot be written ({error.strerror}); free some space there "
                "or set TMPDIR to another folder"
            ) from error
        _run_worker(folder, timeout_s, quiet)
        try:
            return TFLiteModels(
                (folder / "float32.tflite").read_bytes(), (folder / "int8.tflite").read_bytes()
            )
        except OSError as error:
            raise ExportError(f"conversion left no model: {_last_words(folder)}") from error


def _run_worker(folder: Path, timeout_s: float, quiet: bool) -> None:
    environment = dict(os.environ)
    # onnx2tf calls the onnxsim executable, which lies beside this interpreter.
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    )
    # No GPU: its kernels sum in another order, and the same run must give the same bytes.
    environment |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", "soundpost.export.convert_worker", str(folder)]
    started = time.monotonic()
    bar = tqdm(total=len(STEPS), desc="converting", unit="step", disable=quiet, leave=False)
    with (
        bar,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as process,
    ):
        try:
            step, errors = _follow(process, bar, started + timeout_s)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        words = _last_words(folder, errors)
        if "ModuleNotFoundError" in words and step in ("", STEPS[0]):
            raise MissingExtraError(f"conversion: {words}; install soundpost[export]")
        died = f"died of signal {-process.returncode}" if process.returncode < 0 else "failed"
        raise ExportError(f"conversion {died} while '{step}': {words}")


def _follow(process: subprocess.Popen[bytes], bar: tqdm[None], deadline: float) -> tuple[str, str]:
    """Show the steps that the child announces; returns the last, and its standard error."""
    step, errors = "", b""
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise ExportError(f"conversion took too long while '{step}'; it was stopped")
            for key, _ in selector.select(timeout=1.0):
                content = os.read(key.fd, 65_536)
                if not content:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors += content
                else:
                    for line in content.decode("utf-8", "replace").splitlines():
                        bar.update(1 if step else 0)
                        step = line
                        bar.set_description(step)
            bar.refresh()
    return step, errors.decode("utf-8", "replace")


def _last_words(folder: Path, errors: str = "") -> str:
    """The last line of the log that tells what went wrong, else its last line."""
    try:
        log = (folder / "convert.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    lines = [line.strip() for line in (log + "\n" + errors).splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.match(line)]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or ["it said nothing"])[-1][:300]
