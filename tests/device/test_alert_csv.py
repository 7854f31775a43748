"""Alerts in CSV: every message once, in complete lines, whatever was cut off where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alert_examples import csv_message, csv_messages, deliveries, start_of
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.alert_csv import AlertTableFile
from soundpost.device.errors import InputError
from soundpost.device.events import SoundEvent


@settings(max_examples=30)  # Each write waits for the disk.
@given(deliveries(), st.data())
def test_each_message_is_there_once_after_cuts_and_repeats(
    heard: tuple[list[list[SoundEvent]], list[SoundEvent]], data: st.DataObject
) -> None:
    """Power is cut while lines are written; the broker sends again what was not acknowledged."""
    _, sent = heard
    sent = list(dict.fromkeys(map(SoundEvent.to_json, sent)))
    events = [SoundEvent.from_json(text) for text in sent]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "alerts.csv"
        for _ in range(3):
            table = AlertTableFile(path)
            before = path.stat().st_size
            table.write(events)
            table.close()
            # Half of what was written last is lost, at any byte.
            kept = data.draw(st.integers(before, path.stat().st_size))
            os.truncate(path, kept)
        table = AlertTableFile(path)
        table.write(events)
        table.write(events)
        table.close()
        assert sorted(csv_messages(path)) == sorted(map(csv_message, events))


@settings(max_examples=30)
@given(st.integers(0, 200))
def test_a_header_that_was_cut_is_written_anew(kept: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "alerts.csv"
        AlertTableFile(path).close()
        header = path.read_bytes()
        os.truncate(path, min(kept, len(header)))
        table = AlertTableFile(path)
        event = start_of("a, b")
        table.write([event])
        table.close()
        assert path.read_bytes().startswith(header)
        assert csv_messages(path) == [csv_message(event)]


def test_only_the_tail_of_a_long_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soundpost.device.alert_csv._REMEMBERED_BYTES", 2_000)
    path = tmp_path / "alerts.csv"
    events = [start_of(f"label {number}") for number in range(30)]
    table = AlertTableFile(path)
    table.write(events)
    table.close()
    table = AlertTableFile(path)
    table.write(events[-4:])
    table.close()
    assert csv_messages(path) == list(map(csv_message, events))


@pytest.mark.parametrize("content", ["time,what\n1,2\n", "onset\n", "\n", "\x00\xff"])
def test_another_table_is_refused_and_left_alone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=r"mine\.csv: its first line is not that of a table of"):
        AlertTableFile(path)
    assert path.read_text() == content


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/alerts\.csv: cannot be written \(No such file"):
        AlertTableFile(tmp_path / "nowhere" / "alerts.csv")


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit of the file's size stands for a full disk: write() takes a part, then fails."""
    path = tmp_path / "alerts.csv"
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from alert_examples import start_of
from soundpost.device.alert_csv import AlertTableFile
from soundpost.device.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
table = AlertTableFile(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
for number in range(10):
    try:
        table.write([start_of(f"label {{number}}")])
    except InputError as error:
        print(number, error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    failures = told.stdout.splitlines()
    assert 0 < len(failures) < 10
    assert "alerts.csv: cannot be written" in failures[0]
    assert len(csv_messages(path)) == 10 - len(failures)
