"""Teachers that hear what the student hears: each window mixed, filtered and masked as it is.

Soft labels from a store say what a clip's seconds sound like undisturbed; of a mixture they give
the weighted sum. Trained networks that take the student's own patches can be asked of the mixture
itself, so that the student learns what they do with any input (Beyer et al., "Knowledge
distillation: a good teacher is patient and consistent", 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from soundpost.device.errors import InputError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.recipe import Recipe

if TYPE_CHECKING:
    from soundpost.train.run import TrainedRun


@dataclass(frozen=True)
class LiveTeachers:
    """Trained networks, on the student's device.

    columns : where each network's labels stand among the student's, and where in its logits
    teachers : who they are
    """

    networks: tuple[nn.Module, ...]
    columns: tuple[tuple[Tensor, Tensor], ...]
    teachers: tuple[Teacher, ...]

    @torch.no_grad()
    def hear(self, patches: Tensor, targets: Tensor) -> Tensor:
        """Labels of windows with what the networks hear beside them, (n, 2 n_labels).

        Parameters
        ----------
        patches : (n, 1, n_frames, n_mels)
        targets : (n, n_labels); of labels that a network does not know, it says what they say

        Returns
        -------
        targets, then the mean of the networks' probabilities (see distil_loss.split_targets)
        """
        soft = torch.zeros_like(targets)
        for network, (of_student, of_teacher) in zip(self.networks, self.columns, strict=True):
            with torch.autocast(patches.device.type, torch.bfloat16):
                logits, _ = network(patches)
            said = targets.clone()
            said[:, of_student] = logits.float().sigmoid()[:, of_teacher]
            soft += said / len(self.networks)
        return torch.cat([targets, soft], 1)


def live_teachers(
    runs: Sequence[TrainedRun], labels: Sequence[str], recipe: Recipe, device: torch.device
) -> LiveTeachers:
    """Finished runs of clips as teachers of another.

    labels : of the student

    Raises InputError where a run hears other windows, or shares no label.
    """
    networks, columns, teachers = [], [], []
    for run in runs:
        if run.front_end != recipe.front_end or run.n_frames != recipe.data.patch_frames:
            raise InputError(
                f"{run.folder}: hears other windows than the student (its front end or its "
                "data.patch_frames differ); write its soft labels with soundpost distil and give "
                "--soft-labels"
            )
        known = {label: column for column, label in enumerate(run.labels)}
        own = [column for column, label in enumerate(labels) if label in known]
        if not own:
            raise InputError(f"{run.folder}: knows none of the clips' labels; leave it out")
        theirs = [known[labels[column]] for column in own]
        network = run.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        networks.append(network.eval().requires_grad_(False))
        columns.append((torch.tensor(own, device=device), torch.tensor(theirs, device=device)))
        teachers.append(Teacher(run.folder.resolve().name, file_sha256(run.weights)))
    return LiveTeachers(tuple(networks), tuple(columns), tuple(teachers))
