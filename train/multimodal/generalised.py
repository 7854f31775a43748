"""Generalised distillation of perez2020: one of 14 actions, from hard labels and a teacher's soft.

Pérez et al., "Audio-visual model distillation using acoustic images" (WACV 2020), equation 1, after
Lopez-Paz et al. (2016):

    (1 - lambda) l(y, sigma(f(x))) + lambda l(s, sigma(f(x))),  s = sigma(f_t(x*) / T)

sigma "is the softmax operator": an action excludes the others, and l is the cross entropy between
two distributions over the 14 classes, mean over clips. Where the text leaves a choice:

- It prints f_t(x* / T), the input divided; as in the work that it follows, T divides the logits.
- Equation 1 softens the teacher alone ("printed"). The text speaks of "Hinton's distillation loss",
  where the student's logits are divided by T as well and the soft term is multiplied by T², since
  its gradient shrinks as 1/T² (Hinton et al. 2015, section 2): "hinton", our default. With the best
  T, 1, they are the same. The printed form takes no factor: its gradient does not shrink.
- A teacher's logits are averaged over its frames before the softmax (12 acoustic images a second;
  of five seconds, the student's length, all sixty).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import Method, Stage, constant_outputs

FORMS = ("hinton", "printed")


@dataclass(frozen=True)
class GeneralisedSettings:
    """Equation 1.

    imitation : lambda, 0 (hard labels alone) to 1 (teacher alone); 0.5 was best
    temperature : T, above 0; 1 was best
    form : "hinton" or "printed", see above
    """

    imitation: float = 0.5
    temperature: float = 1.0
    form: str = "hinton"

    def __post_init__(self) -> None:
        if not 0 <= self.imitation <= 1:
            raise ConfigError(f"distillation: imitation {self.imitation}: expected 0 to 1")
        if not self.temperature > 0:
            raise ConfigError(f"distillation: temperature {self.temperature}: expected above 0")
        if self.form not in FORMS:
            raise ConfigError(f"distillation: form {self.form!r}: expected {' or '.join(FORMS)}")


class ActionBatch(NamedTuple):
    """Clips of one action each.

    student, teacher : what each network takes; the teacher's may be several tensors
    targets : (n_clips,) int64, the actions
    """

    student: tuple[Tensor, ...]
    teacher: tuple[Tensor, ...]
    targets: Tensor


def mean_logits(logits: Tensor) -> Tensor:
    """Mean over a clip's frames: (n_clips, n_frames, n_classes) or (n_clips, n_classes) to the
    latter.
    """
    return logits.mean(1) if logits.ndim == 3 else logits


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """s = softmax(f_t / T) of (n_clips, n_classes).

    Stored probabilities will do for logits as their logarithm: a softmax takes no notice of what
    is the same for all classes.
    """
    return (logits.float() / temperature).softmax(1)


def generalised_loss(
    logits: Tensor, targets: Tensor, soft: Tensor, settings: GeneralisedSettings
) -> dict[str, Tensor]:
    """Equation 1 as "loss", and "hard" and "soft" without their weights.

    logits, soft : (n_clips, n_classes), the student's, and soft_targets of the teacher at the same
        temperature, a constant
    targets : (n_clips,) int64
    """
    logits, soft = logits.float(), soft.detach()
    hard = functional.cross_entropy(logits, targets)
    factor, softened = 1.0, logits
    if settings.form == "hinton":
        factor, softened = settings.temperature**2, logits / settings.temperature
    imitated = factor * functional.cross_entropy(softened, soft)
    loss = (1 - settings.imitation) * hard + settings.imitation * imitated
    return {"loss": loss, "hard": hard, "soft": imitated}


class GeneralisedDistillation(Method[ActionBatch]):
    """The teacher learns from labels, then the student from both.

    Parameters
    ----------
    teacher, student : networks to logits, (n_clips, n_classes) or with frames between; the teacher
        is None for hard labels alone (column G of tables 2 and 3)
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        student: nn.Module,
        settings: GeneralisedSettings | None = None,
    ) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        self.settings = settings or GeneralisedSettings()
        student_stage = Stage("student", ("student",))
        self.stages = (student_stage,)
        if teacher is not None:
            self.stages = (Stage("teacher", ("teacher",)), student_stage)

    def losses(self, batch: ActionBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "hard" and "soft" while a student learns from a teacher."""
        if stage.name == "teacher" or self.teacher is None:
            network = self.student if stage.name == "student" else self.teacher
            assert network is not None
            inputs = batch.student if stage.name == "student" else batch.teacher
            logits = mean_logits(network(*inputs))
            return {"loss": functional.cross_entropy(logits.float(), batch.targets)}
        said = mean_logits(cast(Tensor, constant_outputs(self.teacher, *batch.teacher)))
        soft = soft_targets(said, self.settings.temperature)
        logits = mean_logits(self.student(*batch.student))
        return generalised_loss(logits, batch.targets, soft, self.settings)


@torch.no_grad()
def predicted_actions(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """(n_clips,) int64: the class of the largest mean logit."""
    return mean_logits(network(*inputs)).argmax(1)
