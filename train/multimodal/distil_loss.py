"""Soft labels for the sensor's two students: windows of MobileNet_v2, frames of the streaming CRNN.

Offline, the soft labels come from a store or an ensemble of stores; mutual, from a network that
learns at the same time. Either way a student's loss is

    (1 - w) L(labels, student) + w L(soft labels, student)

with its own L: `train.loop.loss_of` of windows, `train.sed.distil.distil_loss` of frames. For
windows the soft labels can be softened by a temperature T above 1 (Hinton et al. 2015): teacher's
and student's logits are divided by T and the term is multiplied by T². Choices:

- Labels are smoothed as the recipe says, soft labels are not: they are smooth.
- loss_of's softmax term ranks classes by their share of the label. Soft shares at T are those of
  p^(1/T); how much the term counts follows from the sum of the soft labels as they are.
- In mutual learning the peer's scores are constants, as in yin2021 (`stop_gradient`).
- A recording that is padded with silence says nothing there: soft labels of frames behind its end
  are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from soundpost.device.errors import ConfigError, InputError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.train.loop import loss_of
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT
from soundpost.train.multimodal.soft_labels import SoftLabels
from soundpost.train.multimodal.time_spans import spans_between, window_spans
from soundpost.train.recipe import Recipe
from soundpost.train.sed.distil import DistilBatch, distil_loss
from soundpost.train.sed.frame_grid import frame_edges_s

# Of logits and soft labels, a scalar: the whole loss of one student, its labels included.
SoftLoss = Callable[[Tensor, Tensor], Tensor]


def soft_window_loss(
    logits: Tensor, soft: Tensor, softmax_weight: float, temperature: float = 1.0
) -> Tensor:
    """loss_of with soft labels in place of labels, at a temperature.

    logits, soft : (n_windows, n_labels); soft are probabilities
    """
    # The student's own range: a probability of 0 has no logit.
    limit = torch.sigmoid(torch.tensor(LOGIT_LIMIT)).item()
    softened = soft
    if temperature != 1.0:
        softened = torch.sigmoid(soft.clamp(1 - limit, limit).logit() / temperature)
    scaled = logits / temperature
    binary = functional.binary_cross_entropy_with_logits(scaled, softened, reduction="none")
    loss = binary.sum(1).mean()
    if softmax_weight:
        powers = soft ** (1 / temperature)
        shares = powers / powers.sum(1, keepdim=True).clamp(min=1e-6)
        softmax = -(shares * scaled.log_softmax(1)).sum(1)
        loss = loss + softmax_weight * (softmax * soft.sum(1).clamp(max=1)).mean()
    return temperature**2 * loss


def window_distil_loss(
    logits: Tensor,
    targets: Tensor,
    soft: Tensor,
    recipe: Recipe,
    teacher_weight: float,
    temperature: float = 1.0,
) -> Tensor:
    """Loss of MobileNet_v2 on windows with labels and soft labels.

    Parameters
    ----------
    logits, targets, soft : (n_windows, n_labels)
    teacher_weight : w, 0 (labels alone, loss_of) to 1 (teacher alone)

    Raises ConfigError for a weight or temperature outside its range.
    """
    if not 0 <= teacher_weight <= 1 or not temperature > 0:
        raise ConfigError(
            f"distil: teacher_weight {teacher_weight}, temperature {temperature}: expected 0 to 1, "
            "and above 0"
        )
    taught = soft_window_loss(logits, soft, recipe.training.softmax_weight, temperature)
    return (1 - teacher_weight) * loss_of(logits, targets, recipe) + teacher_weight * taught


def mutual_student_losses(
    student: Tensor, teacher: Tensor, loss: SoftLoss, *, stop_gradient: bool = True
) -> dict[str, Tensor]:
    """Both networks learn from labels and from each other's scores, from one forward pass.

    Parameters
    ----------
    student, teacher : logits of one shape, windows or frames
    loss : such as window_distil_loss of given targets, or frame_distil_loss of a given batch

    Returns
    -------
    "student", "teacher", and their sum as "loss": its gradient is for each network that of its own
    loss, unless stop_gradient is False
    """
    student_says, teacher_says = student.sigmoid(), teacher.sigmoid()
    if stop_gradient:
        student_says, teacher_says = student_says.detach(), teacher_says.detach()
    of_student, of_teacher = loss(student, teacher_says), loss(teacher, student_says)
    return {"loss": of_student + of_teacher, "student": of_student, "teacher": of_teacher}


def frame_distil_loss(
    logits: Tensor, soft: Tensor, batch: DistilBatch, teacher_weight: float
) -> Tensor:
    """sed.distil's loss with the given soft labels, (n_scenes, n_frames, n_labels), as teacher."""
    taught = DistilBatch(batch.log_mel, soft, batch.frame_targets, batch.has_frames)
    return distil_loss(logits, taught, teacher_weight)


def window_soft_labels(
    soft_labels: SoftLabels,
    clip_ids: Sequence[str],
    starts_s: NDArray[np.float64],
    window_s: float,
) -> FloatArray:
    """Soft labels of windows, (n_windows, n_labels).

    clip_ids, starts_s : clip of each window, and where in it the window begins

    Raises InputError where a window has no time in common with its clip's soft labels.
    """
    soft = np.empty((len(clip_ids), len(soft_labels.labels)), np.float32)
    spans = window_spans(starts_s, window_s)
    of_clip: dict[str, list[int]] = {}
    for window, clip_id in enumerate(clip_ids):
        of_clip.setdefault(clip_id, []).append(window)
    for clip_id, windows in of_clip.items():
        soft[windows] = soft_labels.on_spans(clip_id, spans[windows])
    return soft


def frame_soft_labels(
    soft_labels: SoftLabels,
    clip_ids: Sequence[str],
    seconds: Sequence[float],
    front_end: FrontEnd,
    n_frames: int,
) -> NDArray[np.float16]:
    """Soft labels of recordings on the student's frames: what `sed.batches.Batches` takes.

    Parameters
    ----------
    seconds : length of each recording; frames that begin behind its end are zero
    n_frames : of every recording, cut or padded

    Returns
    -------
    (n_clips, n_frames, n_labels)

    Raises InputError where a frame has no time in common with its recording's soft labels.
    """
    if len(seconds) != len(clip_ids):
        raise InputError(f"{len(clip_ids)} recordings and {len(seconds)} lengths: expected as many")
    spans = spans_between(frame_edges_s(front_end, n_frames))
    soft = np.zeros((len(clip_ids), n_frames, len(soft_labels.labels)), np.float16)
    for index, (clip_id, length_s) in enumerate(zip(clip_ids, seconds, strict=True)):
        sounding = int(np.searchsorted(spans[:, 0], length_s))
        soft[index, :sounding] = soft_labels.on_spans(clip_id, spans[:sounding])
    return soft


def join_targets(targets: FloatArray, soft: FloatArray) -> FloatArray:
    """(n, n_labels) twice to (n, 2 n_labels), to be drawn, silenced and mixed together.

    What `train.loop.draw_batch` does with a row of targets it does with each column by itself.
    """
    if targets.shape != soft.shape:
        raise InputError(
            f"labels of shape {targets.shape}, soft labels of {soft.shape}: expected the same "
            "clips and the same labels"
        )
    return np.concatenate([targets, soft], 1, dtype=np.float32)


def split_targets(joined: Tensor) -> tuple[Tensor, Tensor]:
    """Undo join_targets, of a batch."""
    n_labels = joined.shape[1] // 2
    return joined[:, :n_labels], joined[:, n_labels:]
