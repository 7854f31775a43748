"""One stage of a method at a time: modes, parameters, and a loss that is no number."""

import torch
from torch import nn

from soundpost.train.multimodal.method import Method, Stage, constant_outputs, train_step


class Two(Method[torch.Tensor]):
    stages = (Stage("first", ("teacher",)), Stage("both", ("teacher", "student")))

    def __init__(self):
        super().__init__()
        self.teacher, self.student = nn.Linear(2, 1), nn.Linear(2, 1)
        self.student.bias.requires_grad_(False)

    def losses(self, batch, stage):
        return {"loss": self.teacher(batch).mean() + self.student(batch).mean()}


def test_a_stage_trains_what_it_names_and_nothing_else():
    method = Two()
    assert method.begin(method.stages[0]) == list(method.teacher.parameters())
    assert (method.teacher.training, method.student.training) == (True, False)
    both = method.begin(method.stages[1])
    # What a network has frozen itself stays frozen.
    assert both == [*method.teacher.parameters(), method.student.weight]
    assert method.student.training


def test_a_step_of_gradient_descent_by_hand():
    # d mean(w x) / dw is the mean of x, here (2, 3): at a rate of 0.1 the weights fall by 0.2, 0.3.
    method = Two()
    stage = method.stages[0]
    before = method.teacher.weight.clone()
    optimiser = torch.optim.SGD(method.begin(stage), lr=0.1)
    train_step(method, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), stage, optimiser)
    torch.testing.assert_close(before - method.teacher.weight, torch.tensor([[0.2, 0.3]]))


def test_a_loss_that_is_no_number_changes_nothing():
    method = Two()
    stage = method.stages[1]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimiser = torch.optim.Adam(method.begin(stage))
    terms = train_step(method, torch.full((1, 2), float("nan")), stage, optimiser)
    assert terms["loss"] != terms["loss"]
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name])


def test_constant_outputs_have_no_gradient():
    assert not constant_outputs(nn.Linear(2, 1), torch.ones(1, 2)).requires_grad
