"""The table of scenarios as files: scenarios.md, scenarios.json, and scenarios.png, a heat map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.multimodal.cross_scenario import (
    ALL,
    Column,
    cells_of,
    scenario_figures,
    scenario_table,
)
from soundpost.train.sed.pictures import save

TABLE, FIGURES, PICTURE = "scenarios.md", "scenarios.json", "scenarios.png"
# Panels are this wide and high, in inches.
_PANEL = (2.3, 2.4)


def write_scenarios(columns: Sequence[Column], out: Path) -> None:
    """Write all three into a folder, which is made; InputError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}; give another --out") from error
    seeds = {name for column in columns for name in column.seeds}
    lines = [
        "Accuracy by scenarios of training and test"
        + (", mean and standard deviation of the seeds" if len(seeds) > 1 else "")
        + "; published figures are of the authors' set.",
        "",
        scenario_table(columns),
        f"![heat map]({PICTURE})",
        "",
    ]
    write_atomically(out / TABLE, "\n".join(lines).encode())
    write_atomically(
        out / FIGURES, (json.dumps(scenario_figures(columns), indent=1) + "\n").encode()
    )
    draw_scenarios(columns, out / PICTURE)


def draw_scenarios(columns: Sequence[Column], path: Path) -> None:
    """A heat map for each column, with the published one below it where there is one."""
    cells = cells_of(columns)
    names = list(dict.fromkeys(name for cell in cells for name in cell if cell[0] != ALL))
    theirs = any(column.published.accuracy for column in columns)
    figure, panels = plt.subplots(
        2 if theirs else 1,
        len(columns),
        figsize=(1 + _PANEL[0] * len(columns), _PANEL[1] * (2 if theirs else 1)),
        layout="constrained",
        squeeze=False,
    )
    shown = None
    for place, column in enumerate(columns):
        ours = {
            cell: float(np.mean(column.means([cell]))) for cell in cells if column.means([cell])
        }
        rows = [("here", ours)]
        if theirs:
            rows.append(("published", dict(column.published.accuracy)))
        for axes, (words, accuracy) in zip(panels[:, place], rows, strict=True):
            if not accuracy:
                axes.set_axis_off()
                continue
            values = np.array(
                [[accuracy.get((row, cell), np.nan) for cell in names] for row in names]
            ).reshape(len(names), len(names))
            together = accuracy.get((ALL, ALL))
            title = f"{column.name}, {words}"
            if together is not None:
                title += f"\nall scenarios: {together:.2f}"
            shown = _draw_cells(axes, values, names)
            axes.set_title(title, fontsize=8)
            if place == 0:
                axes.set_ylabel("trained in", fontsize=8)
            axes.set_xlabel("tested in", fontsize=8)
    if shown is not None and names:
        figure.colorbar(shown, ax=panels, label="accuracy", shrink=0.8)
    save(figure, path)


def _draw_cells(axes: Axes, values: NDArray[np.float64], names: Sequence[str]) -> AxesImage:
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axes.text(
            column,
            row,
            "–" if np.isnan(value) else f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value > 0.5 else "black",
        )
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    return image
