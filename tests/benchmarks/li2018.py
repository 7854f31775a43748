"""Trains li2018 with several seeds and prints its branches beside the published table.

python tests/benchmarks/li2018.py --data dcase17 --out runs/li visual.word_vectors=FILE \
    visual.object_names=FILE
python tests/benchmarks/li2018.py --data DIR --out runs/li --seeds 0 data.kind=dcase2018 \
    'data.train=["weak"]' 'data.test=["test"]' training.epochs=5 visual.word_vectors=FILE

The first seed's key frames are kept and used by the others; clips that are held out for validation
are the same for all. Figures are means over the seeds, with the range where there are several.
Killed, it goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from machine import describe

from soundpost.train.multimodal.fusion_recipe import BRANCHES, load_fusion_recipe
from soundpost.train.multimodal.fusion_report import published_f1

FIELDS = {"F1": "f1", "P": "precision", "R": "recall", "mAP": "mean_average_precision"}


def train(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of a seed's run by split and branch; it is trained if need be."""
    run: Path = arguments.out / f"li2018_{seed}"
    figures = run / "figures.json"
    if not figures.is_file():
        command = [
            sys.executable, "-m", "soundpost.device", "train", "li2018", *arguments.changes,
            f"training.seed={seed}", "--data", str(arguments.data), "--out", str(run), "--device",
            arguments.device,
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
    found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return found


def cell(values: list[float]) -> str:
    """Mean of several seeds, and their range."""
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Train, gather, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_intermixed_args()
    describe()
    ours = Path(str(resources.files("soundpost.train.recipes") / "li2018.toml"))
    recipe = load_fusion_recipe(ours, arguments.changes)
    runs = [train(seed, arguments) for seed in arguments.seeds]
    lines = [
        f"| split | branch | clips | seeds | {' | '.join(FIELDS)} | published F1 |",
        "|---" * (5 + len(FIELDS)) + "|",
    ]
    for split in runs[0]:
        for branch in BRANCHES:
            every = [run[split][branch] for run in runs]
            published = published_f1(recipe.published, recipe.data.kind, split, branch)
            cells = [cell([one[name] for one in every]) for name in FIELDS.values()]
            theirs = "–" if published is None else f"{published:.3f}"
            lines.append(
                f"| {split} | {branch} | {every[0]['n_clips']} | {len(runs)} | "
                f"{' | '.join(cells)} | {theirs} |"
            )
    by_name = {
        name.rpartition("_")[0]: name for name in recipe.published if name.endswith("_audio")
    }
    lines.append("")
    for where, name in by_name.items():
        audio, fused = recipe.published[name], recipe.published[f"{where}_fused"]
        lines.append(f"published, {where.replace('_', ' ')}: audio {audio:.3f}, fused {fused:.3f}")
    table = "\n".join(lines) + "\n"
    (arguments.out / "table.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nin {arguments.out / 'table.md'}")


if __name__ == "__main__":
    main()
