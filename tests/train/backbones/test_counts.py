"""Counting, against numbers worked out by hand."""

import torch
from torch import nn

from soundpost.train.backbones.counts import counts, multiply_adds


def test_parameters_and_kernels():
    # Kernel 2 * 3 * 5 * 5 = 150, bias 3, normalisation 2 * 3, matrix 3 * 7 = 21, bias 7.
    network = nn.Sequential(nn.Conv2d(2, 3, 5), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 7))
    assert counts(network) == (150 + 3 + 6 + 21 + 7, 150 + 21)


def test_multiply_adds_of_shapes_alone():
    with torch.device("meta"):
        network = nn.Sequential(
            nn.Conv2d(2, 3, 5, padding=2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 48, 7)
        )
        patch = torch.empty(1, 2, 6, 8)
    # 48 places of 150, then 144 * 7; nothing for the rest.
    assert multiply_adds(network, patch) == 48 * 150 + 144 * 7
    assert network.training
