"""Averages of seeds and the figures of yin2021's tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from soundpost.device.errors import InputError
from soundpost.train.multimodal.ensembles import (
    TaggingFigures,
    average_scores,
    method_table,
    tagging_figures,
)


def test_the_average_of_three_seeds():
    seeds = [np.array([[0.2, 0.9]]), np.array([[0.3, 0.0]]), np.array([[0.7, 0.6]])]
    np.testing.assert_allclose(average_scores(seeds), [[0.4, 0.5]], atol=1e-7)


@pytest.mark.parametrize("scores", [[], [np.zeros((2, 3)), np.zeros((2, 4))]])
def test_scores_of_other_clips_are_not_averaged(scores):
    with pytest.raises(InputError, match="expected the same clips and labels"):
        average_scores(scores)


def test_figures_worked_out_by_hand():
    # Label a: ranks 1 and 3 are right: AP = (1 + 2/3) / 2; of 4 pairs 3 stand right: AUC 3/4.
    # Label b: rank 2 is right: AP 1/2; of 3 pairs 2: AUC 2/3.
    scores = np.array([[0.9, 0.1], [0.8, 0.6], [0.3, 0.5], [0.1, 0.2]], np.float32)
    targets = np.array([[1, 0], [0, 0], [1, 1], [0, 0]], np.float32)
    figures = tagging_figures(scores, targets, ("a", "b"))
    assert figures.average_precision == pytest.approx({"a": 5 / 6, "b": 1 / 2})
    assert figures.auc == pytest.approx({"a": 3 / 4, "b": 2 / 3})
    assert figures.mean_average_precision == pytest.approx(2 / 3)
    assert figures.mean_auc == pytest.approx(17 / 24)
    # At .25: .9, .8, .3 of a and .6, .5 of b: 3 of 5 right, 3 of 3 found. F1 = 6 / 8.
    assert (figures.precision, figures.recall, figures.f1) == pytest.approx((0.6, 1.0, 0.75))
    # At .55: .9, .8, .6: 1 of 3, 1 of 3.
    other = tagging_figures(scores, targets, ("a", "b"), 0.55)
    assert (other.precision, other.recall, other.f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), k=st.integers(2, 5))
def test_precision_recall_and_f1_are_sklearns_micro_averages(seed, n, k):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, k), np.float32)
    targets = (rng.random((n, k)) < 0.4).astype(np.float32)
    targets[:2, 0] = 0, 1
    figures = tagging_figures(scores, targets, [str(i) for i in range(k)])
    found = scores >= 0.25
    expected = [
        score(targets > 0.5, found, average="micro", zero_division=0.0)
        for score in (precision_score, recall_score, f1_score)
    ]
    assert [figures.precision, figures.recall, figures.f1] == pytest.approx(expected)


def test_the_published_f1_follows_from_the_published_precision_and_recall():
    # Table 6: 642 of 1,000 labels among 1,113 decisions are P 57.7, R 64.2, F1 60.8.
    targets, scores = np.zeros((3000, 1), np.float32), np.zeros((3000, 1), np.float32)
    targets[:1000] = 1
    scores[358:1471] = 0.25
    figures = tagging_figures(scores, targets, ("a",))
    percents = [round(100 * v, 1) for v in (figures.precision, figures.recall, figures.f1)]
    assert percents == [57.7, 64.2, 60.8]


def test_nothing_found_is_no_division_by_zero():
    figures = tagging_figures(np.zeros((2, 1), np.float32), np.array([[1.0], [0.0]]), ("a",))
    assert (figures.precision, figures.recall, figures.f1) == (0.0, 0.0, 0.0)


def test_a_label_that_no_clip_or_every_clip_has_is_left_out_of_the_means():
    scores = np.random.default_rng(0).random((4, 3), np.float32)
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], np.float32)
    figures = tagging_figures(scores, targets, ("a", "b", "c"))
    assert list(figures.average_precision) == ["a"]
    with pytest.raises(InputError, match="4 clips: no label that some have"):
        tagging_figures(scores[:, 1:], targets[:, 1:], ("b", "c"))


def test_an_ensemble_of_networks_that_err_apart_is_better_than_each():
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 3)) < 0.3).astype(np.float32)
    seeds = [
        1 / (1 + np.exp(-(2 * targets - 1 + 1.5 * rng.standard_normal(targets.shape))))
        for _ in range(3)
    ]
    labels = ("a", "b", "c")
    alone = max(tagging_figures(s, targets, labels).mean_average_precision for s in seeds)
    together = tagging_figures(average_scores(seeds), targets, labels).mean_average_precision
    assert together > alone


def row(value, auc):
    return TaggingFigures(9, value, auc, 0.5, 0.5, 0.5, 0.25, {}, {})


def test_the_table_gives_gains_as_the_paper_does():
    # Table 2: .6359 is 1.0 % below .6421; table 5: .6421 is 8.5 % above .5918.
    rows = {"plain": row(0.5918, 0.9162), "mutual": row(0.6421, 0.9292)}
    lines = method_table(rows, "plain").splitlines()
    assert lines[2].startswith("| plain | 0.5918 | 0.9162 |")
    assert lines[2].endswith("| +0.0% |")
    assert lines[3].endswith("| +8.5% |")
    ablation = method_table({"all": row(0.6421, 0), "w/o": row(0.6359, 0)}, "all")
    assert ablation.splitlines()[3].endswith("| -1.0% |")


def test_a_person_reads_one_line():
    scores = np.array([[0.9], [0.1]], np.float32)
    line = tagging_figures(scores, np.array([[1.0], [0.0]]), ("a",)).line()
    assert line == "2 clips: mAP 1.0000, mAUC 1.0000, at 0.25 P 100.0% R 100.0% F1 100.0%"
