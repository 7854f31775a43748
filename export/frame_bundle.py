"""A converted streaming student to a bundle of kind `frames`, with its card and golden vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from soundpost.device.bundle import Manifest, TrainingData, model_interpreter, write_bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import UsageError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.manifest import KIND_FRAMES, FrameSettings
from soundpost.export.frames import (
    CHUNK_FRAMES,
    SIGNATURE,
    ConvertedFrames,
    FrameBounds,
    convert_frames,
)
from soundpost.export.golden import golden_tolerance, make_frame_golden
from soundpost.export.pipeline import means_speech
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT
from soundpost.train.sed.streaming import StreamingCRNN

# How the detector is set, from the int8 model: where thresholds are chosen on what the sensor will
# see.
ChooseClasses = Callable[[FrameInterpreter], Sequence[ClassSettings]]
# Markdown on the model as it will run, with those settings, for the card.
Judge = Callable[[FrameInterpreter, Sequence[ClassSettings]], str]


@dataclass(frozen=True)
class FrameBundleOptions:
    """What a person may choose.

    name, version, licence, created, training_data : as in the manifest
    notes : Markdown for the model card, figures of events among them
    chunk_frames : of the model
    look_ahead_frames : of the future in a median window at most; at most 200 ms
    """

    name: str
    created: str
    version: str = "1.0.0"
    licence: str = ""
    training_data: tuple[TrainingData, ...] = ()
    notes: str = ""
    chunk_frames: int = CHUNK_FRAMES
    look_ahead_frames: int = 20
    seed: int = 0
    bounds: FrameBounds = field(default_factory=FrameBounds)


@dataclass(frozen=True)
class FrameExport:
    """What was written and how it compares."""

    out: Path
    sha256: str
    manifest: Manifest
    converted: ConvertedFrames


def export_frames(
    network: StreamingCRNN,
    labels: Sequence[str],
    front_end: FrontEnd,
    training: Sequence[FloatArray],
    held_out: Sequence[FloatArray],
    classes: Sequence[ClassSettings] | ChooseClasses,
    out: Path,
    options: FrameBundleOptions,
    *,
    judge: Judge | None = None,
    quiet: bool = False,
) -> FrameExport:
    """Export a student; the bundle appears under its name only when every gate has passed.

    Parameters
    ----------
    labels : of the student's logits
    training, held_out : recordings (n_frames, n_mels) of log-mel values, see `convert_frames`
    classes : detector settings by label, `smoothing_windows` being the median's frames; or what
        chooses them by the int8 model
    out : the bundle to write
    judge : what the card says of events besides; may raise ExportError

    Raises
    ------
    InputError
        Settings or labels that no manifest takes, or the bundle cannot be written.
    ExportError
        The conversion failed, or the int8 model is not as good as the float one.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{out}: expected a file name in a folder that exists")
    if len(labels) != network.n_labels:
        raise UsageError(f"{len(labels)} labels for a student of {network.n_labels}")
    converted = convert_frames(
        network,
        front_end,
        training,
        held_out,
        chunk_frames=options.chunk_frames,
        seed=options.seed,
        bounds=options.bounds,
        quiet=quiet,
    )
    interpreter = converted.interpreter()
    if callable(classes):
        classes = classes(interpreter)
    if judge is not None:
        judged = judge(interpreter, classes).strip()
        options = replace(options, notes=f"{options.notes.strip()}\n\n{judged}".strip())
    manifest = frame_manifest(converted, labels, front_end, classes, options)
    runner = model_interpreter(manifest, converted.models.int8)
    assert isinstance(runner, FrameInterpreter)
    golden = make_frame_golden(runner, manifest)
    tolerance = golden_tolerance(converted.models.int8, golden, manifest)
    manifest = replace(manifest, golden=tolerance)
    card = render_frame_card(manifest, converted, options)
    sha256 = write_bundle(out, manifest, converted.models.int8, golden, card)
    return FrameExport(out, sha256, manifest, converted)


def frame_manifest(
    converted: ConvertedFrames,
    labels: Sequence[str],
    front_end: FrontEnd,
    classes: Sequence[ClassSettings],
    options: FrameBundleOptions,
) -> Manifest:
    """The manifest, without the members' hashes; raises BundleError where a value cannot be."""
    return Manifest(
        name=options.name,
        version=options.version,
        created=options.created,
        labels=tuple(labels),
        front_end=front_end,
        window_samples=front_end.samples_of(converted.chunk_frames),
        hop_samples=converted.chunk_frames * front_end.hop_length,
        classes=tuple(classes),
        quantisation=converted.quantisation,
        signature=SIGNATURE,
        kind=KIND_FRAMES,
        frames=FrameSettings(options.look_ahead_frames, converted.states),
        logit_limit=LOGIT_LIMIT,
        speech_labels=tuple(label for label in labels if means_speech(label)),
        licence=options.licence,
        training_data=options.training_data,
    )


def render_frame_card(
    manifest: Manifest, converted: ConvertedFrames, options: FrameBundleOptions
) -> str:
    """Markdown; the same bytes for the same facts."""
    front_end, figures, drift = manifest.front_end, converted.figures, converted.figures.drift
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"{len(manifest.labels)} sound labels, scores of every {1000 * hop_s:g} ms in chunks of "
        f"{manifest.n_frames} frames, causal, full int8, {len(converted.models.int8):,} bytes. "
        f"Made {manifest.created}.",
        "",
        f"Licence of the weights: {manifest.licence or 'not stated by who exported them'}.",
        "",
    ]
    if options.notes:
        lines += [options.notes.strip(), ""]
    lines += [
        "## Parity",
        "",
        "Held-out recordings, heard chunk by chunk. Δp is the difference of a label's probability "
        "in a frame from torch's.",
        "",
        "| form | max Δp | mean Δp | same decision at one half |",
        "|---|---|---|---|",
        f"| int8 TFLite | {figures.max_difference:.2g} | {figures.mean_difference:.2g} | "
        f"{figures.decision_agreement:.4f} |",
        "",
        "Float forms against torch, largest relative difference of a logit: "
        + ", ".join(f"{name} {error:.1g}" for name, error in figures.float_error.items())
        + ".",
        "",
        f"Over {drift.seconds:.0f} s without a pause the mean Δp is {drift.first:.2g} in the first "
        f"minute, {drift.last:.2g} in the last and {max(drift.by_minute):.2g} in the worst; "
        f"{drift.decision_agreement:.4f} of decisions are the same.",
        "",
    ]
    runtimes = figures.runtimes
    if runtimes is None:
        lines += ["Only one TFLite runtime was installed: the second was not compared.", ""]
    else:
        lines += [
            f"{runtimes.runtimes[0]} and {runtimes.runtimes[1]} differ by {runtimes.mean_score:.2g}"
            f" in probability on average and {runtimes.max_score:.2g} at most.",
            "",
        ]
    operators = ", ".join(f"{n} {k} v{v}" for (k, v), n in sorted(converted.operators.items()))
    lines += [
        f"Operators: {operators}. Ranges from {converted.n_representative} chunks of training "
        "sound with the states that the float student has there.",
        "",
        "## Labels and thresholds",
        "",
        f"A median window holds at most {1000 * hop_s * options.look_ahead_frames:g} ms of what "
        "follows.",
        "",
        "| label | onset | release | median, frames | shortest, s | gap, s |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {known.label} | {known.onset:.3f} | {known.release:.3f} | "
        f"{1 if known.smoothing == 'none' else known.smoothing_windows} | "
        f"{known.min_duration_s:g} | {known.min_gap_s:g} |"
        for known in manifest.classes
    ]
    lines += ["", "## Training data", ""]
    for data in manifest.training_data:
        lines += [f"{data.name}: {data.n_clips} clips.", "", "| licence | clips |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in data.licences.items()]
        lines += ["", *[f"- {credit}" for credit in data.credits], ""]
    return "\n".join(lines).rstrip() + "\n"
