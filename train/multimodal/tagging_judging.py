"""Scores of tagging networks on held-out clips, and the figures that come of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from soundpost.device.features import FloatArray
from soundpost.train.checkpoint import save_arrays
from soundpost.train.multimodal.ensembles import TaggingFigures, tagging_figures
from soundpost.train.multimodal.tagging_sets import IntArray, TaggingSet, score_clips
from soundpost.train.run import SCORES


@dataclass(frozen=True)
class Judged:
    """Scores of one network, and the figures.

    clip_ids : of the rows of scores and truth, (n_clips, n_labels)
    """

    clip_ids: tuple[str, ...]
    labels: tuple[str, ...]
    scores: FloatArray
    truth: FloatArray
    figures: TaggingFigures

    def shares(self) -> dict[str, float]:
        """Share of the clips that have each label: the average precision of a guess."""
        return dict(zip(self.labels, self.truth.mean(0).tolist(), strict=True))


# By split ("validation", "test"), by network ("student", "teacher").
AllJudged = Mapping[str, Mapping[str, Judged]]


def judge_network(
    network: nn.Module, of: TaggingSet, clips: IntArray, device: torch.device, *, see: bool
) -> Judged:
    """Scores and figures of some clips of a set; InputError as `tagging_figures` raises it.

    see : show their pictures
    """
    scores = score_clips(network.to(device).eval(), of, clips, device, see=see)
    return judge_scores(scores, of, clips)


def judge_scores(scores: FloatArray, of: TaggingSet, clips: IntArray) -> Judged:
    """The same of scores that are known, (n_clips, n_labels)."""
    truth = of.targets[clips]
    figures = tagging_figures(scores, truth, of.labels)
    return Judged(tuple(of.clips[i].id for i in clips), of.labels, scores, truth, figures)


def figures_to_dict(judged: AllJudged) -> dict[str, Any]:
    """Figures as JSON, by split and network."""
    return {
        split: {who: dataclasses.asdict(one.figures) for who, one in of.items()}
        for split, of in judged.items()
    }


def write_scores(run: Path, judged: AllJudged) -> None:
    """scores.npz: `test_student_scores`, `_truth` (n_clips, n_labels) and `_clips`, and so on."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, of in judged.items():
        for who, one in of.items():
            arrays[f"{split}_{who}_scores"] = one.scores
            arrays[f"{split}_{who}_truth"] = one.truth
            arrays[f"{split}_{who}_clips"] = np.array(one.clip_ids, str)
    save_arrays(run / SCORES, arrays)
