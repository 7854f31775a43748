"""Class-specific thresholds against scikit-learn's F1 and every combination."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from soundpost.device.errors import InputError
from soundpost.train.multimodal.class_thresholds import (
    class_thresholds,
    micro_f1_thresholds,
    predictions,
)


def micro(truth, scores, thresholds):
    """Micro-averaged F1: that of all decisions in one row."""
    found = predictions(scores, np.array(thresholds))
    return f1_score(truth.ravel(), found.ravel(), zero_division=0)


def fraction(truth, scores, thresholds):
    """The same as a fraction of counts: scikit-learn takes a millisecond for each combination."""
    found = scores >= np.array(thresholds)
    total = found.sum() + truth.sum()
    return 2 * (found & (truth == 1)).sum() / total if total else 0.0


def cuts(scores):
    """A threshold at each score, and one above all."""
    return [*np.unique(scores), 2.0]


problems = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from([2, 5, 1000]),
    st.floats(0.0, 1.0),
)


def problem(given_values):
    seed, n_clips, n_classes, levels, share = given_values
    rng = np.random.default_rng(seed)
    truth = (rng.random((n_clips, n_classes)) < share).astype(int)
    # Few levels: equal scores of positive and negative clips.
    scores = rng.integers(0, levels + 1, (n_clips, n_classes)) / levels
    return scores, truth


@settings(max_examples=60, deadline=None)
@given(problems)
def test_step_one_is_the_best_of_every_class(given_values):
    scores, truth = problem(given_values)
    found = class_thresholds(scores, truth)
    predicted = predictions(scores, found.thresholds)
    for k in range(scores.shape[1]):
        best = max(fraction(truth[:, k], scores[:, k], cut) for cut in cuts(scores[:, k]))
        assert found.f1[k] == pytest.approx(best)
        assert f1_score(truth[:, k], predicted[:, k], zero_division=0) == pytest.approx(best)
    assert found.micro_f1 == pytest.approx(micro(truth, scores, found.thresholds))


@settings(max_examples=60, deadline=None)
@given(problems, st.integers(0, 3))
def test_step_two_is_the_best_of_all_combinations(given_values, seed):
    scores, truth = problem(given_values)
    found = micro_f1_thresholds(scores, truth, seed)
    best = max(fraction(truth, scores, each) for each in product(*map(cuts, scores.T)))
    assert found.micro_f1 == pytest.approx(best)
    assert micro(truth, scores, found.thresholds) == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.5))
def test_step_two_is_never_below_step_one(seed, share):
    rng = np.random.default_rng(seed)
    truth = (rng.random((200, 17)) < share * rng.random(17)).astype(int)
    scores = np.clip(0.3 * truth + 0.7 * rng.random((200, 17)) ** 2, 0, 1)
    first, both = class_thresholds(scores, truth), micro_f1_thresholds(scores, truth)
    assert both.micro_f1 >= first.micro_f1
    assert micro(truth, scores, both.thresholds) >= micro(truth, scores, first.thresholds)
    # And no class could do better for itself than step one.
    assert (both.f1 <= first.f1 + 1e-12).all()


def test_a_weak_class_gives_way_to_the_others():
    # Class 0 is told apart well (F1 1 of 8 clips). Class 1 has one positive at the bottom: its own
    # F1 is best where all 8 clips are predicted, 2/9, and that costs seven false ones.
    truth = np.array([[1, 0]] * 4 + [[0, 0]] * 3 + [[0, 1]])
    scores = np.array(
        [[0.9, 0.5 + 0.01 * i] for i in range(4)]
        + [[0.1, 0.3 + 0.01 * i] for i in range(3)]
        + [[0.1, 0.2]]
    )
    first, both = class_thresholds(scores, truth), micro_f1_thresholds(scores, truth)
    assert first.f1.tolist() == pytest.approx([1.0, 2 / 9])
    # 5 hits of 12 predicted, 5 positive: 10/17. Without class 1: 4 hits of 4 predicted, 8/9.
    assert first.micro_f1 == pytest.approx(10 / 17)
    assert both.micro_f1 == pytest.approx(8 / 9)
    assert both.f1.tolist() == [1.0, 0.0]


def test_a_threshold_stands_in_the_middle_of_its_gap():
    # Positive .8 and .9, negative .2: any threshold up to .8 and above .2 is as good.
    found = class_thresholds(np.array([[0.8], [0.9], [0.2]]), np.array([[1], [1], [0]]))
    assert found.thresholds.tolist() == pytest.approx([0.5])
    assert found.micro_f1 == 1.0


def test_a_class_that_never_occurs_is_not_predicted():
    scores = np.array([[0.4], [0.6], [1.0]])
    for tune in (class_thresholds, micro_f1_thresholds):
        found = tune(scores, np.zeros((3, 1), int))
        assert not predictions(scores, found.thresholds).any()
        assert found.micro_f1 == 0.0


def test_the_same_seed_gives_the_same_thresholds():
    rng = np.random.default_rng(1)
    truth, scores = rng.integers(0, 2, (50, 5)), rng.random((50, 5))
    first, again = (micro_f1_thresholds(scores, truth, 7) for _ in range(2))
    assert first.thresholds.tolist() == again.thresholds.tolist()


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"scores \(2, 1\), truth \(1, 2\); expected clips by"):
        class_thresholds(np.zeros((2, 1)), np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"a score is 1\.5; expected 0 to 1"):
        class_thresholds(np.array([[1.5]]), np.array([[1]]))
    with pytest.raises(InputError, match=r"other numbers than 0 and 1"):
        micro_f1_thresholds(np.array([[0.5]]), np.array([[2]]))
    with pytest.raises(InputError, match="at least one of each"):
        micro_f1_thresholds(np.zeros((0, 3)), np.zeros((0, 3)))
