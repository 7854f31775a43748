"""Every loss against numbers worked out by hand from its equation (liang2021)."""

from math import exp, log, sqrt

import pytest
import torch
from torch.nn import functional

from soundpost.train.sed import losses


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def value(loss):
    return float(loss)


def test_cross_entropy_of_a_known_score():
    # y = 1, p = 1/4: -ln(1/4) = ln 4. y = 0, p = 1/4: -ln(3/4) = ln(4/3).
    terms = losses.cross_entropy_terms(tensor(0.25, 0.25), tensor(1, 0))
    assert terms.tolist() == pytest.approx([log(4), log(4 / 3)])


def test_cross_entropy_equals_the_librarys():
    torch.manual_seed(0)
    scores, targets = torch.rand(7, 5, dtype=torch.float64), torch.rand(7, 5, dtype=torch.float64)
    expected = functional.binary_cross_entropy(scores, targets, reduction="none")
    torch.testing.assert_close(losses.cross_entropy_terms(scores, targets), expected)


def test_mean_over_chosen_clips():
    # Clips 0 and 2 are chosen, their means are 2 and 6: (2 + 6) / 2 = 4; by K = 4 clips, 8 / 4 = 2.
    terms = torch.tensor([[[1.0, 3.0]], [[100.0, 100.0]], [[6.0, 6.0]]])
    chosen = torch.tensor([True, False, True])
    assert value(losses.mean_over_clips(terms, chosen)) == 4.0
    assert value(losses.mean_over_clips(terms, chosen, 4)) == 2.0
    assert value(losses.mean_over_clips(terms, torch.zeros(3, dtype=torch.bool))) == 0.0


def test_equation_4_as_printed():
    # gamma = 2. y = 1, p = 1/2: -(1 - 1/4) ln(1/2) = 3/4 ln 2.
    # y = 0, score 1/4, so p = 3/4: -(1 - 9/16) ln(3/4) = 7/16 ln(4/3).
    # C = 2 classes, K = 1 clip: -1/(CK) sum = (3/4 ln 2 + 7/16 ln(4/3)) / 2 = 0.322861
    terms = losses.adaptive_focal_terms(tensor([0.5, 0.25]), tensor([1, 0]), 2.0)
    loss = losses.mean_over_clips(terms, torch.tensor([True]), 1)
    assert value(loss) == pytest.approx((0.75 * log(2) + 7 / 16 * log(4 / 3)) / 2)
    assert value(loss) == pytest.approx(0.322861, abs=1e-6)


def test_equation_4_with_the_exponent_of_focal_loss():
    # gamma = 2. y = 1, p = 1/2: (1/2)^2 ln 2. y = 0, p = 3/4: (1/4)^2 ln(4/3).
    terms = losses.adaptive_focal_terms(tensor(0.5, 0.25), tensor(1, 0), 2.0, "focal")
    assert terms.tolist() == pytest.approx([log(2) / 4, log(4 / 3) / 16])


def test_the_two_exponents_agree_for_gamma_1_only():
    scores, targets = tensor(0.1, 0.6, 0.9), tensor(1, 0, 1)
    for gamma, equal in ((1.0, True), (2.0, False)):
        printed = losses.adaptive_focal_terms(scores, targets, gamma)
        focal = losses.adaptive_focal_terms(scores, targets, gamma, "focal")
        assert torch.allclose(printed, focal) is equal


def test_a_certain_and_wrong_score_stays_finite():
    scores = torch.tensor([0.0, 1.0], requires_grad=True)
    targets = torch.tensor([1.0, 0.0])
    for terms in (
        losses.cross_entropy_terms(scores, targets),
        losses.adaptive_focal_terms(scores, targets),
    ):
        # ln(1e-7) = -16.118
        assert terms.tolist() == pytest.approx([16.118, 16.118], abs=1e-3)
        (gradient,) = torch.autograd.grad(terms.sum(), scores)
        assert torch.isfinite(gradient).all()


def test_guidance_by_tags_and_by_probabilities():
    learner, guide = tensor([0.8, 0.4]), tensor([0.6, 0.25])
    # hard: tags are (1, 0): (-ln 0.8 - ln 0.6) / 2
    assert value(losses.guidance_loss(learner, guide)) == pytest.approx(-(log(0.8) + log(0.6)) / 2)
    # soft: (-(0.6 ln 0.8 + 0.4 ln 0.2) - (0.25 ln 0.4 + 0.75 ln 0.6)) / 2
    soft = -(0.6 * log(0.8) + 0.4 * log(0.2) + 0.25 * log(0.4) + 0.75 * log(0.6)) / 2
    assert value(losses.guidance_loss(learner, guide, "soft")) == pytest.approx(soft)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_guide_is_a_constant(kind):
    learner = torch.full((2, 3), 0.4, requires_grad=True)
    guide = torch.full((2, 3), 0.7, requires_grad=True)
    losses.guidance_loss(learner, guide, kind).backward()
    assert guide.grad is None
    assert learner.grad is not None


def test_equation_3():
    # weak 1 + strong 2 + to student 4 + 0.5 of to teacher 8 = 11
    parts = (torch.tensor(v) for v in (1.0, 2.0, 4.0, 8.0))
    assert value(losses.guided_loss(*parts, alpha=0.5)) == 11.0


def test_alpha_ramp():
    # 1 - 0.996^(e - 30): zero up to epoch 30, 0.004 at 31, 1 - 0.996^170 = 0.494 at 200
    assert [losses.alpha_of(e) for e in (0, 29, 30)] == [0.0, 0.0, 0.0]
    assert losses.alpha_of(31) == pytest.approx(0.004)
    assert losses.alpha_of(200) == pytest.approx(0.49408, abs=1e-4)


def test_beta_ramp():
    # exp(-5 (1 - x)^2): x = 0: e^-5 = 0.00674; x = 1/2: e^(-5/4) = 0.28650; x = 1: 1, and after it
    assert losses.ramp_of(0) == pytest.approx(exp(-5))
    assert losses.ramp_of(0.5) == pytest.approx(0.2865048)
    assert losses.ramp_of(1) == losses.ramp_of(3) == 1.0


def test_mean_teacher_consistency():
    # frames: (0.5^2 + 0 + 0 + 0.3^2) / 4 = 0.085; clips: (0.2^2 + 0) / 2 = 0.02
    frames = tensor([[0.5, 0.5], [0.1, 0.4]]), tensor([[1.0, 0.5], [0.1, 0.1]])
    clips = tensor([0.4, 0.4]), tensor([0.6, 0.4])
    loss = losses.mean_teacher_loss(frames[0], clips[0], frames[1], clips[1])
    assert value(loss) == pytest.approx(0.105)


# Two clips of three frames in two dimensions. Differences of clip 0: (3, 4), (0, 0), (5, 12), so
# D = (5, 0, 13); of clip 1: (8, 6), (0, 1), (0, 2), so D = (10, 1, 2).
TEACHER = torch.tensor(
    [[[3.0, 4.0], [1.0, 1.0], [5.0, 13.0]], [[8.0, 6.0], [0.0, 0.0], [0.0, 0.0]]]
)
STUDENT = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]])


def test_equation_2():
    assert losses.frame_distances(TEACHER, STUDENT).tolist() == [[5, 0, 13], [10, 1, 2]]


def test_equation_1():
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    # clip 0: (5 + 0) / 3; clip 1: (10 + 2) / 3 = 4
    only_first = losses.tfd_loss(TEACHER, STUDENT, mask, torch.tensor([True, False]))
    assert value(only_first) == pytest.approx(5 / 3)
    both = losses.tfd_loss(TEACHER, STUDENT, mask, torch.tensor([True, True]))
    assert value(both) == pytest.approx((5 / 3 + 4) / 2)
    none = losses.tfd_loss(TEACHER, STUDENT, mask, torch.tensor([False, False]))
    assert value(none) == 0.0


def test_dfd_d_and_dfd_mse():
    # D: (18/3 + 13/3) / 2 = 31/6; of clip 1 alone 13/3
    assert value(losses.dfd_d_loss(TEACHER, STUDENT)) == pytest.approx(31 / 6)
    second = losses.dfd_d_loss(TEACHER, STUDENT, torch.tensor([False, True]))
    assert value(second) == pytest.approx(13 / 3)
    # squares: 9 + 16 + 25 + 144 + 64 + 36 + 1 + 4 = 299, over 2 clips x 3 frames x 2 units = 12
    assert value(losses.dfd_mse_loss(TEACHER, STUDENT)) == pytest.approx(299 / 12)


def test_equal_features_have_a_gradient():
    # The derivative of a Euclidean norm at 0 is 0/0; training must not meet it.
    same = torch.ones(1, 2, 3, requires_grad=True)
    losses.dfd_d_loss(same, torch.ones(1, 2, 3)).backward()
    assert torch.equal(same.grad, torch.zeros(1, 2, 3))


def test_norms_are_euclidean():
    # (1, 1) apart: sqrt(2), not 2 and not 1
    a, b = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    assert value(losses.dfd_d_loss(a, b)) == pytest.approx(sqrt(2))
