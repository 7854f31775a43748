"""report.md, figures.json and pictures of a run of audio tagging."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from soundpost.device.files import write_atomically
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.ensembles import TaggingFigures
from soundpost.train.multimodal.tagging_judging import AllJudged, Judged, figures_to_dict
from soundpost.train.multimodal.tagging_recipe import FIGURES, TaggingRecipe
from soundpost.train.sed.pictures import BLACK, BLUE, GREY, ORANGE, save

FIGURES_FILE = "figures.json"
TITLES = {
    "map": "mAP",
    "mauc": "mAUC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
_COLOURS = {"student": BLUE, "teacher": ORANGE}


def headline(figures: TaggingFigures) -> dict[str, float]:
    """Figures by the names that recipes publish them under."""
    return {
        "map": figures.mean_average_precision,
        "mauc": figures.mean_auc,
        "precision": figures.precision,
        "recall": figures.recall,
        "f1": figures.f1,
    }


def published_of(published: Mapping[str, float], kind: str) -> dict[str, float]:
    """A recipe's published figures on one kind of data set."""
    prefix = f"{kind}_"
    return {k.removeprefix(prefix): v for k, v in published.items() if k.startswith(prefix)}


def headline_table(
    columns: Mapping[str, TaggingFigures], published: Mapping[str, float], kind: str
) -> list[str]:
    """Markdown lines: ours in columns by what they are, the published figures last.

    The figures published for the same kind of data set, or, where there are none, those of each.
    """
    kinds = (
        [kind]
        if published_of(published, kind)
        else sorted({name.rpartition("_")[0] for name in published})
    )
    theirs = {f"published ({one})": published_of(published, one) for one in kinds}
    rows = {name: headline(figures) for name, figures in columns.items()} | theirs
    lines = [f"| figure | {' | '.join(rows)} |", "|---" * (1 + len(rows)) + "|"]
    for name in FIGURES:
        values = (f"{row[name]:.4f}" if name in row else "–" for row in rows.values())
        lines.append(f"| {TITLES[name]} | {' | '.join(values)} |")
    return lines


def label_lines(judged: Mapping[str, Judged]) -> list[str]:
    """Markdown lines: average precision and AUC of each label, the worst first.

    judged : by network, the student first
    """
    first = next(iter(judged.values()))
    counts = dict(zip(first.labels, first.truth.sum(0).astype(int).tolist(), strict=True))
    precision = first.figures.average_precision
    names = list(judged)
    lines = [
        f"| label | clips | {' | '.join(f'AP {who} | AUC {who}' for who in names)} |",
        "|---|---" + "|---|---" * len(names) + "|",
    ]
    for label in sorted(counts, key=lambda label: (precision.get(label, math.inf), label)):
        cells = []
        for who in names:
            figures = judged[who].figures
            for table in (figures.average_precision, figures.auc):
                cells.append(f"{table[label]:.3f}" if label in table else "–")
        lines.append(f"| {label} | {counts[label]} | {' | '.join(cells)} |")
    return lines


def figure_lines(judged: Judged) -> list[str]:
    """Labels for a terminal, the worst first."""
    figures = judged.figures
    counts = dict(zip(judged.labels, judged.truth.sum(0).astype(int).tolist(), strict=True))
    lines = [f"{'label':<32} {'clips':>6} {'AP':>6} {'AUC':>6}"]
    for label, precision in sorted(figures.average_precision.items(), key=lambda item: item[1]):
        lines.append(f"{label:<32} {counts[label]:>6} {precision:>6.3f} {figures.auc[label]:>6.3f}")
    return lines


def draw_tagging_curves(metrics: Path, path: Path) -> None:
    """Loss by stage, and mAP of what was judged, over the epochs, from metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    for stage, colour in zip(stages, (BLUE, ORANGE, BLACK, GREY), strict=False):
        own = [line for line in lines if line["stage"] == stage]
        epochs = [line["epoch"] + 1 for line in own]
        left.plot(epochs, [line["loss"] for line in own], ".-", color=colour, label=stage)
    left.set(xlabel="epoch", ylabel="training loss", title="Training loss", yscale="log")
    left.legend(title="stage")
    for who, colour in _COLOURS.items():
        own = [line for line in lines if f"{who}_map" in line]
        if own:
            x = [line["epoch"] + 1 for line in own]
            right.plot(x, [line[f"{who}_map"] for line in own], "o-", ms=3, color=colour, label=who)
    judged = sorted({line["judged"] for line in lines if "judged" in line})
    right.set(xlabel="epoch", ylabel="mAP", title=f"Judged on: {', '.join(judged)}", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


def draw_label_bars(judged: Mapping[str, Judged], path: Path) -> None:
    """Average precision of each label as bars, by network; a line marks that of a guess."""
    first = next(iter(judged.values()))
    precision, shares = first.figures.average_precision, first.shares()
    labels = sorted(precision, key=lambda label: precision[label])
    rows = np.arange(len(labels))
    height = 0.8 / len(judged)
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.38 * len(labels)), layout="constrained")
    for place, (who, one) in enumerate(judged.items()):
        of = one.figures.average_precision
        middle = rows + (len(judged) - 1) * height / 2 - place * height
        axes.barh(
            middle, [of.get(label, 0.0) for label in labels], height, label=who,
            color=_COLOURS.get(who, GREY),
        )  # fmt: skip
    for row, label in zip(rows, labels, strict=True):
        axes.plot([shares[label]] * 2, [row - 0.4, row + 0.4], color=BLACK, lw=1.5)
    axes.plot([], [], color=BLACK, lw=1.5, label="a guess")
    axes.set_yticks(rows, [label.replace("_", " ") for label in labels])
    axes.set(xlim=(0, 1), xlabel="average precision")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(judged) + 1)
    save(figure, path)


def write_tagging_report(
    run: Path, recipe: TaggingRecipe, settings: dict[str, Any], judged: AllJudged
) -> None:
    """report.md, figures.json and the pictures, in an existing folder."""
    data = recipe.data
    counts = settings["data"]["train"]
    backbone = settings["backbone"]
    seen = f", pictures through {backbone.get('title', backbone.get('name'))}" if backbone else ""
    if recipe.acoustic.embeddings:
        seen += f", sound as {' and '.join(recipe.acoustic.features)}"
    if recipe.device is not None:
        seen += f", the student being the sensor's {recipe.model.student}"
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"Trained on {counts['n_clips']} clips of {Path(settings['path']).name} ({data.kind}: "
        f"{', '.join(data.train)}) with the method {recipe.method}{seen}; width "
        f"{recipe.model.width:g}, {recipe.training.epochs} epochs a stage, batches of "
        f"{recipe.training.batch_size}. Code at {settings['git']}, torch {settings['torch']}, seed "
        f"{recipe.training.seed}."
        + (" The teacher is that of another run." if settings["teacher"] else ""),
        "",
        "![curves](curves.png)",
        "",
    ]
    draw_tagging_curves(run / METRICS, run / "curves.png")
    for split, of in judged.items():
        n_clips = " and ".join(f"{who} {one.figures.n_clips}" for who, one in of.items())
        columns = {f"{who} here": one.figures for who, one in of.items()}
        draw_label_bars(of, run / f"labels_{split}.png")
        lines += [
            f"## {split.capitalize()}",
            "",
            f"Judged on {', '.join(getattr(data, split))}: {n_clips} clips.",
            "",
            *headline_table(columns, recipe.published, data.kind),
            "",
            "mAP and mAUC are means over the labels that some clip has and some has not. "
            "Precision, recall and F1 are micro-averaged, with a threshold of "
            f"{next(iter(of.values())).figures.threshold:g} for all labels. Published figures are "
            "of three seeds whose scores were averaged.",
            "",
            *label_lines(of),
            "",
            f"![labels](labels_{split}.png)",
            "",
        ]
    table = json.dumps(figures_to_dict(judged), indent=1) + "\n"
    write_atomically(run / FIGURES_FILE, table.encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())
