"""Prints how far event times are from the truth while a crystal is off, for a month.

python tests/benchmarks/clock_drift.py                 30 days at +100 and -100 ppm, 1 minute
python tests/benchmarks/clock_drift.py --days 2 --ppm 50

Simulated: blocks of 0.1 s from a crystal that is off by so much, and by 5 ppm more or less over a
day (temperature). Each arrives up to 50 ms late, as through PulseAudio. Every hour there are a busy
minute (all blocks late by up to another second), three bursts (nothing for up to 2 s, then all at
once), a gap of up to a minute (lost, and counted), and every day the machine is suspended for an
hour. An event is an onset up to 10 s before the block that decided it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from machine import describe, one_thread, verdict
from numpy.typing import NDArray

from soundpost.device.clock import SampleClock

LIMIT_MS = 20.0
RATE_HZ = 48_000
BLOCK_S = 0.1
EVENT_AGE_S = 10.0
# The best of the first blocks is yet to come; nobody expects an event in the first seconds.
SETTLING_S = 10.0
HOUR = round(3_600 / BLOCK_S)
BUSY = round(60 / BLOCK_S)


def lateness(rng: np.random.Generator) -> NDArray[np.float64]:
    """How late each block of an hour is, before the order of arrival is kept."""
    late_s = rng.uniform(0.0, 0.05, HOUR)
    first = rng.integers(0, HOUR - BUSY)
    late_s[first : first + BUSY] += rng.uniform(0.1, 1.0)
    for first in rng.integers(0, HOUR - 20, 3):
        n_held = rng.integers(1, 20)
        late_s[first : first + n_held] += BLOCK_S * np.arange(n_held, 0, -1)
    return late_s


def simulate(days: float, parts_per_million: float, seed: int) -> NDArray[np.float64]:
    """Errors of event times in ms."""
    rng = np.random.default_rng(seed)
    clock = SampleClock(RATE_HZ, lambda: 0.0)
    block = round(BLOCK_S * RATE_HZ)
    errors_s: list[float] = []
    sample, truth_s = 0, 5_000.0
    for hour in range(round(24 * days)):
        off = parts_per_million + 5.0 * np.sin(2 * np.pi * hour / 24)
        block_s = BLOCK_S * (1.0 + off * 1e-6)
        truths_s = truth_s + block_s * np.arange(1, HOUR + 1)
        arrivals_s = np.maximum.accumulate(truths_s + lateness(rng))
        events = np.zeros(HOUR, bool)
        events[rng.integers(0, HOUR, 400)] = True
        for true_s, arrival_s, event in zip(
            truths_s.tolist(), arrivals_s.tolist(), events.tolist(), strict=True
        ):
            sample += block
            clock.update(sample, arrival_s)
            if event and (hour > 0 or true_s > 5_000.0 + SETTLING_S + EVENT_AGE_S):
                age = round(rng.uniform(0.0, EVENT_AGE_S) * RATE_HZ)
                age_s = age / block * block_s
                errors_s.append(clock.monotonic_s(sample - age) - (true_s - age_s))
        truth_s = float(truths_s[-1])
        # Suspended, samples and monotonic clock stand still together; a gap is in the numbers.
        lost = round(rng.uniform(0.0, 60.0) / BLOCK_S)
        sample += lost * block
        truth_s += lost * block_s
    return 1e3 * np.array(errors_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--ppm", type=float, nargs="+", default=[100.0, -100.0])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    one_thread()
    describe()
    for parts_per_million in arguments.ppm:
        began_s = time.perf_counter()
        errors_ms = np.abs(simulate(arguments.days, parts_per_million, arguments.seed))
        worst = float(errors_ms.max())
        print(
            f"{parts_per_million:+g} ppm, {arguments.days:g} days, {len(errors_ms)} events: median "
            f"{np.median(errors_ms):.2f} ms, 99 % {np.quantile(errors_ms, 0.99):.2f} ms, "
            f"max {worst:.2f} ms, {worst / LIMIT_MS:.2f} x {LIMIT_MS:g} ms, "
            f"{verdict(worst, LIMIT_MS)} ({time.perf_counter() - began_s:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
