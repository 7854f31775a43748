"""Runs of a transfer judged again, or the mean of several; and as labellers of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.multimodal.clip_media import ClipMedia, read_media_set
from soundpost.train.multimodal.ensembles import average_scores
from soundpost.train.multimodal.recognition import Recognition, recognise
from soundpost.train.multimodal.second_features import frames_per_second, heard_seconds
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Labeller, Said, part_starts
from soundpost.train.multimodal.transfer import FloatArray, repeated, score_inputs
from soundpost.train.multimodal.transfer_run import (
    TransferRun,
    TransferSet,
    load_transfer_run,
    open_transfer_set,
)
from soundpost.train.run import WEIGHTS


def evaluate_transfer(
    runs: Sequence[Path],
    folder: Path,
    device: torch.device,
    *,
    part: str = "test",
    audio: str = "",
    video: str = "",
    quiet: bool = False,
) -> Recognition:
    """Judge the mean of the scores of runs on one data set.

    Parameters
    ----------
    part : "test" or "validation", the splits that each run calls so
    audio, video : where sound and video lie, if not below the folder

    Raises
    ------
    InputError
        A run is not finished, or has other labels or clips than the first.
    UsageError
        A run has no such part.
    """
    scores: list[FloatArray] = []
    first: TransferSet | None = None
    for path in runs:
        run = load_transfer_run(path)
        of = _open_part(run, folder, part, audio, video, quiet)
        first = first or of
        if (of.labels, of.clips) != (first.labels, first.clips) or of.labels != run.labels:
            raise InputError(
                f"{path}: its {part} clips or labels are not those of {runs[0]} in {folder}; "
                "average runs that hold out the same clips"
            )
        numbers = np.arange(len(of.clips))
        network, one = run.network.to(device), run.recipe.data.one
        scores.append(score_inputs(network, of.inputs, numbers, device, one=one))
    if first is None:
        raise UsageError("there is no run to judge; give one or more")
    ids = [clip.id for clip in first.clips]
    return recognise(ids, first.labels, average_scores(scores), first.targets)


def _open_part(
    run: TransferRun, folder: Path, part: str, audio: str, video: str, quiet: bool
) -> TransferSet:
    data = replace(run.recipe.data, audio=audio, video=video)
    splits = {"test": data.test, "validation": data.validation}[part]
    if not splits:
        raise UsageError(f"{run.folder}: was trained without {part} clips; leave --part out")
    read = read_media_set(data.kind, data.folders(folder), refuse=not data.skip)
    return open_transfer_set(run.recipe, read, folder, splits, quiet=quiet)


@dataclass(frozen=True)
class TransferLabeller:
    """The network of a run: it hears as many seconds at a time as it was trained on."""

    run: TransferRun
    teacher: Teacher
    device: torch.device
    needs: tuple[Medium, ...] = ("audio",)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the run."""
        return self.run.labels

    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each part of the length that the network was trained on."""
        recipe = self.run.recipe
        front_end, seconds = recipe.front_end, recipe.data.seconds
        rate_hz = front_end.sample_rate_hz
        sound = media.sound(clip, rate_hz)
        starts_s, hop_s = part_starts(len(sound) / rate_hz, seconds)
        parts = []
        for start_s in starts_s:
            frames = heard_seconds(sound[round(start_s * rate_hz) :], front_end)
            own = frames.reshape(-1, frames_per_second(front_end), frames.shape[1])
            parts.append(own[repeated(len(own), seconds)])
        inputs = np.stack(parts)
        scores = score_inputs(
            self.run.network, lambda chosen: inputs[chosen], np.arange(len(inputs)), self.device,
            one=recipe.data.one,
        )  # fmt: skip
        return Said(scores, hop_s, float(seconds))


def transfer_labeller(
    run: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """A run as a labeller; UsageError where a teacher is asked for."""
    if network != "student":
        raise UsageError(f"{run}: is a run of a transfer, which has no teacher; leave it out")
    trained = load_transfer_run(run)
    trained.network.to(device)
    return TransferLabeller(
        trained, Teacher(run.resolve().name, file_sha256(run / WEIGHTS)), device
    )
