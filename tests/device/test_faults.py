"""A short campaign of random faults: the one that tests/benchmarks/faults.py runs over a day."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).parents[1] / "faults" / "campaign.py"


def test_random_faults_lose_and_reorder_nothing() -> None:
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin") is None:
        pytest.skip("mosquitto is missing: sudo apt-get install mosquitto")
    done = subprocess.run(
        [sys.executable, CAMPAIGN, "--faults=30", "--hours=0.1", "--speed=40", "--seed=7"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.startswith("30 faults in ")
    # It heard events, and enough of them to be lost.
    assert all(int(put) > 50 for put in re.findall(r": (\d+) put,", done.stdout))
    assert re.search(r"steady: .* 0 LOST, 0 reordered, 0 changed", done.stdout)
    assert re.search(r"frail: .* 0 LOST, 0 reordered, 0 changed", done.stdout)


@pytest.fixture(scope="module")
def oracle() -> Any:
    specification = spec_from_file_location("oracle", CAMPAIGN.with_name("oracle.py"))
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["oracle"] = module
    specification.loader.exec_module(module)
    return module


def line(number: int, *, saved: bool = True, dropped: int = 0) -> dict[str, Any]:
    return {"number": number, "saved": saved, "dropped": dropped}


def record(number: int, source: str = "mic0", **more: Any) -> dict[str, Any]:
    return {"number": number, "source": source, "queued_s": 0.0, **more}


def judged(oracle: Any, ledger: list[Any], heard: list[Any], **more: Any) -> dict[str, int]:
    found = oracle.judge(
        ledger,
        heard,
        more.get("healths", []),
        more.get("overwritten", set()),
        more.get("killed", set()),
    )
    return {name: count for name, count in vars(found).items() if count and name != "lost_numbers"}


def test_the_judge_tells_what_was_lost_from_what_was_given_up(oracle: Any) -> None:
    first, second = line(1_000_001), line(1_000_002)
    both = {"put": 2, "heard": 2}
    assert judged(oracle, [first, second], [record(1_000_001), record(1_000_002)]) == both
    # Missing without a reason; and with each reason there is.
    alone = [record(1_000_002)]
    missing = {"put": 2, "heard": 1}
    assert judged(oracle, [first, second], alone) == {**missing, "lost": 1}
    assert judged(oracle, [first, second], alone, overwritten={1_000_001}) == {
        **missing,
        "overwritten_lost": 1,
    }
    unsaved = [line(1_000_001, saved=False), second]
    assert judged(oracle, unsaved, alone) == {**missing, "lost": 1}
    assert judged(oracle, unsaved, alone, killed={1}) == {**missing, "unsaved_lost": 1}
    full = [first, line(1_000_002, dropped=1)]
    told = judged(oracle, full, alone, healths=[{"dropped": 1}])
    assert told == {**missing, "dropped": 1, "dropped_lost": 1, "health_dropped": 1}


def test_the_judge_sees_order_and_content(oracle: Any) -> None:
    ledger = [line(number) for number in (1, 2, 3)]
    heard = [record(2), record(1), record(3)]
    assert judged(oracle, ledger, heard) == {"put": 3, "heard": 3, "reordered": 1}
    # Two sources have no order between them, and a repeat has none.
    heard = [record(2, "mic1"), record(1), record(3), record(1, queued_s=9.0)]
    assert judged(oracle, ledger, heard) == {"put": 3, "heard": 4, "repeats": 1}
    heard = [record(1, score=0.5), record(2), record(3), record(1, score=0.6)]
    found = judged(oracle, ledger, heard)
    assert found == {"put": 3, "heard": 4, "repeats": 1, "changed": 1}
