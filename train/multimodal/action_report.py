"""report.md, figures.json and pictures of a run of perez2020."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from soundpost.device.files import write_atomically
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.action_recipe import ActionRecipe
from soundpost.train.report import draw_confusion
from soundpost.train.sed.pictures import BLUE, save

FIGURES_FILE = "figures.json"
# What is watched while training, and belongs to no published table.
VALIDATION = "validation"


@dataclass(frozen=True)
class ActionFigures:
    """Accuracies of one network.

    trained_in : scenario of training, "all" or its number
    labels : actions
    accuracy, n_clips, confusion : by what was judged, "validation" and scenarios; confusion is
        (n_labels, n_labels) counts, truth by row
    """

    trained_in: str
    labels: tuple[str, ...]
    accuracy: Mapping[str, float]
    n_clips: Mapping[str, int]
    confusion: Mapping[str, NDArray[np.int64]]

    @classmethod
    def of(
        cls,
        trained_in: str,
        labels: tuple[str, ...],
        scores: Mapping[str, NDArray[np.float32]],
        truth: Mapping[str, NDArray[np.int64]],
    ) -> ActionFigures:
        """Of scores (n_clips, n_labels) and truth (n_clips,), by what was judged."""
        found = {name: of.argmax(1) for name, of in scores.items()}
        every = np.arange(len(labels))
        return cls(
            trained_in,
            labels,
            {name: float((found[name] == truth[name]).mean()) for name in scores},
            {name: len(truth[name]) for name in scores},
            {name: confusion_matrix(truth[name], found[name], labels=every) for name in scores},
        )

    def cells(self) -> dict[str, float]:
        """Accuracy by scenarios of training and test, as published figures are named."""
        return {
            f"{self.trained_in}_{name}": value
            for name, value in self.accuracy.items()
            if name != VALIDATION
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "trained_in": self.trained_in,
            "accuracy": self.cells(),
            "validation": self.accuracy.get(VALIDATION),
            "n_clips": dict(self.n_clips),
            "labels": list(self.labels),
            "confusion": {name: of.tolist() for name, of in self.confusion.items()},
        }

    def line(self) -> str:
        """One line for a person."""
        cells = ", ".join(f"{name} {value:.4f}" for name, value in self.cells().items())
        return f"accuracy by scenarios of training and test: {cells}"


def draw_action_curves(metrics: Path, path: Path) -> None:
    """Loss, and accuracy on validation clips, over the epochs, from metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([x["epoch"] + 1 for x in lines], [x["loss"] for x in lines], ".-", color=BLUE)
    left.set(xlabel="epoch", ylabel="training loss", title="Training loss", yscale="log")
    judged = [line for line in lines if "accuracy" in line]
    epochs = [line["epoch"] + 1 for line in judged]
    right.plot(epochs, [line["accuracy"] for line in judged], "o-", ms=3, color=BLUE)
    right.set(xlabel="epoch", ylabel="accuracy", title="Validation clips", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


def _numbers(subjects: Sequence[int]) -> str:
    return ", ".join(map(str, subjects))


def write_action_report(
    run: Path, recipe: ActionRecipe, settings: dict[str, Any], figures: ActionFigures
) -> None:
    """report.md, figures.json and the pictures, in an existing folder."""
    data = settings["data"]
    taught = "."
    if settings["teacher"]:
        distillation = recipe.distillation
        taught = (
            f", taught by a run of sha256 {settings['teacher'][:12]} with imitation "
            f"{distillation.imitation:g} and temperature {distillation.temperature:g} "
            f"({distillation.form})."
        )
    held = recipe.data.split_by
    if held == "subject":
        validation, test = recipe.data.validation_subjects, recipe.data.test_subjects
        chosen = f"subjects {_numbers(validation)} to choose by and " if validation else ""
        held = f"subject: {chosen}subjects {_numbers(test)} to judge on"
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"{recipe.model.network}, trained on {data['n_train']} clips of {recipe.clip_s:g} s of "
        f"{Path(settings['path']).name}, scenario {figures.trained_in}{taught} Parts of "
        f"{recipe.data.part_s:g} s, held out by {held}; {recipe.training.epochs} epochs, learning "
        f"rate {recipe.training.learning_rate:g}, batches of {recipe.training.batch_size}, width "
        f"{recipe.model.width:g}. Code at {settings['git']}, torch {settings['torch']}, seed "
        f"{recipe.training.seed}.",
        "",
        "| trained in | judged in | clips | accuracy here | published |",
        "|---|---|---|---|---|",
    ]
    for name, value in figures.cells().items():
        tested = name.partition("_")[2]
        published = recipe.published.get(name)
        theirs = "–" if published is None else f"{published:.4f}"
        lines.append(
            f"| {figures.trained_in} | {tested} | {figures.n_clips[tested]} | {value:.4f} "
            f"| {theirs} |"
        )
    lines += [
        "",
        "In the scenario that it was trained in, clips that were held out; in others, "
        + ("those of the same subjects." if recipe.data.split_by == "subject" else "all of them."),
        "",
        "![curves](curves.png)",
        "",
    ]
    draw_action_curves(run / METRICS, run / "curves.png")
    for name in figures.accuracy:
        if name != VALIDATION:
            draw_confusion(figures.confusion[name], figures.labels, run / f"confusion_{name}.png")
            lines += [f"![confusion in {name}](confusion_{name}.png)", ""]
    table = json.dumps(figures.to_dict(), indent=1) + "\n"
    write_atomically(run / FIGURES_FILE, table.encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())
