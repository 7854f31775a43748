"""What one batch teaches: the losses of a recipe, put together (liang2021, eq. 3, 5 and 6)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from soundpost.train.sed.losses import (
    FocalForm,
    Guidance,
    adaptive_focal_terms,
    alpha_of,
    cross_entropy_terms,
    dfd_d_loss,
    dfd_mse_loss,
    guidance_loss,
    guided_loss,
    mean_over_clips,
    mean_teacher_loss,
    ramp_of,
    tfd_loss,
)
from soundpost.train.sed.networks import Scores, TeacherStudent
from soundpost.train.sed.recipe import DetectionRecipe, MethodSettings
from soundpost.train.sed.scenes import SceneBatch


@dataclass(frozen=True)
class Moment:
    """Where in a run a batch stands.

    focal : second stage
    alpha : weight of the student's guidance to the teacher
    ramp : beta, or the share of the mean teacher's weight
    """

    focal: bool
    alpha: float
    ramp: float


def moment_of(method: MethodSettings, epoch: float, epochs: int) -> Moment:
    """Weights after `epoch` of `epochs` epochs."""
    return Moment(
        focal=method.focal and epoch >= method.tau,
        alpha=alpha_of(epoch, method.alpha_start, method.alpha_decay),
        ramp=ramp_of(epoch / (method.beta_ramp * epochs)),
    )


def supervised(
    scores: Scores, batch: SceneBatch, method: MethodSettings, focal: bool
) -> tuple[Tensor, Tensor]:
    """L_weak and L_strong of one network, with binary cross entropy or the adaptive focal loss."""
    tagged = batch.has_tags if method.tags_of_strong else batch.has_tags & ~batch.has_frames
    if focal:
        form = cast(FocalForm, method.focal_form)
        labelled = None
        if method.focal_clips == "labelled":
            labelled = (batch.has_tags | batch.has_frames).sum()
        weak = adaptive_focal_terms(scores.clips, batch.clip_targets, method.gamma, form)
        strong = adaptive_focal_terms(scores.frames, batch.frame_targets, method.gamma, form)
        return (
            mean_over_clips(weak, tagged, labelled),
            mean_over_clips(strong, batch.has_frames, labelled),
        )
    weak = cross_entropy_terms(scores.clips, batch.clip_targets)
    strong = cross_entropy_terms(scores.frames, batch.frame_targets)
    return mean_over_clips(weak, tagged), mean_over_clips(strong, batch.has_frames)


def distillation(
    pair: TeacherStudent, teacher: Scores, student: Scores, batch: SceneBatch, kind: str
) -> Tensor:
    """Feature distillation of a batch, without its weight beta."""
    f_t, f_s = pair.projected(teacher, student)
    if kind == "dfd_mse":
        return dfd_mse_loss(f_t, f_s)
    if kind == "dfd_d":
        return dfd_d_loss(f_t, f_s)
    mask = batch.frame_targets.amax(2)
    loss = tfd_loss(f_t, f_s, mask, batch.has_frames)
    if kind == "tfd_dfd_d":
        loss = loss + dfd_d_loss(f_t, f_s, ~batch.has_frames)
    return loss


class Objective(nn.Module):
    """Networks and loss of one recipe.

    `average` is the mean teacher, without gradient; an empty module where a teacher is trained.
    """

    def __init__(self, recipe: DetectionRecipe, n_labels: int) -> None:
        super().__init__()
        self.method = recipe.method
        self.epochs = recipe.training.epochs
        mean_teacher = recipe.method.kind == "mean_teacher"
        self.pair = TeacherStudent(
            n_labels,
            recipe.front_end.n_mels,
            recipe.model,
            mean_teacher=mean_teacher,
            distil=recipe.method.distillation != "none",
            frozen=recipe.method.projection == "frozen",
        )
        self.average: nn.Module = nn.Module()
        if mean_teacher:
            self.average = copy.deepcopy(self.pair.student).requires_grad_(False)

    def losses(self, batch: SceneBatch, epoch: float) -> dict[str, Tensor]:
        """Each term without its weight, and their weighted sum as "loss".

        epoch : finished epochs, with a fraction within one
        """
        moment = moment_of(self.method, epoch, self.epochs)
        student = self.pair.student(batch.log_mel)
        weak, strong = supervised(student, batch, self.method, moment.focal)
        if self.method.kind == "mean_teacher":
            with torch.no_grad():
                noise = self.method.teacher_noise * torch.randn_like(batch.log_mel)
                teacher = self.average(batch.log_mel + noise)
            consistency = mean_teacher_loss(
                student.frames, student.clips, teacher.frames, teacher.clips
            )
            weight = self.method.consistency_weight * moment.ramp
            loss = weak + strong + weight * consistency
            return {"loss": loss, "weak": weak, "strong": strong, "consistency": consistency}
        assert self.pair.teacher is not None
        teacher = self.pair.teacher(batch.log_mel)
        weak_t, strong_t = supervised(teacher, batch, self.method, moment.focal)
        kind = cast(Guidance, self.method.guidance)
        to_student = guidance_loss(student.clips, teacher.clips, kind)
        to_teacher = guidance_loss(teacher.clips, student.clips, kind)
        loss = guided_loss(weak + weak_t, strong + strong_t, to_student, to_teacher, moment.alpha)
        terms = {
            "weak": weak,
            "strong": strong,
            "weak_teacher": weak_t,
            "strong_teacher": strong_t,
            "to_student": to_student,
            "to_teacher": to_teacher,
        }
        if self.method.distillation != "none":
            distilled = distillation(self.pair, teacher, student, batch, self.method.distillation)
            loss = loss + moment.ramp * distilled
            terms["distillation"] = distilled
        return {"loss": loss} | terms
