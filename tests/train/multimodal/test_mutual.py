"""Equations 1 to 6 of yin2021 by hand, where gradients stop, and one step of both networks."""

import copy
from math import exp, log

import pytest
import torch

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.mutual import (
    MutualLearning,
    MutualSettings,
    class_loss,
    cross_entropy,
    mutual_losses,
    student_loss,
    teacher_loss,
    transfer_loss,
)
from soundpost.train.multimodal.mutual_networks import (
    AcousticFeature,
    Inputs,
    StudentNetwork,
    Tagged,
    TaggingBatch,
    TaggingSettings,
    TeacherNetwork,
)

NETWORKS = TaggingSettings((AcousticFeature(size=8),), 6, 8, (8, 8))
ALL_OFF = {"lambda_s": 0.0, "lambda_t": 0.0, "single": False, "cross": False}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def logit(p):
    return log(p / (1 - p))


def logits(*rows):
    return torch.tensor([[logit(p) for p in row] for row in rows], dtype=torch.float64)


# Two clips, two classes. y = (1, 0), (0, 1).
TARGETS = tensor([1, 0], [0, 1])
P_S, P_T = ((0.5, 0.2), (0.4, 0.8)), ((0.8, 0.1), (0.25, 0.5))
STUDENT = Tagged(tensor([1, 2], [0, 0]), tensor([1.0], [0.0]), logits(*P_S))
TEACHER = Tagged(tensor([1, 0], [3, 4]), tensor([0.5], [2.0]), logits(*P_T))

# BCE(y, p_s): -ln .5 - ln .8 and -ln .6 - ln .8, mean over both clips.
BCE_Y_S = (-log(0.5) - log(0.8) - log(0.6) - log(0.8)) / 2
# BCE(y, p_t): -ln .8 - ln .9 and -ln .75 - ln .5.
BCE_Y_T = (-log(0.8) - log(0.9) - log(0.75) - log(0.5)) / 2


def soft(target, p):
    return -(target * log(p) + (1 - target) * log(1 - p))


# BCE(p_t, p_s) and BCE(p_s, p_t), term by term.
BCE_T_S = (soft(0.8, 0.5) + soft(0.1, 0.2) + soft(0.25, 0.4) + soft(0.5, 0.8)) / 2
BCE_S_T = (soft(0.5, 0.8) + soft(0.2, 0.1) + soft(0.4, 0.25) + soft(0.8, 0.5)) / 2
# Equation 1: 0 + 2^2 and 3^2 + 4^2: (4 + 25) / 2. Equation 2: 0.5^2 and 2^2: (0.25 + 4) / 2.
SINGLE, CROSS = 14.5, 2.125


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_equation_1_and_2():
    assert float(transfer_loss(TEACHER.acoustic, STUDENT.acoustic)) == SINGLE
    assert float(transfer_loss(TEACHER.visual, STUDENT.visual)) == CROSS


def test_cross_entropy_is_the_mean_over_clips_of_the_sum_over_classes():
    assert float(cross_entropy(TARGETS, STUDENT.logits)) == pytest.approx(BCE_Y_S, abs=1e-6)


def test_equation_3_and_4():
    of_student = class_loss(TARGETS, TEACHER.logits, STUDENT.logits, 1.0)
    assert float(of_student) == pytest.approx(BCE_Y_S + BCE_T_S, abs=1e-6)
    of_teacher = class_loss(TARGETS, STUDENT.logits, TEACHER.logits, 0.5)
    assert float(of_teacher) == pytest.approx(BCE_Y_T + 0.5 * BCE_S_T, abs=1e-6)


def test_equation_5_and_6():
    settings = MutualSettings()
    expected = BCE_Y_S + BCE_T_S + SINGLE + CROSS
    assert float(student_loss(TEACHER, STUDENT, TARGETS, settings)) == pytest.approx(expected)
    expected = BCE_Y_T + BCE_S_T + SINGLE + CROSS
    assert float(teacher_loss(TEACHER, STUDENT, TARGETS, settings)) == pytest.approx(expected)


def test_each_weight_multiplies_its_own_term():
    settings = MutualSettings(
        lambda_s=2.0, lambda_t=3.0, gamma_s=0.1, gamma_t=0.2, omega_s=4.0, omega_t=5.0
    )
    terms = mutual_losses(TEACHER, STUDENT, TARGETS, settings)
    student = BCE_Y_S + 2 * BCE_T_S + 0.1 * SINGLE + 4 * CROSS
    teacher = BCE_Y_T + 3 * BCE_S_T + 0.2 * SINGLE + 5 * CROSS
    assert float(terms["student"]) == pytest.approx(student)
    assert float(terms["teacher"]) == pytest.approx(teacher)
    assert float(terms["loss"]) == pytest.approx(student + teacher)


@pytest.mark.parametrize(
    ("switch", "missing"), [({"single": False}, SINGLE), ({"cross": False}, CROSS)]
)
def test_a_switched_off_transfer_loss_is_missing_from_both(switch, missing):
    terms = mutual_losses(TEACHER, STUDENT, TARGETS, MutualSettings(**switch))
    expected = BCE_Y_S + BCE_T_S + SINGLE + CROSS - missing
    assert float(terms["student"]) == pytest.approx(expected)
    expected = BCE_Y_T + BCE_S_T + SINGLE + CROSS - missing
    assert float(terms["teacher"]) == pytest.approx(expected)


def leaves():
    return tuple(
        Tagged(*(value.clone().requires_grad_() for value in said)) for said in (TEACHER, STUDENT)
    )


def test_the_peer_is_a_constant():
    # Of the student's loss alone, everything that the teacher says is; and the other way round.
    for name, learns in (("student", 1), ("teacher", 0)):
        pair = leaves()
        mutual_losses(*pair, TARGETS, MutualSettings())[name].backward()
        assert all(value.grad is None for value in pair[1 - learns])
        assert all(bool(value.grad.abs().sum() > 0) for value in pair[learns])


def test_without_the_stop_each_loss_reaches_both_networks():
    for name in ("student", "teacher"):
        pair = leaves()
        terms = mutual_losses(*pair, TARGETS, MutualSettings(stop_gradient=False))
        terms[name].backward()
        for said in pair:
            assert all(bool(value.grad.abs().sum() > 0) for value in said)


def test_gradients_by_hand():
    # d/dh_s of the mean over 2 clips of |h_t - h_s|^2 is (h_s - h_t); of BCE with logits,
    # (p_s - y + p_s - p_t) / 2.
    teacher, student = leaves()
    mutual_losses(teacher, student, TARGETS, MutualSettings())["loss"].backward()
    torch.testing.assert_close(student.acoustic.grad, STUDENT.acoustic - TEACHER.acoustic)
    torch.testing.assert_close(student.visual.grad, STUDENT.visual - TEACHER.visual)
    torch.testing.assert_close(teacher.acoustic.grad, TEACHER.acoustic - STUDENT.acoustic)
    p_s, p_t = tensor(*P_S), tensor(*P_T)
    expected = (2 * p_s - TARGETS - p_t) / 2
    torch.testing.assert_close(student.logits.grad, expected, atol=1e-6, rtol=0)
    expected = (2 * p_t - TARGETS - p_s) / 2
    torch.testing.assert_close(teacher.logits.grad, expected, atol=1e-6, rtol=0)


def test_confident_and_wrong_stays_finite():
    said = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = cross_entropy(torch.tensor([[0.0, 1.0]]), said)
    loss.backward()
    assert loss.item() == pytest.approx(160.0)
    assert torch.isfinite(said.grad).all()


def make_batch(seed, n=16):
    """A class that is heard and one that is seen; one band, one element."""
    g = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, 2, generator=g) < 0.5).float()
    log_mel = torch.randn(n, 8, 8, generator=g)
    log_mel[:, :, :4] += 2 * targets[:, :1, None]
    visual = torch.randn(n, 3, 6, generator=g)
    visual[:, :, :3] += 2 * targets[:, 1:, None]
    return TaggingBatch(Inputs((log_mel,), visual), targets)


def pair(**changes):
    torch.manual_seed(3)
    return MutualLearning(
        TeacherNetwork(2, NETWORKS), StudentNetwork(2, NETWORKS), MutualSettings(**changes)
    )


def test_one_step_of_the_sum_is_a_step_of_each_network_on_its_own_loss():
    # Two optimisers, two backward passes, each network's own loss only.
    batch = make_batch(0)
    together, apart = pair(), pair()
    optimiser = torch.optim.Adam(together.begin(together.stages[0]), lr=1e-2)
    terms = train_step(together, batch, together.stages[0], optimiser)
    apart.train()
    own = apart.losses(batch, apart.stages[0])
    optimisers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (apart.teacher, apart.student)]
    for name, module in (("teacher", apart.teacher), ("student", apart.student)):
        grads = torch.autograd.grad(own[name], list(module.parameters()))
        for weight, grad in zip(module.parameters(), grads, strict=True):
            weight.grad = grad
    for each in optimisers:
        each.step()
    for (name, one), (_, other) in zip(
        together.state_dict().items(), apart.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert terms["loss"] == pytest.approx(terms["student"] + terms["teacher"])


def changed(method, stage, batch):
    """Which modules a step has changed, statistics of their normalisation included."""
    before = copy.deepcopy(method.state_dict())
    optimiser = torch.optim.Adam(method.begin(stage), lr=1e-2)
    train_step(method, batch, stage, optimiser)
    after = method.state_dict()
    return {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}


def test_mutual_learning_has_one_stage_in_which_both_learn():
    method = pair()
    assert [(s.name, s.share) for s in method.stages] == [("mutual", 1.0)]
    assert changed(method, method.stages[0], make_batch(0)) == {"teacher", "student"}


def test_without_mutual_learning_the_teacher_learns_first_and_then_stays_as_it_is():
    method = pair(mutual=False)
    first, second = method.stages
    batch = make_batch(0)
    assert changed(method, first, batch) == {"teacher"}
    assert changed(method, second, batch) == {"student"}
    assert not method.teacher.training
    # The teacher's own stage is labels alone, the student's is equation 5 as it stands.
    teacher, student = method.teacher(batch.inputs), method.student(batch.inputs)
    loss = method.losses(batch, first)["loss"]
    torch.testing.assert_close(loss, cross_entropy(batch.targets, teacher.logits))
    method.begin(second)
    expected = student_loss(teacher, method.student(batch.inputs), batch.targets, MutualSettings())
    torch.testing.assert_close(method.losses(batch, second)["loss"], expected)
    assert student.logits.requires_grad


def test_with_all_off_each_learns_from_labels_alone():
    batch = make_batch(0)
    method = pair(**ALL_OFF)
    method.train()
    terms = method.losses(batch, method.stages[0])
    teacher, student = method.teacher(batch.inputs), method.student(batch.inputs)
    torch.testing.assert_close(terms["student"], cross_entropy(batch.targets, student.logits))
    torch.testing.assert_close(terms["teacher"], cross_entropy(batch.targets, teacher.logits))


def test_the_cross_modal_loss_teaches_what_is_imagined_and_what_is_heard():
    method = pair(lambda_s=0.0, single=False)
    batch = make_batch(0)
    said = method.student(batch.inputs)
    transfer_loss(method.teacher(batch.inputs).visual.detach(), said.visual).backward()
    assert method.student.imagine.weight.grad.abs().sum() > 0
    first = method.student.hear.parts[0].layers[0]
    assert first.weight.grad.abs().sum() > 0
    assert method.student.tags.weight.grad is None


def after_60_steps(**changes):
    method = pair(**changes)
    stage = method.stages[0]
    optimiser = torch.optim.Adam(method.begin(stage), lr=3e-3)
    for step in range(60):
        train_step(method, make_batch(step), stage, optimiser)
    return method


def distances(method):
    with torch.no_grad():
        inputs = make_batch(1000, 200).inputs
        teacher, student = method.teacher(inputs), method.student(inputs)
    return (
        float(transfer_loss(teacher.acoustic, student.acoustic)),
        float(transfer_loss(teacher.visual, student.visual)),
    )


def test_each_transfer_loss_draws_its_own_contexts_together():
    single, cross = distances(after_60_steps())
    single_without, _ = distances(after_60_steps(single=False))
    _, cross_without = distances(after_60_steps(cross=False))
    assert single < 0.5 * single_without
    assert cross < 0.5 * cross_without


def test_the_student_learns_what_can_be_heard():
    method = after_60_steps()
    batch = make_batch(1000, 200)
    with torch.no_grad():
        right = (method.student(batch.inputs).logits[:, 0] > 0) == (batch.targets[:, 0] > 0.5)
    assert right.float().mean() > 0.8


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match="gamma_s -1"):
        MutualSettings(gamma_s=-1.0)


def test_the_hand_worked_sigmoids_are_those_of_the_logits():
    assert 1 / (1 + exp(-float(STUDENT.logits[0, 1]))) == pytest.approx(0.2)
