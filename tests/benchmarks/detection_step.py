"""Seconds of a training step of joint tagging and detection: teacher and student, 10 s scenes.

usage: detection_step.py [RECIPE] [key=value ...] [--threads N] [--device cpu|cuda] [--epoch N]

Prints wall seconds and, for machines that have other things to do, CPU seconds; then what a run of
500 scenes and 30 epochs costs by either.
"""

import argparse
import time
from importlib import resources
from pathlib import Path

import torch
from machine import describe

from soundpost.train.loop import keep_memory_mapped
from soundpost.train.sed.method import Objective
from soundpost.train.sed.recipe import load_detection_recipe
from soundpost.train.sed.scenes import SceneBatch

N_LABELS, STEPS, RUN_SCENES, RUN_EPOCHS = 10, 3, 500, 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", nargs="?", default="full")
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epoch", type=float, default=20, help="decides the stage and the ramps")
    arguments = parser.parse_intermixed_args()
    describe()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_memory_mapped()
    path = Path(str(resources.files("soundpost.train.recipes") / f"{arguments.recipe}.toml"))
    recipe = load_detection_recipe(path, arguments.changes)
    size, front_end = recipe.batch.size, recipe.front_end
    n_frames = front_end.frames_of(round(recipe.batch.seconds * front_end.sample_rate_hz))
    number = torch.arange(size, device=device)
    batch = SceneBatch(
        torch.randn(size, n_frames, front_end.n_mels, device=device),
        (torch.rand(size, n_frames, N_LABELS, device=device) < 0.1).float(),
        (torch.rand(size, N_LABELS, device=device) < 0.3).float(),
        number < recipe.batch.strong,
        number < recipe.batch.strong + recipe.batch.weak,
    )
    objective = Objective(recipe, N_LABELS).to(device)
    objective.pair.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(objective.pair.parameters())
    weights = sum(p.numel() for p in objective.pair.parameters())
    print(f"{recipe.name} {' '.join(arguments.changes)}: {weights:,} weights, batch {size}")
    best = {"wall": float("inf"), "CPU": float("inf")}
    # The first step also allocates.
    for step in range(1 + STEPS):
        wall, cpu = time.monotonic(), time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.training.bfloat16):
            loss = objective.losses(batch, arguments.epoch)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()
        spent = {"wall": time.monotonic() - wall, "CPU": time.process_time() - cpu}
        if step:
            best = {name: min(best[name], spent[name]) for name in best}
    steps = -(-RUN_SCENES // size) * RUN_EPOCHS
    for name, seconds in best.items():
        print(
            f"{name} {seconds:.2f} s a step on {arguments.threads} threads; "
            f"{RUN_SCENES} scenes x {RUN_EPOCHS} epochs: {steps * seconds / 3600:.1f} h"
        )


if __name__ == "__main__":
    main()
