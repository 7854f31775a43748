"""Prints what came of a million inputs that are nearly right, to everything that reads from others.

python tests/benchmarks/fuzz.py                            1,000,000 inputs
python tests/benchmarks/fuzz.py --guided 60                and a minute of atheris for each reader

See tests/fuzz/run.py for all options.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine import describe, one_thread


def main() -> int:
    """Describe the machine and run the fuzzer."""
    one_thread()
    describe()
    sys.stdout.flush()
    fuzzer = Path(__file__).parents[1] / "fuzz" / "run.py"
    return subprocess.run([sys.executable, fuzzer, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
