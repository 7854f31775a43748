"""Transfer: sizes of the text, and scikit-learn's logistic regression as an oracle."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from soundpost.device.errors import InputError
from soundpost.train.multimodal.audio_networks import AudioModel, audio_network, without_classifier
from soundpost.train.multimodal.fitting import FitSettings, fit_method
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.transfer import (
    ClipNetwork,
    TransferBatch,
    TransferBatches,
    TransferClassifier,
    TransferLearning,
    same_length,
    score_inputs,
    transfer_loss,
)

CPU = torch.device("cpu")


def fit(run, x, y, n_labels, *, dropout=0.3, l2=0.0, **settings):
    """A classifier on embeddings x (n_clips, n_seconds, size), trained by the one loop."""
    run.mkdir(exist_ok=True)
    seed = settings.get("seed", 0)
    torch.manual_seed(seed)
    method = TransferLearning(TransferClassifier(n_labels, *x.shape[1:2], dropout, x.shape[2]), l2)
    fitted = FitSettings(**{"batch_size": len(x), "report_every": 10_000, **settings})
    source = TransferBatches(
        lambda chosen: x[chosen], torch.as_tensor(y), np.arange(len(x)), fitted.batch_size, seed
    )
    fit_method(method, source, fitted, run, CPU, quiet=True)
    return method.student


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
    # Two sigmoid classes without dropout. Ours: mean over 60 clips and 2 classes, plus half of l2
    # times the squares of the weights; theirs: C times the sum, plus half of the same squares.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2, 3)).astype(np.float32)
    y = (x[:, 0, :2] + rng.standard_normal((60, 2)) > 0).astype(np.float32)
    network = TransferClassifier(2, 2, 0.0, 3)
    method = TransferLearning(network, l2=0.02)
    (stage,) = method.stages
    optimiser = torch.optim.Adam(method.begin(stage), lr=0.1)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.985)
    for _ in range(400):
        train_step(method, TransferBatch(*map(torch.from_numpy, (x, y))), stage, optimiser)
        decay.step()
    weight = network.classifier.weight.detach().numpy()
    bias = network.classifier.bias.detach().numpy()
    for k in range(2):
        oracle = LogisticRegression(C=1 / (60 * 2 * 0.02), tol=1e-8).fit(x.reshape(60, 6), y[:, k])
        assert_allclose(weight[k], oracle.coef_[0], atol=2e-3)
        assert_allclose(bias[k], oracle.intercept_[0], atol=2e-3)
    scores = score_inputs(network, lambda chosen: x[chosen], np.arange(60), CPU, one=False)
    assert_allclose(scores[:, 1], oracle.predict_proba(x.reshape(60, 6))[:, 1], atol=2e-3)


def test_the_order_of_the_seconds_counts(tmp_path):
    # The two classes have the same seconds, one after the other or the other way round: a mean of
    # embeddings could not tell them.
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 4)).astype(np.float32)
    x = np.stack([np.stack([first, second] if i % 2 else [second, first]) for i in range(40)])
    y = np.arange(40) % 2
    network = fit(tmp_path, x, y, 2, learning_rate=0.05, epochs=30)
    assert not network.training
    scores = score_inputs(network, lambda chosen: x[chosen], np.arange(40), CPU, one=True)
    assert_array_equal(scores.argmax(1), y)
    assert_allclose(scores.sum(1), 1, rtol=1e-5)


def test_the_loss_of_one_class_and_of_several():
    scores = torch.zeros(2, 4)
    # softmax: ln 4; sigmoid at 0: ln 2 for each of the classes.
    assert float(transfer_loss(scores, torch.tensor([1, 3]))) == pytest.approx(np.log(4))
    assert float(transfer_loss(scores, torch.ones(2, 4))) == pytest.approx(np.log(2))


def test_the_same_seed_gives_the_same_classifier(tmp_path):
    x = np.random.default_rng(2).standard_normal((20, 2, 4)).astype(np.float32)
    y = np.arange(20) % 3
    weights = [
        fit(tmp_path / name, x, y, 3, epochs=3, batch_size=8, seed=seed).classifier.weight
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_clips_network_is_its_seconds_embedded_one_by_one():
    torch.manual_seed(0)
    model = AudioModel("mobilenet_v2", 0.25, embedding_size=8)
    network = ClipNetwork(
        without_classifier(audio_network(model, 3)), TransferClassifier(4, 2, 0.0, 8)
    ).eval()
    assert not any(name.startswith("encoder.classifier") for name in network.state_dict())
    clips = torch.randn(3, 2, 100, 64)
    with torch.no_grad():
        found = network(clips)
        rows = [network.encoder.embed(second[None, None])[0] for clip in clips for second in clip]
        rows = torch.stack(rows).view(3, 16)
        layer = network.classifier.classifier
        torch.testing.assert_close(found, rows @ layer.weight.T + layer.bias)


def test_bad_input_is_named():
    good = np.ones((2, 128), np.float32)
    with pytest.raises(InputError, match="there is no clip"):
        same_length([], 5)
    with pytest.raises(InputError, match=r"clip 1: shape \(0, 128\); expected \(seconds, 128\)"):
        same_length([good, good[:0]], 5)
    with pytest.raises(InputError, match=r"clip 1: shape \(2, 64\)"):
        same_length([good, good[:, :64]], 5)
    with pytest.raises(InputError, match="1 clips; expected two or more"):
        TransferBatches(lambda chosen: good[chosen], torch.zeros(2), np.arange(1), 8, 0)
