"""Model bundle: one file with the model, its manifest, a golden vector and the model card.

A bundle comes from elsewhere, so nothing in it is believed: see `read_bundle` for what the file
must be, `check_bundle` for what the model must do on this very machine.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.device.archive import read_archive, write_archive
from soundpost.device.errors import BundleError, InputError
from soundpost.device.features import FloatArray, log_mel
from soundpost.device.files import write_atomically
from soundpost.device.frame_interpreter import (
    FrameInterpreter,
    load_frame_interpreter,
    stated_quantisation,
)
from soundpost.device.interpreter import Interpreter, Quantisation, load_interpreter, sigmoid
from soundpost.device.manifest import GoldenTolerance, Manifest, TrainingData

__all__ = [
    "Bundle",
    "BundleCheck",
    "Golden",
    "GoldenTolerance",
    "Manifest",
    "TrainingData",
    "check_bundle",
    "open_bundle",
    "pack_bundle",
    "read_bundle",
    "starter_bundle_path",
    "write_bundle",
]

MODEL, MANIFEST, GOLDEN, MODEL_CARD = "model.tflite", "manifest.json", "golden.npz", "MODEL_CARD.md"
MEMBERS = (MODEL, MANIFEST, GOLDEN, MODEL_CARD)

# numpy gives its writer of .npy no types.
_write_npy: Any = np.lib.format.write_array
# Version 1.0 of the format: magic, version, length of the header, header (numpy.lib.format).
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}(?:, \d{1,9})*),?\), \} *\n",
    re.DOTALL,
)

# Fits the memory of the smallest supported board many times over, and no student comes near it.
MAX_BUNDLE_BYTES = 64_000_000
# What runs a model, by kind: a window interpreter keeps nothing, a frame interpreter a state.
AnyInterpreter = Interpreter | FrameInterpreter

# Golden input: at most a minute at 16 kHz.
MAX_GOLDEN_SAMPLES = 960_000


@dataclass(frozen=True)
class Golden:
    """A short input and what the exporting machine made of it.

    samples : (n_samples,) float32, full scale ±1.0, at the front end's rate
    features : (n_frames, n_mels) float32
    logits : (n_windows, n_labels) float32, windows one hop apart; of kind `frames`
        (n_chunks n_frames, n_labels), the chunks heard one after the other
    embedding : (n_windows, n_embedding) float32; of kind `frames` (n_chunks, 0)
    """

    samples: FloatArray
    features: FloatArray
    logits: FloatArray
    embedding: FloatArray

    def to_npz(self) -> bytes:
        """Content of golden.npz: the same bytes for the same arrays (np.savez stores the date)."""
        members = {}
        for name in ("samples", "features", "logits", "embedding"):
            file = io.BytesIO()
            array = np.ascontiguousarray(getattr(self, name), np.dtype("<f4"))
            _write_npy(file, array, version=(1, 0), allow_pickle=False)
            members[f"{name}.npy"] = file.getvalue()
        return write_archive(members)

    @classmethod
    def from_npz(cls, content: bytes) -> Golden:
        """Read golden.npz; raises BundleError."""
        names = {"samples": 1, "features": 2, "logits": 2, "embedding": 2}
        members = read_archive(content, [f"{name}.npy" for name in names], MAX_BUNDLE_BYTES, GOLDEN)
        return cls(
            **{name: _read_npy(members[f"{name}.npy"], n, name) for name, n in names.items()}
        )


def _read_npy(content: bytes, n_dimensions: int, name: str) -> FloatArray:
    """Array of a .npy member, its size checked before anything is allocated for it.

    Reads only what `Golden.to_npz` writes: numpy's own reader parses the header as Python.
    """
    header = _NPY_HEADER.match(content)
    shape = tuple(int(n) for n in header[1].split(b",") if n.strip()) if header else ()
    size = len(content) - header.end() if header else 0
    if header is None or len(shape) != n_dimensions or size != 4 * math.prod(shape):
        raise BundleError(
            f"{GOLDEN}: {name} of shape {shape} in {size} bytes: expected float32 in "
            f"{n_dimensions} dimensions; export it again"
        )
    array = np.frombuffer(content, np.dtype("<f4"), offset=header.end()).reshape(shape)
    if not np.isfinite(array).all():
        raise BundleError(f"{GOLDEN}: {name} holds values that are no numbers; export it again")
    return array.astype(np.float32)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose form, hashes and manifest were found in order.

    model : content of model.tflite
    sha256 : of the whole file; names the model in events
    where : file name for messages
    """

    manifest: Manifest
    model: bytes
    golden: Golden
    model_card: str
    sha256: str
    where: str

    def load_interpreter(self, runtime: str = "auto", threads: int = 1) -> AnyInterpreter:
        """Interpreter of this bundle's model, its outputs counted against the labels.

        Raises BundleError, or MissingExtraError where no runtime is installed.
        """
        manifest = self.manifest
        try:
            interpreter = model_interpreter(manifest, self.model, runtime, threads)
        except BundleError as error:
            raise BundleError(f"{self.where}: {error}") from error
        remedy = "export the bundle again"
        if interpreter.n_labels != len(manifest.labels):
            raise BundleError(
                f"{self.where}: the model has {interpreter.n_labels} outputs, the manifest "
                f"{len(manifest.labels)} labels; {remedy}"
            )
        expected = (manifest.n_frames, manifest.front_end.n_mels)
        if interpreter.input_shape != expected:
            raise BundleError(
                f"{self.where}: the model takes patches {interpreter.input_shape}, the manifest's "
                f"front end makes {expected}; {remedy}"
            )
        told = stated_quantisation(manifest)
        for name, how in _model_quantisation(interpreter).items():
            stated = told[name]
            same = np.isclose(how.scale, stated.scale, rtol=1e-6, atol=0.0)
            if not same or how.zero_point != stated.zero_point:
                raise BundleError(
                    f"{self.where}: the model's {name} is quantised by {how.scale:g} and "
                    f"{how.zero_point}, the manifest says {stated.scale:g} and "
                    f"{stated.zero_point}; {remedy}"
                )
        return interpreter


@dataclass(frozen=True)
class BundleCheck:
    """Outcome of a golden vector that reproduced: largest differences, and where they were seen."""

    runtime: str
    feature_error: float
    score_error: float
    n_windows: int


def parse_bundle(raw: bytes, where: str) -> Bundle:
    """Bundle from the bytes of a file; raises BundleError as `read_bundle` does."""
    members = read_archive(raw, MEMBERS, MAX_BUNDLE_BYTES, where)
    try:
        manifest = Manifest.from_json(members[MANIFEST])
        hashed = [name for name in MEMBERS if name != MANIFEST]
        if sorted(manifest.sha256) != sorted(hashed):
            raise BundleError(
                f"manifest: sha256 names {', '.join(sorted(manifest.sha256)) or 'nothing'}: "
                f"expected {', '.join(sorted(hashed))}; export it again"
            )
        for name in hashed:
            found = hashlib.sha256(members[name]).hexdigest()
            if found != manifest.sha256[name]:
                raise BundleError(
                    f"{name} has sha256 {found[:12]}, the manifest says "
                    f"{manifest.sha256[name][:12]}; fetch the bundle again"
                )
        golden = Golden.from_npz(members[GOLDEN])
        _check_golden_shapes(golden, manifest)
        card = members[MODEL_CARD].decode("utf-8")
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: {MODEL_CARD} is not UTF-8 text; export it again") from error
    return Bundle(manifest, members[MODEL], golden, card, hashlib.sha256(raw).hexdigest(), where)


def model_interpreter(
    manifest: Manifest, model: bytes, runtime: str = "auto", threads: int = 1
) -> AnyInterpreter:
    """Interpreter of the manifest's kind for the content of model.tflite."""
    if manifest.frames is None:
        return load_interpreter(model, runtime, threads, manifest.signature)
    return load_frame_interpreter(
        model, manifest.signature, manifest.frames.states, runtime, threads
    )


def _model_quantisation(interpreter: AnyInterpreter) -> dict[str, Quantisation]:
    found = dict(interpreter.quantisation)
    return found | getattr(interpreter, "state_quantisation", {})


def _check_golden_shapes(golden: Golden, manifest: Manifest) -> None:
    n_samples, n_windows = len(golden.samples), len(golden.embedding)
    expected_samples = manifest.window_samples + (n_windows - 1) * manifest.hop_samples
    front_end = manifest.front_end
    if not (n_windows > 0 and n_samples == expected_samples <= MAX_GOLDEN_SAMPLES):
        raise BundleError(
            f"{GOLDEN}: {n_samples} samples, {n_windows} windows: expected {expected_samples} "
            "samples; export it again"
        )
    expected = {
        "features": (front_end.frames_of(n_samples), front_end.n_mels),
        "logits": (
            n_windows * (1 if manifest.frames is None else manifest.n_frames),
            len(manifest.labels),
        ),
        "embedding": (n_windows, golden.embedding.shape[1]),
    }
    for name, shape in expected.items():
        found = getattr(golden, name).shape
        if found != shape:
            raise BundleError(f"{GOLDEN}: {name} is {found}: expected {shape}; export it again")


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check its form; the model itself is not run (see `check_bundle`).

    Raises
    ------
    BundleError
        Not a zip or cut short; unknown, missing, repeated, escaping or linked members; larger than
        64 MB, or compressed; any byte changed; unknown schema; a field missing or out of range;
        member or front end with another hash; golden vector of other shapes than the manifest says.
    InputError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the path of a .bundle file"
        ) from error
    return parse_bundle(raw, str(path))


def check_bundle(
    bundle: Bundle, interpreter: AnyInterpreter | None = None, runtime: str = "auto"
) -> BundleCheck:
    """Run the golden vector through this machine's front end and model.

    Raises BundleError where features or scores are further from the exporting machine's than the
    manifest allows, or the model cannot be loaded.
    """
    manifest, golden = bundle.manifest, bundle.golden
    interpreter = interpreter or bundle.load_interpreter(runtime)
    features = log_mel(golden.samples, manifest.front_end)
    feature_error = float(np.abs(features - golden.features).max())
    if not feature_error <= manifest.golden.features:
        raise BundleError(
            f"{bundle.where}: golden vector: features differ by {feature_error:.2g}: expected at "
            f"most {manifest.golden.features:g}; update soundpost on this device or export again"
        )
    try:
        logits = score_features(features, manifest, interpreter)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{bundle.where}: {interpreter.runtime} cannot run the model: {reason}; export it with "
            "`soundpost export`"
        ) from error
    errors = np.abs(sigmoid(logits) - sigmoid(golden.logits))
    score_error = float(errors.max())
    if not score_error <= manifest.golden.scores:
        label = manifest.labels[int(errors.max(axis=0).argmax())]
        raise BundleError(
            f"{bundle.where}: golden vector: scores differ by {score_error:.2g} ({label}, "
            f"{interpreter.runtime}): expected at most {manifest.golden.scores:g}; "
            "try another runtime or export again"
        )
    return BundleCheck(interpreter.runtime, feature_error, score_error, len(golden.embedding))


def windows(features: FloatArray, manifest: Manifest) -> list[FloatArray]:
    """Patches (n_frames, n_mels) of features (n, n_mels), one hop apart."""
    length, hop = manifest.n_frames, manifest.hop_samples // manifest.front_end.hop_length
    return [features[i : i + length] for i in range(0, len(features) - length + 1, hop)]


def score_features(
    features: FloatArray, manifest: Manifest, interpreter: AnyInterpreter
) -> FloatArray:
    """Logits of features (n, n_mels), window by window or, from a beginning, chunk by chunk.

    Returns (n_windows, n_labels) float32, or (n, n_labels): silence follows a last chunk that is
    not full, as it does for the sensor at a stream's end.
    """
    scored: list[FloatArray] = []
    if isinstance(interpreter, FrameInterpreter):
        lacking = -len(features) % manifest.n_frames
        padded = np.pad(
            features, ((0, lacking), (0, 0)), constant_values=manifest.front_end.clamp_low
        )
        state = interpreter.initial_state()
        for chunk in windows(padded, manifest):
            outputs = interpreter.run(chunk, state)
            state = outputs.state
            scored.append(outputs.logits)
        return np.concatenate(scored, dtype=np.float32)[: len(features)]
    scored = [interpreter.run(patch).logits for patch in windows(features, manifest)]
    return np.stack(scored, dtype=np.float32)


def open_bundle(
    path: Path, runtime: str = "auto", threads: int = 1
) -> tuple[Bundle, AnyInterpreter, BundleCheck]:
    """What the daemon does at start: read, load, and reproduce the golden vector."""
    bundle = read_bundle(path)
    interpreter = bundle.load_interpreter(runtime, threads)
    return bundle, interpreter, check_bundle(bundle, interpreter)


def pack_bundle(manifest: Manifest, model: bytes, golden: Golden, model_card: str) -> bytes:
    """Content of a bundle file: the manifest is completed with the members' hashes.

    What this returns has been read back: a bundle that would be refused is never written.
    """
    members = {MODEL: model, GOLDEN: golden.to_npz(), MODEL_CARD: model_card.encode()}
    hashes: Mapping[str, str] = {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(members.items())
    }
    members[MANIFEST] = replace(manifest, sha256=hashes).to_json()
    raw = write_archive(members)
    parse_bundle(raw, manifest.name)
    return raw


def write_bundle(
    path: Path, manifest: Manifest, model: bytes, golden: Golden, model_card: str
) -> str:
    """Write a bundle under its final name only when it is whole; returns its sha256.

    Raises InputError where the disk is full or the folder cannot be written.
    """
    raw = pack_bundle(manifest, model, golden, model_card)
    write_atomically(path, raw)
    return hashlib.sha256(raw).hexdigest()


def starter_bundle_path() -> Path:
    """The bundle that comes with soundpost; raises BundleError where the package lacks it."""
    path = Path(str(files("soundpost.device.starter").joinpath("starter.bundle")))
    if not path.is_file():
        raise BundleError(f"{path}: the starter bundle is missing; install soundpost again")
    return path
