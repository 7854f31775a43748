"""`soundpost dataset clips`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from soundpost.device.audio import check_rate
from soundpost.device.interrupt import interrupts_wait


def add_clips_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `soundpost dataset clips` beside kind and folder."""
    parser.add_argument("--out", type=Path, required=True, metavar="CLIPS", help="folder to fill")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="of the set; may be given several times (default: all)",
    )
    parser.add_argument(
        "--rate", type=int, default=16_000, metavar="HZ", help="sample rate (default: 16000)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run_clips(arguments: argparse.Namespace) -> int:
    """Write the folder."""
    check_rate(arguments.rate, "--rate")
    with interrupts_wait():
        from soundpost.train.datasets.segments import Folders
        from soundpost.train.multimodal.clip_export import export_clips
        from soundpost.train.multimodal.clip_media import read_media_set

    folders = Folders(arguments.folder, arguments.audio, arguments.video, arguments.whole_videos)
    made = export_clips(
        read_media_set(arguments.kind, folders),
        arguments.split,
        arguments.out,
        arguments.rate,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if arguments.json:
        print(json.dumps(asdict(made)))
        return 0
    print(f"{made.n_clips} clips in {arguments.out}")
    for why, count in (("several labels or none", made.several), ("no sound", made.silent)):
        if count:
            print(f"{count} left out: {why}")
    print("folds: " + ", ".join(f"{number} is {part}" for part, number in made.folds.items()))
    last = max(made.folds.values())
    print(
        f"next: soundpost train finetune --init starter --data {arguments.out} --fold {last} "
        "--out RUN"
    )
    return 0
