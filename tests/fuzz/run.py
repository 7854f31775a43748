"""Fuzz everything that a sensor reads from others; print how much of it, how fast, and what broke.

python tests/fuzz/run.py --inputs 1000000                    mutated seeds, by a seed of their own
python tests/fuzz/run.py --guided 60                         and a minute of atheris for each reader

An input that raises anything but one clear line, takes more than five seconds, or makes the process
grow without bound is kept in --keep and printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import resource
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from broker_bytes import fuzz_broker
from models import fuzz_models
from targets import Target, targets

SLOW_S = 5.0
# Beyond what the process took when all was imported and each reader had run.
GROWTH_MB = 100.0


def rss_mb() -> float:
    """Most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Hang:
    """Prints the stack and ends the process where one input takes far too long."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            if time.monotonic() - self.began_s > 60.0:
                import faulthandler
                import os

                print("HANG")
                faulthandler.dump_traceback()
                os._exit(1)


def fuzz(target: Target, inputs: int, rng: random.Random, keep: Path | None, hang: Hang) -> int:
    """Run one reader; how many inputs broke it, each kind once."""
    broken: dict[str, int] = {}
    read = 0
    slowest_s = 0.0
    for seed in target.seeds:
        target.run(seed)
    before_mb = rss_mb()
    began_s = time.perf_counter()
    for _ in range(inputs):
        data = target.input(rng)
        hang.began_s = time.monotonic()
        started_s = time.perf_counter()
        try:
            read += target.run(data)
        except Exception as error:  # What it must never raise: that is what is looked for.
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if kind not in broken:
                print(f"  {target.name}: {kind}: {str(error)[:200]!r}")
                if keep is not None:
                    keep.mkdir(exist_ok=True)
                    name = hashlib.sha256(data).hexdigest()[:12]
                    (keep / f"{target.name.replace(' ', '-')}-{name}").write_bytes(data)
            broken[kind] = broken.get(kind, 0) + 1
        slowest_s = max(slowest_s, time.perf_counter() - started_s)
    hang.began_s = float("inf")
    spent_s = time.perf_counter() - began_s
    growth_mb = rss_mb() - before_mb
    print(
        f"{target.name}: {inputs} inputs, {inputs / max(spent_s, 1e-9):.0f} per second, {read} "
        f"read, {sum(broken.values())} BROKE it, slowest {1e3 * slowest_s:.0f} ms, "
        f"max RSS {rss_mb():.0f} MB ({growth_mb:+.0f})",
        flush=True,
    )
    return len(broken) + (slowest_s > SLOW_S) + (growth_mb > GROWTH_MB)


def guided(names: list[str], seconds: int) -> int:
    """Coverage-guided, each reader in a process of its own; how many broke."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (pip install atheris, Python 3.11): left out")
        return 0
    broken = 0
    for name in names:
        program = Path(__file__).with_name("guided.py")
        done = subprocess.run(
            [sys.executable, program, name, str(seconds)],
            capture_output=True,
            text=True,
            check=False,
        )
        told = [line for line in done.stderr.splitlines() if "Done" in line or "cov:" in line]
        print(f"atheris, {name}: {told[-1] if told else 'NOTHING'}")
        if len(told) > 1:
            print(f"    {told[-2]}")
        if done.returncode:
            print(done.stdout[-2_000], done.stderr[-2_000])
            broken += 1
    return broken


def main() -> int:
    """Fuzz and print; 1 where something broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--broker", type=int, default=5_000, help="connections to a mad broker")
    parser.add_argument("--models", type=int, default=2_000, help="models with right hashes")
    parser.add_argument("--guided", type=int, default=0, help="seconds of atheris for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--keep", type=Path, help="folder for inputs that broke something")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    hang = Hang()
    chosen = [one for one in targets() if arguments.only in (None, one.name)]
    began_s = time.perf_counter()
    broken = total = 0
    for target in chosen:
        share = 100 if arguments.only else target.share
        inputs = arguments.inputs * share // 100
        total += inputs
        broken += fuzz(target, inputs, rng, arguments.keep, hang)
    if arguments.only is None:
        broken += fuzz_models(arguments.models, arguments.seed)
        broken += fuzz_broker(arguments.broker, arguments.seed)
        total += arguments.models + arguments.broker
    if arguments.guided:
        broken += guided([one.name for one in chosen], arguments.guided)
    print(
        f"{total} inputs in {time.perf_counter() - began_s:.0f} s, {broken} findings, "
        f"max RSS {rss_mb():.0f} MB"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
