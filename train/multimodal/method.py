"""What a training loop needs to know of a method: its stages, what learns in each, its losses.

A method holds its networks, always with a `student`, and is trained stage by stage. One loop serves
all of them:

    for stage in method.stages:
        optimiser = Adam(method.begin(stage))    (or what the recipe has)
        for batch in batches:
            train_step(method, batch, stage, optimiser)

A stage has one optimiser and one backward pass, of the term "loss". Where two networks learn in it
that is the sum of their losses: with each taking the other's outputs as constants, the gradient of
the sum is for each network that of its own loss, and Adam treats every weight by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Stage:
    """Part of a run in which the same networks learn from the same losses.

    name : such as "teacher"
    trains : names of the method's modules that learn; the others are constants
    share : of the recipe's epochs that the stage takes
    """

    name: str
    trains: tuple[str, ...]
    share: float = 1.0


class Method(nn.Module, ABC, Generic[BatchT]):
    """Networks and losses of one method.

    Attributes
    ----------
    stages : in the order of training; a first one named "teacher" can be left out where the
        teacher's weights are loaded instead
    student : the network that is judged and kept
    """

    stages: tuple[Stage, ...]
    student: nn.Module

    def begin(self, stage: Stage) -> list[nn.Parameter]:
        """Put what learns into training mode and the rest into evaluation mode.

        To be called before each epoch. Returns what the stage's optimiser gets.
        """
        learning: list[nn.Parameter] = []
        for name, module in self.named_children():
            module.train(name in stage.trains)
            if name in stage.trains:
                learning += [weight for weight in module.parameters() if weight.requires_grad]
        return learning

    @abstractmethod
    def losses(self, batch: BatchT, stage: Stage) -> dict[str, Tensor]:
        """Each term without its weight, and as "loss" what is to be minimised: scalars."""


def constant_outputs(network: nn.Module, *inputs: object) -> object:
    """What a network says, without gradient: a teacher that learns no more."""
    with torch.no_grad():
        return network(*inputs)


def train_step(
    method: Method[BatchT],
    batch: BatchT,
    stage: Stage,
    optimiser: torch.optim.Optimizer,
    *,
    bfloat16: bool = False,
    limit: Callable[[list[nn.Parameter]], None] | None = None,
) -> dict[str, float]:
    """One mini-batch: every network of the stage is updated, from one forward pass.

    bfloat16 : the forward pass in mixed precision, on the device of the method
    limit : changes the gradients of what learns before the step

    Returns the terms of the loss. Nothing is updated where the loss is no number.
    """
    device = next(method.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        terms = method.losses(batch, stage)
    optimiser.zero_grad(set_to_none=True)
    if torch.isfinite(terms["loss"]):
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        if limit is not None:
            limit([weight for group in optimiser.param_groups for weight in group["params"]])
        optimiser.step()
    return {name: float(value.detach()) for name, value in terms.items()}
