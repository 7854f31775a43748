"""What a run leaves for people: curves, confusion matrix and a page of figures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from soundpost.device.files import write_atomically
from soundpost.train.metrics import ClipFigures
from soundpost.train.recipe import Recipe


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    # Without a date and a version, the same run gives the same bytes.
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, picture.getvalue())


def draw_curves(metrics: Path, path: Path) -> None:
    """Loss, learning rate and held-out accuracy over epochs, from metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = [line["epoch"] + 1 for line in lines]
    left.plot(epochs, [line["loss"] for line in lines], color="tab:blue")
    # The first epochs are far above the rest, which is what people look at.
    left.set(xlabel="epoch", ylabel="training loss", title="Training loss", yscale="log")
    rate = left.twinx()
    rate.plot(epochs, [line["learning_rate"] for line in lines], color="tab:grey", lw=1, ls="--")
    rate.set_ylabel("learning rate (dashed)")
    judged = [line for line in lines if "top1" in line]
    if judged:
        x = [line["epoch"] + 1 for line in judged]
        right.plot(x, [100 * line["top1"] for line in judged], "o-", ms=3, color="tab:green")
        right.set(xlabel="epoch", ylabel="top-1 of held-out clips (%)", title="Averaged weights")
    else:
        right.text(0.5, 0.5, "no held-out clips", ha="center", transform=right.transAxes)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _save(figure, path)


def draw_confusion(confusion: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Confusion matrix; each row is shaded by its share of the true label's clips."""
    shown = np.flatnonzero(confusion.sum(1) + confusion.sum(0))
    counts = confusion[np.ix_(shown, shown)]
    names = [labels[k].replace("_", " ") for k in shown]
    size = 3.0 + 0.22 * len(shown)
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=6,
            color=colour,
        )
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.set(xlabel="predicted", ylabel="true")
    _save(figure, path)


def write_report(
    run: Path, recipe: Recipe, settings: dict[str, Any], figures: dict[str, ClipFigures]
) -> None:
    """report.md: what was trained on what, the figures, the published ones beside them."""
    data = settings["data"]
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"Trained on {data['n_train']} clips of {Path(data['path']).name} "
        f"(folds {', '.join(map(str, data['folds_train']))}), "
        f"{data['n_validation']} clips for validation, {data['n_test']} held out"
        + (f" (fold {data['fold_test']})." if data["fold_test"] is not None else "."),
        f"Code at {settings['git']}, torch {settings['torch']}, seed {recipe.training.seed}.",
        "",
        "| clips | n | top-1 | top-5 | mAP |",
        "|---|---|---|---|---|",
    ]
    for name, f in figures.items():
        lines.append(
            f"| {name} | {f.n_clips} | {f.top1:.1%} | {f.top5:.1%} "
            f"| {f.mean_average_precision:.3f} |"
        )
    lines += [
        f"| published: {name} | | {value:.1%} | | |" for name, value in recipe.published.items()
    ]
    lines += ["", "A clip's score is the mean over its windows. ![curves](curves.png)", ""]
    for name, f in figures.items():
        lines += [
            f"## Labels, {name}",
            "",
            "| label | recall | average precision |",
            "|---|---|---|",
        ]
        lines += [
            f"| {label} | {recall:.1%} | {f.average_precision[label]:.3f} |"
            for label, recall in sorted(f.recall.items(), key=lambda item: item[1])
        ]
        lines += ["", f"![confusion](confusion_{name}.png)", ""]
    write_atomically(run / "report.md", ("\n".join(lines)).encode())
