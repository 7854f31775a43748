"""Transfer: sizes of the text, and scikit-learn's logistic regression as an oracle."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from soundpost.device.errors import InputError
from soundpost.train.multimodal.transfer import (
    AUDIOSET,
    ESC50,
    TUT2018,
    TransferClassifier,
    TransferSettings,
    fit_transfer,
    same_length,
    transfer_loss,
)


def test_settings_are_those_of_the_text():
    for settings, dropout in ((ESC50, 0.3), (AUDIOSET, 0.5), (TUT2018, 0.5)):
        assert (settings.dropout, settings.learning_rate) == (dropout, 2e-4)
        assert (settings.batch_size, settings.weight_decay) == (128, 1e-6)


def test_a_clip_of_esc50_is_five_embeddings_in_a_row():
    # 5 x 128 inputs of 50 classes: 640 * 50 + 50.
    network = TransferClassifier(50, 5)
    assert sum(p.numel() for p in network.parameters()) == 32_050
    assert network(torch.randn(3, 5, 128)).shape == (3, 50)


def test_shorter_clips_are_repeated_and_longer_ones_cut():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = same_length([rows, rows[:2], rows[:1]], 2)
    assert found.dtype == np.float32
    assert_array_equal(found, [rows[:2], rows[:2], [[0, 1], [0, 1]]])
    assert_array_equal(same_length([rows], 7)[0, :, 0], [0, 2, 4, 0, 2, 4, 0])


def test_the_fit_is_that_of_logistic_regression():
    # Two sigmoid classes without dropout. Ours: mean over 60 clips and 2 classes, plus half of the
    # decay times the squares, of biases too; liblinear: C times the sum, plus half of the squares.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2, 3)).astype(np.float32)
    y = (x[:, 0, :2] + rng.standard_normal((60, 2)) > 0).astype(np.float32)
    settings = TransferSettings(
        dropout=0.0, learning_rate=0.02, batch_size=60, weight_decay=0.02, epochs=600
    )
    network = fit_transfer(torch.from_numpy(x), torch.from_numpy(y), 2, settings, quiet=True)
    weight = network.classifier.weight.detach().numpy()
    bias = network.classifier.bias.detach().numpy()
    for k in range(2):
        oracle = LogisticRegression(C=1 / (60 * 2 * 0.02), solver="liblinear", tol=1e-8)
        oracle.fit(x.reshape(60, 6), y[:, k])
        assert_allclose(weight[k], oracle.coef_[0], atol=2e-3)
        assert_allclose(bias[k], oracle.intercept_[0], atol=2e-3)


def test_the_order_of_the_seconds_counts():
    # The two classes have the same seconds, one after the other or the other way round: a mean of
    # embeddings could not tell them.
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 4)).astype(np.float32)
    x = np.stack([np.stack([first, second] if i % 2 else [second, first]) for i in range(40)])
    y = np.arange(40) % 2
    settings = TransferSettings(learning_rate=0.02, epochs=30)
    network = fit_transfer(torch.from_numpy(x), torch.from_numpy(y), 2, settings, quiet=True)
    assert not network.training
    assert_array_equal(network(torch.from_numpy(x)).argmax(1).numpy(), y)


def test_the_loss_of_one_class_and_of_several():
    scores = torch.zeros(2, 4)
    # softmax: ln 4; sigmoid at 0: ln 2 for each of the classes.
    assert float(transfer_loss(scores, torch.tensor([1, 3]))) == pytest.approx(np.log(4))
    assert float(transfer_loss(scores, torch.ones(2, 4))) == pytest.approx(np.log(2))


def test_the_same_seed_gives_the_same_classifier():
    x, y = torch.randn(20, 2, 4), torch.arange(20) % 3
    settings = TransferSettings(epochs=3)
    first, again = (fit_transfer(x, y, 3, settings, quiet=True) for _ in range(2))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    other = fit_transfer(x, y, 3, TransferSettings(epochs=3, seed=1), quiet=True)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_bad_input_is_named():
    good = np.ones((2, 128), np.float32)
    with pytest.raises(InputError, match="there is no clip"):
        same_length([], 5)
    with pytest.raises(InputError, match=r"clip 1: shape \(0, 128\); expected \(seconds, 128\)"):
        same_length([good, good[:0]], 5)
    with pytest.raises(InputError, match=r"clip 1: shape \(2, 64\)"):
        same_length([good, good[:, :64]], 5)
    with pytest.raises(InputError, match="embeddings of 2 clips, targets of 1"):
        fit_transfer(torch.ones(2, 1, 4), torch.zeros(1, dtype=torch.long), 2, quiet=True)
