"""A run of yin2021 whose student is one of the sensor's networks, to a bundle.

MobileNet_v2 goes the way of every student of windows. The streaming CRNN becomes a bundle of kind
`frames`; its clips have labels and no times, so that thresholds follow the rule for clips
(thresholds.py) on the peaks of frame scores behind a median, and int8 is held against float by the
average precision of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ExportError, InputError
from soundpost.device.features import FloatArray
from soundpost.device.frame_detector import smooth
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import sigmoid
from soundpost.export.frame_bundle import FrameBundleOptions, FrameExport, export_frames
from soundpost.export.frames import score_recording
from soundpost.export.identity import bundle_name, check_out, created_at
from soundpost.export.parity import ParityBounds
from soundpost.export.pipeline import ExportOptions, ExportResult, WindowModel, export_windows
from soundpost.export.tag_windows import Role, TaggingRoles, export_windows_of, read_roles
from soundpost.export.thresholds import ThresholdRule, choose_onset, release_of
from soundpost.train.multimodal.bundle_tags import clip_score
from soundpost.train.multimodal.device_students import FrameStudent, WindowStudent
from soundpost.train.multimodal.ensembles import TaggingFigures, tagging_figures
from soundpost.train.multimodal.tagging_report import TITLES, headline
from soundpost.train.multimodal.tagging_run import TaggingRun, load_tagging_run
from soundpost.train.run import WEIGHTS
from soundpost.train.sed.streaming import StreamingCRNN

# 210 ms around a frame, of which half is the future: what is longer would make alerts late. Without
# times there is nothing to choose it by, nor the silence that ends an event.
_MEDIAN_FRAMES = 21
_GAP_S = 0.5
_LOOK_AHEAD_FRAMES = 20
# Recordings whose chunks set the int8 ranges, and those that float and int8 are compared on frame
# by frame.
_N_REPRESENTATIVE = _N_COMPARED = 100


@dataclass(frozen=True)
class TaggedFrames:
    """What was written, and how float and int8 tell test clips, on the same clips."""

    export: FrameExport
    float_figures: TaggingFigures
    int8_figures: TaggingFigures


def export_tagging_run(
    folder: Path,
    data: Path | None,
    out: Path,
    options: ExportOptions,
    *,
    quiet: bool = False,
) -> ExportResult | TaggedFrames:
    """Export a run; the bundle appears under its name only when every gate has passed.

    Parameters
    ----------
    folder : what `soundpost train` wrote
    data : the data set's tables; where the run says they are, by default
    out : the bundle to write

    Raises
    ------
    InputError
        The student is none of the sensor's, the run or its data cannot be used, or the bundle
        cannot be written.
    ExportError
        The conversion failed, or the int8 model is not as good as the float one.
    """
    check_out(out)
    run = load_tagging_run(folder)
    student = run.student
    if not isinstance(student, WindowStudent | FrameStudent):
        raise InputError(
            f"{folder}: its student is the paper's network, which no sensor runs; train with "
            f"model.student=mobilenet_v2, or let it label clips: soundpost distil {folder}"
        )
    bundle_name(options.name, run.recipe.name, options.version)
    roles = read_roles(run, data or run.data, quiet=quiet)
    if isinstance(student, WindowStudent):
        n_frames = student.settings.patch_frames
        windows = export_windows_of(roles, n_frames)
        model = WindowModel(
            student.network,
            run.labels,
            run.recipe.front_end,
            n_frames,
            run.recipe.training.seed,
            run.recipe.name,
            folder / WEIGHTS,
            roles.training_data(run.data.name),
            _provenance(run, roles),
        )
        return export_windows(model, windows, out, options, quiet=quiet)
    return _export_frames(run, student, roles, out, options, quiet=quiet)


def _provenance(run: TaggingRun, roles: TaggingRoles) -> tuple[tuple[str, str], ...]:
    recipe, backbone = run.recipe, run.settings["backbone"]
    beside = f", pictures through {backbone.get('name')}" if backbone else ""
    return (
        (
            "recipe",
            f"{recipe.name}, {recipe.training.epochs} epochs a stage, seed {recipe.training.seed}",
        ),
        ("student", recipe.model.student),
        ("method", f"{recipe.method}{beside}"),
        ("code", str(run.settings.get("git", "unknown"))),
        ("clips trained on", str(roles.n_trained)),
        ("clips for thresholds", str(len(roles.validation.clips))),
        ("clips held out for the report", str(len(roles.test.clips))),
    )


def _export_frames(
    run: TaggingRun,
    student: FrameStudent,
    roles: TaggingRoles,
    out: Path,
    options: ExportOptions,
    *,
    quiet: bool,
) -> TaggedFrames:
    recipe, network = run.recipe, student.network
    figures: dict[str, TaggingFigures] = {}

    def choose(interpreter: FrameInterpreter) -> Sequence[ClassSettings]:
        scores = [
            sigmoid(score_recording(interpreter, frames)) for frames in roles.validation.log_mel()
        ]
        return choose_frame_classes(scores, roles.validation.truth > 0.5, run.labels, options.rule)

    def judge(interpreter: FrameInterpreter, _: Sequence[ClassSettings]) -> str:
        figures["float"] = _figures(roles.test, run.labels, _float_logits(network, roles.test))
        int8 = [score_recording(interpreter, frames) for frames in roles.test.log_mel()]
        figures["int8"] = _figures(roles.test, run.labels, int8)
        check_tags(figures["float"], figures["int8"], roles.test.truth, run.labels, options.bounds)
        return _figures_text(run, roles, figures)

    export = export_frames(
        network,
        run.labels,
        recipe.front_end,
        roles.training.log_mel()[:_N_REPRESENTATIVE],
        roles.validation.log_mel()[:_N_COMPARED],
        choose,
        out,
        FrameBundleOptions(
            name=bundle_name(options.name, recipe.name, options.version),
            created=created_at(run.folder / WEIGHTS),
            version=options.version,
            licence=options.licence,
            training_data=roles.training_data(run.data.name),
            notes=options.notes,
            look_ahead_frames=_LOOK_AHEAD_FRAMES,
            seed=recipe.training.seed,
        ),
        judge=judge,
        quiet=quiet,
    )
    return TaggedFrames(export, figures["float"], figures["int8"])


def choose_frame_classes(
    scores: Sequence[FloatArray],
    has: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    labels: Sequence[str],
    rule: ThresholdRule,
) -> tuple[ClassSettings, ...]:
    """Detector settings of every label, by the rule for clips.

    Parameters
    ----------
    scores : (n_frames, n_labels) of each validation clip, from 0 to 1
    has : (n_clips, n_labels) which clip has which label
    """

    def settings(label: str, onset: float, release: float) -> ClassSettings:
        return ClassSettings(label, onset, release, "median", _MEDIAN_FRAMES, 0.0, _GAP_S)

    smoothing = [settings(label, 0.5, 0.3) for label in labels]
    peaks = np.stack([smooth(one, smoothing, _LOOK_AHEAD_FRAMES).max(axis=0) for one in scores])
    onsets = [choose_onset(peaks[:, k], has[:, k], rule) for k in range(len(labels))]
    return tuple(
        settings(label, round(onset, 6), round(release_of(onset, rule), 6))
        for label, onset in zip(labels, onsets, strict=True)
    )


@torch.no_grad()
def _float_logits(network: StreamingCRNN, role: Role) -> list[FloatArray]:
    return [
        network.forward_sequence(torch.from_numpy(frames)[None])[0].numpy()
        for frames in role.log_mel()
    ]


def _figures(role: Role, labels: tuple[str, ...], logits: Sequence[FloatArray]) -> TaggingFigures:
    scores = np.stack([clip_score(one, frames=True) for one in logits])
    return tagging_figures(scores, role.truth, labels)


def check_tags(
    before: TaggingFigures,
    after: TaggingFigures,
    truth: FloatArray,
    labels: Sequence[str],
    bounds: ParityBounds,
) -> None:
    """Raise ExportError where int8 loses more on clips than the bounds allow.

    truth : (n_clips, n_labels), 0 or 1

    What of a student of windows is the accuracy of clips is here their mean average precision.
    """
    drop = before.mean_average_precision - after.mean_average_precision
    if drop > bounds.accuracy_drop + 1e-9:
        raise ExportError(
            f"int8 model: mAP of clips falls by {100 * drop:.1f} points from "
            f"{before.mean_average_precision:.3f}: expected at most "
            f"{100 * bounds.accuracy_drop:g}; train longer or with fewer labels"
        )
    counts = dict(zip(labels, truth.sum(axis=0).tolist(), strict=True))
    for label, precision in before.average_precision.items():
        lost = precision - after.average_precision[label]
        if counts[label] >= bounds.class_clips and lost > bounds.class_drop:
            raise ExportError(
                f"int8 model: average precision of '{label}' falls by {lost:.3f} from "
                f"{precision:.3f}: expected at most {bounds.class_drop:g}; give it more training "
                "clips"
            )


def figures_table(figures: dict[str, TaggingFigures]) -> list[str]:
    """Markdown lines: float and int8 beside each other."""
    rows = {form: headline(one) for form, one in figures.items()}
    lines = ["| figure | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for name, title in TITLES.items():
        lines.append(
            f"| {title} | " + " | ".join(f"{row[name]:.4f}" for row in rows.values()) + " |"
        )
    return lines


def _figures_text(run: TaggingRun, roles: TaggingRoles, figures: dict[str, TaggingFigures]) -> str:
    facts = [f"{what}: {value}" for what, value in _provenance(run, roles)]
    return "\n".join(
        [
            "## Where it comes from",
            "",
            *[f"- {fact}" for fact in facts],
            "",
            "## Tags",
            "",
            f"On {figures['int8'].n_clips} test clips. A clip's score is the mean of its frames' "
            "probabilities weighted by themselves. Precision, recall and F1 are micro-averaged, "
            f"with a threshold of {figures['int8'].threshold:g} for all labels. The thresholds "
            "below are chosen on clips without times: by the largest score of a clip behind the "
            "median.",
            "",
            *figures_table(figures),
        ]
    )
