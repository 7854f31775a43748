"""Curves and bars of networks that are judged by top-1, top-5, mAP and AUC."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from soundpost.train.multimodal.recognition import FIGURES, Recognition
from soundpost.train.sed.pictures import BLACK, BLUE, GREY, ORANGE, save

_COLOURS = dict(zip(FIGURES, (BLUE, BLUE, ORANGE, GREY), strict=True))
_DASHES = {"top1": "-", "top5": ":", "map": "-", "auc": "--"}


def draw_recognition_curves(metrics: Path, path: Path) -> None:
    """Training loss and learning rate, and the figures of what was judged, from metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = [line["epoch"] + 1 for line in lines]
    left.plot(epochs, [line["labels"] for line in lines], ".-", color=BLUE)
    left.set(xlabel="epoch", ylabel="cross entropy", title="Training loss", yscale="log")
    rate = left.twinx()
    rate.plot(epochs, [line["learning_rate"] for line in lines], color=GREY, lw=1, ls="--")
    rate.set(ylabel="learning rate (dashed)", ylim=(0, None))
    judged = [line for line in lines if "judged" in line]
    for name, title in FIGURES.items():
        own = [line for line in judged if f"student_{name}" in line]
        right.plot(
            [line["epoch"] + 1 for line in own],
            [line[f"student_{name}"] for line in own],
            _DASHES[name], marker="o", ms=3, color=_COLOURS[name], label=title,
        )  # fmt: skip
    if judged:
        of = ", ".join(sorted({line["judged"] for line in judged}))
        right.set(xlabel="epoch", title=f"Judged on: {of}", ylim=(0, 1))
        right.legend()
    else:
        right.text(0.5, 0.5, "no clips to judge on", ha="center", transform=right.transAxes)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


def draw_precision_bars(judged: Recognition, path: Path) -> None:
    """Average precision of each label as a bar; a line marks that of a guess."""
    precision, shares = judged.tagging.average_precision, judged.shares()
    labels = sorted(precision, key=lambda label: precision[label])
    rows = np.arange(len(labels))
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.22 * len(labels)), layout="constrained")
    axes.barh(rows, [precision[label] for label in labels], 0.7, color=BLUE)
    for row, label in zip(rows, labels, strict=True):
        axes.plot([shares[label]] * 2, [row - 0.4, row + 0.4], color=BLACK, lw=1.5)
    axes.plot([], [], color=BLACK, lw=1.5, label="a guess")
    axes.set_yticks(rows, [label.replace("_", " ") for label in labels], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(labels) - 0.4), xlabel="average precision")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center")
    save(figure, path)


def label_table(judged: Recognition) -> list[str]:
    """Markdown lines: average precision and AUC of each label, the worst first."""
    counts = dict(zip(judged.labels, judged.truth.sum(0).astype(int).tolist(), strict=True))
    tagging = judged.tagging
    lines = ["| label | clips | AP | AUC |", "|---|---|---|---|"]
    lines += [
        f"| {label} | {counts[label]} | {precision:.3f} | {tagging.auc[label]:.3f} |"
        for label, precision in sorted(
            tagging.average_precision.items(), key=lambda item: (item[1], item[0])
        )
    ]
    return lines


def percent_row(title: str, figures: dict[str, float]) -> str:
    """Markdown row of the four figures, as the paper gives them."""
    cells = (f"{figures[name]:.1%}" if name in figures else "–" for name in FIGURES)
    return f"| {title} | {' | '.join(cells)} |"


def percent_head(title: str) -> list[str]:
    """The lines above such rows."""
    return [f"| {title} | {' | '.join(FIGURES.values())} |", "|---" * (1 + len(FIGURES)) + "|"]
