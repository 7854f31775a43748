"""What a network is made of and what one input costs, without computing anything.

Build the network under `torch.device("meta")`: no memory is taken for its weights, and the count
runs on shapes alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Counts(NamedTuple):
    """Size of a network.

    parameters : everything that is learnt
    weights : those of convolutions and linear layers, without biases and batch normalisation; some
        papers give this number
    """

    parameters: int
    weights: int


def counts(network: nn.Module) -> Counts:
    """Count what a network learns."""
    parameters = sum(p.numel() for p in network.parameters())
    # A bias or a factor of batch normalisation is a vector.
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    return Counts(parameters, weights)


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Multiplications with an addition that the convolutions and linear layers do for these inputs.

    Biases, activations, pooling and normalisation are not counted, as in published figures; what
    papers call FLOPs is this number or twice it.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*inputs)
    finally:
        network.train(training)
    flops: int = counter.get_total_flops()
    return flops // 2
