"""Prints what came of a million inputs that are nearly right, to everything that reads from others.

python tests/benchmarks/fuzz.py                            1,000,000 inputs
python tests/benchmarks/fuzz.py --guided 60                and a minute of atheris for each reader

See tests/fuzz/run.py for all options.
"""

from __future__ import annotations

import sys

from machine import run_described

if __name__ == "__main__":
    sys.exit(run_described("fuzz/run.py"))
