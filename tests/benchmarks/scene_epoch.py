"""Prints what an epoch of 1,000 ten-second recordings costs beside its forward and backward passes.

python tests/benchmarks/scene_epoch.py --data scenes
python tests/benchmarks/scene_epoch.py --data scenes --recipe guided --steps 20 model.width=0.5

DIR is laid out as DESED is, such as `soundpost soundscapes` writes; its features are computed
first, once, and that is not counted. Whole steps, which wait for a batch and update the weights,
alternate with forward and backward passes alone on a batch that is there, so that a busy moment
meets both; what the loader makes ahead meanwhile is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from importlib import resources
from itertools import count
from pathlib import Path

import torch
from machine import describe, verdict

from soundpost.train.loop import keep_memory_mapped
from soundpost.train.sed.batches import Batches
from soundpost.train.sed.desed import Reading, read_desed
from soundpost.train.sed.feature_cache import open_features
from soundpost.train.sed.fitting import to_device
from soundpost.train.sed.method import Objective
from soundpost.train.sed.recipe import load_detection_recipe
from soundpost.train.sed.scenes import SceneBatch

RECORDINGS = 1_000
LIMIT = 1.3
# Steps of either kind before the other has its turn, and batches that the loader makes ahead.
ROUND, AHEAD = 8, 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recipe", default="full")
    parser.add_argument("--steps", type=int, default=24, help="of either kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_intermixed_args()
    describe()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_memory_mapped()
    path = Path(str(resources.files("soundpost.train.recipes") / f"{arguments.recipe}.toml"))
    recipe = load_detection_recipe(path, arguments.changes)
    front_end, seconds = recipe.front_end, recipe.batch.seconds
    sets = read_desed(arguments.data, Reading(seconds=seconds, rate_hz=front_end.sample_rate_hz))
    features = open_features(sets.train, front_end, seconds)
    batches = Batches(features, recipe.batch, recipe.training.seed)
    objective = Objective(recipe, len(sets.train.labels)).to(device)
    objective.pair.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(objective.pair.parameters())

    def passes(batch: SceneBatch) -> None:
        loss = objective.losses(batch, 20.0)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        loss.item()

    def learn(batch: SceneBatch) -> None:
        passes(batch)
        optimiser.step()

    def endless() -> Iterator[SceneBatch]:
        for epoch in count():
            yield from batches.epoch(epoch)

    loader = endless()
    there = to_device(next(loader), device)
    learn(there)
    spent: dict[str, list[float]] = {"with the loader": [], "passes alone": []}
    while len(spent["passes alone"]) < arguments.steps:
        for kind, times in spent.items():
            for _ in range(AHEAD if kind == "with the loader" else 0):
                learn(to_device(next(loader), device))
            for _ in range(ROUND):
                began = time.perf_counter()
                if kind == "with the loader":
                    learn(to_device(next(loader), device))
                else:
                    passes(there)
                times.append(time.perf_counter() - began)
    steps = -(-RECORDINGS // recipe.batch.size)
    for kind, times in spent.items():
        print(
            f"{recipe.name}, {kind}: {statistics.median(times):.2f} s a step (median of "
            f"{len(times)}), {steps * statistics.mean(times):.0f} s for {RECORDINGS:,} recordings"
        )
    whole, alone = map(sum, spent.values())
    print(f"ratio {whole / alone:.3f} x, {verdict(whole / alone, LIMIT)} {LIMIT:g}")


if __name__ == "__main__":
    main()
