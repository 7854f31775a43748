"""The file of a roll-out, and who may work on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from fleet_examples import NOW, rolling
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError, UsageError
from soundpost.export.fleet.roll_out import (
    STATE_FILE,
    Member,
    Outcome,
    RollOut,
    Stage,
    at_work,
    read_roll_out,
    roll_out_lock,
    write_roll_out,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
MEMBERS = st.builds(
    Member,
    TEXT,
    st.integers(1, 9),
    st.sampled_from(get_args(Outcome)),
    st.none() | TEXT,
    st.booleans(),
    st.none() | TEXT,
    st.booleans(),
    st.booleans(),
)


@given(
    st.lists(MEMBERS, max_size=4),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    st.sampled_from(get_args(Stage)),
    st.sampled_from([None, NOW]),
    st.lists(TEXT, max_size=3),
)
def test_it_comes_back_as_it_was(
    members: list[Member], skipped: list[tuple[str, str]], stage: Any, when: Any, names: list[str]
) -> None:
    one = rolling(
        *members,
        skipped=tuple(skipped),
        stage=stage,
        began=when,
        hold_until=when,
        kept=tuple(names),
        blamed=tuple(names),
        reason=names[0] if names else None,
    )
    assert RollOut.from_json(one.to_json(), "x") == one


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'"stage": "running"', b'"stage": "resting"', "field 'stage'"),
        (b'"outcome": "waiting"', b'"outcome": "won"', "field 'outcome'"),
        (b"soundpost.roll-out/1", b"soundpost.roll-out/2", "update the older"),
        (b'"wave": 1', b'"wave": "1"', "field 'wave'"),
        (b'"5%,25%,100%"', b'"5%"', "the last one must be 100%"),
        (b'"kept": []', b'"kept": 7', "restore"),
        (b"{", b"", "not JSON"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, old: bytes, new: bytes, told: str) -> None:
    content = rolling(Member("hall", 1)).to_json()
    assert old in content
    (tmp_path / STATE_FILE).write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match=f"{STATE_FILE}.*{told}"):
        read_roll_out(tmp_path)


def test_it_is_found_again(tmp_path: Path) -> None:
    assert read_roll_out(tmp_path) is None
    write_roll_out(tmp_path, rolling(Member("hall", 1)))
    assert read_roll_out(tmp_path) == rolling(Member("hall", 1))


def test_one_works_at_a_time(tmp_path: Path) -> None:
    """The lock goes with its process."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from soundpost.export.fleet.roll_out import roll_out_lock\n"
        "with roll_out_lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    assert not at_work(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert at_work(tmp_path)
        with (
            pytest.raises(UsageError, match=f"at work here \\(process {other.pid}\\)"),
            roll_out_lock(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    assert not at_work(tmp_path)
    with roll_out_lock(tmp_path):
        assert at_work(tmp_path)
