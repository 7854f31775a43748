"""Letters of pixels: where they lie, and that those at an edge are cut and not an error."""

import numpy as np
import pytest

from soundpost.device.array.pixel_text import put_text, text_mask


def test_letters_are_five_by_seven_and_all_different():
    letters = "0123456789-+.:dBsHzk? "
    masks = [text_mask(letter) for letter in letters]
    assert {mask.shape for mask in masks} == {(7, 5)}
    assert len({mask.tobytes() for mask in masks}) == len(letters)
    assert text_mask("10 dB", 2).shape == (14, 2 * 29)
    assert np.array_equal(text_mask("é"), text_mask("?"))


@pytest.mark.parametrize(("top", "left"), [(3, 4), (-4, 5), (2, -9), (27, 36), (-50, 0), (0, 90)])
def test_what_lies_outside_is_lost_and_the_rest_is_where_it_belongs(top, left):
    whole = np.full((130, 240, 3), 100, np.uint8)
    put_text(whole, "-12 dB", 50 + top, 60 + left)
    part = np.full((30, 40, 3), 100, np.uint8)
    put_text(part, "-12 dB", top, left)
    assert np.array_equal(part, whole[50:80, 60:100])
