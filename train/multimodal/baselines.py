"""What yin2021 compares with in table 3: five other ways to train the student.

Plain: labels alone. Knowledge distillation (Hinton et al. 2015), "the two losses with equal
weights" and "binary cross entropy instead of the KL divergence". Enhanced feature (Watanabe et al.
2017): the teacher hears and sees, the student learns from "the soft targets of the teacher" alone.
FitNets (Romero et al. 2014): "the acoustic intermediate representation in the student network as
the guided layer and the concatenation of the acoustic and the visual intermediate representations
in the teacher network as the hint layer", with a "fully-connected regressor". Deep mutual learning
(Zhang et al. 2018): `mutual.MutualLearning` without transfer losses.

Where the text leaves a choice:

- Equal weights are 1 and 1, as in equation 3; no temperature.
- Losses are means over clips of sums over classes, as in `mutual.py`.
- The teacher of the first three has learnt from labels, and stays as it is.
- The binary cross entropy of soft targets has the gradient of the KL divergence: they differ by the
  entropy of the targets, a constant.
- FitNets has Romero's two stages: the hint alone first, half the squared distance (their eq. 3),
  for `hint_share` of the epochs; then distillation as above, without their annealed weight. With
  `hint_beside` the hint is added to the distillation loss instead, from the beginning to the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import Method, Stage
from soundpost.train.multimodal.mutual import (
    STUDENT_STAGE,
    TEACHER_STAGE,
    MutualLearning,
    MutualSettings,
    cross_entropy,
    supervised_losses,
    taught,
    transfer_loss,
)
from soundpost.train.multimodal.mutual_networks import Tagged, TaggingBatch


class Plain(Method[TaggingBatch]):
    """Binary cross entropy with the labels, of any network from Inputs to Tagged."""

    stages = (STUDENT_STAGE,)

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def losses(self, batch: TaggingBatch, stage: Stage) -> dict[str, Tensor]:
        """Of labels alone."""
        return supervised_losses(self.student, batch)


class KnowledgeDistillation(Method[TaggingBatch]):
    """Labels and the teacher's scores: `hard BCE(y, p_s) + soft BCE(p_t, p_s)`.

    hard, soft : weights; 1 and 1 is Hinton's method as yin2021 has it, 0 and 1 the enhanced-feature
        teacher of Watanabe
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, hard: float = 1.0, soft: float = 1.0
    ) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        self.hard, self.soft = hard, soft
        self.stages = (TEACHER_STAGE, STUDENT_STAGE)

    def losses(self, batch: TaggingBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "hard" and "soft" while the student learns."""
        if stage.name == "teacher":
            return supervised_losses(self.teacher, batch)
        teacher = taught(self.teacher, batch.inputs)
        return self.distillation(teacher, self.student(batch.inputs), batch.targets)

    def distillation(self, teacher: Tagged, student: Tagged, targets: Tensor) -> dict[str, Tensor]:
        """The loss above and its terms."""
        hard = cross_entropy(targets, student.logits)
        soft = cross_entropy(teacher.logits.float().sigmoid(), student.logits)
        return {"loss": self.hard * hard + self.soft * soft, "hard": hard, "soft": soft}


def hint_loss(hint: Tensor, guided: Tensor) -> Tensor:
    """Romero et al., eq. 3: half the squared distance, mean over clips; each (n_clips, size)."""
    return 0.5 * transfer_loss(hint, guided)


@dataclass(frozen=True)
class HintSettings:
    """FitNets.

    hint_share : of the epochs in which the student learns from the hint alone
    hint_beside : learn from it beside the distillation instead, with weight 1
    """

    hint_share: float = 0.2
    hint_beside: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.hint_share < 1:
            raise ConfigError(f"fitnets: hint_share {self.hint_share}: expected 0 to 1, exclusive")


class FitNets(KnowledgeDistillation):
    """A hint from the teacher's contexts to the student's acoustic context, then distillation.

    Parameters
    ----------
    teacher, student : networks with `acoustic_size` and `visual_size`
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, settings: HintSettings | None = None
    ) -> None:
        super().__init__(teacher, student)
        self.settings = settings = settings or HintSettings()
        hint_size = int(teacher.acoustic_size) + int(teacher.visual_size)  # type: ignore[arg-type]
        self.regressor = nn.Linear(int(student.acoustic_size), hint_size)  # type: ignore[arg-type]
        learning = ("student", "regressor")
        self.stages = (
            (TEACHER_STAGE, Stage("student", learning))
            if settings.hint_beside
            else (
                TEACHER_STAGE,
                Stage("hint", learning, settings.hint_share),
                Stage("student", ("student",), 1 - settings.hint_share),
            )
        )

    def losses(self, batch: TaggingBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "hint", "hard" and "soft", by the stage."""
        if stage.name == "teacher":
            return supervised_losses(self.teacher, batch)
        teacher = taught(self.teacher, batch.inputs)
        student: Tagged = self.student(batch.inputs)
        if stage.name == "student" and not self.settings.hint_beside:
            return self.distillation(teacher, student, batch.targets)
        guide = torch.cat([teacher.acoustic, teacher.visual], 1)
        hint = hint_loss(guide, self.regressor(student.acoustic))
        if stage.name == "hint":
            return {"loss": hint, "hint": hint}
        terms = self.distillation(teacher, student, batch.targets)
        return terms | {"loss": terms["loss"] + hint, "hint": hint}


def deep_mutual_learning(teacher: nn.Module, student: nn.Module) -> MutualLearning:
    """Zhang et al. 2018: labels and each other's scores."""
    return MutualLearning(teacher, student, MutualSettings(single=False, cross=False))
