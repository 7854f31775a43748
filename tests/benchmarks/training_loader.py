"""Prints what a recipe's loader costs beside the forward and backward passes that it feeds.

python tests/benchmarks/training_loader.py yin2021_fusion --data world data.kind=world \
    'data.train=["train"]' 'data.test=["test"]' visual.backbone=runs/eye
python tests/benchmarks/training_loader.py perez2020_dualcamnet --data world

The recipe is trained as `soundpost train RECIPE` would: its set is read, its features are computed
once and kept, which is not counted; then, in the place of the training, steps that wait for the
batches of its own loader alternate with steps on one batch that is there, so that a busy moment
meets both. What the loader makes ahead meanwhile is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from machine import describe, verdict

from soundpost.device import cli
from soundpost.train.loop import keep_memory_mapped
from soundpost.train.multimodal import (
    action_run,
    fusion_run,
    machine_run,
    picture_run,
    tagging_run,
    transfer_run,
)
from soundpost.train.multimodal.fitting import EpochSource, Optimisation, to_device
from soundpost.train.multimodal.method import Method, train_step
from soundpost.train.sed.batches import prefetch

LIMIT = 1.15
# Steps of either kind before the other has its turn, and batches that the loader makes ahead.
ROUND, AHEAD = 8, 3


class Measured(BaseException):
    """Ends a training that has been measured."""


def measure(
    method: Method[Any],
    source: EpochSource[Any],
    settings: Optimisation,
    device: torch.device,
    steps: int,
) -> dict[str, list[float]]:
    """Seconds of steps "with the loader" and of "passes alone", in the method's last stage."""
    if device.type == "cpu":
        keep_memory_mapped()
    method.to(device)
    stage = method.stages[-1]
    optimiser = settings.optimiser(method.begin(stage))

    def endless() -> Iterator[Any]:
        for epoch in itertools.count():
            yield from (source.batch(epoch, number) for number in range(source.n_batches))

    def learn(batch: Any) -> None:
        train_step(
            method, batch, stage, optimiser, bfloat16=settings.bfloat16,
            limit=settings.limit_gradients,
        )  # fmt: skip

    loader = prefetch(endless())
    there = to_device(next(loader), device)
    learn(there)
    spent: dict[str, list[float]] = {"with the loader": [], "passes alone": []}
    while len(spent["passes alone"]) < steps:
        for kind, times in spent.items():
            for _ in range(AHEAD if kind == "with the loader" else 0):
                learn(to_device(next(loader), device))
            for _ in range(ROUND):
                began = time.perf_counter()
                learn(to_device(next(loader), device) if kind == "with the loader" else there)
                times.append(time.perf_counter() - began)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="what else is given goes to soundpost train, such as key=value or --init RUN",
    )
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=24, help="of either kind")
    parser.add_argument("--threads", type=int, default=1)
    arguments, more = parser.parse_known_args()
    describe()
    torch.set_num_threads(arguments.threads)
    found: dict[str, list[float]] = {}

    def instead(
        method: Method[Any],
        source: EpochSource[Any],
        settings: Optimisation,
        _run: Path,
        device: torch.device,
        **_more: object,
    ) -> None:
        found.update(measure(method, source, settings, device, arguments.steps))
        raise Measured

    families: tuple[Any, ...] = (
        action_run, fusion_run, machine_run, picture_run, tagging_run, transfer_run,
    )  # fmt: skip
    for family in families:
        family.fit_method = instead
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Measured):
        cli.run(
            ["train", arguments.recipe, "--data", str(arguments.data), "--out", f"{folder}/run",
             "--threads", str(arguments.threads), *more]
        )  # fmt: skip
    if not found:
        raise SystemExit(f"{arguments.recipe}: is trained by another loop than fit_method's")
    for kind, times in found.items():
        print(
            f"{arguments.recipe}, {kind}: {1e3 * statistics.median(times):.0f} ms a step (median "
            f"of {len(times)})"
        )
    whole, alone = map(sum, found.values())
    print(f"ratio {whole / alone:.3f} x, {verdict(whole / alone, LIMIT)} {LIMIT:g}")


if __name__ == "__main__":
    main()
