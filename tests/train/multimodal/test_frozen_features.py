"""Features of named layers, and classifiers that see the training set only."""

import numpy as np
import pytest
import torch
from torch import nn

from soundpost.train.backbones.hearnet import HearNet
from soundpost.train.backbones.soundnet5 import SoundNetStudent
from soundpost.train.datasets.action_splits import Split
from soundpost.train.multimodal.action_networks import HeardActions
from soundpost.train.multimodal.frozen_features import (
    frozen_features,
    judge_layer,
    judge_layers,
    layer_table,
)


class Net(nn.Module):
    """Two layers as students have them: maps of two axes, then scores."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3)
        self.fc = nn.Conv1d(3, 4, 1)

    def layers(self, x):
        conv = self.conv(x[:, None]).relu()
        return {"conv": torch.stack([conv, 3 * conv], -1), "fc": self.fc(conv)}


def test_features_are_the_layers_outputs_averaged_over_time():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 20)
    found = frozen_features(net, x)
    assert list(found) == ["conv", "fc"]
    assert {name: of.shape for name, of in found.items()} == {"conv": (5, 3), "fc": (5, 4)}
    with torch.no_grad():
        steps = net.conv(x[:, None]).relu()
    by_hand = torch.stack([steps[:, :, t] for t in range(18)]).sum(0) / 18
    # Averaged over both axes: once the map, once three times it.
    np.testing.assert_allclose(found["conv"], 2 * by_hand, atol=1e-6)
    with torch.no_grad():
        scores = by_hand @ net.fc.weight[:, :, 0].T + net.fc.bias
    np.testing.assert_allclose(found["fc"], scores, atol=1e-6)


@pytest.mark.parametrize("student", [HearNet, SoundNetStudent])
def test_students_show_the_layers_of_table_4(student):
    torch.manual_seed(0)
    if student is HearNet:
        network = HeardActions(14, 0.1).eval()
        network.fit_range([torch.randn(4, 110_250)])
    else:
        network = SoundNetStudent(14).eval()
    found = frozen_features(network, torch.randn(2, 110_250))
    conv, last = list(found)[:-2], list(found)[-2:]
    assert conv == [f"conv{i}" for i in range(1, len(conv) + 1)]
    assert last == ["fc1", "fc2"]
    assert all(of.shape[0] == 2 and of.ndim == 2 for of in found.values())
    # What is passed on has been through a ReLU; scores have not.
    assert all((of >= 0).all() for name, of in found.items() if name != "fc2")
    assert (found["fc2"] < 0).any()


def parts_of(n):
    third = n // 3
    return Split(np.arange(third), np.arange(third, 2 * third), np.arange(2 * third, n))


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
    parts = Split(np.arange(4), np.arange(4, 6), np.arange(6, 8))
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
    beside = layer_table(rows, {"b": (0.25, 0.5)}).splitlines()
    assert beside[2].endswith("| – | – |")
    assert beside[3].endswith("| 0.2500 | 0.5000 |")
    assert len({line.count("|") for line in beside}) == 1
