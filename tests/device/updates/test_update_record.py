"""What is remembered of an update comes back as it was, or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.updates.model_state import RESULTS
from soundpost.device.updates.update_record import NAME, RecordFile, UpdateRecord

FULL = UpdateRecord(
    sha256="a" * 64,
    tested=True,
    heard_s=12.5,
    crashes=1,
    crashed_at_s=3.0,
    cut_at_s=4.0,
    running=True,
    boot_id="boot",
    usual_sha256="b" * 64,
    usual={"dog": [1, 2, 3]},
    usual_events={"dog": 4},
    usual_windows=6,
    usual_heard_s=7.0,
    settings_sha256="starter",
    result="rolled_back",
    reason="tiny 1.1.0: scores are no numbers",
    result_time=datetime(2026, 11, 29, tzinfo=timezone.utc),
)

RECORDS = st.builds(
    UpdateRecord,
    sha256=st.text("0123456789abcdef", max_size=64),
    tested=st.booleans(),
    heard_s=st.floats(0, 1e9),
    crashes=st.integers(0, 99),
    usual=st.none() | st.dictionaries(st.text(), st.lists(st.integers(0, 99), max_size=3)),
    usual_events=st.none() | st.dictionaries(st.text(), st.integers(0, 99)),
    result=st.sampled_from(["", *RESULTS]),
    reason=st.text(),
    result_time=st.none()
    | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)),
)


@given(record=RECORDS)
def test_what_is_written_is_read(record: UpdateRecord) -> None:
    assert UpdateRecord.from_json(record.to_json()) == record


def is_whole(content: bytes) -> bool:
    try:
        return bool(json.loads(content) == json.loads(FULL.to_json()))
    except ValueError:
        return False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=len(FULL.to_json()) - 1, content=b"")
@example(place=len(FULL.to_json()) - 2, content=b" }")
@given(place=st.integers(0, len(FULL.to_json()) - 1), content=st.binary(max_size=4))
def test_a_damaged_file_is_begun_anew_or_read_as_something_in_order(
    memory_path: Path, place: int, content: bytes
) -> None:
    folder = Path(tempfile.mkdtemp(dir=memory_path))
    whole = FULL.to_json()
    (folder / NAME).write_bytes(whole[:place] + content)
    # Where nothing is missing but the end of the line, or it was written anew, it is whole.
    assert RecordFile(folder).record == (
        FULL if is_whole(whole[:place] + content) else UpdateRecord()
    )
    (folder / NAME).write_bytes(whole[:place] + content + whole[place + len(content) :])
    found = RecordFile(folder).record
    assert UpdateRecord.from_json(found.to_json()) == found
    shutil.rmtree(folder)


def test_of_another_model_nothing_is_known_but_what_is_not_its_own() -> None:
    found = FULL.about("c" * 64)
    assert (found.tested, found.heard_s, found.crashes, found.running) == (False, 0.0, 0, False)
    assert (found.crashed_at_s, found.cut_at_s) == (0.0, 0.0)
    assert (found.usual, found.reason, found.settings_sha256) == (
        FULL.usual,
        FULL.reason,
        FULL.settings_sha256,
    )
    assert FULL.about("a" * 64) is FULL


def test_what_a_full_disk_does_not_take_holds_until_the_end(memory_path: Path) -> None:
    folder = memory_path / "gone"
    folder.mkdir()
    file = RecordFile(folder)
    folder.rmdir()
    with pytest.raises(InputError, match="cannot be written"):
        file.change(crashes=1)
    assert file.record.crashes == 0
    file.try_change(crashes=2)
    assert file.record.crashes == 2
    folder.mkdir()
    # And is written when the disk takes it.
    file.change(crashes=2)
    assert RecordFile(folder).record == replace(UpdateRecord(), crashes=2)
