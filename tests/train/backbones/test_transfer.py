"""Starting one network from another."""

import pytest
import torch
from torch import nn

from soundpost.train.backbones.transfer import start_from


def network(classes):
    return nn.ModuleDict({"body": nn.BatchNorm1d(3), "fc": nn.Linear(3, classes)})


def test_everything_but_what_is_left_out_is_copied():
    trained, fresh = network(5), network(2)
    nn.init.uniform_(trained["body"].running_mean)
    last = fresh["fc"].weight.clone()
    start_from(fresh, trained, without=("fc.",))
    assert torch.equal(fresh["body"].running_mean, trained["body"].running_mean)
    assert torch.equal(fresh["fc"].weight, last)
    # A copy: training one must not move the other.
    nn.init.zeros_(trained["body"].running_mean)
    assert fresh["body"].running_mean.abs().sum() > 0


def test_another_shape_is_refused_before_it_could_be_spread():
    with pytest.raises(ValueError, match=r"fc\.weight"):
        start_from(network(2), network(1), without=())
