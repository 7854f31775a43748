"""Manifest of a model bundle: what the model is, hears, says, came from, and when to believe it.

Plain dataclasses and hand-written checks, so that the resident daemon carries no schema library for
one file. Fields that this version does not know are kept and written back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import BundleError, InputError, SoundpostError
from soundpost.device.features import FrontEnd
from soundpost.device.interpreter import Quantisation, Signature

SCHEMA = "soundpost.bundle/1"
KIND_WINDOW = "window"
KIND_FRAMES = "frames"

# A manifest with the credits of thousands of clips stays far below this.
MAX_MANIFEST_BYTES = 8_000_000
# More outputs than any sound ontology has labels (AudioSet: 527).
MAX_LABELS = 4_096

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# https://semver.org, without its rule on leading zeros.
VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A label becomes one level of an MQTT topic (MQTT 3.1.1, section 4.7).
_NOT_IN_LABELS = re.compile(r"[/+#\x00-\x1f\x7f]")

# Tensors whose quantisation a manifest states, by kind; those of states stand beside the states.
_TENSORS = {KIND_WINDOW: ("input", "logits", "embedding"), KIND_FRAMES: ("input", "logits")}
# The largest published streaming students keep a few thousand numbers.
MAX_STATE_VALUES = 1_000_000
MAX_STATES = 64
# What is known of an event may depend on so much sound after it: more would make alerts late.
MAX_LOOK_AHEAD_S = 0.2
_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainingData:
    """One source of training sound.

    licences : SPDX name (or the source's own words) to number of clips
    credits : attributions in full, as the licences ask
    """

    name: str
    n_clips: int
    licences: Mapping[str, int]
    credits: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoldenTolerance:
    """How far another machine's golden vector may be off.

    features : in natural-log mel magnitude
    scores : in probability, after the sigmoid; kernels of two runtimes round a few int8 steps apart
    """

    features: float = 1e-3
    scores: float = 0.05


@dataclass(frozen=True)
class StateTensor:
    """What a model of kind `frames` carries from chunk to chunk: out of one, into the next.

    input, output : names within the signature
    shape : (rows, columns)
    initial : value of every element where a stream begins
    input_quantisation, output_quantisation : they may differ by a step, so that a state passes
        through real values on its way
    """

    input: str
    output: str
    shape: tuple[int, int]
    initial: float
    input_quantisation: Quantisation = field(default_factory=Quantisation)
    output_quantisation: Quantisation = field(default_factory=Quantisation)

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        if len(self.shape) != 2 or min(self.shape) < 1 or size > MAX_STATE_VALUES:
            raise InputError(
                f"shape is {_short(repr(self.shape))}: expected rows and columns, at most "
                f"{MAX_STATE_VALUES} values"
            )


@dataclass(frozen=True)
class FrameSettings:
    """What only a model of kind `frames` has.

    Its window is a chunk, and a chunk begins where the last one ended. The median window of each
    label, in frames, is the `smoothing_windows` of its detector settings.

    look_ahead_frames : of the future that a label's median window may hold, at most
    states : in the order in which the model was made
    """

    look_ahead_frames: int
    states: tuple[StateTensor, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object `frames` of a manifest."""
        return {
            "look_ahead_frames": self.look_ahead_frames,
            "states": [
                {
                    "input": state.input,
                    "output": state.output,
                    "shape": list(state.shape),
                    "initial": state.initial,
                    "input_quantisation": _quantisation_table(state.input_quantisation),
                    "output_quantisation": _quantisation_table(state.output_quantisation),
                }
                for state in self.states
            ],
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> FrameSettings:
        """Read the object `frames`; raises BundleError."""
        entries = _tables(table, "states")
        _check(len(entries) <= MAX_STATES, "states", len(entries), f"at most {MAX_STATES}")
        return cls(
            _get(table, "look_ahead_frames", int, "frames"),
            tuple(_state(entry, f"frames.states[{index}]") for index, entry in enumerate(entries)),
        )


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know about a model.

    created : UTC, RFC 3339 with microseconds
    window_samples, hop_samples : a patch spans window_samples; patches start hop_samples apart;
        of kind `frames`, the patch is a chunk of frames and the hop is as many frames
    logit_limit : outputs are clamped to ± this before the host's sigmoid
    quantisation : of "input", "logits" and, of kind `window`, "embedding"
    frames : what only kind `frames` has
    classes : detector settings, one per label and in the labels' order
    speech_labels : those that mean that someone speaks: no clip is kept of such sound
    licence : of the weights themselves
    sha256 : of every member but the manifest
    read_from : JSON that this was read from; its unknown fields are written back
    """

    name: str
    version: str
    created: str
    labels: tuple[str, ...]
    front_end: FrontEnd
    window_samples: int
    hop_samples: int
    classes: tuple[ClassSettings, ...]
    quantisation: Mapping[str, Quantisation]
    signature: Signature = field(default_factory=Signature)
    kind: str = KIND_WINDOW
    frames: FrameSettings | None = None
    logit_limit: float = 8.0
    speech_labels: tuple[str, ...] = ()
    licence: str = ""
    training_data: tuple[TrainingData, ...] = ()
    golden: GoldenTolerance = field(default_factory=GoldenTolerance)
    sha256: Mapping[str, str] = field(default_factory=dict)
    read_from: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check = _check
        check(
            self.kind in _TENSORS,
            "kind",
            self.kind,
            f"'{KIND_WINDOW}' or '{KIND_FRAMES}'; update soundpost",
        )
        check(_NAME.fullmatch(self.name), "name", self.name, "a-z, 0-9, '.', '_', '-'")
        check(VERSION.fullmatch(self.version), "version", self.version, "a version such as 1.0.0")
        check(_TIME.fullmatch(self.created), "created", self.created, "UTC with microseconds")
        check(0 < len(self.labels) <= MAX_LABELS, "labels", len(self.labels), "1 to 4096 of them")
        for label in self.labels:
            check(
                label.strip() == label != "" and not _NOT_IN_LABELS.search(label),
                "labels",
                label,
                "text without '/', '+', '#', control characters or outer spaces",
            )
        check(len(set(self.labels)) == len(self.labels), "labels", "a repetition", "distinct ones")
        for label in self.speech_labels:
            check(label in self.labels, "speech_labels", label, "some of the labels")
        order = tuple(settings.label for settings in self.classes)
        check(order == self.labels, "classes", order, "one for each label, in the labels' order")
        frames = self.front_end.frames_of(self.window_samples)
        check(
            frames > 0 and self.front_end.samples_of(frames) == self.window_samples,
            "window_samples",
            self.window_samples,
            "a whole number of frames",
        )
        check(
            self.hop_samples > 0 and self.hop_samples % self.front_end.hop_length == 0,
            "hop_samples",
            self.hop_samples,
            f"a multiple of the front end's hop, {self.front_end.hop_length}",
        )
        check(self.logit_limit > 0, "logit_limit", self.logit_limit, "a positive number")
        tensors = _TENSORS[self.kind]
        check(tuple(self.quantisation) == tensors, "quantisation", [*self.quantisation], tensors)
        self._check_frames()
        check(
            all(_SHA256.fullmatch(value) for value in self.sha256.values()),
            "sha256",
            dict(self.sha256),
            "64 hex digits for each member",
        )

    def _check_frames(self) -> None:
        frames = self.frames
        if self.kind != KIND_FRAMES:
            _check(frames is None, "frames", "an object", f"none beside kind '{self.kind}'")
            return
        if frames is None:
            raise BundleError("manifest: frames is missing: expected its states; export it again")
        _check(
            self.hop_samples == self.n_frames * self.front_end.hop_length,
            "hop_samples",
            self.hop_samples,
            f"{self.n_frames * self.front_end.hop_length}, a chunk of {self.n_frames} frames",
        )
        hop_s = self.front_end.hop_length / self.front_end.sample_rate_hz
        most = math.floor(MAX_LOOK_AHEAD_S / hop_s + 1e-9)
        _check(
            0 <= frames.look_ahead_frames <= most,
            "frames.look_ahead_frames",
            frames.look_ahead_frames,
            f"0 to {most}, {MAX_LOOK_AHEAD_S:g} s",
        )
        for side in ("input", "output"):
            names = [getattr(state, side) for state in frames.states]
            names.append(getattr(self.signature, "input" if side == "input" else "logits"))
            _check(len(set(names)) == len(names), "frames.states", names, "distinct names")
        for settings in self.classes:
            try:
                check_frame_class(settings)
            except InputError as error:
                raise BundleError(f"manifest: {error}; export it again") from error

    @property
    def n_frames(self) -> int:
        """Frames of one patch."""
        return self.front_end.frames_of(self.window_samples)

    @property
    def weights(self) -> str:
        """How weights and activations are stored: "int8" or "float32"."""
        return "float32" if self.quantisation["logits"].is_float else "int8"

    def to_json(self) -> bytes:
        """Content of manifest.json (UTF-8), the same bytes for the same manifest."""
        known: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "kind": self.kind,
            "labels": list(self.labels),
            "front_end": {
                "hash": self.front_end.hash(),
                "parameters": self.front_end.to_dict(),
            },
            "window_samples": self.window_samples,
            "hop_samples": self.hop_samples,
            "signature": asdict(self.signature),
            "logit_limit": self.logit_limit,
            "quantisation": {
                name: _quantisation_table(how) for name, how in self.quantisation.items()
            },
            "classes": [asdict(settings) for settings in self.classes],
            "licence": self.licence,
            "training_data": [
                {
                    "name": data.name,
                    "n_clips": data.n_clips,
                    "licences": dict(data.licences),
                    "credits": list(data.credits),
                }
                for data in self.training_data
            ],
            "golden": asdict(self.golden),
            "sha256": dict(self.sha256),
        }
        # Bundles without the field keep their bytes.
        if self.speech_labels or "speech_labels" in self.read_from:
            known["speech_labels"] = list(self.speech_labels)
        if self.frames is not None:
            known["frames"] = self.frames.to_dict()
        text = json.dumps(_with_unknown(known, self.read_from), indent=1, ensure_ascii=False)
        return f"{text}\n".encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read manifest.json.

        Raises
        ------
        BundleError
            Naming the field, what was found and what was expected.
        """
        if len(content) > MAX_MANIFEST_BYTES:
            raise BundleError(f"manifest: {len(content)} bytes: expected <= {MAX_MANIFEST_BYTES}")
        try:
            table = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest: is not JSON ({error}); export it again") from error
        if not isinstance(table, dict):
            raise BundleError("manifest: is not a JSON object; export it again")
        schema = table.get("schema")
        if schema != SCHEMA:
            raise BundleError(
                f"manifest: schema is {_short(repr(schema))}: this soundpost reads '{SCHEMA}'; "
                "update soundpost on this device or export the bundle again"
            )
        tensors = _get(table, "quantisation", dict)
        kind = _get(table, "kind", str)
        return cls(
            name=_get(table, "name", str),
            version=_get(table, "version", str),
            created=_get(table, "created", str),
            kind=kind,
            frames=FrameSettings.from_dict(_get(table, "frames", dict))
            if kind == KIND_FRAMES
            else None,
            labels=_strings(_get(table, "labels", list), "labels"),
            front_end=_front_end(_get(table, "front_end", dict)),
            window_samples=_get(table, "window_samples", int),
            hop_samples=_get(table, "hop_samples", int),
            signature=_record(Signature, _get(table, "signature", dict), "signature"),
            logit_limit=_get(table, "logit_limit", float),
            quantisation={
                name: _record(Quantisation, _get(tensors, name, dict), f"quantisation.{name}")
                for name in _TENSORS.get(kind, ())
            },
            classes=tuple(
                _record(ClassSettings, entry, f"classes[{index}]")
                for index, entry in enumerate(_tables(table, "classes"))
            ),
            speech_labels=_strings(
                _get({"speech_labels": [], **table}, "speech_labels", list), "speech_labels"
            ),
            licence=_get(table, "licence", str),
            training_data=tuple(_training_data(data) for data in _tables(table, "training_data")),
            golden=_record(GoldenTolerance, _get(table, "golden", dict), "golden"),
            sha256=_typed(_get(table, "sha256", dict), str, "sha256"),
            read_from=table,
        )


def check_frame_class(settings: ClassSettings) -> None:
    """Raise InputError where detector settings ask for what is not done on frames."""
    where = f"settings of class {settings.label!r}"
    if settings.smoothing == "mean":
        raise InputError(
            f"{where}: smoothing is 'mean': a bundle of kind '{KIND_FRAMES}' takes median or none"
        )
    if settings.cadence is not None:
        raise InputError(
            f"{where}: cadence is {settings.cadence!r}: a bundle of kind '{KIND_FRAMES}' confirms "
            "no cadence; leave it out"
        )


def _quantisation_table(how: Quantisation) -> dict[str, Any]:
    return {
        "dtype": "float32" if how.is_float else "int8",
        "scale": how.scale,
        "zero_point": how.zero_point,
    }


def _state(table: Mapping[str, Any], where: str) -> StateTensor:
    shape = _get(table, "shape", list, where)
    _check(all(type(n) is int for n in shape), f"{where}.shape", shape, "whole numbers")
    quantisation = {
        name: _record(Quantisation, _get(table, name, dict, where), f"{where}.{name}")
        for name in ("input_quantisation", "output_quantisation")
    }
    try:
        return StateTensor(
            _get(table, "input", str, where),
            _get(table, "output", str, where),
            tuple(shape),
            _get(table, "initial", float, where),
            **quantisation,
        )
    except InputError as error:
        raise BundleError(f"manifest: {where}: {error}; export it again") from error


def _check(held: object, name: str, found: object, expected: object) -> None:
    if not held:
        raise BundleError(
            f"manifest: {_short(name)} is {_short(repr(found))}: expected {expected}; export it "
            "again"
        )


def _short(text: str) -> str:
    # Names in an object may hold anything.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 80 else text[:77] + "..."


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _is(value: object, kind: type) -> bool:
    if kind is float:
        # JSON's whole numbers know no bound, and float() does.
        return (type(value) is float and math.isfinite(value)) or (
            type(value) is int and abs(value) < 1 << 53
        )
    return type(value) is kind


def _get(table: Mapping[str, Any], key: str, kind: type[_T], where: str = "") -> _T:
    value = table.get(key)
    name = f"{where}.{key}" if where else key
    _check(_is(value, kind), name, value, f"a value of type {kind.__name__}")
    return kind(value)  # type: ignore[call-arg]


def _typed(table: Mapping[str, Any], kind: type[_T], where: str) -> dict[str, _T]:
    return {key: _get(table, key, kind, where) for key in table}


def _strings(values: list[Any], where: str) -> tuple[str, ...]:
    _check(all(type(value) is str for value in values), where, "another value", "text only")
    return tuple(values)


def _tables(table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values = _get(table, key, list)
    _check(all(type(value) is dict for value in values), key, "another value", "objects only")
    return values


def _front_end(table: Mapping[str, Any]) -> FrontEnd:
    parameters, stated = _get(table, "parameters", dict), _get(table, "hash", str)
    try:
        front_end = FrontEnd.from_dict(parameters)
    except SoundpostError as error:
        raise BundleError(f"manifest: {error}") from error
    if front_end.hash() != stated:
        raise BundleError(
            f"manifest: front end hashes to {front_end.hash()[:12]}, the bundle says "
            f"{stated[:12]!r}: this device would hear something else than the model was trained "
            "on; update soundpost on this device or export the bundle again"
        )
    return front_end


def _training_data(table: Mapping[str, Any]) -> TrainingData:
    where = "training_data"
    return TrainingData(
        name=_get(table, "name", str, where),
        n_clips=_get(table, "n_clips", int, where),
        licences=_typed(_get(table, "licences", dict, where), int, f"{where}.licences"),
        credits=_strings(_get(table, "credits", list, where), f"{where}.credits"),
    )


# Field annotations are strings (postponed evaluation); these are the ones that records use.
_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def _record(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """Dataclass of simple fields from an object: all must be there, unknown ones are passed by."""
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]
        _check(item.name in table, f"{where}.{item.name}", "missing", "it to be there")
        wanted = _KINDS.get(str(item.type))
        value = table[item.name]
        if wanted is not None:
            value = _get(table, item.name, wanted, where)
        else:
            simple = value is None or isinstance(value, str)
            _check(simple, f"{where}.{item.name}", value, "text or null")
        values[item.name] = value
    try:
        return kind(**values)
    except (SoundpostError, ValueError) as error:
        raise BundleError(f"manifest: {where}: {error}; export it again") from error


def _with_unknown(known: Any, read: Any) -> Any:
    """Known values in their order, then the fields of the JSON read that are not among them."""
    if isinstance(known, dict) and isinstance(read, Mapping):
        merged = {key: _with_unknown(value, read.get(key)) for key, value in known.items()}
        return merged | {key: value for key, value in read.items() if key not in known}
    if isinstance(known, list) and isinstance(read, list) and len(known) == len(read):
        return [_with_unknown(a, b) for a, b in zip(known, read, strict=True)]
    return known
