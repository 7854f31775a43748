"""report.md, figures.json and pictures of a pre-training from labels by machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from soundpost.device.files import write_atomically
from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.audio_networks import audio_network
from soundpost.train.multimodal.machine_recipe import BENCHMARKS, MachineRecipe
from soundpost.train.multimodal.recognition import FIGURES, Recognition
from soundpost.train.multimodal.recognition_pictures import (
    draw_precision_bars,
    draw_recognition_curves,
    label_table,
    percent_head,
    percent_row,
)
from soundpost.train.multimodal.second_features import frames_per_second
from soundpost.train.multimodal.tagging_report import FIGURES_FILE

_NAMES = {"esc50": "ESC-50", "audioset": "AudioSet", "tut2018": "TUT 2018"}


def write_machine_report(
    run: Path,
    recipe: MachineRecipe,
    settings: dict[str, Any],
    network: nn.Module,
    judged: Recognition | None,
) -> None:
    """All of it, in an existing folder."""
    data, training, classes = settings["data"], recipe.training, settings["classes"]
    n_seen = sum(source == "visual" for source, _ in classes)
    size = counts(network)
    draw_recognition_curves(run / METRICS, run / "curves.png")
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"{recipe.model.network} of width {recipe.model.width:g} on labels by machine: "
        f"{data['n_train']} clips of {Path(settings['path']).name} ({recipe.data.kind}), "
        f"{n_seen} seen and {len(classes) - n_seen} heard classes; {training.epochs} epochs, "
        f"batches of {training.batch_size}. {data['n_silent']} labelled clips were left out, for "
        f"they have no sound that can be used. Code at {settings['git']}, torch "
        f"{settings['torch']}, seed {training.seed}.",
        "",
        f"{size.parameters / 1e6:.2f} million parameters, {size.weights / 1e6:.2f} million of them "
        f"kernels; {_multiply_adds(recipe, len(classes)) / 1e6:.1f} million multiply-adds a second "
        "of sound.",
        "",
        "![curves](curves.png)",
        "",
        f"Next: `soundpost train jia2019_esc50 --data DIR --init {run.name} --out RUN --fold 1`",
        "",
    ]
    if recipe.published:
        lines += ["## Published", "", "After transfer, in the paper:", ""]
        lines += percent_head("benchmark")
        for benchmark in BENCHMARKS:
            rows = {name: recipe.published.get(f"{benchmark}_{name}") for name in FIGURES}
            found = {name: value for name, value in rows.items() if value is not None}
            if found:
                lines.append(percent_row(_NAMES[benchmark], found))
        lines.append("")
    figures = None
    if judged is not None:
        figures = judged.to_dict()
        page = judged.for_a_page()
        draw_precision_bars(page, run / "labels_validation.png")
        lines += [
            "## Validation",
            "",
            *percent_head("clips"),
            percent_row(str(len(judged.clip_ids)), judged.figures()),
            "",
            "Judged against the labels by machine: the mean score of a clip's seconds."
            + (f" Of {len(judged.labels)} classes those that most clips have:" if page is not judged
               else ""),
            "",
            *label_table(page),
            "",
            "![labels](labels_validation.png)",
            "",
        ]  # fmt: skip
    table = json.dumps({"validation": figures}, indent=1) + "\n"
    write_atomically(run / FIGURES_FILE, table.encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())


def _multiply_adds(recipe: MachineRecipe, n_classes: int) -> int:
    with torch.device("meta"):
        network = audio_network(recipe.model, n_classes)
        front_end = recipe.front_end
        return multiply_adds(
            network, torch.empty(1, 1, frames_per_second(front_end), front_end.n_mels)
        )
