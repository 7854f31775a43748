"""report.md, figures.json and pictures of a transfer, beside the published tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soundpost.device.files import write_atomically
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.recognition import FIGURES, Recognition
from soundpost.train.multimodal.recognition_pictures import (
    draw_precision_bars,
    draw_recognition_curves,
    label_table,
    percent_head,
    percent_row,
)
from soundpost.train.multimodal.tagging_report import FIGURES_FILE
from soundpost.train.multimodal.transfer_recipe import ROWS, TransferRecipe


def published_rows(recipe: TransferRecipe) -> dict[str, dict[str, float]]:
    """Published figures by row of the paper's table and name, as far as there are any."""
    found: dict[str, dict[str, float]] = {}
    for row in ROWS:
        of = {
            name: recipe.published[f"{row}_{name}"]
            for name in FIGURES
            if f"{row}_{name}" in recipe.published
        }
        if of:
            found[row] = of
    return found


def write_transfer_report(
    run: Path, recipe: TransferRecipe, settings: dict[str, Any], judged: Mapping[str, Recognition]
) -> None:
    """All of it, in an existing folder."""
    data, training, model = recipe.data, recipe.training, recipe.model
    counts, init = settings["data"], settings["init"]
    if init is None:
        begun = "from random weights, all layers"
    elif recipe.learns_all:
        begun = f"from the weights of {init['name']}, all layers"
    else:
        begun = f"on the embeddings of {init['name']}, the classifier alone"
    share = "" if data.share == 1 else f" ({data.share:.0%} of {counts['n_listed']})"
    draw_recognition_curves(run / METRICS, run / "curves.png")
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"{ROWS[model.network]} of width {model.width:g}, {begun}: {counts['n_train']} clips"
        f"{share} of {Path(settings['path']).name} ({data.kind}: {', '.join(data.train)}); "
        f"{training.epochs} epochs, batches of {training.batch_size}, dropout "
        f"{recipe.transfer.dropout:g}. Code at {settings['git']}, torch {settings['torch']}, seed "
        f"{training.seed}.",
        "",
        "![curves](curves.png)",
        "",
    ]
    for split, of in judged.items():
        page = of.for_a_page()
        draw_precision_bars(page, run / f"labels_{split}.png")
        lines += [
            f"## {split.capitalize()}",
            "",
            f"Judged on {', '.join(getattr(data, split))}: {len(of.clip_ids)} clips.",
            "",
            *percent_head("network"),
            percent_row(f"**{ROWS[model.network]}, here**", of.figures()),
        ]
        lines += [
            percent_row(f"published: {ROWS[row]}", figures)
            for row, figures in published_rows(recipe).items()
        ]
        lines += [
            "",
            "Top-n: a clip's label, or one of its labels, is among the n highest scores. mAP and "
            "AUC are means over labels."
            + (" Published figures of ESC-50 are means of its five folds." if data.kind == "esc50"
               and recipe.published else ""),
            "",
            *label_table(page),
            "",
            f"![labels](labels_{split}.png)",
            "",
        ]  # fmt: skip
    table = {split: of.to_dict() for split, of in judged.items()}
    write_atomically(run / FIGURES_FILE, (json.dumps(table, indent=1) + "\n").encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())
