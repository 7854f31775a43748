"""The whole comparison of jia2019 on one data set: label, pre-train, transfer, and from scratch.

python tests/benchmarks/jia2019.py --data world --kind world --out runs/jia --seen-by runs/eye \
    --heard-by runs/ear --label-split train --seeds 0 1 2 --transfer data.share=0.2 \
    --pretrain model.width=0.5 training.epochs=20 training.batch_size=64 \
    --distil --top-seen 3 --top-heard 3
python tests/benchmarks/jia2019.py --data esc50 --kind esc50 --out runs/jia --labels labels \
    --label-data videos --label-kind videos --networks mobilenet_v2 vggish_fc

Rows: the transfer of each network (a classifier on its embeddings), `finetune` (all layers from its
weights) and `scratch` (all layers from random ones), each with every seed; of a set with folds, the
mean over the folds, as published. Killed, it goes on where it stopped when the same command is
given again; the table is printed as far as it is known after every row, and lies in OUT/table.md.
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

from soundpost.train.datasets.kinds import read_set
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.audio_networks import NETWORKS
from soundpost.train.multimodal.recognition import FIGURES
from soundpost.train.multimodal.transfer_recipe import ROWS, load_transfer_recipe
from soundpost.train.multimodal.transfer_report import published_rows

RECIPES = {
    "esc50": "jia2019_esc50",
    "audioset": "jia2019_audioset",
    "scenes": "jia2019_tut2018",
    "world": "jia2019_world",
}
ROW_NAMES = ("transfer", "finetune", "scratch")


def soundpost(*arguments: object) -> None:
    """Run a command and end where it fails."""
    command = [sys.executable, "-m", "soundpost.device", *map(str, arguments)]
    print(" ".join(command[2:]), flush=True)
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


def label(arguments: argparse.Namespace) -> Path:
    """The folder of labels by machine, made if need be."""
    if arguments.labels is not None:
        given: Path = arguments.labels
        return given
    if not (arguments.seen_by or arguments.heard_by):
        raise SystemExit("give --labels LABELS, or --seen-by and --heard-by to make them")
    out: Path = arguments.out / "labels"
    if not (arguments.out / "labels.done").is_file():
        by: list[object] = []
        for option, value in (("--seen-by", arguments.seen_by), ("--heard-by", arguments.heard_by)):
            by += [option, value] if value else []
        for split in arguments.label_split:
            by += ["--split", split]
        soundpost(
            "distil", *by, "--data", arguments.label_data, "--kind", arguments.label_kind,
            "--out", out, "--device", arguments.device, *arguments.distil,
        )  # fmt: skip
        (arguments.out / "labels.done").write_text("")
    return out


def pretrain(network: str, seed: int, labels: Path, arguments: argparse.Namespace) -> Path:
    """The pre-training run of a network and a seed, trained if need be."""
    run: Path = arguments.out / f"pretrained_{network}_{seed}"
    if not (run / "figures.json").is_file():
        splits = json.dumps(arguments.label_split)
        soundpost(
            "train", f"jia2019_{network}", f"data.kind={arguments.label_kind}",
            f"data.splits={splits}", *arguments.pretrain, f"training.seed={seed}",
            f"data.labels={labels}", "--data", arguments.label_data, "--out", run, "--device",
            arguments.device, *arguments.options,
        )  # fmt: skip
    return run


def judged(
    row: str, network: str, seed: int, labels: Path | None, arguments: argparse.Namespace
) -> dict[str, float]:
    """Test figures of one row and seed, the mean over folds where there are any."""
    changes = [*arguments.transfer, f"training.seed={seed}"]
    more: list[object] = []
    recipe = arguments.recipe
    if row == "scratch":
        recipe = f"{recipe}_scratch"
        changes = [f"model.network={network}", *width_of(arguments), *changes, *arguments.scratch]
    else:
        assert labels is not None
        more = ["--init", pretrain(network, seed, labels, arguments)]
        if row == "finetune":
            # As long and as fast as the network that starts at random.
            recipe = f"{recipe}_scratch"
            changes = ["model.network=", *changes, *arguments.scratch]
    found = []
    for fold in arguments.folds or [None]:
        name = f"{row}_{network}_{seed}" + (f"_fold{fold}" if fold else "")
        run = arguments.out / name
        if not (run / "figures.json").is_file():
            held = ["--fold", fold] if fold else []
            soundpost(
                "train", recipe, *changes, "--data", arguments.data, "--out", run, "--device",
                arguments.device, *held, *more, *arguments.options,
            )  # fmt: skip
        found.append(json.loads((run / "figures.json").read_text())["test"])
    return {name: float(np.mean([of[name] for of in found])) for name in FIGURES}


def width_of(arguments: argparse.Namespace) -> list[str]:
    """Changes of the pre-training that make the network another one."""
    keys = ("model.width=", "model.embedding_size=")
    return [change for change in arguments.pretrain if change.startswith(keys)]


def table_of(rows: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> str:
    """Markdown: means over the seeds (with their range), then the published figures."""
    path = Path(str(resources.files("soundpost.train.recipes") / f"{arguments.recipe}.toml"))
    recipe = load_transfer_recipe(path, [])
    lines = [f"| row | runs | {' | '.join(FIGURES.values())} |", "|---" * (2 + len(FIGURES)) + "|"]
    for name, found in rows.items():
        cells = []
        for figure in FIGURES:
            values = [100 * of[figure] for of in found]
            spread = f" ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    for row, figures in published_rows(recipe).items():
        cells = [f"{100 * figures[name]:.1f}" if name in figures else "–" for name in FIGURES]
        lines.append(f"| published: {ROWS[row]} | | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="with its labels")
    parser.add_argument("--kind", required=True, choices=RECIPES, help="of DIR")
    parser.add_argument("--recipe", help="of the transfer (default: by KIND); RECIPE_scratch too")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="of all runs")
    parser.add_argument(
        "--labels", type=Path, metavar="LABELS", help="by machine, if there are any"
    )
    parser.add_argument("--label-data", type=Path, metavar="DIR", help="their clips (default: DIR)")
    parser.add_argument("--label-kind", help="their layout (default: KIND)")
    parser.add_argument("--label-split", nargs="+", default=[], metavar="NAME", help="and splits")
    parser.add_argument("--seen-by", default="", metavar="NETWORK", help="see soundpost distil")
    parser.add_argument("--heard-by", default="", metavar="NETWORK")
    parser.add_argument(
        "--distil", nargs=argparse.REMAINDER, default=[], metavar="OPTION",
        help="more options of soundpost distil; give it last",
    )  # fmt: skip
    parser.add_argument("--pretrain", nargs="+", default=[], metavar="key=value", help="changes")
    parser.add_argument(
        "--transfer", nargs="+", default=[], metavar="key=value", help="of all rows"
    )
    parser.add_argument(
        "--scratch", nargs="+", default=[], metavar="key=value", help="of scratch and finetune"
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["mobilenet_v2"])
    parser.add_argument("--rows", nargs="+", choices=ROW_NAMES, default=list(ROW_NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--folds", nargs="+", type=int, metavar="K", help="(default: all there are)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser.parse_args()


def main() -> None:
    """Label, train, judge, print."""
    arguments = parsed()
    arguments.recipe = arguments.recipe or RECIPES[arguments.kind]
    arguments.label_data = arguments.label_data or arguments.data
    arguments.label_kind = arguments.label_kind or arguments.kind
    arguments.options = ["--threads", arguments.threads] if arguments.threads else []
    if not sys.stderr.isatty():
        arguments.options.append("--quiet")
    if arguments.folds is None and arguments.kind == "esc50":
        splits = read_set(arguments.kind, Folders(arguments.data)).media.splits()
        arguments.folds = list(map(int, splits))
    arguments.out.mkdir(parents=True, exist_ok=True)
    describe()
    labels = label(arguments) if set(arguments.rows) - {"scratch"} else None
    rows: dict[str, list[dict[str, float]]] = {}
    table = ""
    for network in arguments.networks:
        for row in arguments.rows:
            found: list[dict[str, Any]] = []
            for seed in arguments.seeds:
                found.append(judged(row, network, seed, labels, arguments))
                rows[f"{network}, {row}"] = found
                table = table_of(rows, arguments)
                (arguments.out / "table.md").write_text(table, encoding="utf-8")
            print(f"\n{table}", flush=True)
    print(f"in {arguments.out / 'table.md'}")


if __name__ == "__main__":
    main()
