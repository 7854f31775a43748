"""Features of named layers, and classifiers that see the training set only."""

import numpy as np
import pytest
import torch
from torch import nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.multimodal.cross_scenario import Parts
from soundpost.train.multimodal.frozen_features import (
    frozen_features,
    judge_layer,
    judge_layers,
    layer_table,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.drop(self.conv(x).relu().mean(2)))


def batches(n_batches=3):
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(5, 2, 20, generator=g),) for _ in range(n_batches)]


def test_features_are_the_layers_outputs_averaged_over_time():
    torch.manual_seed(0)
    net = Net()
    found = frozen_features(net, batches(), ["conv", "fc"], quiet=True)
    net.eval()
    with torch.no_grad():
        conv = torch.cat([net.conv(x) for (x,) in batches()])
        fc = torch.cat([net(x) for (x,) in batches()])
    assert found["conv"].shape == (15, 3)
    expected = torch.stack([conv[:, :, t] for t in range(18)]).sum(0) / 18
    np.testing.assert_allclose(found["conv"], expected, atol=1e-6)
    np.testing.assert_allclose(found["fc"], fc, atol=1e-6)


def test_maps_of_two_axes_are_averaged_over_both():
    net = nn.Sequential(nn.Identity())
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    found = frozen_features(net, [(x,)], ["0"], quiet=True)["0"]
    assert found.tolist() == [[5.5, 17.5]]


def test_the_network_is_left_as_it_was():
    net = Net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    frozen_features(net, batches(), ["conv"], quiet=True)
    assert net.training
    assert not net.conv._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_unknown_layer_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="'convv': unknown; did you mean conv"):
        frozen_features(Net(), batches(), ["convv"], quiet=True)


def test_no_clips_are_no_features():
    with pytest.raises(InputError, match="no clips"):
        frozen_features(Net(), [], ["conv"], quiet=True)


def parts_of(n):
    third = n // 3
    return Parts(np.arange(third), np.arange(third, 2 * third), np.arange(2 * third, n))


def test_classes_that_lie_apart_are_told_apart_and_noise_is_not():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 300)
    apart = (np.eye(3)[classes] * 6 + rng.standard_normal((300, 3))).astype(np.float32)
    noise = rng.standard_normal((300, 3)).astype(np.float32)
    features = {"good": apart, "bad": noise}
    good, bad = judge_layers(features, classes, parts_of(300))
    assert min(good.knn, good.svm) > 0.95
    assert max(bad.knn, bad.svm) < 0.5
    assert (good.layer, good.size) == ("good", 3)


def test_the_scale_of_an_element_does_not_matter():
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, 240)
    x = (np.eye(2)[classes] * 2 + rng.standard_normal((240, 2))).astype(np.float32)
    scaled = x * np.array([1000, 0.001], np.float32) + 5
    one, other = (judge_layer("x", rows, classes, parts_of(240)) for rows in (x, scaled))
    assert (one.knn, one.neighbours) == (other.knn, other.neighbours)
    assert one.svm == pytest.approx(other.svm, abs=0.03)


def test_one_neighbour_by_hand():
    # Training 0, 1 (class 0) and 10, 11 (class 1): validation and test points go to the nearer.
    x = np.array([0, 1, 10, 11, 2, 9, 4, 7], np.float32)[:, None]
    classes = np.array([0, 0, 1, 1, 0, 1, 0, 0])
    parts = Parts(np.arange(4), np.arange(4, 6), np.arange(6, 8))
    result = judge_layer("x", x, classes, parts)
    # 7 lies nearer to 10 than to 1: of the two test clips one is right.
    assert result.knn == 0.5
    assert result.neighbours == 1


def test_neighbours_are_chosen_on_the_validation_set():
    # Every tenth training label is wrong: one neighbour believes it, more of them outvote it.
    rng = np.random.default_rng(2)
    classes = np.arange(900) % 2
    x = (classes[:, None] * 4 + rng.standard_normal((900, 1))).astype(np.float32)
    believed = classes.copy()
    believed[:300:10] = 1 - believed[:300:10]
    result = judge_layer("x", x, believed, parts_of(900))
    assert result.neighbours > 1
    # Means four deviations apart: .977 is the best that anybody can do.
    assert result.knn > 0.93


def test_the_table_has_a_line_for_each_layer():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 30)
    features = {name: rng.standard_normal((30, 2)).astype(np.float32) for name in ("a", "b")}
    rows = judge_layers(features, classes, parts_of(30))
    lines = layer_table(rows).splitlines()
    assert lines[0].startswith("| features | size | k-NN | SVM")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b"]
    assert f"{rows[0].knn:.4f}" in lines[2]
    assert len({line.count("|") for line in lines}) == 1
