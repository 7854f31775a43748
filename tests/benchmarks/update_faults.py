"""Prints what becomes of a sensor whose updates are disturbed at random instants.

python tests/benchmarks/update_faults.py                    200 updates, each disturbed once
python tests/benchmarks/update_faults.py --trials 20 --seed 7

Kills, power cuts, a full disk, a repository that goes away, a clock that is wrong by years; see
tests/faults/update_campaign.py. As root, power cuts discard on ext4 images what was not flushed.
"""

from __future__ import annotations

import sys

from machine import run_described

if __name__ == "__main__":
    sys.exit(run_described("faults/update_campaign.py"))
