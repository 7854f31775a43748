"""Distilling a frame-wise teacher into the streaming student.

The teacher of liang2021 hears ten seconds at once, and both ways; the student may not. It learns
from the teacher's posteriors of every frame, labelled or not, and where a recording is strongly
labelled from its events too:

    L = (1 - w) BCE(labels, student) + w BCE(teacher, student)

with w = `teacher_weight`, the first term being the mean over frames of strongly labelled recordings
and the second over all (BCE with soft targets, as in Hinton's distillation at temperature 1). A
batch without labelled frames has the second term alone, weighted the same.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from soundpost.device.errors import ConfigError, InputError
from soundpost.device.features import FrontEnd
from soundpost.device.files import write_atomically
from soundpost.train.checkpoint import (
    load_tensors,
    load_weights,
    restore_training,
    save_tensors,
    training_tensors,
)
from soundpost.train.loop import METRICS, cut_metrics
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

CHECKPOINT, WEIGHTS, SETTINGS = "checkpoint.safetensors", "model.safetensors", "student.json"


@dataclass(frozen=True)
class DistilSettings:
    """How the student learns.

    epochs : passes over the batches
    learning_rate : highest, of Adam; warmed up over `warmup_steps`, then a half cosine to zero
    teacher_weight : w of the loss, 0 (labels alone) to 1 (teacher alone)
    average_decay : of the moving average of the weights, which is what is kept
    clip_norm : of the gradient; a GRU's explodes now and then
    seed : of initial weights and dropout
    """

    epochs: int = 30
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-4
    teacher_weight: float = 0.5
    average_decay: float = 0.99
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.teacher_weight <= 1.0:
            raise ConfigError(f"distil: teacher_weight {self.teacher_weight}: expected 0 to 1")
        if self.epochs < 1:
            raise ConfigError(f"distil: epochs {self.epochs}: expected 1 or more")


@dataclass(frozen=True)
class DistilBatch:
    """Recordings of equal length.

    log_mel : (n_scenes, n_frames, n_mels)
    teacher : (n_scenes, n_frames, n_labels) posteriors, 0 to 1
    frame_targets : (n_scenes, n_frames, n_labels), counted where has_frames
    has_frames : (n_scenes,) bool: whether a recording is strongly labelled
    """

    log_mel: Tensor
    teacher: Tensor
    frame_targets: Tensor
    has_frames: Tensor


# Batches of an epoch: the same ones whenever the same epoch is asked for, so that a run resumes.
Batches = Callable[[int], Iterable[DistilBatch]]


def distil_loss(logits: Tensor, batch: DistilBatch, teacher_weight: float) -> Tensor:
    """The loss above of logits (n_scenes, n_frames, n_labels)."""
    soft = functional.binary_cross_entropy_with_logits(logits, batch.teacher)
    loss = teacher_weight * soft
    if bool(batch.has_frames.any()):
        hard = functional.binary_cross_entropy_with_logits(
            logits[batch.has_frames], batch.frame_targets[batch.has_frames]
        )
        loss = loss + (1.0 - teacher_weight) * hard
    return loss


@dataclass(frozen=True)
class StreamingStudent:
    """A trained student with what its scores mean."""

    network: StreamingCRNN
    labels: tuple[str, ...]
    front_end: FrontEnd


def distil(
    labels: tuple[str, ...],
    batches: Batches,
    settings: DistilSettings,
    folder: Path,
    *,
    shape: StreamingSettings | None = None,
    front_end: FrontEnd | None = None,
    n_batches: int | None = None,
    device: torch.device | str = "cpu",
    told: Callable[[int, float], None] | None = None,
) -> StreamingStudent:
    """Train a student, or go on with one that was interrupted; deterministic on one device.

    Parameters
    ----------
    labels : of the teacher's columns
    batches : those of each epoch, from 0 on
    folder : gets a checkpoint and a line in metrics.jsonl after every epoch, and the student at the
        end; one that holds a
        checkpoint of the same settings is gone on with, and gives what an uninterrupted run gives
    n_batches : of an epoch, for the learning rate; without it, all of an epoch's are made first
    told : called with epoch and mean loss

    Raises InputError where the folder holds a run of other settings.
    """
    shape, front_end = shape or StreamingSettings(), front_end or FrontEnd()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = StreamingCRNN(len(labels), shape, front_end).to(device)
    # A step takes two thirds of the time so: the maps of few channels are wide.
    network.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    # As JSON gives it back, to compare with what a checkpoint says.
    identity: dict[str, Any] = json.loads(
        json.dumps(
            {
                "labels": labels,
                "front_end": front_end.hash(),
                "shape": asdict(shape),
                "settings": asdict(settings),
            }
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    first, step = 0, 0
    if (folder / CHECKPOINT).exists():
        tensors, notes = load_tensors(folder / CHECKPOINT)
        if notes.get("identity") != identity:
            raise InputError(
                f"{folder}: holds a student of other labels or settings; give another folder, or "
                "delete it to start again"
            )
        restore_training(tensors, network, average, optimiser)
        first, step = int(notes["epochs"]), int(notes["steps"])
    cut_metrics(folder / METRICS, first)
    for epoch in range(first, settings.epochs):
        # Dropout of an epoch depends on seed and epoch alone: an interrupted run sees the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed * 1_000_003 + epoch + 1)
            losses = []
            network.train()
            todo = batches(epoch)
            of_epoch = n_batches
            if of_epoch is None:
                todo = made = list(todo)
                of_epoch = len(made)
            for index, batch in enumerate(todo):
                done = (epoch + index / of_epoch) / settings.epochs
                rate = settings.learning_rate * _rate(step, done, settings.warmup_steps)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                batch = _on(batch, device)
                loss = distil_loss(
                    network.forward_sequence(batch.log_mel), batch, settings.teacher_weight
                )
                if not torch.isfinite(loss):
                    raise InputError(
                        f"{folder}: the loss of epoch {epoch + 1} is no number; set "
                        "training.learning_rate lower and give another --out"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
                optimiser.step()
                step += 1
                _follow(average, network, min(settings.average_decay, step / (step + 10)))
                losses.append(float(loss.detach()))
        mean = sum(losses) / max(1, len(losses))
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "loss": round(mean, 6)}) + "\n")
        notes = {"identity": identity, "epochs": epoch + 1, "steps": step}
        save_tensors(folder / CHECKPOINT, training_tensors(network, average, optimiser), notes)
        if told is not None:
            told(epoch, mean)
    student = StreamingStudent(average.eval().to("cpu"), labels, front_end)
    # A finished run that is asked for again stays as it is: its time is the bundle's.
    if first < settings.epochs or not (folder / WEIGHTS).is_file():
        save_student(student, folder)
    return student


def _rate(step: int, done: float, warmup_steps: int) -> float:
    """Share of the highest learning rate."""
    return min(1.0, (step + 1) / max(1, warmup_steps)) * 0.5 * (1 + math.cos(math.pi * done))


def _on(batch: DistilBatch, device: torch.device | str) -> DistilBatch:
    return DistilBatch(
        batch.log_mel.to(device),
        batch.teacher.to(device),
        batch.frame_targets.to(device),
        batch.has_frames.to(device),
    )


def _follow(average: StreamingCRNN, network: StreamingCRNN, decay: float) -> None:
    """Moving average of weights; running statistics of the normalisation are averages already."""
    with torch.no_grad():
        for mean, new in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(new, 1.0 - decay)
        for kept, latest in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(latest)


def save_student(student: StreamingStudent, folder: Path) -> None:
    """Write weights and what they mean."""
    table = {
        "labels": student.labels,
        "front_end": student.front_end.to_dict(),
        "shape": asdict(student.network.settings),
    }
    save_tensors(folder / WEIGHTS, student.network.state_dict(), {})
    write_atomically(folder / SETTINGS, f"{json.dumps(table, indent=1)}\n".encode())


def load_student(folder: Path) -> StreamingStudent:
    """Read what save_student wrote; raises InputError on anything else."""
    path = folder / SETTINGS
    try:
        table = json.loads(path.read_bytes())
        shape = dict(table["shape"])
        for name in ("channels", "pools"):
            shape[name] = tuple(shape[name])
        front_end = FrontEnd.from_dict(table["front_end"])
        labels = tuple(str(label) for label in table["labels"])
        network = StreamingCRNN(len(labels), StreamingSettings(**shape), front_end)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no streaming student ({error}); give the folder of a finished run"
        ) from error
    load_weights(network, folder / WEIGHTS)
    return StreamingStudent(network.eval(), labels, front_end)
