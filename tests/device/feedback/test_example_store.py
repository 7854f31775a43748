"""The folder of examples: whole or not there, bounded, and the least worth goes first."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError, UsageError
from soundpost.device.feedback import example_store
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.example_store import ExampleStore
from soundpost.device.feedback.feedback_settings import FeedbackSettings

Make = Callable[..., tuple[Example, bytes]]


def settings_of(folder: Path, **values: Any) -> FeedbackSettings:
    known = {"max_age_days": 3_650.0, "min_free_mb": 0.0}
    return FeedbackSettings(enabled=True, folder=folder, **{**known, **values})


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    return ExampleStore(settings_of(tmp_path / "kept"))


def names(store: ExampleStore) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


def test_an_example_is_two_files_that_others_cannot_read(
    store: ExampleStore, make_example: Make
) -> None:
    example, content = make_example()
    store.write(example, content)
    assert names(store) == {f"{example.id}.flac", f"{example.id}.json"}
    assert store.examples == [example]
    assert store.read(example.id, 0, 10**6) == content
    assert store.read(example.id, 5, 7) == content[5:12]
    assert store.read(example.id, len(content), 7) == b""
    assert all(path.stat().st_mode & 0o007 == 0 for path in store.folder.iterdir())
    assert ExampleStore(settings_of(store.folder)).examples == [example]


def test_an_example_that_is_not_there(store: ExampleStore) -> None:
    with pytest.raises(UsageError, match="is not there"):
        store.read("../secret", 0, 1)
    with pytest.raises(UsageError, match="is not there"):
        store.take_away("x")


@given(
    written=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    other=st.booleans(),
)
def test_what_a_power_cut_leaves_is_removed(
    written: list[int],
    other: bool,
    make_example: Make,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """0: whole. 1: the record alone. 2: half of the file. 3: a file without a record."""
    folder = tmp_path_factory.mktemp("kept")
    store = ExampleStore(settings_of(folder))
    whole = []
    for state in written:
        example, content = make_example()
        store.write(example, content)
        path = folder / example.file
        if state == 0:
            whole.append(example)
        elif state == 1:
            path.rename(folder / f".{example.file}.abc_1.part")
        elif state == 2:
            path.write_bytes(content[:100])
        else:
            (folder / f"{example.id}.json").unlink()
    if other:
        (folder / "notes.json").write_text("{}")
    again = ExampleStore(settings_of(folder))
    assert again.examples == whole
    left = {name for one in whole for name in (one.file, f"{one.id}.json")}
    assert names(again) == left | ({"notes.json"} if other else set())


def test_a_record_that_is_damaged_takes_its_sound_along(
    store: ExampleStore, make_example: Make
) -> None:
    example, content = make_example()
    store.write(example, content)
    (store.folder / f"{example.id}.json").write_text('{"schema": "soundpost.exam')
    assert ExampleStore(settings_of(store.folder)).examples == []
    assert names(store) == set()


def test_beyond_the_size_the_least_worth_goes_first(tmp_path: Path, make_example: Make) -> None:
    store = ExampleStore(settings_of(tmp_path, max_size_mb=1.0))
    size = 250_000
    made = [
        make_example(reason=reason, content=bytes([number]) * size)
        for number, reason in enumerate(["disagreement", "uncertain", "short", "uncertain"], 1)
    ]
    for one in made:
        store.write(*one)
    disagreement, old, short, new = (example for example, _ in made)
    assert len(store) == 4
    for expected in ([disagreement, short, new], [disagreement, short]):
        more = make_example(reason="disagreement", content=os.urandom(size))
        store.write(*more)
        assert [one for one in store.examples if one in expected] == expected
        assert old not in store.examples
        assert store.n_bytes <= 1_000_000
    # What a person has goes before everything else.
    store.collected(disagreement.id)
    store.write(*make_example(content=os.urandom(size)))
    assert disagreement.id not in {one.id for one in store.examples}
    assert short in store.examples


def test_what_was_collected_is_remembered_over_a_restart(
    store: ExampleStore, make_example: Make
) -> None:
    example, content = make_example()
    store.write(example, content)
    store.collected(example.id)
    (found,) = ExampleStore(settings_of(store.folder)).examples
    assert found == replace(example, collected=True)


def test_what_is_taken_away_keeps_its_place_of_the_day(
    store: ExampleStore, make_example: Make
) -> None:
    for label in ("dog", "dog", "clap"):
        example, content = make_example(label)
        store.write(example, content)
        store.take_away(example.id)
    again = ExampleStore(settings_of(store.folder))
    assert len(again) == 0
    assert again.taken("2026-11-20") == {"dog": 2, "clap": 1}
    assert again.taken("2026-11-21") == {}


def test_what_is_too_old_goes_by_the_clock_that_is_right(
    tmp_path: Path, make_example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_store, "clock_synchronised", lambda: True)
    now = datetime.now(timezone.utc)
    store = ExampleStore(settings_of(tmp_path, max_age_days=2.0))
    fresh, old = (make_example(time=now - timedelta(days=days)) for days in (1, 3))
    store.write(*fresh)
    store.write(*old)
    assert store.examples == [fresh[0]]


def test_what_a_wrong_clock_dated_is_dated_anew_once(
    tmp_path: Path, make_example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, max_age_days=2.0)
    began = datetime(1970, 1, 1, 1, tzinfo=timezone.utc)
    example, content = make_example(time=began, time_synced=False)
    monkeypatch.setattr(example_store, "clock_synchronised", lambda: False)
    ExampleStore(settings).write(example, content)
    os.utime(tmp_path / example.file, (3_700, 3_700))
    assert len(ExampleStore(settings)) == 1
    monkeypatch.setattr(example_store, "clock_synchronised", lambda: True)
    # From now on it grows old.
    assert len(ExampleStore(settings)) == 1
    later = time.time() + 1.5 * 86_400
    monkeypatch.setattr(example_store.time, "time", lambda: later)
    assert len(ExampleStore(settings)) == 1
    later += 86_400
    assert len(ExampleStore(settings)) == 0


def test_a_full_disk_leaves_nothing(
    store: ExampleStore, make_example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> SimpleNamespace:
        return SimpleNamespace(free=1_000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(InputError, match="the disk is full"):
        ExampleStore(settings_of(store.folder, min_free_mb=1.0)).write(*make_example())
    assert names(store) == set()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    with pytest.raises(InputError, match="cannot hold feedback"):
        ExampleStore(settings_of(tmp_path / "kept"))


def test_labels_are_gathered(store: ExampleStore) -> None:
    store.know(["dog", "clap"])
    store.know(["clap", "Vögel"])
    assert ExampleStore(settings_of(store.folder)).labels == ("dog", "clap", "Vögel")
    # Damaged, it is begun again.
    (store.folder / "labels.json").write_text("[")
    assert ExampleStore(settings_of(store.folder)).labels == ()
