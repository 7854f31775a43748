"""`soundpost dataset world`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.ours import path_of_ours

if TYPE_CHECKING:
    from soundpost.train.datasets.world_settings import WorldSettings

_MOST_WORKERS = 256


def add_world_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `soundpost dataset world`."""
    parser.add_argument("settings", metavar="SETTINGS", help="TOML file, or the name of ours")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the settings")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder to fill")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that render (default: one for each core)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only say what would be made, its size, and what a perfect eye could know of it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run_world(arguments: argparse.Namespace) -> int:
    """Make a world, or say what it would be."""
    path = path_of_ours(arguments.settings, "soundpost.train.datasets.worlds", "settings")
    if not 1 <= arguments.workers <= _MOST_WORKERS:
        raise UsageError(f"--workers {arguments.workers}: expected 1 to {_MOST_WORKERS}")
    if arguments.out is None and not arguments.plan:
        raise UsageError("--out is missing; give the folder to fill, or --plan to fill none")
    with interrupts_wait():
        from soundpost.train.datasets.world_settings import load_world_settings
        from soundpost.train.datasets.world_writer import write_world

    settings = load_world_settings(path, arguments.changes)
    quiet = arguments.quiet or not sys.stderr.isatty()
    if arguments.plan:
        return _print_plan(arguments, settings, quiet)
    made = write_world(
        settings, arguments.data, arguments.out, workers=arguments.workers, quiet=quiet
    )
    if arguments.json:
        print(json.dumps(made))
    else:
        print(", ".join(f"{split} {count}" for split, count in made.items()), "takes")
        print(f"what sounds when: {arguments.out / 'events.csv'}")
        print(f"credits: {arguments.out / 'attribution.csv'}")
    return 0


def _print_plan(arguments: argparse.Namespace, settings: WorldSettings, quiet: bool) -> int:
    from soundpost.train.clips import read_clip_set
    from soundpost.train.datasets.world_cast import gather
    from soundpost.train.datasets.world_eye import perfect_eye
    from soundpost.train.datasets.world_writer import plan_all, recording_bytes

    cast = gather(read_clip_set(arguments.data), settings, quiet=quiet)
    plans = plan_all(settings, cast)
    splits = Counter(settings.split_of(plan.subject) for plan in plans)
    n_recordings = len(plans) // settings.takes
    size = recording_bytes(settings)
    eye = perfect_eye(settings, plans)
    if arguments.json:
        table = {
            "recordings": n_recordings,
            "takes": dict(splits),
            "seconds": len(plans) * settings.seconds,
            "bytes_per_recording": size,
            "perfect_eye": asdict(eye),
        }
        print(json.dumps(table))
        return 0
    hours = len(plans) * settings.seconds / 3600
    print(
        f"{n_recordings} recordings of {settings.takes} x {settings.seconds:g} s, {hours:.2f} h, "
        f"about {size / 1e6:.0f} MB each, {n_recordings * size / 1e9:.1f} GB in all"
    )
    print("takes: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    print(
        f"a perfect eye: mAP {eye.mean_average_precision:.3f}, accuracy {eye.accuracy:.3f}; sees "
        f"{eye.seen_share:.1%} of what sounds, {eye.clear_share:.1%} with a look of its own; "
        f"{eye.sounding_share:.1%} of what it sees sounds"
    )
    width = max(map(len, settings.classes))
    for label, precision in eye.average_precision.items():
        print(f"  {label:<{width}} {precision:.3f}")
    return 0
