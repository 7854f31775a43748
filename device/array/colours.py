"""Colours of a level, from low to high, that keep their order in grey and for the colour-blind.

Every eighth entry of the tables of matplotlib: inferno and viridis (van der Walt and Smith, 2015,
CC0), cividis (Nunez, Anderton and Renslow, "Optimizing colormaps with consideration for color
vision deficiency", 2018). Between them on straight lines, which are at most 2 of 255 off, and 7 at
the ends of cividis.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import UsageError

_ANCHORS: Final = {
    "inferno": (
        "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e "
        "7d1e6d 8a226a 972766 a32c61 b0315b bc3754 c63d4d d04545 da4e3c e35933 eb6429 "
        "f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4"
    ),
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d "
        "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f978b 1f9f88 21a685 27ad81 31b57b "
        "3dbc74 4cc26c 5cc863 6ece58 81d34d 95d840 aadc32 c0df25 d5e21a eae51a fde725"
    ),
    "cividis": (
        "00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d "
        "5a5f6e 61656f 686a71 6f7073 767676 7d7c78 838179 8b8778 928d78 9a9376 a29975 "
        "aaa073 b3a670 bbad6d c3b369 ccba64 d4c15f ddc858 e6d051 efd748 f8df3c fee838"
    ),
}
COLOUR_MAPS: Final = tuple(_ANCHORS)


def colour_table(name: str) -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB from the lowest level to the highest; UsageError for an unknown name."""
    if name not in _ANCHORS:
        raise UsageError(f"colours {name!r}; expected one of {', '.join(COLOUR_MAPS)}")
    anchors = np.array([list(bytes.fromhex(entry)) for entry in _ANCHORS[name].split()])
    places = np.round(np.linspace(0, 255, len(anchors)))
    columns = [np.interp(np.arange(256), places, column) for column in anchors.T]
    table: NDArray[np.uint8] = np.round(np.stack(columns, axis=1)).astype(np.uint8)
    return table
