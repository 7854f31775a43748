"""Objects of a clip and the events they speak for, by numbers worked out on paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from soundpost.device.errors import InputError
from soundpost.train.multimodal.objects import clip_objects, event_probabilities, rectify
from soundpost.train.multimodal.word_vectors import map_objects


def test_the_top_classes_share_the_mass_of_all():
    # .4, .3 and .1 are kept: 8 tenths become 1.
    assert_allclose(
        rectify([0.1, 0.3, 0.05, 0.4, 0.15], 3), [0, 0.3 / 0.85, 0, 0.4 / 0.85, 0.15 / 0.85]
    )
    assert_allclose(rectify([[0.5, 0.5], [1.0, 0.0]], 1), [[1, 0], [1, 0]])
    assert_allclose(rectify([2.0, 6.0], 10), [0.25, 0.75])


def test_a_clip_is_the_rectified_sum_of_its_rectified_key_frames():
    frames = [[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]]
    # Top 2 of each: (5/8, 3/8, 0, 0) and (0, 0, 3/7, 4/7). Of the sum the 1st and the 4th are
    # largest: 5/8 = 35/56 and 4/7 = 32/56, hence 35/67 and 32/67.
    assert_allclose(clip_objects(np.array(frames), 2), [35 / 67, 0, 0, 32 / 67])


@settings(max_examples=60, deadline=None)
@given(
    frames=arrays(np.float32, (4, 30), elements=st.floats(2.0**-10, 1, width=32)),
    top=st.integers(1, 12),
)
def test_ten_objects_are_left_and_nothing_is_lost(frames, top):
    found = clip_objects(frames, top)
    assert np.count_nonzero(found) == top
    assert found.sum() == pytest.approx(1.0)
    # What is kept is no less than what is not, as it was before.
    sums = sum(
        np.where(np.isin(np.arange(30), sorted(range(30), key=lambda i: -row[i])[:top]), row, 0)
        / sum(sorted(map(float, row))[-top:])
        for row in frames.astype(float)
    )
    assert sums[found > 0].min() >= sums[found == 0].max() - 1e-12


VECTORS = {
    "cat": np.array([1, 0], np.float32),
    "tabby": np.array([0.9, 0.1], np.float32),
    "lorry": np.array([0, 1], np.float32),
}


def test_an_event_gets_the_probabilities_of_all_objects_that_speak_for_it(caplog):
    mapping = map_objects(["cat", "tabby", "lorry", "zzz"], ["cat", "lorry"], VECTORS)
    events = event_probabilities([[0.3, 0.25, 0.25, 0.2], [0.0, 0.0, 0.0, 1.0]], mapping)
    assert_allclose(events, [[0.55, 0.25], [0.0, 0.0]])
    assert_allclose(event_probabilities([0.1, 0.2, 0.7, 0.0], mapping), [0.3, 0.7])


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"one is -0\.5; expected numbers from 0, after the soft"):
        rectify([0.5, -0.5])
    with pytest.raises(InputError, match="a key frame has none above 0"):
        clip_objects(np.zeros((2, 3)))
    with pytest.raises(InputError, match="the clip has no key frame"):
        clip_objects(np.zeros((0, 3)))
    mapping = map_objects(["cat"], ["lorry"], VECTORS)
    with pytest.raises(InputError, match="2 of them; expected 1, the names"):
        event_probabilities([0.5, 0.5], mapping)
