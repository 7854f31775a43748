"""Prints which of bad and good models running sensors take back within their probation.

python tests/benchmarks/bad_models_running.py --sound ESC50      100 of each of five kinds
python tests/benchmarks/bad_models_running.py --lives 4 --together 10

`bad_models.py` does the same within minutes, for long probations and quiet houses, with sensors of
which only the deciding part is real; see tests/faults/bad_model_campaign.py.
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
    campaign = Path(__file__).parents[1] / "faults" / "bad_model_campaign.py"
    return subprocess.run([sys.executable, campaign, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
