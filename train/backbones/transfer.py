"""Starting one network from another that is trained."""

from __future__ import annotations

import torch
from torch import nn


def start_from(network: nn.Module, trained: nn.Module, without: tuple[str, ...]) -> None:
    """Copy the tensors of `trained` into `network`, by name.

    What `network` has beyond them stays as it was made; names that begin with one of `without` are
    not copied (a last layer for other classes). Every other tensor must have its place and shape.
    """
    own = network.state_dict()
    with torch.no_grad():
        for name, value in trained.state_dict().items():
            if not name.startswith(without):
                if own[name].shape != value.shape:
                    raise ValueError(f"{name}: {tuple(value.shape)} into {tuple(own[name].shape)}")
                own[name].copy_(value)
