"""Losses of liang2021 and of its baselines: pure functions of tensors.

Equation numbers are those of Liang et al. 2021. Where the text leaves a choice:

- Equation 4 prints the weight as `1 - p^gamma`; focal loss (Lin et al. 2017), which it builds on,
  has `(1 - p)^gamma`. Ours is the printed one, the other an option. They are equal for gamma = 1.
- Equation 4 prints only log(p). p is read as the probability of the truth (p where the label is 1,
  1 - p where it is 0): the positive term alone is least where every score is 1.

Where ours departs from the text, and a recipe can have the text's:

- K in equation 4 counts the batch's clips "with both weakly and strong labels". Ours divides each
  term by the clips it sums over (`focal_clips = "own"` in a recipe), as the cross entropy of the
  first stage does: with all labelled clips for both ("labelled") supervision would weigh half as
  much from tau on, guidance as before, and the step would mix two changes.
- "Weak" losses are "computed using the weakly labeled training data". Ours see strongly labelled
  clips too, whose tags are known, as in the code of guided learning's authors;
  `tags_of_strong = false` keeps to weakly labelled ones.

And again where the text leaves a choice:

- Consistency in equation 3 is a binary cross entropy ("the total connectional BCE loss"). Its
  target is the other network's 0-1 prediction, as the authors of guided learning have it in their
  code ("hard"), or its probability ("soft"). It is a constant: one network guides the other.
- Equation 1 has no clips: ours is the mean over strongly labelled clips, silent ones too.
  Distances are not squared, and both networks and both projections get its gradient, as the paper
  puts it into their common loss. Nothing in it prevents W = 0, and in short runs the projections do
  shrink instead of meeting; `projection = "frozen"` in a recipe keeps the teacher's side as it is,
  a random orthogonal W_t without gradient, so that the student must follow.
- alpha = 1 - 0.996^(e - s) from epoch s on, zero before it (the text: "normally added when the
  teacher becomes relatively stable"); e counts finished epochs.
- x in beta's ramp exp(-5 (1 - x)^2) goes from 0 to 1 over a share of the run that a recipe states
  (the paper does not; the DCASE baseline takes half of it).
- The mean-teacher baseline has mean squared errors between clip scores and between frame scores,
  weighted by the same ramp up to `consistency_weight`, 2 in the DCASE baseline.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

FocalForm = Literal["printed", "focal"]
Guidance = Literal["hard", "soft"]

# Least probability in a logarithm: float32 tells 1 - 1e-7 from 1, and little beyond.
SMALLEST = 1e-7


def probability_of_truth(scores: Tensor, targets: Tensor) -> Tensor:
    """p where the target is 1, 1 - p where it is 0, kept away from 0; of any one shape."""
    return (targets * scores + (1 - targets) * (1 - scores)).clamp(min=SMALLEST)


def cross_entropy_terms(scores: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of each score; of any one shape.

    Targets between 0 and 1 are allowed.
    """
    return -(
        targets * scores.clamp(min=SMALLEST).log()
        + (1 - targets) * (1 - scores).clamp(min=SMALLEST).log()
    )


def adaptive_focal_terms(
    scores: Tensor, targets: Tensor, gamma: float = 2.0, form: FocalForm = "printed"
) -> Tensor:
    """Summands of equation 4, `-(1 - p^gamma) log p`, or `-(1 - p)^gamma log p` (form "focal").

    scores, targets : of any one shape; targets are 0 or 1
    """
    p = probability_of_truth(scores, targets)
    weight = 1 - p**gamma if form == "printed" else (1 - p) ** gamma
    return -weight * p.log()


def mean_over_clips(terms: Tensor, chosen: Tensor, n_clips: Tensor | int | None = None) -> Tensor:
    """Mean over the chosen clips of each clip's mean; zero where none is chosen.

    Parameters
    ----------
    terms : (n_clips, ...)
    chosen : (n_clips,) bool
    n_clips : divides the sum instead of the number of chosen clips (K in equation 4)
    """
    per_clip = terms.flatten(1).mean(1)
    total = torch.where(chosen, per_clip, torch.zeros_like(per_clip)).sum()
    count = chosen.sum() if n_clips is None else torch.as_tensor(n_clips, device=terms.device)
    mean: Tensor = total / count.clamp(min=1)
    return mean


def guidance_loss(learner: Tensor, guide: Tensor, kind: Guidance = "hard") -> Tensor:
    """Clip-level consistency of equation 3: the learner's scores against the guide's.

    learner, guide : (n_clips, n_labels); the guide gets no gradient
    """
    guide = guide.detach()
    targets = (guide >= 0.5).to(guide.dtype) if kind == "hard" else guide
    return cross_entropy_terms(learner, targets).mean()


def guided_loss(
    weak: Tensor, strong: Tensor, to_student: Tensor, to_teacher: Tensor, alpha: float
) -> Tensor:
    """Equation 3.

    weak, strong : each the sum of teacher's and student's
    to_student, to_teacher : guidance_loss from teacher to student and back
    """
    return weak + strong + to_student + alpha * to_teacher


def alpha_of(epoch: float, start: float = 30.0, decay: float = 0.996) -> float:
    """Weight of the student's guidance: 1 - decay^(epoch - start), zero before start."""
    return 1.0 - decay ** (epoch - start) if epoch > start else 0.0


def ramp_of(x: float) -> float:
    """beta = exp(-5 (1 - x)^2), x from 0 to 1 and held there (Tarvainen and Valpola 2017)."""
    return math.exp(-5.0 * (1.0 - min(1.0, max(0.0, x))) ** 2)


def mean_teacher_loss(
    student_frames: Tensor, student_clips: Tensor, teacher_frames: Tensor, teacher_clips: Tensor
) -> Tensor:
    """Consistency with the averaged student: mean squared errors of frames and of clips, added.

    frames : (n_clips, n_frames, n_labels); clips : (n_clips, n_labels); the teacher is a constant
    """
    frames = (student_frames - teacher_frames.detach()) ** 2
    clips = (student_clips - teacher_clips.detach()) ** 2
    return frames.mean() + clips.mean()


def frame_distances(teacher: Tensor, student: Tensor) -> Tensor:
    """D of equation 2: Euclidean distance in each frame.

    teacher, student : (n_clips, n_frames, n_units), projected and on the same frames
    Returns (n_clips, n_frames).
    """
    distances: Tensor = torch.linalg.vector_norm(teacher - student, dim=2)
    return distances


def tfd_loss(teacher: Tensor, student: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
    """Target-events based deep feature distillation, equation 1, mean over the chosen clips.

    Parameters
    ----------
    teacher, student : (n_clips, n_frames, n_units), projected and on the same frames
    mask : (n_clips, n_frames), M: 1 where a frame carries any target event
    chosen : (n_clips,) bool, the strongly labelled clips
    """
    return mean_over_clips(frame_distances(teacher, student) * mask, chosen)


def dfd_d_loss(teacher: Tensor, student: Tensor, chosen: Tensor | None = None) -> Tensor:
    """DFD-D: equation 1 with a mask of ones, over all clips or the chosen ones.

    teacher, student : (n_clips, n_frames, n_units); chosen : (n_clips,) bool
    """
    distances = frame_distances(teacher, student)
    if chosen is None:
        return distances.mean()
    return mean_over_clips(distances, chosen)


def dfd_mse_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """DFD-MSE: mean squared error of the whole projected maps, of any one shape."""
    return ((teacher - student) ** 2).mean()
