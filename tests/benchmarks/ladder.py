"""Trains rows of liang2021's tables on soundscapes and prints them beside the published figures.

python tests/benchmarks/ladder.py --data ../shared/data/esc50 --out runs/ladder
python tests/benchmarks/ladder.py --data DIR --out runs/ladder --rows guided full --seeds 0 1 2

By default what two cores can do in a night: half width, 500 recordings, 30 epochs, one seed. A
killed ladder goes on where it stopped when the same command is given again. Row 8 (tfd_afl) is row
9's training with other median windows, so that it costs no training of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from soundpost.train.sed.desed import Reading, read_desed, read_held_out
from soundpost.train.sed.event_filter import event_windows
from soundpost.train.sed.judging import choose_published, judge_published
from soundpost.train.sed.recipe import load_detection_recipe
from soundpost.train.sed.report import LadderStep, ladder_table
from soundpost.train.sed.run import load_detection_run
from soundpost.train.sed.scenes import SceneSet

ROWS = ("guided", "pts", "tfd", "tfd_afl", "full")
SMALL = (
    "model.width=0.5",
    "training.epochs=30",
    # Small batches: 1,260 steps, not 630, of the same recordings.
    "batch.strong=3",
    "batch.weak=3",
    "batch.unlabelled=6",
    # The paper's ramps and stages are of 200 epochs.
    "method.alpha_start=12",
    "method.tau=12",
    "training.decay_epochs=15",
    "training.report_every=5",
)
PUBLISHED, CHOSEN = "of 0.5, as published", "chosen on validation"
Headline = dict[str, float | None]
NAMES = ("event_f1", "segment_f1", "clip_f1", "psds_1", "psds_2")


def soundpost(*arguments: object) -> None:
    """Run a command and end where it fails."""
    command = [sys.executable, "-m", "soundpost.device", *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


def train(row: str, seed: int, arguments: argparse.Namespace) -> dict[str, Headline]:
    """Headline figures of a row and a seed, trained if need be, by how thresholds were set."""
    trained = "full" if row == "tfd_afl" else row
    run = arguments.out / f"{trained}_{seed}"
    changes = [f"training.seed={seed}", *(arguments.changes or SMALL)]
    if not (run / "figures.json").is_file():
        soundpost(
            "train", trained, "--data", arguments.scenes, "--out", run,
            "--device", arguments.device, "--threads", arguments.threads, *changes,
        )  # fmt: skip
    refuse_other(run, trained, changes, arguments.scenes)
    if row == "tfd_afl":
        return with_windows_of(row, run, arguments.scenes)
    table = json.loads((run / "figures.json").read_text())
    return {PUBLISHED: table["all"], CHOSEN: table["chosen"]["all"]}


def refuse_other(run: Path, recipe: str, changes: list[str], scenes: Path) -> None:
    """End where a finished run is of another recipe or other recordings than asked for."""
    there = json.loads((run / "settings.json").read_text())
    asked = json.loads(json.dumps(asdict(load_detection_recipe(recipe_path(recipe), changes))))
    if there["recipe"] != asked or there["path"] != str(scenes.resolve()):
        raise SystemExit(f"{run}: is of other settings or recordings; give another --out")


def with_windows_of(row: str, run: Path, scenes: Path) -> dict[str, Headline]:
    """Headline figures of a run with another row's post-processing."""
    trained = load_detection_run(run)
    recipe = load_detection_recipe(recipe_path(row), [])
    front_end, seconds = trained.recipe.front_end, trained.recipe.batch.seconds
    reading = Reading(seconds=seconds, rate_hz=front_end.sample_rate_hz)
    sets = read_desed(scenes, reading, quiet=True)
    test = read_held_out(scenes, "test", reading, trained.labels, quiet=True)
    windows = event_windows(sets.train.scenes, trained.labels, recipe.filter.rule)
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    scores = np.load(run / "scores.npz")

    def decided(name: str, held: SceneSet) -> tuple[Any, ...]:
        frames, clips = scores[f"{name}_frames"], scores[f"{name}_clips"]
        return (held.scenes, trained.labels, frames, clips, windows.frames(trained.labels, hop_s))

    settings = replace(trained.recipe.filter, rule=recipe.filter.rule)
    chosen = choose_published(*decided("validation", sets.validation), settings, front_end)
    return {
        how: judge_published(*decided("test", test), of, front_end).figures.to_dict()["all"]
        for how, of in ((PUBLISHED, settings), (CHOSEN, chosen))
    }


def recipe_path(row: str) -> Path:
    """Of one of ours."""
    return Path(str(resources.files("soundpost.train.recipes") / f"{row}.toml"))


def main() -> None:
    """Make the soundscapes, train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="ESC-50, as clips.csv folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--scenes", type=Path, help="soundscapes (default: OUT/scenes)")
    parser.add_argument("--train", type=int, default=500, help="training recordings to make")
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--changes", nargs="+", help=f"to the recipes (default: {' '.join(SMALL)})")
    arguments = parser.parse_args()
    describe()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.scenes is None:
        arguments.scenes = arguments.out / "scenes"
        soundpost(
            "soundscapes", "esc50_scenes", "--data", arguments.data, "--out", arguments.scenes,
            f"counts.train={arguments.train}",
        )  # fmt: skip
    steps: dict[str, list[LadderStep]] = {}
    for row in arguments.rows:
        recipe = load_detection_recipe(recipe_path(row), [])
        runs = [train(row, seed, arguments) for seed in arguments.seeds]
        for how in runs[0]:
            headlines = tuple(of[how] for of in runs)
            steps.setdefault(how, []).append(LadderStep(row, headlines, recipe.published))
        for how, of_rows in steps.items():
            print(f"\nthresholds {how}")
            print("\n".join(ladder_table(of_rows, NAMES)), flush=True)


if __name__ == "__main__":
    main()
