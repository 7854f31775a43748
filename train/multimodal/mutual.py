"""Multi- to single-modal mutual learning: equations 1 to 6 of yin2021, and one step of both nets.

Where the text leaves a choice:

- The equations sum over the N samples of a set. Of a mini-batch all of them are means over clips:
  of the squared L2 norm in equations 1 and 2, of the sum over classes in 3 and 4. Divided by the
  same number, they keep the weights that lambda = gamma = omega = 1 gives them.
- Each network takes its peer's representations and scores as constants (`stop_gradient`), as in
  deep mutual learning (Zhang et al. 2018): "update both networks' parameters according to the
  intermediate representations of its peer". Without, both losses are minimised by both networks.
- Zhang updates one network after the other, with scores computed anew; here both are updated from
  one forward pass, as the text has it.
- Without mutual learning (table 2) the teacher learns from labels alone, and first; then it stays
  as it is, and the student learns from equation 5: "conventional one-way training".
- Without a transfer loss its weight is zero for both networks. The student keeps its context g.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import Method, Stage, constant_outputs
from soundpost.train.multimodal.mutual_networks import Inputs, Tagged, TaggingBatch

TEACHER_STAGE = Stage("teacher", ("teacher",))
STUDENT_STAGE = Stage("student", ("student",))
MUTUAL_STAGE = Stage("mutual", ("teacher", "student"))


@dataclass(frozen=True)
class MutualSettings:
    """Weights of the losses, and switches of table 2's ablations.

    lambda_s, lambda_t : of the peer's scores, for student and teacher
    gamma_s, gamma_t : of the single-modal transfer loss
    omega_s, omega_t : of the cross-modal transfer loss
    mutual, single, cross : False is "w/o mutual learning", "w/o single-modal transfer loss" and
        "w/o cross-modal transfer loss"
    stop_gradient : each network takes the other's outputs as constants
    """

    lambda_s: float = 1.0
    lambda_t: float = 1.0
    gamma_s: float = 1.0
    gamma_t: float = 1.0
    omega_s: float = 1.0
    omega_t: float = 1.0
    mutual: bool = True
    single: bool = True
    cross: bool = True
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        for name in ("lambda_s", "lambda_t", "gamma_s", "gamma_t", "omega_s", "omega_t"):
            if getattr(self, name) < 0:
                raise ConfigError(f"mutual: {name} {getattr(self, name)}: expected 0 or more")


def cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """BCE(y, p) of equations 3 and 4, summed over classes, mean over clips.

    targets : (n_clips, n_labels), 0 to 1; logits : same shape, p = sigmoid(logits)
    """
    terms = functional.binary_cross_entropy_with_logits(
        logits.float(), targets.float(), reduction="none"
    )
    return terms.sum(1).mean()


def transfer_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared L2 distance of two contexts, mean over clips.

    Equation 1 with h_t^a and h_s^a, equation 2 with h_t^v and g; each (n_clips, size).
    """
    return (teacher.float() - student.float()).square().sum(1).mean()


def class_loss(targets: Tensor, peer: Tensor, logits: Tensor, weight: float) -> Tensor:
    """Equation 3 of the student's logits, equation 4 of the teacher's.

    peer : logits of the other network; all (n_clips, n_labels)
    weight : lambda_s or lambda_t
    """
    loss = cross_entropy(targets, logits)
    if weight:
        loss = loss + weight * cross_entropy(peer.float().sigmoid(), logits)
    return loss


def constants(said: Tagged) -> Tagged:
    """The same without gradient."""
    return Tagged(*(tensor.detach() for tensor in said))


def student_loss(
    teacher: Tagged, student: Tagged, targets: Tensor, settings: MutualSettings
) -> Tensor:
    """Equation 5."""
    loss = class_loss(targets, teacher.logits, student.logits, settings.lambda_s)
    if settings.single and settings.gamma_s:
        loss = loss + settings.gamma_s * transfer_loss(teacher.acoustic, student.acoustic)
    if settings.cross and settings.omega_s:
        loss = loss + settings.omega_s * transfer_loss(teacher.visual, student.visual)
    return loss


def teacher_loss(
    teacher: Tagged, student: Tagged, targets: Tensor, settings: MutualSettings
) -> Tensor:
    """Equation 6."""
    loss = class_loss(targets, student.logits, teacher.logits, settings.lambda_t)
    if settings.single and settings.gamma_t:
        loss = loss + settings.gamma_t * transfer_loss(teacher.acoustic, student.acoustic)
    if settings.cross and settings.omega_t:
        loss = loss + settings.omega_t * transfer_loss(teacher.visual, student.visual)
    return loss


def mutual_losses(
    teacher: Tagged, student: Tagged, targets: Tensor, settings: MutualSettings
) -> dict[str, Tensor]:
    """Losses of both networks from one forward pass, and their sum as "loss"."""
    fixed_teacher, fixed_student = teacher, student
    if settings.stop_gradient:
        fixed_teacher, fixed_student = constants(teacher), constants(student)
    of_student = student_loss(fixed_teacher, student, targets, settings)
    of_teacher = teacher_loss(teacher, fixed_student, targets, settings)
    return {"loss": of_student + of_teacher, "student": of_student, "teacher": of_teacher}


def supervised_losses(network: nn.Module, batch: TaggingBatch) -> dict[str, Tensor]:
    """Labels alone."""
    said: Tagged = network(batch.inputs)
    return {"loss": cross_entropy(batch.targets, said.logits)}


def taught(teacher: nn.Module, inputs: Inputs) -> Tagged:
    """What a teacher that learns no more says."""
    return cast(Tagged, constant_outputs(teacher, inputs))


class MutualLearning(Method[TaggingBatch]):
    """yin2021, with its ablations; and deep mutual learning, with neither transfer loss.

    Parameters
    ----------
    teacher, student : networks from Inputs to Tagged, with contexts of equal sizes where the
        transfer losses are used
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, settings: MutualSettings) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        self.settings = settings
        self.stages = (MUTUAL_STAGE,) if settings.mutual else (TEACHER_STAGE, STUDENT_STAGE)

    def losses(self, batch: TaggingBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "student" and "teacher" where both learn."""
        if stage.name == "teacher":
            return supervised_losses(self.teacher, batch)
        student: Tagged = self.student(batch.inputs)
        if stage.name == "student":
            teacher = taught(self.teacher, batch.inputs)
            return {"loss": student_loss(teacher, student, batch.targets, self.settings)}
        return mutual_losses(self.teacher(batch.inputs), student, batch.targets, self.settings)
