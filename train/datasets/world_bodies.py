"""How large the things of a generated world are, where they stand or hang, and which move about.

By look (calibration/pictures/looks.py). Sizes are those of toys and small animals: what is seen at
2 to 4 m then covers a tenth of the frame's width or more, a cow as well as a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Body:
    """One kind of thing.

    height_m : range of how tall it is
    above_m : range of its lower end over the floor
    walks : it may move about; else it rests
    """

    height_m: tuple[float, float]
    above_m: tuple[float, float] = (0.0, 0.0)
    walks: bool = True


BODIES: Final[Mapping[str, Body]] = {
    "dog": Body((0.55, 0.75)),
    "cat": Body((0.5, 0.65)),
    "rooster": Body((0.5, 0.65)),
    "crow": Body((0.4, 0.5), (0.0, 1.4)),
    "frog": Body((0.35, 0.45)),
    "cow": Body((0.75, 1.0)),
    "sheep": Body((0.65, 0.85)),
    "washing_machine": Body((0.75, 0.9), walks=False),
    "vacuum_cleaner": Body((0.55, 0.75)),
    "car": Body((0.45, 0.6)),
    "helicopter": Body((0.4, 0.5), (0.9, 1.5)),
    "clock": Body((0.5, 0.65), (0.7, 1.3), walks=False),
    "bell": Body((0.5, 0.65), (0.7, 1.3), walks=False),
    "siren": Body((0.45, 0.6), (0.6, 1.3), walks=False),
    "tap": Body((0.5, 0.65), (0.4, 1.0), walks=False),
    "fire": Body((0.55, 0.75), walks=False),
}
