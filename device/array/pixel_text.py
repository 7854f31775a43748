"""Short labels on pictures, in letters of 5 x 7 pixels: figures and units, no more."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROWS, _COLUMNS = 7, 5
# Seven rows of five pixels, # where one is set
_DRAWN: Final = {
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ...#. ..#.. .#... #####",
    "3": "##### ...#. ..#.. ...#. ....# #...# .###.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": "..##. .#... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. .#... .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
    "-": "..... ..... ..... ##### ..... ..... .....",
    "+": "..... ..#.. ..#.. ##### ..#.. ..#.. .....",
    ".": "..... ..... ..... ..... ..... .##.. .##..",
    ":": "..... .##.. .##.. ..... .##.. .##.. .....",
    "d": "....# ....# .##.# #..## #...# #...# .####",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "s": "..... ..... .###. #.... .###. ....# ####.",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "z": "..... ..... ##### ...#. ..#.. .#... #####",
    "k": "#.... #.... #..#. #.#.. ##... #.#.. #..#.",
    "?": ".###. #...# ....# ...#. ..#.. ..... ..#..",
    " ": "..... ..... ..... ..... ..... ..... .....",
}
_GLYPHS: Final = {
    letter: np.array([[pixel == "#" for pixel in row] for row in rows.split()])
    for letter, rows in _DRAWN.items()
}


def text_mask(text: str, scale: int = 1) -> NDArray[np.bool_]:
    """Where pixels of a text are set, (7 scale, about 6 scale for each letter).

    A letter that there is none of is a question mark.
    """
    gap = np.zeros((_ROWS, 1), bool)
    parts = [part for letter in text for part in (_GLYPHS.get(letter, _GLYPHS["?"]), gap)]
    small = np.hstack(parts[:-1]) if parts else np.zeros((_ROWS, 0), bool)
    return small.repeat(scale, axis=0).repeat(scale, axis=1)


def put_text(picture: NDArray[np.uint8], text: str, top: int, left: int, scale: int = 1) -> None:
    """Write white letters with a dark rim into a picture, (h, w, 3); what lies outside is lost."""
    mask = np.pad(text_mask(text, scale), scale)
    rim = np.zeros_like(mask)
    for down in (-scale, 0, scale):
        for right in (-scale, 0, scale):
            rim |= np.roll(mask, (down, right), axis=(0, 1))
    top, left = top - scale, left - scale
    rows = slice(max(top, 0), max(top + mask.shape[0], 0))
    columns = slice(max(left, 0), max(left + mask.shape[1], 0))
    into = picture[rows, columns]
    from_row, from_column = rows.start - top, columns.start - left
    shape = (
        slice(from_row, from_row + into.shape[0]),
        slice(from_column, from_column + into.shape[1]),
    )
    into[rim[shape]] = 16
    into[mask[shape]] = 255
