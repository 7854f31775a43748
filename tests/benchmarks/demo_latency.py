"""Runs the demo and prints how long its alerts took.

python tests/benchmarks/demo_latency.py                 the starter bundle
python tests/benchmarks/demo_latency.py my.bundle

Delivered: from the end of the window that decided an alert to its arrival at the subscriber, over
MQTT. Onset to alert: from the sound's first sample, as the sensor dates it, to the arrival of its
`start`. An alarm's alert waits for its cadence, whose first two groups last 6.5 s (T3, ISO 8201) or
6.4 s (T4, NFPA 72) at the standard's tempo; the limit applies to what is added to that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from machine import describe, one_thread, verdict

from soundpost.device.alarms import TEMPORAL_PATTERNS

DELIVERED_LIMIT_S = 0.050
ONSET_LIMIT_S = 1.5
CADENCES = {"smoke_alarm": "T3", "co_alarm": "T4"}


def two_groups_s(label: str) -> float:
    """From the first pulse to the end of the last one of two groups; 0 for what is no alarm."""
    if label not in CADENCES:
        return 0.0
    pattern = TEMPORAL_PATTERNS[CADENCES[label]]
    group_s = pattern.pulses * (pattern.on_s + pattern.off_s) - pattern.off_s
    return pattern.period_s + group_s


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", nargs="?", help="default: the starter bundle")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="soundscapes (default 0)")
    arguments = parser.parse_args()
    one_thread()
    describe()
    onsets: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        command = [sys.executable, "-m", "soundpost.device", "demo", "--json", f"--seed={seed}"]
        command += [f"--bundle={arguments.bundle}"] if arguments.bundle else []
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        totals = json.loads(told.splitlines()[-1])
        median_s, worst_s = totals["delivered_median_s"], totals["delivered_worst_s"]
        print(
            f"seed {seed}: {totals['seconds_heard']:.1f} s heard, {totals['windows_scored']} "
            f"windows of {1000 * totals['compute_median_s']:.1f} ms, "
            f"{totals['alerts_received']} messages"
        )
        if median_s is not None:
            print(
                f"  delivered: median {1000 * median_s:.1f} ms, "
                f"{median_s / DELIVERED_LIMIT_S:.2f} x {1000 * DELIVERED_LIMIT_S:g} ms, "
                f"{verdict(median_s, DELIVERED_LIMIT_S)}; "
                f"worst {1000 * worst_s:.1f} ms"
            )
        for start in totals["onset_to_alert_s"]:
            onsets.setdefault(start["label"], []).append(start["seconds"])
    print("onset to alert, median:")
    others: list[float] = []
    for label, seconds in sorted(onsets.items()):
        wait_s = two_groups_s(label)
        median_s = statistics.median(seconds)
        if not wait_s:
            others += seconds
            print(f"  {label:<20} {median_s:6.2f} s")
            continue
        added_s = median_s - wait_s
        print(
            f"  {label:<20} {median_s:6.2f} s: {wait_s:.1f} s of cadence and {added_s:.2f} s, "
            f"{added_s / ONSET_LIMIT_S:.2f} x {ONSET_LIMIT_S:g} s, "
            f"{verdict(added_s, ONSET_LIMIT_S)}"
        )
    if others:
        median_s = statistics.median(others)
        print(
            f"  all but alarms       {median_s:6.2f} s, {median_s / ONSET_LIMIT_S:.2f} x "
            f"{ONSET_LIMIT_S:g} s, {verdict(median_s, ONSET_LIMIT_S)}"
        )


if __name__ == "__main__":
    main()
