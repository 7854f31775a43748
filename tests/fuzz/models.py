"""Bundles whose model was changed and whose hashes are right: in a child process, which may die."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path


def child(count: int, seed: int) -> None:
    """Open bundles with mutated models; one word for each."""
    from mutate import mutated
    from targets import ORIGINAL, bundle_with, make_bundle

    from soundpost.device.bundle import check_bundle, parse_bundle
    from soundpost.device.errors import SoundpostError

    make_bundle()
    for number in range(count):
        rng = random.Random(seed * 1_000_000 + number)
        model = mutated(ORIGINAL["model.tflite"], [ORIGINAL["model.tflite"]], rng)
        print(f"{number} ", end="", flush=True)
        try:
            check_bundle(parse_bundle(bundle_with("model.tflite", model), "fuzz"))
        except SoundpostError:
            print("refused", flush=True)
        else:
            print("read", flush=True)


def fuzz_models(count: int, seed: int) -> int:
    """Print what became of them; how many ended otherwise than by a clear line."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import models; "
    told: Counter[str] = Counter()
    at = 0
    while at < count:
        done = subprocess.run(
            [sys.executable, "-c", program + f"models.child({count - at}, {seed} + {at})"],
            capture_output=True,
            text=True,
            timeout=1_200,
            check=False,
        )
        words = [line.split() for line in done.stdout.splitlines() if line]
        told.update(word[1] for word in words if len(word) == 2)
        at += len(words)
        if done.returncode:
            told[f"ended by {done.returncode}"] += 1
            print(f"  model {words[-1][0] if words else '?'}: {done.stderr.strip()[-300:]}")
        if not words:
            break
    print(f"models with right hashes: {count}: {dict(told)}", flush=True)
    return sum(number for word, number in told.items() if word.startswith("ended"))


if __name__ == "__main__":
    child(int(sys.argv[1]), int(sys.argv[2]))
