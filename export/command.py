"""`soundpost export`.

torch and TensorFlow are imported when the command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    from soundpost.export.tagging_run import TaggedFrames

_DESCRIPTION = """\
Turns a training run into a bundle that a sensor loads: torch to ONNX to full int8 TFLite.

The int8 model must agree with the trained one on the run's held-out clips, or nothing is written.
Thresholds are chosen on its scores of the validation clips. DIR is the folder that the run was
trained with; by default where it was then. The same run gives the same bundle, byte for byte.

A run of the recipe streaming becomes a bundle of kind frames, which tells when sounds begin and
end; float and int8 are then compared by event F1 on the test recordings.

A run of yin2021 or one of its rows can be exported where its student is the sensor's: trained with
model.student=mobilenet_v2, or =streaming, which gives a bundle of kind frames whose float and int8
are compared by the mAP of clips. DIR is the folder of the data set's tables.

examples:
  soundpost export runs/first --out first.bundle
  soundpost export runs/first --out first.bundle --data clips --name porch --version 1.2.0
  soundpost export runs/first --out first.bundle --licence CC-BY-4.0 --notes about.md
  soundpost export runs/streaming --out streaming.bundle
  soundpost export runs/yin_mobilenet_v2 --out yin.bundle
  soundpost bundle check first.bundle
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="folder that `soundpost train` wrote")
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="file to write")
    parser.add_argument("--data", metavar="DIR", type=Path, help="clips that the run used")
    parser.add_argument("--name", default="", help="name of the model (default: the recipe's)")
    parser.add_argument("--version", default="1.0.0", help="semantic version (default: 1.0.0)")
    parser.add_argument("--licence", default="", help="of the weights, for manifest and card")
    parser.add_argument(
        "--notes", metavar="FILE", type=Path, help="Markdown to put into the model card"
    )
    parser.add_argument(
        "--least-agreement",
        metavar="SHARE",
        type=float,
        default=0.97,
        help="of windows whose best label int8 and float agree on (default: 0.97)",
    )
    parser.add_argument(
        "--most-accuracy-drop",
        metavar="POINTS",
        type=float,
        default=1.0,
        help="of clip top-1, in percentage points (default: 1.0)",
    )
    parser.add_argument(
        "--most-class-drop",
        metavar="AP",
        type=float,
        default=0.10,
        help="of any label's average precision (default: 0.10)",
    )
    parser.add_argument(
        "--most-event-drop",
        metavar="POINTS",
        type=float,
        default=1.5,
        help="of event F1 of a streaming run, in percentage points (default: 1.5)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _notes(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--notes {path}: cannot be read as text: {error}") from error


def _run(arguments: argparse.Namespace) -> int:
    notes = _notes(arguments.notes)
    with interrupts_wait():
        from soundpost.train.sed.streaming_run import is_streaming_run

    if is_streaming_run(arguments.run):
        return _run_frames(arguments, notes)
    with interrupts_wait():
        from soundpost.export.parity import ParityBounds
        from soundpost.export.pipeline import ExportOptions, export_run
        from soundpost.export.tagging_run import TaggedFrames, export_tagging_run
        from soundpost.train.multimodal.tagging_run import is_tagging_run

    options = ExportOptions(
        name=arguments.name,
        version=arguments.version,
        licence=arguments.licence,
        notes=notes,
        bounds=ParityBounds(
            top1_agreement=arguments.least_agreement,
            accuracy_drop=arguments.most_accuracy_drop / 100,
            class_drop=arguments.most_class_drop,
        ),
    )
    export = export_tagging_run if is_tagging_run(arguments.run) else export_run
    result = export(
        arguments.run,
        arguments.data,
        arguments.out,
        options,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if isinstance(result, TaggedFrames):
        return _tell_tagged_frames(result, arguments.json)
    parity = result.facts.parity
    if arguments.json:
        table = {
            "bundle": str(result.out),
            "sha256": result.sha256,
            "model_bytes": result.facts.model_bytes,
            "windows": parity.n_windows,
            "parity": [
                {
                    "engine": row.engine,
                    "max_difference": row.max_difference,
                    "mean_difference": row.mean_difference,
                    "top1_agreement": row.top1_agreement,
                    "clip_top1": row.figures.top1,
                    "map": row.figures.mean_average_precision,
                }
                for row in parity.engines
            ],
        }
        print(json.dumps(table, indent=1))
        return 0
    print(f"{parity.n_windows} held-out windows, against torch:")
    print(f"{'':<15} {'max dp':>8} {'mean dp':>8} {'agreement':>9} {'clip top-1':>10} {'mAP':>6}")
    for row in parity.engines:
        print(
            f"{row.engine:<15} {row.max_difference:8.2g} {row.mean_difference:8.2g} "
            f"{row.top1_agreement:9.4f} {row.figures.top1:10.1%} "
            f"{row.figures.mean_average_precision:6.3f}"
        )
    for name, (before, after) in result.facts.figures.items():
        print(f"{name}: float {before.line()}; int8 {after.line()}")
    print(f"wrote {result.out}, model {result.facts.model_bytes} bytes, sha256 {result.sha256}")
    return 0


def _tell_tagged_frames(result: TaggedFrames, as_json: bool) -> int:
    from soundpost.export.tagging_run import figures_table

    export, converted = result.export, result.export.converted
    figures = {"float": result.float_figures, "int8": result.int8_figures}
    size = len(converted.models.int8)
    if as_json:
        table = {
            "bundle": str(export.out),
            "sha256": export.sha256,
            "model_bytes": size,
            "mean_difference": converted.figures.mean_difference,
            "drift_by_minute": converted.figures.drift.by_minute,
            **{form: dataclasses.asdict(one) for form, one in figures.items()},
        }
        print(json.dumps(table, indent=1))
        return 0
    print(f"{result.int8_figures.n_clips} test clips:")
    print("\n".join(figures_table(figures)))
    print(f"wrote {export.out}, model {size} bytes, sha256 {export.sha256}")
    return 0


def _run_frames(arguments: argparse.Namespace, notes: str) -> int:
    with interrupts_wait():
        from soundpost.export.frame_run import export_streaming_run, figures_table

    result = export_streaming_run(
        arguments.run,
        arguments.data,
        arguments.out,
        name=arguments.name,
        version=arguments.version,
        licence=arguments.licence,
        notes=notes,
        most_event_f1_drop=arguments.most_event_drop / 100,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    export, converted = result.export, result.export.converted
    judged = {"float": result.float_judged, "int8": result.int8_judged}
    size = len(converted.models.int8)
    if arguments.json:
        drift = converted.figures.drift
        table = {
            "bundle": str(export.out),
            "sha256": export.sha256,
            "model_bytes": size,
            "judged_on": result.judged_on,
            "mean_difference": converted.figures.mean_difference,
            "drift_by_minute": drift.by_minute,
            **{form: of.figures.to_dict()["all"] for form, of in judged.items()},
        }
        print(json.dumps(table, indent=1))
        return 0
    print(f"{result.judged_on} recordings, as the sensor's detector decides:")
    print("\n".join(figures_table(judged)))
    print(f"wrote {export.out}, model {size} bytes, sha256 {export.sha256}")
    return 0


COMMAND = Command(
    summary="turn a training run into a bundle for the sensor",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
