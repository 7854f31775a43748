"""Which clips teach what, and when."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from soundpost.train.sed.method import Objective, distillation, moment_of, supervised
from soundpost.train.sed.networks import Scores
from soundpost.train.sed.recipe import MethodSettings

LN2 = math.log(2)


@pytest.fixture
def batch(synthetic):
    return synthetic.make_batch(5)


def constant_scores(batch, p):
    return Scores(
        torch.full_like(batch.frame_targets, p), torch.full_like(batch.clip_targets, p), None
    )


def test_stage_2_begins_after_tau_epochs():
    method = MethodSettings(focal=True, tau=15, alpha_start=30.0, beta_ramp=0.5)
    stages = [moment_of(method, e, 200).focal for e in (0, 14, 15, 199)]
    assert stages == [False, False, True, True]
    assert not moment_of(MethodSettings(focal=False), 199, 200).focal
    # alpha: zero to epoch 30; beta: e^-5 at first, e^(-5/4) a quarter through, 1 from half on
    late = moment_of(method, 130, 200)
    assert late.alpha == pytest.approx(1 - 0.996**100)
    assert late.ramp == 1.0
    assert moment_of(method, 50, 200).ramp == pytest.approx(math.exp(-1.25))
    assert moment_of(method, 0, 200).ramp == pytest.approx(math.exp(-5))


def test_undecided_scores_cost_ln_2(batch):
    weak, strong = supervised(constant_scores(batch, 0.5), batch, MethodSettings(), False)
    assert (float(weak), float(strong)) == pytest.approx((LN2, LN2))


def test_the_focal_losses_share_k(batch):
    # p = 1/2 everywhere: -(1 - 1/4) ln(1/2) = 3/4 ln 2 for each score. Of K = 8 labelled clips
    # 4 are weak, 4 strong: each term is half of that. Divided by its own 4 clips: all of it.
    scores = constant_scores(batch, 0.5)
    method = MethodSettings(focal=True, focal_clips="labelled", tags_of_strong=False)
    weak, strong = supervised(scores, batch, method, True)
    assert (float(weak), float(strong)) == pytest.approx((0.375 * LN2, 0.375 * LN2))
    own = dataclasses.replace(method, focal_clips="own")
    weak, strong = supervised(scores, batch, own, True)
    assert (float(weak), float(strong)) == pytest.approx((0.75 * LN2, 0.75 * LN2))


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("tags_of_strong", [False, True])
def test_each_clip_counts_where_it_is_labelled(batch, focal, tags_of_strong):
    method = MethodSettings(tags_of_strong=tags_of_strong)
    strong, weak, unlabelled = slice(0, 4), slice(4, 8), slice(8, 12)

    def counted(clips):
        """Whether the clip-level and the frame-level loss look at the scores of these clips."""
        scores = constant_scores(batch, 0.5)
        for part in scores[:2]:
            part[clips] = 0.9
        before = supervised(constant_scores(batch, 0.5), batch, method, focal)
        after = supervised(scores, batch, method, focal)
        return [float(a) != float(b) for a, b in zip(before, after, strict=True)]

    assert counted(strong) == [tags_of_strong, True]
    assert counted(weak) == [True, False]
    assert counted(unlabelled) == [False, False]


def objective(synthetic, **method):
    torch.manual_seed(0)
    recipe = synthetic.recipe_of(method=method)
    return Objective(recipe, synthetic.N_LABELS)


def sharp(network):
    """The same network, its scores spread out instead of lying near one half."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.split(".")[0] in ("heads", "tags"):
                parameter.mul_(5.0)
    return network


def as_arrays(*tensors):
    return [tensor.detach().numpy().astype(np.float64) for tensor in tensors]


def equation_4(scores, targets, gamma, form):
    """-(1 - p^gamma) log p of each score, p being that of the truth; gamma None: without weight."""
    p = np.where(targets == 1, scores, 1 - scores)
    weight = 1.0
    if gamma is not None:
        weight = 1 - p**gamma if form == "printed" else (1 - p) ** gamma
    return -weight * np.log(p)


def supervision(scores, batch, gamma=None, form="printed"):
    """L_weak and L_strong of a network: means over the clips whose tags, whose frames are known."""
    frames, clips, frame_truth, clip_truth, has_frames, has_tags = as_arrays(
        scores.frames, scores.clips, batch.frame_targets, batch.clip_targets,
        batch.has_frames, batch.has_tags,
    )  # fmt: skip
    weak = equation_4(clips, clip_truth, gamma, form)[has_tags > 0]
    strong = equation_4(frames, frame_truth, gamma, form)[has_frames > 0]
    return float(weak.mean()), float(strong.mean())


@pytest.mark.parametrize("form", ["printed", "focal"])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_from_tau_on_both_networks_learn_by_equation_4(synthetic, batch, gamma, form):
    both = objective(synthetic, focal=True, tau=2, gamma=gamma, focal_form=form).eval()
    student = sharp(both.pair.student)(batch.log_mel)
    teacher = sharp(both.pair.teacher)(batch.log_mel)
    for epoch, exponent in ((1, None), (2, gamma)):
        terms = {name: value.item() for name, value in both.losses(batch, epoch).items()}
        found = [terms[f"{name}{of}"] for of in ("", "_teacher") for name in ("weak", "strong")]
        expected = [
            *supervision(student, batch, exponent, form),
            *supervision(teacher, batch, exponent, form),
        ]
        assert found == pytest.approx(expected, rel=1e-4)
        # Equation 6 puts these into equation 3; alpha is zero up to epoch 30.
        assert terms["loss"] == pytest.approx(sum(expected) + terms["to_student"], rel=1e-4)


def test_without_a_second_stage_cross_entropy_teaches_to_the_end(synthetic, batch):
    both = objective(synthetic, focal=False, tau=0).eval()
    terms = both.losses(batch, 3)
    found = [terms["weak"].item(), terms["strong"].item()]
    assert found == pytest.approx(supervision(both.pair.student(batch.log_mel), batch), rel=1e-4)


def test_the_sum_is_equation_3_with_its_ramps(synthetic, batch):
    both = objective(synthetic, distillation="tfd", alpha_start=1.0, alpha_decay=0.5)
    terms = {name: value.item() for name, value in both.losses(batch, 2).items()}
    # After 2 of 4 epochs: alpha = 1 - 0.5^1, beta = 1 from half of the run on
    expected = (
        terms["weak"] + terms["weak_teacher"] + terms["strong"] + terms["strong_teacher"]
        + terms["to_student"] + 0.5 * terms["to_teacher"] + terms["distillation"]
    )  # fmt: skip
    assert terms["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("guidance", ["hard", "soft"])
def test_each_network_is_guided_by_the_other_on_every_clip(synthetic, batch, guidance):
    both = objective(synthetic, guidance=guidance).eval()
    student, teacher = as_arrays(
        sharp(both.pair.student)(batch.log_mel).clips, sharp(both.pair.teacher)(batch.log_mel).clips
    )

    def entropy(learner, guide):
        said = np.round(guide) if guidance == "hard" else guide
        return float(-(said * np.log(learner) + (1 - said) * np.log(1 - learner)).mean())

    terms = both.losses(batch, 0)
    found = [terms["to_student"].item(), terms["to_teacher"].item()]
    assert found == pytest.approx([entropy(student, teacher), entropy(teacher, student)], rel=1e-4)


def test_distillation_looks_where_it_says(synthetic, batch):
    both = objective(synthetic, distillation="tfd").eval()
    teacher, student = both.pair.teacher(batch.log_mel), both.pair.student(batch.log_mel)

    def value(kind, scores):
        return float(distillation(both.pair, teacher, scores, batch, kind).detach())

    quiet = student.features.detach().clone()
    step = batch.frame_targets.amax(2)[:4].reshape(4, -1, 2).amax(2) == 0
    quiet[:4][step] += 1.0  # frames of strong clips without an event
    elsewhere = student._replace(features=quiet)
    others = student.features.detach().clone()
    others[4:] += 1.0  # weak and unlabelled clips
    other_clips = student._replace(features=others)
    assert value("tfd", elsewhere) == pytest.approx(value("tfd", student))
    assert value("tfd", other_clips) == pytest.approx(value("tfd", student))
    for kind in ("dfd_d", "dfd_mse"):
        assert value(kind, elsewhere) != pytest.approx(value(kind, student))
        assert value(kind, other_clips) != pytest.approx(value(kind, student))
    # Row 7 of table 1: what strong clips say between their events is left to them there too.
    assert value("tfd_dfd_d", elsewhere) == pytest.approx(value("tfd_dfd_d", student))
    assert value("tfd_dfd_d", other_clips) != pytest.approx(value("tfd_dfd_d", student))


def test_tfd_and_dfd_d_divide_the_clips(synthetic, batch):
    """Equation 1 of the strong clips' events, and with a mask of ones of all other clips."""
    both = objective(synthetic, distillation="tfd_dfd_d").eval()
    teacher, student = both.pair.teacher(batch.log_mel), both.pair.student(batch.log_mel)
    f_t, f_s, truth = as_arrays(*both.pair.projected(teacher, student), batch.frame_targets)
    distances = np.sqrt(((f_t - f_s) ** 2).sum(axis=2))
    strong = batch.has_frames.numpy()
    on_events = (distances * truth.any(axis=2))[strong].mean()
    expected = on_events + distances[~strong].mean()
    terms = both.losses(batch, 1)
    assert terms["distillation"].item() == pytest.approx(float(expected), rel=1e-4)


def test_losses_are_float32_under_autocast(synthetic, batch):
    both = objective(synthetic, distillation="tfd").eval()
    exact = both.losses(batch, 3)
    with torch.autocast("cpu", torch.bfloat16):
        rough = both.losses(batch, 3)
    for name, value in rough.items():
        assert value.dtype == torch.float32
        # bfloat16 has 8 bits of mantissa; tags of 0.5 may fall to the other side.
        if name not in ("loss", "to_student", "to_teacher"):
            assert value.item() == pytest.approx(exact[name].item(), rel=0.05), name


def test_the_guides_gradient_stays_out_before_alpha_starts(synthetic, batch):
    # Unlabelled clips alone: nothing but guidance teaches, and only the student.
    alone = dataclasses.replace(
        batch,
        has_frames=torch.zeros_like(batch.has_frames),
        has_tags=torch.zeros_like(batch.has_tags),
    )
    both = objective(synthetic)
    both.losses(alone, 0)["loss"].backward()
    largest = {
        name: max(float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None)
        for name, module in (("student", both.pair.student), ("teacher", both.pair.teacher))
    }
    assert largest["student"] > 0
    assert largest["teacher"] == 0


def test_the_mean_teacher_has_no_gradient(synthetic, batch):
    both = objective(synthetic, kind="mean_teacher")
    both.losses(batch, 1)["loss"].backward()
    assert all(p.grad is None for p in both.average.parameters())
    assert both.pair.teacher is None


@pytest.mark.parametrize("epoch", [1, 3])
def test_the_mean_teachers_sum_is_its_students_loss_and_a_rising_consistency(
    synthetic, batch, epoch
):
    both = objective(
        synthetic, kind="mean_teacher", consistency_weight=3.0, teacher_noise=0.0, focal=True, tau=2
    ).eval()
    sharp(both.average)
    student, teacher = both.pair.student(batch.log_mel), both.average(batch.log_mel)
    frames_s, clips_s, frames_t, clips_t = as_arrays(*student[:2], *teacher[:2])
    squares = ((frames_s - frames_t) ** 2).mean() + ((clips_s - clips_t) ** 2).mean()
    terms = {name: value.item() for name, value in both.losses(batch, epoch).items()}
    assert terms["consistency"] == pytest.approx(float(squares), rel=1e-4)
    # The ramp takes half of 4 epochs: exp(-5 / 4) after the first, 1 after the second.
    share = {1: math.exp(-1.25), 3: 1.0}[epoch]
    supervised_by = supervision(student, batch, 2.0 if epoch >= 2 else None)
    expected = sum(supervised_by) + 3.0 * share * squares
    assert terms["loss"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_the_mean_teacher_hears_the_same_clips_with_noise_on_them(synthetic, batch, noise):
    both = objective(synthetic, kind="mean_teacher", teacher_noise=noise)
    heard = {}
    for name, network in (("student", both.pair.student), ("teacher", both.average)):
        network.register_forward_pre_hook(
            lambda _, given, name=name: heard.update({name: given[0]})
        )
    both.losses(batch, 1)
    assert torch.equal(heard["student"], batch.log_mel)
    added = heard["teacher"] - batch.log_mel
    # 12 clips x 100 frames x 16 bands: the deviation is known to 0.5 %, the mean to 0.005.
    assert added.std().item() == pytest.approx(noise, rel=0.03)
    assert abs(added.mean().item()) < 0.03
