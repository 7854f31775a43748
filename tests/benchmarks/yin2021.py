"""Trains rows of yin2021's tables with several seeds and prints them beside the published figures.

python tests/benchmarks/yin2021.py --data dcase17 --out runs/yin
python tests/benchmarks/yin2021.py data.kind=dcase2018 'data.train=["weak"]' 'data.test=["test"]' \
    training.epochs=20 --data DIR --out runs/yin --rows plain mutual --seeds 0

Changes come first, for --rows and --seeds take all that follows them.

Scores of the seeds are averaged, as published; each row's mAP is also compared with that of
`--against` (plain) on the same clips, with the 95 % interval over draws of these clips. A teacher
that learns before its student is trained once for each seed (`fusion`) and given to the others. By
default the rows of tables 1 to 3; those of 4 and 5 need weights of VGGish and SoundNet, or
acoustic.vggish.backbone=stub, and with `mobilenet_v2_...` and `streaming_...` the sensor's networks
are the students. Killed, it goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from paired_clips import Array, paired_interval

from soundpost.train.multimodal.tagging_recipe import FIGURES, load_tagging_recipe
from soundpost.train.multimodal.tagging_report import TITLES, published_of

# By what a row is called here: its recipe; those of table 1, of table 3, of table 2.
RECIPES = {
    "fusion": "yin2021_fusion",
    "visual": "yin2021_visual",
    "plain": "yin2021_plain",
    "distillation": "yin2021_distillation",
    "enhanced_feature": "yin2021_enhanced_feature",
    "fitnets": "yin2021_fitnets",
    "deep_mutual": "yin2021_deep_mutual",
    "mutual": "yin2021",
    "no_mutual": "yin2021_no_mutual",
    "no_single": "yin2021_no_single",
    "no_cross": "yin2021_no_cross",
}
DEFAULT = list(RECIPES)
# Of tables 4 and 5, which need weights of audio networks.
RECIPES |= {
    row: f"yin2021_{row}"
    for kind in ("vggish", "soundnet")
    for row in (f"plain_{kind}_alone", f"plain_{kind}", f"{kind}_alone", kind)
}
# The sensor's networks by each of these methods; what is changed in their recipe.
CHANGES = {}
for student in ("mobilenet_v2", "streaming"):
    for method in ("plain", "distillation", "deep_mutual", "mutual"):
        RECIPES[f"{student}_{method}"] = f"yin2021_{student}"
        CHANGES[f"{student}_{method}"] = [f"method={method}"]
# Their teacher learns first, and is that of `fusion`.
TAUGHT = (
    "distillation", "enhanced_feature", "fitnets", "no_mutual", "mobilenet_v2_distillation",
    "streaming_distillation",
)  # fmt: skip
FIELDS = {
    "map": "mean_average_precision",
    "mauc": "mean_auc",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
}


def soundpost(*arguments: object, capture: bool = False) -> str:
    """Run a command and end where it fails; what it printed, where that is captured."""
    command = [sys.executable, "-m", "soundpost.device", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return done.stdout or ""


def train(row: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The run of a row and a seed, trained if need be."""
    run: Path = arguments.out / f"{row}_{seed}"
    if (run / "figures.json").is_file():
        return run
    more: list[object] = []
    if row in TAUGHT:
        more = ["--teacher", train("fusion", seed, arguments)]
    soundpost(
        "train", RECIPES[row], *CHANGES.get(row, []), *arguments.changes, f"training.seed={seed}",
        "--data", arguments.data, "--out", run, "--device", arguments.device, *more,
    )  # fmt: skip
    return run


def scores_of(runs: list[Path]) -> tuple[Array, Array]:
    """Mean scores of a row's students on the test clips, and the truth, (n_clips, n_labels)."""
    known = [np.load(run / "scores.npz") for run in runs]
    scores = np.mean([one["test_student_scores"] for one in known], axis=0, dtype=np.float64)
    return scores, known[0]["test_student_truth"].astype(np.float64)


def gains(rows: dict[str, list[Path]], against: str) -> list[str]:
    """A line for each row: its mAP less that of another, and between what that may lie."""
    lines: list[str] = []
    other, truth = scores_of(rows[against])
    for row, runs in rows.items():
        if row == against:
            continue
        gain, low, high = paired_interval(scores_of(runs)[0], other, truth)
        known = "no chance of the clips" if low > 0 or high < 0 else "may be chance"
        lines.append(f"{row} - {against}: {gain:+.3f} mAP ({low:+.3f} to {high:+.3f}): {known}")
    return lines


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to every recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the runs")
    listed = f"of {', '.join(RECIPES)}"
    parser.add_argument(
        "--rows", nargs="+", choices=RECIPES, default=DEFAULT, metavar="ROW", help=listed
    )
    parser.add_argument(
        "--against", default="plain", choices=RECIPES, metavar="ROW", help="to compare with"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_intermixed_args()
    describe()
    lines = [
        f"| row | seeds | {' | '.join(f'{TITLES[name]} | published' for name in FIGURES)} |",
        "|---" * (2 + 2 * len(FIGURES)) + "|",
    ]
    ours = resources.files("soundpost.train.recipes")
    rows: dict[str, list[Path]] = {}
    for row in arguments.rows:
        runs = [train(row, seed, arguments) for seed in arguments.seeds]
        rows[row] = runs
        found: dict[str, Any] = json.loads(
            soundpost(
                "evaluate", *runs, "--data", arguments.data, "--json", "--device",
                arguments.device, capture=True,
            )
        )  # fmt: skip
        recipe = load_tagging_recipe(Path(str(ours / f"{RECIPES[row]}.toml")), arguments.changes)
        published = published_of(recipe.published, recipe.data.kind)
        cells = []
        for name in FIGURES:
            theirs = f"{published[name]:.4f}" if name in published else "–"
            cells += [f"{found[FIELDS[name]]:.4f}", theirs]
        lines.append(f"| {row} | {len(runs)} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if arguments.against in rows:
        lines += ["", *gains(rows, arguments.against)]
    table = "\n".join(lines) + "\n"
    (arguments.out / "table.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nin {arguments.out / 'table.md'}")


if __name__ == "__main__":
    main()
