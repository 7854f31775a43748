"""Rules of labelling by machine, by numbers of the text and by hand."""

import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.multimodal.machine_labels import (
    LabellingRules,
    MachineLabel,
    audio_threshold_for,
    fold_of,
    mean_scores,
    top_labels,
    whole_seconds,
)


def test_rules_are_those_of_the_text():
    rules = LabellingRules()
    assert (rules.frames_per_s, rules.top_visual, rules.top_audio) == (3.0, 10, 5)
    assert rules.n_folds == 4_096
    # "top-10 predictions are selected as the visual labels", whatever their scores.
    assert rules.visual_threshold == 0.0


def test_folds_follow_from_the_uuid_of_the_id():
    # RFC 9562, appendix A.4, gives the name-based UUID of www.example.com: of DNS names
    # 2ed6657d-e927-568b-95e1-2665a8aea6a2. Ours is in the namespace of URLs.
    assert str(uuid.uuid5(uuid.NAMESPACE_DNS, "www.example.com")).startswith("2ed6657d-e927-568b")
    assert fold_of("-5QrBL6MzLg_60.000_70.000", 4_096) == int(
        str(uuid.uuid5(uuid.NAMESPACE_URL, "-5QrBL6MzLg_60.000_70.000"))[-3:], 16
    )
    assert fold_of("anything", 1) == 0


@pytest.mark.parametrize("n_folds", [7, 16])
def test_folds_are_of_one_size(n_folds):
    counts = np.bincount([fold_of(f"clip{i:05}", n_folds) for i in range(4_000)], minlength=n_folds)
    assert len(counts) == n_folds
    assert chisquare(counts).pvalue > 1e-3


def test_seconds_do_not_overlap_and_the_rest_is_left_out():
    samples = np.arange(35, dtype=np.float32)
    found = whole_seconds(samples, 10)
    assert found.shape == (3, 10)
    assert_array_equal(found.ravel(), samples[:30])
    # A clip of 3 to 5 s has 3 to 5 seconds.
    for seconds in (3, 4, 5):
        assert len(whole_seconds(np.zeros(seconds * 16_000, np.float32), 16_000)) == seconds
    assert_array_equal(whole_seconds(samples[:4], 10), [[0, 1, 2, 3, 0, 0, 0, 0, 0, 0]])
    with pytest.raises(InputError, match="holds no sound"):
        whole_seconds(samples[:0], 10)


def test_labels_are_the_highest_means():
    means = mean_scores(np.array([[0.9, 0.2, 0.4], [0.1, 0.4, 0.8]]), 3, "network")
    assert_allclose(means, [0.5, 0.3, 0.6])
    labels = ("dog", "car", "horn")
    assert top_labels(means, labels, "visual", 2) == (
        MachineLabel("horn", 0.6, "visual"),
        MachineLabel("dog", 0.5, "visual"),
    )
    # A score at the threshold counts.
    assert [m.label for m in top_labels(means, labels, "audio", 5, 0.3)] == ["horn", "dog", "car"]
    assert [m.label for m in top_labels(means, labels, "audio", 5, 0.31)] == ["horn", "dog"]
    assert top_labels(means, labels, "audio", 5, 0.7) == ()
    # Of equal ones the first.
    same = np.array([0.2, 0.5, 0.5, 0.5])
    assert [m.label for m in top_labels(same, "abcd", "visual", 2)] == ["b", "c"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_clips=st.integers(1, 40),
    n_labels=st.integers(6, 30),
    wanted=st.floats(0.5, 4.9),
)
def test_the_threshold_leaves_the_wanted_number_on_average(seed, n_clips, n_labels, wanted):
    means = np.random.default_rng(seed).random((n_clips, n_labels))
    threshold = audio_threshold_for(means, 5, wanted)
    names = [str(k) for k in range(n_labels)]
    counts = [len(top_labels(row, names, "audio", 5, threshold)) for row in means]
    assert abs(sum(counts) - max(1, wanted * n_clips)) <= 0.5 + 1e-9


def test_a_threshold_where_scores_are_equal_or_too_few():
    assert audio_threshold_for(np.full((4, 5), 0.25)) == 0.0
    assert audio_threshold_for(np.array([[0.4, 0.2]]), 5, 3.0) == 0.0
    # Two of three, half-way between .5 and .1.
    assert audio_threshold_for(np.array([[0.9, 0.5, 0.1]]), 5, 2.0) == pytest.approx(0.3)
    with pytest.raises(InputError, match=r"shape \(0, 3\); expected clips by labels"):
        audio_threshold_for(np.zeros((0, 3)))


def test_bad_rules_and_bad_scores_are_named():
    with pytest.raises(ConfigError, match="n_folds is 0; expected a number above 0"):
        LabellingRules(n_folds=0)
    with pytest.raises(ConfigError, match=r"audio_threshold is 1\.5; expected 0 to 1"):
        LabellingRules(audio_threshold=1.5)
    with pytest.raises(ConfigError, match=r"visual_threshold is -1; expected 0 to 1"):
        LabellingRules(visual_threshold=-1)
    with pytest.raises(InputError, match=r"vggish: scores of shape \(2, 3\); expected .*, 4\)"):
        mean_scores(np.zeros((2, 3)), 4, "vggish")
    with pytest.raises(InputError, match=r"vggish: a score is 2\.0; expected 0 to 1, after"):
        mean_scores(np.array([[0.5, 2.0]]), 2, "vggish")
    with pytest.raises(InputError, match=r"shape \(0, 2\)"):
        mean_scores(np.zeros((0, 2)), 2, "vggish")
