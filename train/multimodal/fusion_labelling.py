"""Soft labels of a run of li2018: of its sound alone, or of sound and pictures.

To `soundpost distil`, what hears alone is the run's "student", and what also sees its "teacher".
A clip that is longer than what the run was trained on is heard and seen in parts; see
soft_labelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from soundpost.train.backbones.download import file_sha256
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.fusion_evaluate import branch_of
from soundpost.train.multimodal.fusion_inputs import clip_frames
from soundpost.train.multimodal.fusion_judging import DECISION
from soundpost.train.multimodal.fusion_run import FusionRun, load_fusion_run
from soundpost.train.multimodal.mil_crnn import MilScores
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Labeller, Said, part_starts
from soundpost.train.multimodal.tagging_features import hash_of
from soundpost.train.multimodal.video_branch import VideoBranch, video_scores
from soundpost.train.run import WEIGHTS


@dataclass(frozen=True)
class FusionLabeller:
    """A run; branch is None where it only listens."""

    run: FusionRun
    teacher: Teacher
    device: torch.device
    branch: VideoBranch | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the run."""
        return self.run.labels

    @property
    def needs(self) -> tuple[Medium, ...]:
        """Sound, and pictures where it looks."""
        return ("audio",) if self.branch is None else ("audio", "video")

    @torch.no_grad()
    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each part of the length that the network was trained on."""
        recipe, decision = self.run.recipe, self.run.decision
        seconds, rate_hz = recipe.data.seconds, recipe.front_end.sample_rate_hz
        sound = media.sound(clip, rate_hz)
        starts_s, hop_s = part_starts(len(sound) / rate_hz, seconds)
        log_mel = np.stack(
            [
                clip_frames(sound[round(start * rate_hz) :], recipe.front_end, seconds)
                for start in starts_s
            ]
        )
        heard: MilScores = self.run.network(torch.from_numpy(log_mel).to(self.device))
        scores = heard.clips.float().sigmoid().cpu().numpy()
        if self.branch is not None:
            per_second = recipe.visual.frames_per_second
            pictures = media.pictures(clip, per_second)
            # Where the video ends before the sound, its last picture lasts.
            last = len(pictures) - 1
            rows = [
                self.branch.looked(pictures[min(round(start * per_second), last) :], seconds)
                for start in starts_s
            ]
            seen = video_scores(rows, decision.objects, decision.top_objects)
            scores = decision.fused(scores, seen)
        return Said(scores, hop_s, seconds)


def fusion_labeller(
    run: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """See soft_labelling.open_labeller; weights : as of fusion_evaluate.branch_of."""
    trained = load_fusion_run(run)
    trained.network.to(device)
    name, sha256 = run.resolve().name, file_sha256(run / WEIGHTS)
    if network == "student":
        return FusionLabeller(trained, Teacher(f"{name}, audio", sha256), device)
    # What it says rests on what was decided and on the networks that see, too.
    all_of_it = hash_of(sha256, file_sha256(run / DECISION), trained.backbones)
    branch = branch_of(trained, weights, device, quiet=quiet)
    return FusionLabeller(trained, Teacher(f"{name}, fused", all_of_it), device, branch)
