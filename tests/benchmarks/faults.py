"""Prints what becomes of a sensor's events in a day of random faults, and whether anything grows.

python tests/benchmarks/faults.py                          1,000 faults over 24 h of sound
python tests/benchmarks/faults.py --faults 100 --hours 3   see tests/faults/campaign.py

The day passes as fast as the machine computes it, at most --speed times as fast as a real one.
As root, power cuts discard on ext4 images what was not flushed.
"""

from __future__ import annotations

import sys

from machine import run_described

if __name__ == "__main__":
    sys.exit(run_described("faults/campaign.py"))
