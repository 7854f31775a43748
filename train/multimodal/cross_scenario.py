"""Tables 1 to 3 of perez2020: trained in one scenario, tested in it and in the others.

"When the model is trained on certain scenario, it is tested on the other two scenarios using all
the available data." Who is trained and tested on what is in datasets/action_splits.py. The mean
that a network is judged by is over the cells with another scenario than the trained one: six, of
three scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ALL = "all"
Cell = tuple[str, str]


@dataclass(frozen=True)
class CrossScenario:
    """Accuracies of one network.

    accuracy : by (training scenario, test scenario), 0 to 1; (ALL, ALL) for all of them together
    """

    accuracy: Mapping[Cell, float] = field(default_factory=dict)

    @classmethod
    def of_names(cls, cells: Mapping[str, float]) -> CrossScenario:
        """Of cells named as in recipes: "1_2" is trained in 1 and tested in 2."""
        named = ((name.partition("_"), value) for name, value in cells.items())
        return cls({(trained, tested): value for (trained, _, tested), value in named})

    def mean(self, cells: Sequence[Cell]) -> float | None:
        """Over these cells; None where it lacks one of them, or there are none."""
        values = [self.accuracy[cell] for cell in cells if cell in self.accuracy]
        return float(np.mean(values)) if values and len(values) == len(cells) else None


@dataclass(frozen=True)
class Column:
    """One network or teacher.

    seeds : figures by seed
    published : what the paper has
    """

    name: str
    seeds: Mapping[int, CrossScenario]
    published: CrossScenario = CrossScenario()

    def means(self, cells: Sequence[Cell]) -> list[float]:
        """Each seed's mean over these cells, of the seeds that have all of them."""
        means = [seed.mean(cells) for seed in self.seeds.values()]
        return [mean for mean in means if mean is not None]


def cells_of(columns: Sequence[Column]) -> list[Cell]:
    """Cells that some seed of a column has, in the order of the tables; ALL last."""
    found = {cell for column in columns for seed in column.seeds.values() for cell in seed.accuracy}

    def place(cell: Cell) -> list[tuple[int, str]]:
        # 10 comes after 2, and ALL, the longest name, last.
        return [(len(name), name) for name in cell]

    return sorted(found, key=place)


def own_cells(cells: Sequence[Cell], *, crossed: bool = False) -> list[Cell]:
    """Cells with the same scenario of training and test; with crossed, those with another."""
    return [cell for cell in cells if cell[0] != ALL and (cell[0] != cell[1]) == crossed]


def scenario_table(columns: Sequence[Column]) -> str:
    """Markdown in the form of tables 1 to 3: ours and the published figures of each column.

    Of several seeds the mean and the standard deviation. Means below are over the cells that the
    table has; a column that lacks some of them has none.
    """
    cells = cells_of(columns)
    heads = [
        f"{column.name} | published" if column.published.accuracy else column.name
        for column in columns
    ]
    width = sum(head.count("|") + 1 for head in heads)
    lines = [f"| train set | test set | {' | '.join(heads)} |", "|---" * (2 + width) + "|"]
    rows = [(*cell, [cell]) for cell in cells]
    rows += [
        ("mean", "own scenario", own_cells(cells)),
        ("mean", "other scenarios", own_cells(cells, crossed=True)),
    ]
    for trained, tested, of in rows:
        shown = []
        for column in columns:
            shown.append(_number(column.means(of)))
            if column.published.accuracy:
                theirs = column.published.mean(of)
                shown.append(_number([] if theirs is None else [theirs]))
        lines.append(f"| {trained} | {tested} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _number(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{np.mean(values):.4f}"
    return f"{mean} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else mean


def scenario_figures(columns: Sequence[Column]) -> dict[str, Any]:
    """As JSON: each column's accuracies and means by seed, and the published accuracies."""
    cells = cells_of(columns)
    means = {"own": own_cells(cells), "others": own_cells(cells, crossed=True)}
    return {
        column.name: {
            "seeds": {
                str(number): {
                    "accuracy": {"_".join(cell): value for cell, value in seed.accuracy.items()},
                    "means": {name: seed.mean(of) for name, of in means.items()},
                }
                for number, seed in column.seeds.items()
            },
            "published": {"_".join(cell): v for cell, v in column.published.accuracy.items()},
        }
        for column in columns
    }
