"""The training loop of joint tagging and detection: epochs, checkpoints, validation."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.train.checkpoint import (
    load_tensors,
    restore_training,
    save_tensors,
    training_tensors,
)
from soundpost.train.loop import (
    CHECKPOINT,
    METRICS,
    cut_metrics,
    keep_memory_mapped,
    update_average,
)
from soundpost.train.sed.method import Objective
from soundpost.train.sed.networks import TaggingDetectionNetwork, TeacherStudent
from soundpost.train.sed.recipe import DetectionRecipe, FitSettings
from soundpost.train.sed.scenes import SceneBatch

FloatArray = NDArray[np.float32]


class EpochSource(Protocol):
    """Where batches come from.

    The same number gives the same batches, in the same order, in any process: a resumed run then
    sees what an uninterrupted one would have seen.
    """

    def epoch(self, number: int) -> Iterator[SceneBatch]:
        """Batches of epoch `number`, from 0."""
        ...


# Figures from frame scores (n_scenes, n_frames, n_labels) and clip scores (n_scenes, n_labels),
# in the order of the validation batches.
Judge = Callable[[FloatArray, FloatArray], dict[str, Any]]


@dataclass(frozen=True)
class Validation:
    """Scenes that are judged while training; batches can be walked through again and again."""

    batches: Iterable[SceneBatch]
    judge: Judge


def to_device(batch: SceneBatch, device: torch.device) -> SceneBatch:
    """The batch with its tensors on a device."""
    if device.type == "cpu":
        return batch
    names = ("log_mel", "frame_targets", "clip_targets", "has_frames", "has_tags")
    return replace(
        batch, **{name: getattr(batch, name).to(device, non_blocking=True) for name in names}
    )


def learning_rate_of(training: FitSettings, epoch: int) -> float:
    """Learning rate of an epoch, from 0."""
    return training.learning_rate * float(training.decay ** (epoch // training.decay_epochs))


@torch.no_grad()
def score_scenes(
    network: TaggingDetectionNetwork, batches: Iterable[SceneBatch], device: torch.device
) -> tuple[FloatArray, FloatArray]:
    """Frame scores (n_scenes, n_frames, n_labels) and clip scores (n_scenes, n_labels).

    Raises InputError where there is no scene.
    """
    training = network.training
    network.eval()
    frames, clips = [], []
    for batch in batches:
        scores = network(batch.log_mel.to(device))
        frames.append(scores.frames.float().cpu().numpy())
        clips.append(scores.clips.float().cpu().numpy())
    network.train(training)
    if not frames:
        raise InputError("the set to be judged is empty; keep some scenes for validation")
    return np.concatenate(frames), np.concatenate(clips)


def fit_pair(
    recipe: DetectionRecipe,
    n_labels: int,
    data: EpochSource,
    run: Path,
    device: torch.device,
    *,
    validation: Validation | None = None,
    n_steps: int | None = None,
    quiet: bool = False,
) -> TeacherStudent:
    """Train teacher and student, going on from the run's last checkpoint.

    Parameters
    ----------
    run : existing folder; gets metrics.jsonl, a line for each epoch, and a checkpoint
    n_steps : batches in an epoch, for the progress bar's estimate; learnt from the first epoch

    Returns
    -------
    TeacherStudent, for evaluation; its teacher is None where it was the student's average

    Raises InputError where an epoch has no batch or the loss is no number any more.
    """
    if device.type == "cpu":
        keep_memory_mapped()
    training = recipe.training
    torch.manual_seed(training.seed)
    objective = Objective(recipe, n_labels).to(device)
    objective.pair.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = objective.average
    optimiser = torch.optim.Adam(objective.pair.parameters(), lr=training.learning_rate)
    checkpoint = run / CHECKPOINT
    first, step = 0, 0
    if checkpoint.is_file():
        tensors, notes = load_tensors(checkpoint)
        restore_training(tensors, objective.pair, average, optimiser)
        first, step = notes["epoch"] + 1, notes["step"]
        n_steps = n_steps or step // first
    cut_metrics(run / METRICS, first)
    bar = _Bar(training.epochs, first, n_steps, quiet)
    for epoch in range(first, training.epochs):
        # Seeded by epoch: dropout and noise of a resumed run are those of the uninterrupted one.
        torch.manual_seed(training.seed * 100_003 + epoch)
        rate = learning_rate_of(training, epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
        started, n_clips, in_epoch = time.monotonic(), 0, 0
        sums: dict[str, float] = defaultdict(float)
        objective.train()
        for batch in data.epoch(epoch):
            on_device = to_device(batch, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=training.bfloat16):
                terms = objective.losses(on_device, epoch)
            if not torch.isfinite(terms["loss"]):
                raise InputError(
                    f"{run}: the loss of epoch {epoch + 1} is no number; "
                    "set training.learning_rate lower and give another --out"
                )
            optimiser.zero_grad(set_to_none=True)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            in_epoch += 1
            n_clips += len(batch.log_mel)
            if recipe.method.kind == "mean_teacher":
                update_average(average, objective.pair.student, recipe.method.average_decay, step)
            for name, value in terms.items():
                sums[name] += float(value.detach())
            bar.update()
        if in_epoch == 0:
            raise InputError(f"{run}: epoch {epoch + 1} has no batch; give more scenes to train on")
        bar.learn(in_epoch)
        line: dict[str, Any] = {"epoch": epoch}
        line |= {name: round(total / in_epoch, 6) for name, total in sums.items()}
        line["learning_rate"] = rate
        line["clips_per_s"] = round(n_clips / (time.monotonic() - started), 2)
        if validation is not None and (
            (epoch + 1) % training.report_every == 0 or epoch + 1 == training.epochs
        ):
            line |= validation.judge(
                *score_scenes(objective.pair.student, validation.batches, device)
            )
        bar.say({"epoch": epoch + 1, "loss": line["loss"], "clips/s": line["clips_per_s"]})
        with (run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        save_tensors(
            checkpoint,
            training_tensors(objective.pair, average, optimiser),
            {"epoch": epoch, "step": step},
        )
    bar.close()
    pair: nn.Module = objective.pair.eval()
    assert isinstance(pair, TeacherStudent)
    return pair


class _Bar:
    """Progress in batches once an epoch's number of them is known, with the time that is left."""

    def __init__(self, epochs: int, first: int, n_steps: int | None, quiet: bool) -> None:
        self.epochs, self.n_steps = epochs, n_steps
        self.bar = tqdm(
            total=epochs * n_steps if n_steps else None,
            initial=first * n_steps if n_steps else 0,
            desc="training",
            unit="batch",
            disable=quiet,
            smoothing=0.05,
        )

    def learn(self, n_steps: int) -> None:
        if self.n_steps is None:
            self.n_steps = n_steps
            self.bar.total = self.epochs * n_steps

    def update(self) -> None:
        self.bar.update()

    def say(self, words: dict[str, Any]) -> None:
        self.bar.set_postfix(words)

    def close(self) -> None:
        self.bar.close()
