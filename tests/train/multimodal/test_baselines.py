"""The five methods that yin2021 compares with: loss values by hand, who learns when, from whom."""

import copy
from math import log

import pytest
import torch
from torch import nn

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.baselines import (
    FitNets,
    HintSettings,
    KnowledgeDistillation,
    Plain,
    deep_mutual_learning,
    hint_loss,
)
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.mutual_networks import Inputs, Tagged, TaggingBatch


class Says(nn.Module):
    """Says what it is told to, times a weight of 1 that learns."""

    def __init__(self, acoustic, visual, p):
        super().__init__()
        self.said = Tagged(torch.tensor(acoustic), torch.tensor(visual), torch.tensor(p).logit())
        self.acoustic_size, self.visual_size = (
            self.said.acoustic.shape[1],
            self.said.visual.shape[1],
        )
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return Tagged(*(self.weight * tensor for tensor in self.said))


def teacher():
    return Says([[1.0, 0.0]], [[2.0]], [[0.8, 0.3]])


def student():
    return Says([[0.5, 1.0]], [[]], [[0.5, 0.2]])


BATCH = TaggingBatch(Inputs((torch.zeros(1, 1, 1),)), torch.tensor([[1.0, 0.0]]))
# y = (1, 0), p_s = (.5, .2), p_t = (.8, .3); sums over classes, one clip.
HARD_S, HARD_T = -log(0.5) - log(0.8), -log(0.8) - log(0.7)
SOFT_S = -(0.8 * log(0.5) + 0.2 * log(0.5)) - (0.3 * log(0.2) + 0.7 * log(0.8))
SOFT_T = -(0.5 * log(0.8) + 0.5 * log(0.2)) - (0.2 * log(0.3) + 0.8 * log(0.7))


def losses(method, stage=-1):
    return {name: v.item() for name, v in method.losses(BATCH, method.stages[stage]).items()}


def learning(method):
    """By stage, the modules that a step changes."""
    found = []
    for stage in method.stages:
        before = copy.deepcopy(method.state_dict())
        optimiser = torch.optim.SGD(method.begin(stage), lr=0.1)
        train_step(method, BATCH, stage, optimiser)
        after = method.state_dict()
        moved = {n.split(".")[0] for n in after if not torch.equal(after[n], before[n])}
        found.append((stage.name, moved))
    return found


def test_plain_learns_from_labels():
    method = Plain(student())
    assert losses(method) == {"loss": pytest.approx(HARD_S)}
    assert learning(method) == [("student", {"student"})]


def test_distillation_weighs_labels_and_teacher_equally():
    method = KnowledgeDistillation(teacher(), student())
    assert losses(method) == {
        "loss": pytest.approx(HARD_S + SOFT_S),
        "hard": pytest.approx(HARD_S),
        "soft": pytest.approx(SOFT_S),
    }
    assert losses(method, 0) == {"loss": pytest.approx(HARD_T)}
    assert learning(method) == [("teacher", {"teacher"}), ("student", {"student"})]


def test_an_enhanced_feature_teacher_is_all_that_its_student_hears_of():
    method = KnowledgeDistillation(teacher(), student(), hard=0.0)
    assert losses(method)["loss"] == pytest.approx(SOFT_S)
    other = TaggingBatch(BATCH.inputs, 1 - BATCH.targets)
    assert method.losses(other, method.stages[1])["loss"].item() == pytest.approx(SOFT_S)


def test_the_gradient_of_soft_targets_is_that_of_the_kl_divergence():
    p_t, said = torch.tensor([[0.8, 0.4]]), torch.tensor([[0.3, -1.0]], requires_grad=True)
    method = KnowledgeDistillation(teacher(), student(), hard=0.0)
    told = Tagged(torch.zeros(1, 2), torch.zeros(1, 0), said)
    loss = method.distillation(
        Tagged(torch.zeros(1, 2), torch.zeros(1, 1), p_t.logit()), told, BATCH.targets
    )["loss"]
    (ours,) = torch.autograd.grad(loss, said)
    q = said.sigmoid()
    kl = p_t * (p_t / q).log() + (1 - p_t) * ((1 - p_t) / (1 - q)).log()
    (expected,) = torch.autograd.grad(kl.sum(), said)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "method", [KnowledgeDistillation, FitNets, lambda t, s: FitNets(t, s, HintSettings(0.5, True))]
)
def test_the_teacher_is_a_constant_while_its_student_learns(method):
    made = method(teacher(), student())
    for stage in made.stages[1:]:
        made.begin(stage)
        made.zero_grad(set_to_none=True)
        made.losses(BATCH, stage)["loss"].backward()
        assert made.teacher.weight.grad is None
        assert made.student.weight.grad.abs() > 0
        assert not made.teacher.training


def with_regressor(method):
    with torch.no_grad():
        method.regressor.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
        method.regressor.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    return method


# Hint (1, 0, 2), guided layer (.5, 1) regressed to (1.5, 2, 1): (.25 + 4 + 1) / 2.
HINT = 2.625


def test_fitnets_takes_the_hint_first_and_distils_then():
    method = with_regressor(FitNets(teacher(), student(), HintSettings(0.25)))
    assert [s.share for s in method.stages] == [1.0, 0.25, 0.75]
    assert losses(method, 1) == {"loss": pytest.approx(HINT), "hint": pytest.approx(HINT)}
    assert losses(method, 2)["loss"] == pytest.approx(HARD_S + SOFT_S)
    assert learning(method) == [
        ("teacher", {"teacher"}),
        ("hint", {"student", "regressor"}),
        ("student", {"student"}),
    ]


def test_fitnets_with_the_hint_beside_the_distillation():
    method = with_regressor(FitNets(teacher(), student(), HintSettings(hint_beside=True)))
    assert losses(method)["loss"] == pytest.approx(HINT + HARD_S + SOFT_S)
    assert learning(method)[1] == ("student", {"student", "regressor"})


def test_the_regressor_joins_one_acoustic_context_to_both_of_the_teacher():
    method = FitNets(teacher(), student())
    assert (method.regressor.in_features, method.regressor.out_features) == (2, 3)


def test_a_hint_is_half_the_squared_distance():
    # (|(3, 4)|^2 + |(0, 1)|^2) / 2 clips / 2
    hint = hint_loss(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.zeros(2, 2))
    assert float(hint) == 6.5


def test_deep_mutual_learning_is_labels_and_each_others_scores():
    method = deep_mutual_learning(teacher(), student())
    assert losses(method) == {
        "loss": pytest.approx(HARD_S + SOFT_S + HARD_T + SOFT_T),
        "student": pytest.approx(HARD_S + SOFT_S),
        "teacher": pytest.approx(HARD_T + SOFT_T),
    }
    assert learning(method) == [("mutual", {"teacher", "student"})]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_hint_for_none_or_all_of_the_epochs_is_refused(share):
    with pytest.raises(ConfigError, match="hint_share"):
        HintSettings(share)
