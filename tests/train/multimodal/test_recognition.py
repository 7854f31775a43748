"""Top-n by hand, mAP and AUC of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from soundpost.device.errors import InputError
from soundpost.train.multimodal.recognition import recognise


def test_top_n_of_one_label_is_scikit_learns():
    rng = np.random.default_rng(0)
    scores = rng.random((50, 8)).astype(np.float32)
    classes = rng.integers(0, 8, 50)
    truth = np.eye(8, dtype=np.float32)[classes]
    found = recognise([str(i) for i in range(50)], tuple("abcdefgh"), scores, truth)
    labels = np.arange(8)
    assert found.top1 == pytest.approx(top_k_accuracy_score(classes, scores, k=1, labels=labels))
    assert found.top5 == pytest.approx(top_k_accuracy_score(classes, scores, k=5, labels=labels))
    figures = found.figures()
    assert figures["map"] == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert figures["auc"] == pytest.approx(roc_auc_score(truth, scores, average="macro"))


def test_one_of_several_labels_is_enough_and_clips_without_do_not_count():
    scores = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.9, 0.1, 0.5]], np.float32)
    truth = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]], np.float32)
    found = recognise("abc", ("x", "y", "z"), scores, truth)
    # Of two clips with labels the second has its highest score right.
    assert (found.top1, found.top5) == (0.5, 1.0)
    assert found.to_dict()["n_clips"] == 3
    assert found.shares() == pytest.approx({"x": 1 / 3, "y": 2 / 3, "z": 1 / 3})


def test_a_page_has_the_labels_that_most_clips_have():
    rng = np.random.default_rng(1)
    truth = (rng.random((300, 60)) < np.linspace(0.9, 0.1, 60)).astype(np.float32)
    labels = tuple(f"l{k:02}" for k in range(60))
    found = recognise([str(i) for i in range(300)], labels, rng.random((300, 60)), truth)
    page = found.for_a_page()
    assert len(page.labels) == len(page.tagging.average_precision) == 40
    least = truth.sum(0)[[labels.index(label) for label in page.labels]].min()
    assert (truth.sum(0) > least).sum() < 40
    # The figures stay those of all labels.
    assert page.figures() == found.figures()


def test_clips_that_all_have_the_same_labels_are_refused():
    with pytest.raises(InputError, match="no label that some have and some have not"):
        recognise("ab", ("x",), np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
