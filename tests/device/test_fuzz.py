"""A little of what tests/benchmarks/fuzz.py does with a million inputs, and that it notices."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "fuzz"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, FUZZ / "run.py", *options], capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr)
    return done


def test_nothing_that_is_read_breaks_its_reader() -> None:
    done = run("--inputs=10000", "--broker=100", "--models=50", "--seed=3")
    assert done.returncode == 0
    assert re.search(r"^10150 inputs in .* 0 findings", done.stdout, re.MULTILINE)
    assert "broker: " in done.stdout


def test_a_reader_that_breaks_is_noticed() -> None:
    program = (
        f"import random, sys; sys.path.insert(0, {str(FUZZ)!r}); import run\n"
        "from targets import Target\n"
        "broken = Target('broken', [b'7 8 9'], lambda data: int(data.split()[0]), 100)\n"
        "print(run.fuzz(broken, 500, random.Random(1), None, run.Hang()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("  broken: ")]
    assert any("ValueError" in line for line in found)
    assert any("IndexError" in line for line in found)
    assert int(done.stdout.split()[-1]) == len(found)
