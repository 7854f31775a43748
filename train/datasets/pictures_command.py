"""`soundpost dataset pictures`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from soundpost.device.interrupt import interrupts_wait


def add_pictures_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `soundpost dataset pictures`."""
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to fill")
    parser.add_argument(
        "--train", type=int, default=250, metavar="N", help="of each name (default: 250)"
    )
    parser.add_argument(
        "--validation", type=int, default=30, metavar="N", help="of each name (default: 30)"
    )
    parser.add_argument(
        "--height-px", type=int, default=480, metavar="PX", help="4/3 as wide (default: 480)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run_pictures(arguments: argparse.Namespace) -> int:
    """Make the pictures."""
    with interrupts_wait():
        from soundpost.train.datasets.object_pictures import (
            PictureSetSettings,
            write_object_pictures,
        )

    settings = PictureSetSettings(
        arguments.seed, arguments.train, arguments.validation, arguments.height_px
    )
    quiet = arguments.quiet or not sys.stderr.isatty()
    made = write_object_pictures(settings, arguments.out, quiet=quiet)
    if arguments.json:
        print(json.dumps(made))
        return 0
    counts = ", ".join(f"{split} {count}" for split, count in made.items())
    print(f"{counts} pictures of {len(settings.names)} names")
    print(f"next: soundpost train pictures --data {arguments.out} --out RUN")
    return 0
