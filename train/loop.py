"""The training loop: batches, loss, schedule, weight averaging, checkpoints."""

from __future__ import annotations

import copy
import ctypes
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from soundpost.device.files import write_atomically
from soundpost.train import augment
from soundpost.train.augment import Bank
from soundpost.train.checkpoint import (
    load_tensors,
    restore_training,
    save_tensors,
    training_tensors,
)
from soundpost.train.log_mel import LogMel
from soundpost.train.recipe import Recipe

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class TrainingData:
    """Windows are drawn from `real`; each alarm is laid over a window of `real`.

    alarms : None where the recipe synthesises none
    """

    real: Bank
    alarms: Bank | None


def keep_memory_mapped() -> None:
    """Let glibc reuse freed activations instead of returning them to the kernel.

    Every batch allocates and frees the same large blocks; mapped anew each time they cost a page
    fault per 4 kB, a quarter of a CPU training step. Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def draw_batch(
    data: TrainingData, clips: Tensor, recipe: Recipe, log_mel: LogMel, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented patches and targets of a batch.

    Parameters
    ----------
    clips : (n_batch,) indices; those past the real clips are alarms

    Returns
    -------
    patches : (n_batch, 1, patch_frames, n_mels)
    targets : (n_batch, n_labels), or (n_batch, 2 n_labels) where the clips have soft labels
    """
    settings = recipe.augment
    n_real = len(data.real.starts)
    real = clips[clips < n_real]
    samples, targets = augment.draw_windows(data.real, real, settings.speed, generator)
    samples, targets = augment.mix(samples, targets, settings, generator)
    if data.alarms is not None and len(real) < len(clips):
        alarms = clips[clips >= n_real] - n_real
        # An alarm's pitch and tempo are what it is: they are varied when it is synthesised.
        beeps, beep_targets = augment.draw_windows(data.alarms, alarms, 1.02, generator)
        under = torch.randint(
            0, n_real, (len(alarms),), generator=generator, device=generator.device
        )
        ground, ground_targets = augment.draw_windows(data.real, under, settings.speed, generator)
        low, high = recipe.data.alarm_snr_db
        snr = augment._uniform(len(alarms), low, high, generator)[:, None]
        level = augment._rms(beeps) / augment._rms(ground) * 10 ** (-snr / 20)
        # A ground far below the alarm cannot be heard, and is not asked for.
        heard = ((20 - snr) / 20).clamp(0, 1)
        samples = torch.cat([samples, beeps + level * ground])
        targets = torch.cat([targets, torch.maximum(beep_targets, heard * ground_targets)])
    samples = augment.add_noise(samples, settings, generator)
    samples = augment.random_gain(samples, settings, generator)
    gain = augment.random_filter(len(samples), recipe.front_end.n_mels, settings, generator)
    patches = log_mel(samples, gain)
    return augment.mask(patches, settings, generator), targets


def loss_of(logits: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Sigmoid cross entropy over all classes (jia2019, eq. 1) plus a weighted softmax one.

    The sigmoid term is summed over classes, so that its gradient per class does not shrink with
    their number. The softmax term ranks classes against each other; it counts only where
    something is labelled, in proportion to how much.
    """
    smoothing = recipe.training.label_smoothing
    soft = targets * (1 - smoothing) + smoothing / targets.shape[1]
    binary = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    loss = binary.sum(1).mean()
    if recipe.training.softmax_weight:
        total = targets.sum(1, keepdim=True)
        shares = targets / total.clamp(min=1e-6)
        shares = shares * (1 - smoothing) + smoothing / targets.shape[1]
        softmax = -(shares * logits.log_softmax(1)).sum(1)
        loss = loss + recipe.training.softmax_weight * (softmax * total[:, 0].clamp(max=1)).mean()
    return loss


def learning_rate_of(recipe: Recipe, epoch: float) -> float:
    """Learning rate at a moment, in epochs since the start."""
    training = recipe.training
    warm = min(1.0, (epoch + 1e-3) / training.warmup_epochs) if training.warmup_epochs else 1.0
    if training.schedule == "exponential":
        return training.learning_rate * warm * float(training.decay ** int(epoch))
    return training.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * epoch / training.epochs))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and of batch-norm statistics.

    Early on the decay is lower, so that the average forgets the random start.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def fit(
    network: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    device: torch.device,
    evaluate: Any,
    *,
    criterion: Callable[[Tensor, Tensor, Recipe], Tensor] = loss_of,
    told: Callable[[Tensor, Tensor], Tensor] | None = None,
    quiet: bool = False,
) -> nn.Module:
    """Train a network, going on from the run's last checkpoint.

    evaluate : called with the averaged network every report_every epochs, returns metrics
    criterion : loss of logits and of targets
    told : of a batch's patches and targets, the targets that the criterion takes; those of
        draw_batch by default
    Returns the averaged network. One line of metrics per epoch goes to metrics.jsonl.
    """
    if device.type == "cpu":
        keep_memory_mapped()
    training = recipe.training
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    decaying = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [
            {"params": decaying, "weight_decay": training.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
    )
    checkpoint = run / CHECKPOINT
    first, step = 0, 0
    if checkpoint.is_file():
        tensors, notes = load_tensors(checkpoint)
        restore_training(tensors, network, average, optimiser)
        first, step = notes["epoch"] + 1, notes["step"]
    cut_metrics(run / METRICS, first)
    forward = torch.compile(network) if training.compile else network
    log_mel = LogMel(recipe.front_end).to(device)
    real, alarms = data.real.to(device), data.alarms.to(device) if data.alarms else None
    data = TrainingData(real, alarms)
    n_clips = len(real.starts) * training.crops_per_clip
    n_alarms = round(n_clips * recipe.data.alarm_share) if alarms else 0
    n_steps = (n_clips + n_alarms) // training.batch_size
    bar = tqdm(
        total=training.epochs * n_steps,
        initial=first * n_steps,
        desc="training",
        unit="batch",
        disable=quiet,
        smoothing=0.05,
    )
    for epoch in range(first, training.epochs):
        # Seeded by epoch: a resumed run draws what the uninterrupted one would have drawn.
        generator = torch.Generator(device).manual_seed(training.seed * 100_003 + epoch)
        torch.manual_seed(training.seed * 100_003 + epoch)
        order = torch.randperm(n_clips + n_alarms, generator=generator, device=device)
        if alarms:
            any_alarm = torch.randint(
                0, len(alarms.starts), order.shape, generator=generator, device=device
            )
            order = torch.where(
                order < n_clips, order % len(real.starts), len(real.starts) + any_alarm
            )
        else:
            order = order % len(real.starts)
        started, total = time.monotonic(), 0.0
        network.train()
        for i in range(n_steps):
            rate = learning_rate_of(recipe, epoch + i / n_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            clips = order[i * training.batch_size : (i + 1) * training.batch_size]
            patches, targets = draw_batch(data, clips, recipe, log_mel, generator)
            patches = patches.contiguous(memory_format=torch.channels_last)
            if told is not None:
                targets = told(patches, targets)
            with torch.autocast(device.type, torch.bfloat16):
                logits, _ = forward(patches)
            loss = criterion(logits.float(), targets, recipe)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            update_average(average, network, training.average_decay, step)
            total += loss.item()
            bar.update()
        seconds = time.monotonic() - started
        line: dict[str, Any] = {
            "epoch": epoch,
            "loss": round(total / max(1, n_steps), 5),
            "learning_rate": rate,
            "clips_per_s": round(n_steps * training.batch_size / seconds, 1),
        }
        if (epoch + 1) % training.report_every == 0 or epoch + 1 == training.epochs:
            line |= evaluate(average)
        bar.set_postfix({"epoch": epoch + 1, "loss": line["loss"], "clips/s": line["clips_per_s"]})
        with (run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        save_tensors(
            checkpoint,
            training_tensors(network, average, optimiser),
            {"epoch": epoch, "step": step},
        )
    bar.close()
    return average.eval()


def cut_metrics(path: Path, epochs: int) -> None:
    """Drop the lines of epochs that the checkpoint does not hold (killed between the two)."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()[:epochs]
        write_atomically(path, "".join(line + "\n" for line in lines).encode())


@torch.no_grad()
def score_patches(
    network: nn.Module,
    patches: NDArray[np.float32],
    device: torch.device,
    batch: int = 256,
    *,
    bfloat16: bool = False,
) -> NDArray[np.float32]:
    """Logits of many patches.

    Parameters
    ----------
    patches : (n, n_frames, n_mels)
    bfloat16 : as in training; several times as fast on some CPUs

    Returns
    -------
    (n, n_labels), clamped as the exported model clamps them
    """
    network.eval()
    out = []
    for start in range(0, len(patches), batch):
        part = torch.from_numpy(patches[start : start + batch]).unsqueeze(1).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits, _ = network(part.contiguous(memory_format=torch.channels_last))
        out.append(logits.float().clamp(-8.0, 8.0).cpu().numpy())
    return np.concatenate(out)
