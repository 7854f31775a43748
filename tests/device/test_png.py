"""PNG as another library reads it."""

import io

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.png import encode_png, write_png


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_pixel_comes_back(height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    read = matplotlib.image.imread(io.BytesIO(encode_png(picture)), format="png")
    assert np.array_equal(np.round(read[..., :3] * 255).astype(np.uint8), picture)


def test_a_smooth_picture_is_compressed(tmp_path):
    picture = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 300, axis=1).repeat(3, 2)
    write_png(tmp_path / "a.png", picture)
    assert (tmp_path / "a.png").stat().st_size < 2_000


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_anything_else_is_refused(wrong):
    with pytest.raises(ValueError, match="expected \\(h, w, 3\\) uint8"):
        encode_png(wrong)
