"""A run of perez2020 in `soundpost distil`: what it says of a set's clips, by seconds.

A teacher says something of every second, which is what it was shown in training; a student of every
five, overlapping where a clip's length asks for it. Probabilities are a softmax's: of a clip's
actions one, however many sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.frame_input import crop_frames
from soundpost.train.backbones.temporal_resnet import spread_frames
from soundpost.train.backbones.waveform import CLIP_S, SAMPLE_RATE_HZ, student_waveform
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.multimodal.action_networks import (
    INPUTS,
    STUDENTS,
    TEACHER_CLIP_S,
    InputKind,
    as_input,
    frame_input,
)
from soundpost.train.multimodal.action_recipe import WeightsSettings
from soundpost.train.multimodal.action_run import ActionRun, load_action_run, open_visual_of
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.generalised import mean_logits
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Labeller, Said, part_starts
from soundpost.train.multimodal.tagging_features import VisualInput
from soundpost.train.run import WEIGHTS

_MEDIA: dict[InputKind, Medium] = {
    "images": "images",
    "pictures": "video",
    "frames": "video",
    "sound": "audio",
}
# Parts of a clip that a network takes at a time.
_AT_ONCE = 16


@dataclass(frozen=True)
class ActionLabeller:
    """A network of a run of perez2020.

    visual : what makes embeddings of pictures, where it takes some
    """

    run: ActionRun
    teacher: Teacher
    device: torch.device
    visual: VisualInput | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the run."""
        return self.run.labels

    @property
    def needs(self) -> tuple[Medium, ...]:
        """What its network takes."""
        kinds = INPUTS[self.run.recipe.model.network]
        return tuple(dict.fromkeys(_MEDIA[kind] for kind in kinds))

    @torch.no_grad()
    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each second, of a student for each five.

        Raises InputError where a clip is shorter than the second that a teacher is shown.
        """
        name = self.run.recipe.model.network
        part_s = CLIP_S if name in STUDENTS else TEACHER_CLIP_S
        rows, hop_s = [], part_s
        for kind in INPUTS[name]:
            row, hop_s = self._parts(kind, clip, media, part_s)
            rows.append(row)
        said = [
            mean_logits(self.run.network(*(row[i : i + _AT_ONCE].to(self.device) for row in rows)))
            for i in range(0, len(rows[0]), _AT_ONCE)
        ]
        scores = torch.cat(said).float().softmax(1)
        return Said(scores.cpu().numpy(), hop_s, part_s)

    def _parts(
        self, kind: InputKind, clip: MediaClip, media: ClipMedia, part_s: float
    ) -> tuple[Tensor, float]:
        """What the network takes of each part of a clip, and the parts' distance in seconds."""
        if kind == "sound":
            sound = media.sound(clip, SAMPLE_RATE_HZ)
            starts_s, hop_s = part_starts(len(sound) / SAMPLE_RATE_HZ, part_s)
            heard = [
                student_waveform(sound[round(start * SAMPLE_RATE_HZ) :], SAMPLE_RATE_HZ)
                for start in starts_s
            ]
            return torch.from_numpy(np.stack(heard)), hop_s
        if kind == "images":
            frames = torch.from_numpy(media.images(clip))
        else:
            frames = torch.from_numpy(media.pictures(clip, FRAMES_PER_SECOND))
            if kind == "pictures":
                assert self.visual is not None
                frames = torch.from_numpy(self.visual.vectors(frames.numpy()))
            else:
                frames = crop_frames(frames, frame_input(self.run.recipe.model.frame_px))
        n = round(part_s * FRAMES_PER_SECOND)
        if len(frames) < n:
            raise InputError(
                f"{clip.source or clip.id}: clip {clip.id} has {len(frames)} frames; expected "
                f"{n} or more, for {self.teacher.name} is shown {part_s:g} s: leave the clip out"
            )
        starts_s, hop_s = part_starts(len(frames) / FRAMES_PER_SECOND, part_s)
        firsts = [round(start * FRAMES_PER_SECOND) for start in starts_s]
        of_part = spread_frames(n) if kind == "frames" else range(n)
        chosen = [[first + i for i in of_part] for first in firsts]
        return as_input(frames[torch.tensor(chosen)]), hop_s


def action_labeller(
    folder: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """See soft_labelling.open_labeller; of perez2020."""
    if network != "student":
        raise UsageError(
            f"{folder}: a run of perez2020 has one network, be it a teacher; leave --network out"
        )
    run = load_action_run(folder)
    places = WeightsSettings(run.recipe.weights.backbone, weights)
    visual = open_visual_of(run, places, device, quiet=quiet)
    run.network.to(device)
    teacher = Teacher(folder.resolve().name, file_sha256(folder / WEIGHTS))
    return ActionLabeller(run, teacher, device, visual)
