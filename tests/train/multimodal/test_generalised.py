"""Equation 1 of perez2020 by hand: softmax over actions, temperature, where gradients stop."""

import copy
from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.generalised import (
    ActionBatch,
    GeneralisedDistillation,
    GeneralisedSettings,
    generalised_loss,
    mean_logits,
    predicted_actions,
    soft_targets,
)
from soundpost.train.multimodal.method import train_step


def said(*rows):
    """Logits whose softmax is the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


# Two clips, three actions: q of the student, s of the teacher at T = 1.
Q = ((0.5, 0.25, 0.25), (0.1, 0.6, 0.3))
S = ((0.8, 0.1, 0.1), (0.25, 0.5, 0.25))
TARGETS = torch.tensor([0, 2])
HARD = -(log(0.5) + log(0.3)) / 2
SOFT = (
    -(
        0.8 * log(0.5)
        + 0.1 * log(0.25)
        + 0.1 * log(0.25)
        + 0.25 * log(0.1)
        + 0.5 * log(0.6)
        + 0.25 * log(0.3)
    )
    / 2
)


def loss_of(imitation, temperature=1.0, form="hinton"):
    settings = GeneralisedSettings(imitation, temperature, form)
    terms = generalised_loss(said(*Q), TARGETS, soft_targets(said(*S), temperature), settings)
    return {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize("imitation", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("form", ["hinton", "printed"])
def test_equation_1_at_the_best_temperature(imitation, form):
    terms = loss_of(imitation, 1.0, form)
    assert terms["hard"] == pytest.approx(HARD, abs=1e-6)
    assert terms["soft"] == pytest.approx(SOFT, abs=1e-6)
    expected = (1 - imitation) * HARD + imitation * SOFT
    assert terms["loss"] == pytest.approx(expected, abs=1e-6)


def test_soft_labels_at_temperature_2_by_hand():
    # Square roots of .64, .32, .04: .8, .5657, .2; their sum is 1.5657.
    found = soft_targets(said((0.64, 0.32, 0.04)), 2.0)[0]
    root = 0.32**0.5
    expected = [0.8 / (1 + root), root / (1 + root), 0.2 / (1 + root)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_stored_probabilities_will_do_for_logits():
    torch.manual_seed(0)
    logits = torch.randn(5, 14)
    stored = logits.softmax(1)
    for temperature in (1.0, 3.0):
        torch.testing.assert_close(
            soft_targets(stored.log(), temperature), soft_targets(logits, temperature)
        )


def test_the_two_forms_at_temperature_2():
    # One clip, two classes. Teacher's logits (2 ln 3, 0): s = (3/4, 1/4) at T = 2. Student's logits
    # (2 ln 2, 0): q = (4/5, 1/5) at T = 1 and (2/3, 1/3) at T = 2.
    teacher = torch.tensor([[2 * log(3), 0.0]])
    student = torch.tensor([[2 * log(2), 0.0]])
    soft = soft_targets(teacher, 2.0)
    assert soft.tolist()[0] == pytest.approx([0.75, 0.25])
    for form, expected in (
        ("printed", -(0.75 * log(4 / 5) + 0.25 * log(1 / 5))),
        ("hinton", -4 * (0.75 * log(2 / 3) + 0.25 * log(1 / 3))),
    ):
        settings = GeneralisedSettings(1.0, 2.0, form)
        terms = generalised_loss(student, torch.tensor([0]), soft, settings)
        assert float(terms["loss"]) == pytest.approx(expected, abs=1e-6)


@given(temperature=st.floats(20.0, 200.0), seed=st.integers(0, 1000))
def test_the_gradient_keeps_its_scale_at_high_temperatures(temperature, seed):
    # Hinton et al. 2015, eq. 4: with zero-mean logits the gradient of the softened term is
    # (z - v) / (N T^2); times T^2, and over n clips, it no longer depends on T.
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    z, v = z - z.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    z.requires_grad_()
    settings = GeneralisedSettings(1.0, temperature)
    targets = torch.zeros(4, dtype=torch.long)
    generalised_loss(z, targets, soft_targets(v, temperature), settings)["loss"].backward()
    expected = (z.detach() - v) / 5 / 4
    assert (z.grad - expected).abs().max() < 5 * expected.abs().max() / temperature + 1e-4


def test_gradient_of_equation_1_by_hand():
    # d/dlogits: ((1 - lambda)(q - onehot) + lambda (q - s)) / n
    logits = said(*Q).requires_grad_()
    soft = soft_targets(said(*S), 1.0)
    generalised_loss(logits, TARGETS, soft, GeneralisedSettings(0.3))["loss"].backward()
    q, s = torch.tensor(Q), torch.tensor(S)
    expected = (0.7 * (q - functional.one_hot(TARGETS, 3)) + 0.3 * (q - s)) / 2
    torch.testing.assert_close(logits.grad.float(), expected, atol=1e-6, rtol=1e-5)


def test_the_teacher_is_a_constant():
    logits, teacher = said(*Q).requires_grad_(), said(*S).requires_grad_()
    soft = soft_targets(teacher, 1.0)
    generalised_loss(logits, TARGETS, soft, GeneralisedSettings())["loss"].backward()
    assert teacher.grad is None
    assert logits.grad.abs().sum() > 0


def test_logits_of_frames_are_averaged_before_the_softmax():
    # (2, 0) and (0, 4): mean (1, 2), so the second; the mean of their softmaxes has the second too,
    # but at .5500, not 1 / (1 + e^-1) = .7311.
    frames = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    assert mean_logits(frames).tolist() == [[1.0, 2.0]]
    found = soft_targets(mean_logits(frames), 1.0)[0, 1]
    assert float(found) == pytest.approx(1 / (1 + exp(-1)))
    assert torch.equal(mean_logits(frames[:, 0]), frames[:, 0])


class Frames(nn.Module):
    """A logit for each class of each frame."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, frames):
        return self.linear(frames)


def make_batch(seed, n=32):
    """The class shows in the teacher's frames, and in the student's mean."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (n,), generator=g)
    shown = functional.one_hot(targets, 4).float()
    student = shown + torch.randn(n, 4, generator=g)
    teacher = shown[:, None] + torch.randn(n, 12, 4, generator=g)
    return ActionBatch((student,), (teacher,), targets)


def method_of(teacher=True, **changes):
    torch.manual_seed(2)
    return GeneralisedDistillation(
        Frames() if teacher else None, Frames(), GeneralisedSettings(**changes)
    )


def changed(method, stage, batch):
    before = copy.deepcopy(method.state_dict())
    train_step(method, batch, stage, torch.optim.Adam(method.begin(stage), lr=1e-2))
    after = method.state_dict()
    return {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}


def test_the_teacher_learns_first_and_then_is_a_constant():
    method = method_of()
    first, second = method.stages
    batch = make_batch(0)
    assert changed(method, first, batch) == {"teacher"}
    assert changed(method, second, batch) == {"student"}
    method.zero_grad(set_to_none=True)
    method.losses(batch, second)["loss"].backward()
    assert all(weight.grad is None for weight in method.teacher.parameters())


def test_losses_of_both_stages_are_those_of_the_networks_outputs():
    method = method_of(imitation=0.25, temperature=2.0)
    batch = make_batch(0)
    teacher = method.teacher(*batch.teacher).mean(1)
    expected = functional.cross_entropy(teacher, batch.targets)
    torch.testing.assert_close(method.losses(batch, method.stages[0])["loss"], expected)
    student = method.student(*batch.student)
    expected = generalised_loss(student, batch.targets, (teacher / 2).softmax(1), method.settings)[
        "loss"
    ]
    torch.testing.assert_close(method.losses(batch, method.stages[1])["loss"], expected)


def test_hard_labels_alone_need_no_teacher():
    method = method_of(teacher=False)
    (stage,) = method.stages
    batch = make_batch(0)
    expected = functional.cross_entropy(method.student(*batch.student), batch.targets)
    torch.testing.assert_close(method.losses(batch, stage)["loss"], expected)
    with_teacher = method_of(imitation=0.0)
    with_teacher.student.load_state_dict(method.student.state_dict())
    terms = with_teacher.losses(batch, with_teacher.stages[1])
    torch.testing.assert_close(terms["loss"], expected)


def test_a_student_learns_what_its_teacher_tells():
    # Imitation alone: labels are never looked at.
    method = method_of(imitation=1.0)
    for stage in method.stages:
        optimiser = torch.optim.Adam(method.begin(stage), lr=3e-2)
        for step in range(80):
            batch = make_batch(step)
            if stage.name == "student":
                batch = batch._replace(targets=torch.zeros_like(batch.targets))
            train_step(method, batch, stage, optimiser)
    batch = make_batch(999, 500)
    right = predicted_actions(method.student, batch.student) == batch.targets
    # Three unit means in unit noise: no classifier is right more often than about .68.
    assert right.float().mean() > 0.55


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imitation": 1.5}, "imitation 1.5"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"form": "kl"}, "hinton or printed"),
    ],
)
def test_settings_outside_their_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        GeneralisedSettings(**changes)
