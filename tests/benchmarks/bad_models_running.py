"""Prints which of bad and good models running sensors take back within their probation.

python tests/benchmarks/bad_models_running.py --sound ESC50      100 of each of five kinds
python tests/benchmarks/bad_models_running.py --lives 4 --together 10

`bad_models.py` does the same within minutes, for long probations and quiet houses, with sensors of
which only the deciding part is real; see tests/faults/bad_model_campaign.py.
"""

from __future__ import annotations

import sys

from machine import run_described

if __name__ == "__main__":
    sys.exit(run_described("faults/bad_model_campaign.py"))
