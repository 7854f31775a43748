"""One training loop for every method: stages, checkpoints, exact resume.

A run has the epochs of all of its method's stages, one stage after the other; each stage begins
with an optimiser of its own. After each epoch the method and the stage's optimiser are written
aside and renamed. What an epoch draws follows from its number and the seed, so that a run that was
killed goes on to the curve and the weights that it would have reached.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.checkpoint import (
    load_tensors,
    load_weights,
    restore_training,
    save_tensors,
    training_tensors,
)
from soundpost.train.loop import CHECKPOINT, METRICS, cut_metrics, keep_memory_mapped
from soundpost.train.multimodal.method import BatchT, Method, Stage, train_step
from soundpost.train.recipe import check_all
from soundpost.train.sed.batches import prefetch

T = TypeVar("T")
# The best weights of the running stage, and what may be kept of it.
BEST = "best.safetensors"
KEPT = ("last", "best")
# A line of metrics.jsonl.
Line = Mapping[str, Any]
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Optimisation(Protocol):
    """What the loop asks of a recipe: how long, and by which steps.

    epochs, bfloat16, report_every, seed : as of FitSettings
    """

    @property
    def epochs(self) -> int:
        """Of a stage with share 1."""
        ...

    @property
    def bfloat16(self) -> bool:
        """Mixed precision."""
        ...

    @property
    def report_every(self) -> int:
        """Epochs between two judgements."""
        ...

    @property
    def seed(self) -> int:
        """Of what an epoch draws."""
        ...

    def optimiser(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Of a stage."""
        ...

    def limit_gradients(self, weights: list[nn.Parameter]) -> None:
        """Clip them, or not; called before each step."""
        ...

    def learning_rate_of(self, epoch: int, earlier: Sequence[Line] = ()) -> float:
        """Learning rate of a stage's epoch, from 0.

        earlier : what metrics.jsonl says of the stage's epochs before it. Nothing else may decide,
            so that a run that was stopped goes on with the rate that it would have had.
        """
        ...


@dataclass(frozen=True)
class FitSettings:
    """Optimisation: Adam, as most papers have it.

    epochs : of a stage with share 1; one with another takes that share of them, and one at least
    decay : factor on the learning rate after every decay_epochs, counted from the stage's begin
    bfloat16 : mixed precision
    report_every : epochs between two judgements; the last epoch of a stage is always judged
    keep : the weights of a stage's "last" epoch, or those of the "best" that was judged on the
        validation clips
    """

    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3
    decay: float = 1.0
    decay_epochs: int = 1
    bfloat16: bool = False
    report_every: int = 5
    keep: str = "last"
    seed: int = 0

    def check(self, where: str) -> None:
        """Raise ConfigError for a value outside its range."""
        rows = [
            (value >= low, f"training.{name}", value, f"at least {low}")
            for name, value, low in (
                ("epochs", self.epochs, 1),
                # A batch normalisation of a single clip would train on itself alone.
                ("batch_size", self.batch_size, 2),
                ("decay_epochs", self.decay_epochs, 1),
                ("report_every", self.report_every, 1),
                ("seed", self.seed, 0),
            )
        ]
        rate = self.learning_rate
        check_all(
            [
                *rows,
                (rate > 0, "training.learning_rate", rate, "above 0"),
                (0 < self.decay <= 1, "training.decay", self.decay, "above 0, up to 1"),
                (self.keep in KEPT, "training.keep", self.keep, " or ".join(KEPT)),
            ],
            where,
        )

    def best_by(self, score: str, *, validated: bool) -> Callable[[Stage], str] | None:
        """What `fit_method` takes as best_by, None where the last weights are kept.

        Parameters
        ----------
        score : of a line of metrics.jsonl; {} in it stands for the network that a stage trains
        validated : whether there are clips to choose by

        Raises ConfigError where there are none and the best weights are asked for.
        """
        if self.keep == "last":
            return None
        if not validated:
            raise ConfigError(
                "training.keep = best needs clips to choose by that are not those to be judged on: "
                "name some in data.validation, or set training.keep=last"
            )
        return lambda stage: score.format("student" if "student" in stage.trains else "teacher")

    def optimiser(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """See Optimisation."""
        return torch.optim.Adam(weights, lr=self.learning_rate)

    def limit_gradients(self, weights: list[nn.Parameter]) -> None:
        """Gradients are as they are."""

    def learning_rate_of(self, epoch: int, earlier: Sequence[Line] = ()) -> float:
        """Learning rate of a stage's epoch, from 0; it follows from the number alone."""
        return self.learning_rate * float(self.decay ** (epoch // self.decay_epochs))


class EpochSource(Protocol[BatchT_co]):
    """Where batches come from: the same of an epoch and a number, in any process.

    batch_size : clips in a batch; n_batches : batches in an epoch
    """

    @property
    def n_batches(self) -> int:
        """Batches in an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Clips in a batch."""
        ...

    def batch(self, epoch: int, number: int) -> BatchT_co:
        """Batch `number` of epoch `epoch`, both from 0; on the CPU."""
        ...


# Figures of a method as it is, for metrics.jsonl.
Judge = Callable[[Stage], dict[str, Any]]


def stage_epochs(method: Method[Any], epochs: int) -> list[tuple[Stage, int]]:
    """Stages in their order, each with its number of epochs."""
    return [(stage, max(1, round(stage.share * epochs))) for stage in method.stages]


def to_device(batch: T, device: torch.device) -> T:
    """A batch with its tensors on a device; batches are tuples of tensors, tuples and None."""
    moved: Any = batch
    if isinstance(batch, Tensor):
        moved = batch.to(device, non_blocking=True)
    elif isinstance(batch, tuple):
        parts = [to_device(part, device) for part in batch]
        moved = type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    whole: T = moved
    return whole


def fit_method(
    method: Method[BatchT],
    source: EpochSource[BatchT],
    settings: Optimisation,
    run: Path,
    device: torch.device,
    *,
    judge: Judge | None = None,
    best_by: Callable[[Stage], str] | None = None,
    quiet: bool = False,
) -> None:
    """Train a method in place, going on from the run's last checkpoint.

    Parameters
    ----------
    method : as it was drawn; its networks are left in evaluation mode, on the device
    run : existing folder; gets metrics.jsonl, a line for each epoch, and a checkpoint
    judge : called every report_every epochs and after each stage, with all in evaluation mode
    best_by : of a stage, which of its judge's figures decides what its networks are after it: those
        of the epoch where it was highest, of equal ones the first; by default those of the last

    Raises InputError where the loss is no number any more, or the checkpoint is of another method.
    """
    if device.type == "cpu":
        keep_memory_mapped()
    method.to(device)
    for weight in method.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    stages = stage_epochs(method, settings.epochs)
    tensors, done = _last_checkpoint(run)
    cut_metrics(run / METRICS, done)
    lines = _read_lines(run / METRICS)
    with tqdm(
        total=sum(n for _, n in stages) * source.n_batches,
        initial=done * source.n_batches,
        desc="training",
        unit="batch",
        disable=quiet,
        smoothing=0.05,
    ) as bar:
        loop = _Loop(method, source, settings, run, device, bar)
        first = 0
        for stage, n_epochs in stages:
            last = first + n_epochs
            if done < last:
                optimiser = settings.optimiser(method.begin(stage))
                if tensors:
                    _restore(tensors, method, optimiser if done > first else None, run)
                    tensors = {}
                for epoch in range(max(first, done), last):
                    rate = settings.learning_rate_of(epoch - first, lines[first:epoch])
                    line = loop.epoch(stage, optimiser, epoch, rate)
                    due = (epoch - first + 1) % settings.report_every == 0 or epoch + 1 == last
                    if judge is not None and due:
                        line |= judge(stage)
                        if best_by is not None:
                            loop.choose(best_by(stage), line, lines[first:epoch], epoch + 1 == last)
                    loop.keep(line, optimiser)
                    lines.append(line)
            first = last
    if tensors:
        _restore(tensors, method, None, run)
    method.eval()


# Methods have no averaged weights.
_NOTHING = nn.Module()


@dataclass(frozen=True)
class _Loop:
    """What stays the same from epoch to epoch."""

    method: Method[Any]
    source: EpochSource[Any]
    settings: Optimisation
    run: Path
    device: torch.device
    bar: Any

    def epoch(
        self, stage: Stage, optimiser: torch.optim.Optimizer, epoch: int, rate: float
    ) -> dict[str, Any]:
        """Train for one epoch, whose number in the run is from 0; its line for metrics.jsonl."""
        settings, n_batches = self.settings, self.source.n_batches
        # Seeded by epoch: dropout of a resumed run is that of the uninterrupted one.
        torch.manual_seed(settings.seed * 100_003 + epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
        self.method.begin(stage)
        started = time.monotonic()
        sums: dict[str, float] = defaultdict(float)
        for batch in prefetch(self.source.batch(epoch, number) for number in range(n_batches)):
            on_device = to_device(batch, self.device)
            terms = train_step(
                self.method,
                on_device,
                stage,
                optimiser,
                bfloat16=settings.bfloat16,
                limit=settings.limit_gradients,
            )
            if not math.isfinite(terms["loss"]):
                raise InputError(
                    f"{self.run}: the loss of epoch {epoch + 1} (stage {stage.name}) is no number; "
                    "set training.learning_rate lower and give another --out"
                )
            for name, value in terms.items():
                sums[name] += value
            self.bar.update()
        self.method.eval()
        line: dict[str, Any] = {"epoch": epoch, "stage": stage.name}
        line |= {name: round(total / n_batches, 6) for name, total in sums.items()}
        line["learning_rate"] = rate
        n_clips = n_batches * self.source.batch_size
        line["clips_per_s"] = round(n_clips / (time.monotonic() - started), 2)
        return line

    def choose(self, score: str, line: dict[str, Any], earlier: Sequence[Line], end: bool) -> None:
        """Write the method aside where it is a stage's best; at the end go back to the best.

        Of a stopped run the epochs after its checkpoint are done again and found alike, so that the
        file may be of one of them.
        """
        before = [_number(of[score]) for of in earlier if score in of]
        path = self.run / BEST
        if not before or _number(line[score]) > max(before):
            save_tensors(path, self.method.state_dict(), {"epoch": line["epoch"]})
        if end:
            line["kept_epoch"] = load_weights(self.method, path, "give another --out")["epoch"]

    def keep(self, line: dict[str, Any], optimiser: torch.optim.Optimizer) -> None:
        """Write an epoch's line and the checkpoint; what has no checkpoint is done again."""
        self.bar.set_postfix({k: line[k] for k in ("stage", "loss", "clips_per_s")})
        with (self.run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        save_tensors(
            self.run / CHECKPOINT,
            training_tensors(self.method, _NOTHING, optimiser),
            {"epoch": line["epoch"], "stage": line["stage"]},
        )


def _number(score: float) -> float:
    """A figure to compare; of clips without a label that is told apart there is none."""
    return score if math.isfinite(score) else -math.inf


def _read_lines(metrics: Path) -> list[dict[str, Any]]:
    """The epochs' lines, none where there is no file yet."""
    if not metrics.is_file():
        return []
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]


def _last_checkpoint(run: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors of the run's checkpoint and the number of epochs done: none without a checkpoint."""
    path = run / CHECKPOINT
    if not path.is_file():
        return {}, 0
    tensors, notes = load_tensors(path)
    return tensors, int(notes["epoch"]) + 1


def _restore(
    tensors: dict[str, Tensor],
    method: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    run: Path,
) -> None:
    """optimiser : None where the checkpoint ends a stage, whose optimiser is needed no more."""
    if optimiser is None:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}
        optimiser = torch.optim.Adam(method.parameters())
    try:
        restore_training(tensors, method, _NOTHING, optimiser)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{run / CHECKPOINT}: is of another method; give another --out, or delete it to start "
            "again"
        ) from error
