"""A map in a terminal fits, and is bright where it is loud."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.array.colours import colour_table
from soundpost.device.session.map_screen import map_rows
from soundpost.device.terminal import colour_number, text_width


@given(
    columns=st.integers(1, 120),
    lines=st.integers(1, 50),
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    colours=st.sampled_from([None, "inferno"]),
)
def test_it_fits_any_terminal(
    columns: int, lines: int, shape: tuple[int, int], colours: str | None
) -> None:
    map_db = -np.random.default_rng(1).uniform(0, 30, shape).astype(np.float32)
    rows = map_rows(map_db, columns, lines, range_db=12.0, colours=colours)
    assert 1 <= len(rows) <= lines
    widths = {sum(text_width(span.text) for span in row) for row in rows}
    assert len(widths) == 1
    assert widths.pop() <= columns


@pytest.mark.parametrize("pixel", [(0, 0), (3, 40), (35, 47), (20, 7)])
def test_the_loudest_pixel_is_the_brightest_place(pixel: tuple[int, int]) -> None:
    map_db = np.full((36, 48), -40.0, np.float32)
    map_db[pixel] = 0.0
    shaded = map_rows(map_db, 48, 18, range_db=12.0, colours=None)
    places = [
        (number, place)
        for number, row in enumerate(shaded)
        for place, letter in enumerate("".join(span.text for span in row))
        if letter == "█"
    ]
    assert places == [(pixel[0] // 2, pixel[1])]
    table = colour_table("viridis")
    low, high = (colour_number(*map(int, table[index])) for index in (0, 255))
    seen = []
    for number, row in enumerate(map_rows(map_db, 48, 18, range_db=12.0, colours="viridis")):
        place = 0
        for span in row:
            assert span.colours is not None
            for half, colour in enumerate(span.colours):
                if colour == high:
                    assert len(span.text) == 1
                    seen.append((2 * number + half, place))
                else:
                    assert colour == low
            place += len(span.text)
    assert seen == [pixel]
