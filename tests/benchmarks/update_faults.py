"""Prints what becomes of a sensor whose updates are disturbed at random instants.

python tests/benchmarks/update_faults.py                    200 updates, each disturbed once
python tests/benchmarks/update_faults.py --trials 20 --seed 7

Kills, power cuts, a full disk, a repository that goes away, a clock that is wrong by years; see
tests/faults/update_campaign.py. As root, power cuts discard on ext4 images what was not flushed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine import describe, one_thread


def main() -> int:
    """Describe the machine and run the campaign."""
    one_thread()
    describe()
    sys.stdout.flush()
    campaign = Path(__file__).parents[1] / "faults" / "update_campaign.py"
    return subprocess.run([sys.executable, campaign, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
