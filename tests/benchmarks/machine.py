"""What every benchmark says first: the machine, and one thread for everything it measures."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import threadpoolctl

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread() -> None:
    """Hold the libraries that are loaded, and every process started later, to one thread."""
    threadpoolctl.threadpool_limits(1)
    os.environ.update(dict.fromkeys(_THREADS, "1"))


def describe() -> None:
    """Print processor, versions, BLAS and how busy the machine is."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    blas = {
        f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', 'unknown kernels')}, "
        f"{pool['num_threads']} thread)"
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    }
    print(
        f"{', '.join(names) or platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, BLAS {', '.join(sorted(blas)) or 'unknown'}"
    )


def run_described(program: str) -> int:
    """Describe the machine and run a program of tests/ with our arguments; its exit code."""
    one_thread()
    describe()
    sys.stdout.flush()
    path = Path(__file__).parents[1] / program
    return subprocess.run([sys.executable, path, *sys.argv[1:]], check=False).returncode


def medians_ms(
    contenders: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0
) -> dict[str, float]:
    """Median CPU time of each contender in milliseconds.

    All run in every round, in another order each time, so that a busy moment meets all alike. CPU
    time of the process, not the wall's: with one thread they are the same on an idle machine, and
    other programs' shares of a busy one do not count.
    """
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    rng = np.random.default_rng(seed)
    for name in order:
        contenders[name]()
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            began = time.process_time()
            contenders[name]()
            spent[name].append(time.process_time() - began)
    return {name: 1000 * statistics.median(times) for name, times in spent.items()}


def verdict(value: float, limit: float) -> str:
    """`within` or `ABOVE` a limit, for a printed line."""
    return "within" if value <= limit else "ABOVE"


def children(pid: int) -> Sequence[int]:
    """Every process below this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += [int(child), *children(int(child))]
    return found
