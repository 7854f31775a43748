"""Tables of colours beside matplotlib's, and as people see them."""

import numpy as np
import pytest

from soundpost.device.array.colours import COLOUR_MAPS, colour_table
from soundpost.device.errors import UsageError


@pytest.mark.parametrize(("name", "off"), [("inferno", 2), ("viridis", 2), ("cividis", 7)])
def test_tables_are_those_of_matplotlib(name, off):
    import matplotlib

    expected = np.asarray(matplotlib.colormaps[name](np.arange(256), bytes=True))[:, :3]
    found = colour_table(name)
    assert found.shape == (256, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= off


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_a_higher_level_is_brighter_whatever_colours_are_seen(name):
    # Relative luminance of sRGB, as whoever sees no colour has it
    linear = (colour_table(name) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    # To a step of 8 bits
    assert np.diff(luminance).min() > -1e-3
    assert luminance[-1] - luminance[0] > 0.5


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="'jet'; expected one of inferno, viridis, cividis"):
        colour_table("jet")
