"""Weights of the two branches, class by class."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import f1_score

from soundpost.device.errors import InputError
from soundpost.train.multimodal.class_thresholds import class_thresholds, predictions
from soundpost.train.multimodal.fusion import choose_video_weights, fuse, video_weights


def test_the_better_branch_weighs_four_fifths():
    weights = video_weights([0.3, 0.7, 0.5], [0.4, 0.6, 0.5])
    # Where both are as good it is sound.
    assert_allclose(weights, [0.8, 0.2, 0.2])
    assert_allclose(video_weights([0.3, 0.7], [0.4, 0.6], 1.0), [1.0, 0.0])


def test_an_average_by_hand():
    # .2 * .9 + .8 * .1 = .26; .8 * .5 + .2 * 1 = .6
    assert_allclose(fuse([0.9, 0.5], [0.1, 1.0], np.array([0.8, 0.2])), [0.26, 0.6])


def test_branches_that_each_know_one_class_are_better_together():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (300, 2))
    sure, unsure = 0.5 + 0.4 * (truth - 0.5), rng.random((300, 2))
    audio = np.stack([sure[:, 0], unsure[:, 0]], axis=1)
    video = np.stack([unsure[:, 1], sure[:, 1]], axis=1)
    weights = choose_video_weights(audio, video, truth)
    assert_allclose(weights, [0.2, 0.8])

    def best_f1(scores):
        found = predictions(scores, class_thresholds(scores, truth).thresholds)
        return f1_score(truth, found, average="micro")

    fused = best_f1(fuse(audio, video, weights))
    assert fused == 1.0
    assert max(best_f1(audio), best_f1(video)) < 0.9


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"shapes \(2,\) \(audio\) and \(3,\) \(video\)"):
        video_weights([0.1, 0.2], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"the better branch weighs 0\.4; expected 0\.5 to 1"):
        video_weights([0.1], [0.2], 0.4)
    with pytest.raises(InputError, match=r"audio \(1, 2\), video \(2,\), weights \(2,\)"):
        fuse(np.zeros((1, 2)), np.zeros(2), np.zeros(2))
