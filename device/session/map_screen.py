"""An energy map in a terminal: coarse, in colours where it has them, else in shades."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.colours import colour_table
from soundpost.device.terminal import Row, Span, clip_row, colour_number

# Upper half of a place: a terminal's places are twice as high as wide.
_HALF: Final = "▀"
_SHADES: Final = " ░▒▓█"


def map_rows(
    map_db: FloatArray, columns: int, lines: int, *, range_db: float, colours: str | None
) -> list[Row]:
    """A map as rows of a terminal, as large as fits with its proportions.

    map_db : (rows, columns) in dB below the greatest, 0 at most; the first row is the upper edge
    columns, lines : room there is
    range_db : what lies so far below the greatest is dark
    colours : name of the colours (colours.py), None for a terminal that has none
    """
    n_rows, n_columns = map_db.shape
    scale = min(columns / n_columns, 2 * lines / n_rows)
    # An even number of half places.
    height = max(2, int(scale * n_rows) // 2 * 2)
    width = max(1, int(scale * n_columns))
    part = np.clip(1 + map_db / range_db, 0.0, 1.0)
    sampled = part[_nearest(height, n_rows)][:, _nearest(width, n_columns)]
    if colours is None:
        return [clip_row(row, columns) for row in _shaded(sampled)]
    return [clip_row(row, columns) for row in _coloured(sampled, colours)]


def _nearest(n_shown: int, n_there: int) -> NDArray[np.intp]:
    """Of each place shown, the pixel in its middle."""
    return ((np.arange(n_shown) + 0.5) * n_there / n_shown).astype(np.intp)


def _coloured(part: FloatArray, colours: str) -> list[Row]:
    table = [colour_number(*map(int, entry)) for entry in colour_table(colours)]
    numbers = np.array(table)[np.round(255 * part).astype(np.intp)]
    rows: list[Row] = []
    for upper, lower in zip(numbers[0::2].tolist(), numbers[1::2].tolist(), strict=True):
        pairs = list(zip(upper, lower, strict=True))
        row, first = [], 0
        for place in range(1, len(pairs) + 1):
            # A run of one colour is one piece.
            if place == len(pairs) or pairs[place] != pairs[first]:
                row.append(Span(_HALF * (place - first), colours=pairs[first]))
                first = place
        rows.append(row)
    return rows


def _shaded(part: FloatArray) -> list[Row]:
    loudest = np.maximum(part[0::2], part[1::2])
    shades = np.ceil(loudest * (len(_SHADES) - 1)).astype(np.intp)
    return [[Span("".join(_SHADES[shade] for shade in row))] for row in shades.tolist()]
