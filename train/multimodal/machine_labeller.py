"""Networks of jia2019 as labellers of clips: by the second, as they were pre-trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from soundpost.device.errors import UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.machine_recipe import MachineRecipe
from soundpost.train.multimodal.machine_run import load_machine_run
from soundpost.train.multimodal.second_features import frames_per_second, heard_seconds
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Labeller, Said
from soundpost.train.run import WEIGHTS


@dataclass(frozen=True)
class MachineLabeller:
    """The network of a pre-training run."""

    network: nn.Module
    recipe: MachineRecipe
    labels: tuple[str, ...]
    teacher: Teacher
    device: torch.device
    needs: tuple[Medium, ...] = ("audio",)

    @torch.no_grad()
    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each second."""
        front_end = self.recipe.front_end
        frames = heard_seconds(media.sound(clip, front_end.sample_rate_hz), front_end)
        shape = (-1, 1, frames_per_second(front_end), frames.shape[1])
        patches = torch.from_numpy(frames).view(shape)
        logits, _ = self.network(patches.to(self.device))
        return Said(logits.float().sigmoid().cpu().numpy(), 1.0, 1.0)


def machine_labeller(
    run: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """A pre-training run as a labeller; UsageError where a teacher is asked for."""
    if network != "student":
        raise UsageError(f"{run}: learnt from labels by machine and has no teacher; leave it out")
    trained = load_machine_run(run)
    teacher = Teacher(run.resolve().name, file_sha256(run / WEIGHTS))
    return MachineLabeller(
        trained.network.to(device), trained.recipe, trained.labels, teacher, device
    )
