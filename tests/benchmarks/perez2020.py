"""Trains the columns of perez2020's tables in each scenario and prints them beside the published.

python tests/benchmarks/perez2020.py --data DIR --out runs/perez
python tests/benchmarks/perez2020.py --data world --out runs/perez --rows dualcamnet hearnet \
    hearnet_dualcamnet --seeds 0 --locations 1 2 --jobs 2 --threads 1 data.part_s=5 \
    data.split_by=subject training.bfloat16=true dualcamnet:training.epochs=20 \
    resnet50:weights.backbone=runs/eye avnet:weights.backbone=runs/eye

DIR is in the layout of `actions`. A change goes to every recipe, or, with the name of a network in
front, to its own. Teachers come first, then those they teach; what no recipe has (hearnet_avnet) is
trained as hearnet_dualcamnet is. Killed, it goes on where it stopped when the same command is given
again. At last the layers of the students are judged by k-NN and SVM, on --layers-data or on DIR.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

from machine import describe

from soundpost.train.multimodal.action_networks import TEACHERS

# Students by the names of their recipes, and those who teach them in tables 2 and 3.
STUDENTS = ("soundnet", "hearnet")
TAUGHT_BY = ("dualcamnet", "resnet50")
ROWS = (*TEACHERS, *(f"{s}{t}" for s in STUDENTS for t in ("", *(f"_{t}" for t in TAUGHT_BY))))
TABLES = {"teachers": TEACHERS, **{s: (s,) for s in STUDENTS}}


def soundpost(*arguments: object, capture: bool = False) -> str:
    """Run a command and end where it fails; what it printed, where that is captured."""
    command = [sys.executable, "-m", "soundpost.device", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return done.stdout or ""


def teacher_of(row: str) -> str:
    """Who teaches a row: "" for teachers and for students of hard labels alone."""
    student, _, teacher = row.partition("_")
    return teacher if student in STUDENTS else ""


def network_of(row: str) -> str:
    """The network that learns."""
    return row.partition("_")[0] if row.startswith(STUDENTS) else row


def changes_of(row: str, changes: list[str]) -> list[str]:
    """Those for every recipe, and those for the row's network."""
    chosen = []
    for change in changes:
        network, colon, own = change.partition(":")
        named = bool(colon) and "=" not in network
        if not named:
            chosen.append(change)
        elif network in (*TEACHERS, *STUDENTS):
            chosen += [own] if network == network_of(row) else []
        else:
            raise SystemExit(f"{change}: no network is called {network}")
    return chosen


def run_of(row: str, location: int, seed: int, arguments: argparse.Namespace) -> Path:
    """Folder of a row's run in a scenario."""
    folder: Path = arguments.out / f"{row}_{location or 'all'}_{seed}"
    return folder


def train(row: str, location: int, seed: int, arguments: argparse.Namespace) -> None:
    """Train a row in a scenario, if need be; its teacher is there."""
    run = run_of(row, location, seed, arguments)
    if (run / "report.md").is_file():
        return
    more: list[object] = []
    teacher, recipe = teacher_of(row), f"perez2020_{row}"
    if teacher:
        more = ["--teacher", run_of(teacher, location, seed, arguments)]
    changes = changes_of(row, arguments.changes)
    if not (resources.files("soundpost.train.recipes") / f"{recipe}.toml").is_file():
        changes += [f"name={recipe}", f"source=ours: taught by {teacher}", "published={}"]
        recipe = f"perez2020_{network_of(row)}_{TAUGHT_BY[0]}"
    if arguments.threads:
        more += ["--threads", arguments.threads]
    if arguments.jobs > 1:
        more += ["--quiet"]
    said = soundpost(
        "train", recipe, *changes, f"data.location={location}", f"training.seed={seed}",
        "--data", arguments.data, "--out", run, "--device", arguments.device, *more,
        capture=arguments.jobs > 1,
    )  # fmt: skip
    if arguments.jobs > 1:
        print(f"{run.name}: {said.splitlines()[0]}", flush=True)


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "changes", nargs="*", metavar="[NETWORK:]key=value", help="changes to the recipes"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the runs")
    known = (*ROWS, *(f"{s}_{t}" for s in STUDENTS for t in TEACHERS if t not in TAUGHT_BY))
    parser.add_argument("--rows", nargs="+", choices=known, default=list(ROWS), metavar="ROW")
    parser.add_argument("--locations", nargs="+", type=int, default=[1, 2, 3, 0], metavar="N")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, help="of each (default: one per core)")
    parser.add_argument("--layers-data", type=Path, metavar="DIR", help="labelled clips")
    parser.add_argument("--layers-kind", default="scenes", metavar="KIND", help="their layout")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_intermixed_args()
    describe()
    wanted = dict.fromkeys([*map(teacher_of, arguments.rows), *arguments.rows])
    rows = [row for row in wanted if row]
    for teachers in (True, False):
        work = [
            (row, location, seed, arguments)
            for seed in arguments.seeds
            for row in rows
            if (row in TEACHERS) == teachers
            for location in arguments.locations
        ]
        with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
            for done in [pool.submit(train, *one) for one in work]:
                done.result()
    for title, networks in TABLES.items():
        runs = [
            run_of(row, location, seed, arguments)
            for row in rows
            if network_of(row) in networks
            for location in arguments.locations
            for seed in arguments.seeds
        ]
        if runs:
            out = arguments.out / f"table_{title}"
            print(f"\n## {title}\n", flush=True)
            soundpost("evaluate", *runs, "--out", out)
    layers = (arguments.layers_data, arguments.layers_kind)
    if arguments.layers_data is None:
        is_world = (arguments.data / "world.json").is_file()
        layers = (arguments.data, "world" if is_world else "actions")
    for row in rows:
        if row not in TEACHERS:
            run = run_of(row, arguments.locations[-1], arguments.seeds[0], arguments)
            print(f"\n## layers of {run.name}\n", flush=True)
            soundpost(
                "evaluate", run, "--layers", "--data", layers[0], "--kind", layers[1], "--out",
                arguments.out / f"layers_{row}", "--device", arguments.device,
            )  # fmt: skip


if __name__ == "__main__":
    main()
