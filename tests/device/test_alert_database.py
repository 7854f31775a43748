"""Alerts in SQLite: a row is the sum of an event's messages, in any order, however often."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alert_examples import database_row, database_rows, deliveries, start_of
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.alert_database import AlertDatabase
from soundpost.device.errors import InputError
from soundpost.device.events import SoundEvent


@settings(max_examples=20)  # Each write waits for the disk.
@given(deliveries(), st.randoms(use_true_random=False), st.booleans())
def test_rows_are_the_events_in_any_order_and_however_often(
    heard: tuple[list[list[SoundEvent]], list[SoundEvent]], chance: random.Random, shuffled: bool
) -> None:
    lives, sent = heard
    if shuffled:
        chance.shuffle(sent)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "alerts.sqlite3"
        while sent:
            # Opened again and again, as by a listener that is killed and started.
            database = AlertDatabase(path)
            n = chance.randint(1, len(sent))
            database.write(sent[:n])
            database.close()
            sent = sent[n:]
        assert database_rows(path) == {life[-1].id: database_row(life) for life in lives}


def test_another_program_may_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite3"
    database = AlertDatabase(path)
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (0,)
    database.write([start_of()])
    # A reader's transaction sees one state of the file.
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (0,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (1,)
    reader.close()
    database.close()


def test_tables_of_others_in_the_same_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite3"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE notes (text)")
    other.execute("INSERT INTO notes VALUES ('kept')")
    other.commit()
    database = AlertDatabase(path)
    database.write([start_of()])
    database.close()
    assert other.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    other.close()


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to be taken for one\n" * 20)
    with pytest.raises(InputError, match=r"notes\.txt: cannot be used \(file is not a database\)"):
        AlertDatabase(text)
    assert text.read_text().startswith("no database")
    events = tmp_path / "calendar.sqlite3"
    other = sqlite3.connect(events)
    other.execute("CREATE TABLE event (id, title, onset)")
    other.commit()
    other.close()
    with pytest.raises(InputError, match=r"calendar\.sqlite3: its table 'event' is not one of"):
        AlertDatabase(events)
    with pytest.raises(InputError, match="nowhere"):
        AlertDatabase(tmp_path / "nowhere" / "alerts.sqlite3")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite3"
    database = AlertDatabase(path)
    first, second = start_of(), start_of()
    database.write([first])
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON event "
            "WHEN NEW.label = 'knock' BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        )
    with pytest.raises(InputError, match="cannot be written"):
        database.write([second, replace(second, id=start_of().id, label="knock")])
    assert set(database_rows(path)) == {first.id}
    ended = replace(first, phase="end", offset=first.onset + timedelta(seconds=1))
    database.write([ended])
    database.close()
    assert database_rows(path) == {first.id: database_row([first, ended])}
