"""`soundpost bundle show|check`: what a model bundle is, and whether this machine can run it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from soundpost.device.bundle import (
    Bundle,
    check_bundle,
    read_bundle,
    starter_bundle_path,
)
from soundpost.device.command import Command
from soundpost.device.interpreter import RUNTIME_CHOICES

_DESCRIPTION = """\
Looks into a model bundle.

show   prints what the model is: labels, thresholds, front end, licences. --card prints its card.
check  does what the sensor does before it believes a bundle: form, sizes, hashes, and a golden
       vector through this machine's front end and model. Ends with 0, or with 3 and the reason.

Without BUNDLE, the starter bundle that comes with soundpost.

examples:
  soundpost bundle show
  soundpost bundle show porch.bundle --json
  soundpost bundle show porch.bundle --card
  soundpost bundle check porch.bundle
  soundpost bundle check porch.bundle --runtime tflite-runtime
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "check"))
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--card", action="store_true", help="show: print the model card")
    parser.add_argument(
        "--runtime", choices=RUNTIME_CHOICES, default="auto", help="check: what runs the model"
    )


def _summary(bundle: Bundle) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(bundle.manifest.to_json())
    return {"bundle": bundle.where, "bundle_sha256": bundle.sha256} | table


def _show(bundle: Bundle) -> None:
    manifest = bundle.manifest
    rate_hz = manifest.front_end.sample_rate_hz
    print(f"{manifest.name} {manifest.version}, made {manifest.created}")
    print(f"  file       {bundle.where}")
    print(f"  sha256     {bundle.sha256}")
    print(f"  model      {manifest.weights}, {len(bundle.model):,} bytes")
    what = "window   " if manifest.frames is None else "chunk    "
    print(
        f"  {what}  {manifest.window_samples / rate_hz:.3f} s every "
        f"{manifest.hop_samples / rate_hz:.3f} s at {rate_hz} Hz, "
        f"{manifest.n_frames} x {manifest.front_end.n_mels} log-mel"
    )
    if manifest.frames is not None:
        hop_s = manifest.front_end.hop_length / rate_hz
        look_ahead_s = manifest.frames.look_ahead_frames * hop_s
        carried = ", ".join(
            f"{state.input} {state.shape[0]} x {state.shape[1]}" for state in manifest.frames.states
        )
        print(f"  frames     {hop_s:.3f} s, medians look ahead {look_ahead_s:.3f} s at most")
        print(f"  carries    {carried}")
    print(f"  front end  {manifest.front_end.hash()[:16]}")
    print(f"  licence    {manifest.licence or 'not stated'}")
    for data in manifest.training_data:
        licences = ", ".join(f"{count} {name}" for name, count in data.licences.items())
        print(f"  trained on {data.name}: {data.n_clips} clips ({licences})")
    width = max(len(settings.label) for settings in manifest.classes)
    print(f"\n  {'label':<{width}}  onset  release  smoothing  cadence")
    for settings in manifest.classes:
        smoothing = f"{settings.smoothing} {settings.smoothing_windows}"
        print(
            f"  {settings.label:<{width}}  {settings.onset:.3f}    {settings.release:.3f}  "
            f"{smoothing:<9}  {settings.cadence or ''}".rstrip()
        )


def _run(arguments: argparse.Namespace) -> int:
    path = arguments.bundle or starter_bundle_path()
    bundle = read_bundle(path)
    if arguments.action == "show":
        if arguments.card:
            print(bundle.model_card, end="")
        elif arguments.json:
            print(json.dumps(_summary(bundle), indent=1, ensure_ascii=False))
        else:
            _show(bundle)
        return 0
    check = check_bundle(bundle, runtime=arguments.runtime)
    manifest = bundle.manifest
    if arguments.json:
        print(
            json.dumps(
                {
                    "bundle": bundle.where,
                    "bundle_sha256": bundle.sha256,
                    "name": manifest.name,
                    "version": manifest.version,
                    "runtime": check.runtime,
                    "windows": check.n_windows,
                    "feature_error": check.feature_error,
                    "score_error": check.score_error,
                },
                indent=1,
            )
        )
    else:
        unit = "windows" if manifest.frames is None else "chunks"
        print(
            f"{bundle.where}: in order. {manifest.name} {manifest.version}, "
            f"{len(manifest.labels)} labels, by {check.runtime}: golden vector of "
            f"{check.n_windows} {unit} within {check.feature_error:.1g} in features and "
            f"{check.score_error:.1g} in scores"
        )
    return 0


COMMAND = Command(
    summary="show or check a model bundle",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
    intermixed=True,
)
