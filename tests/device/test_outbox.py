"""The outbox on disk: what `put` has taken is there again, whatever is killed, cut or damaged."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device import disk_outbox as module
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.clock import Moment
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.outbox import MemoryOutbox, Queued
from soundpost.device.outbox_file import ROW_BYTES
from soundpost.device.publisher import Publisher
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

PATIENCE_S = 30.0
TOPICS = Topics("soundpost", "porch-pi")
STREAM = uuid7()
ONSET = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)


def event(sample: int, phase: str = "start", id: str = "", source: str = "mic0") -> SoundEvent:
    return SoundEvent(
        id=id or uuid7(),
        device="porch-pi",
        source=source,
        label="smoke_alarm",
        phase=phase,  # type: ignore[arg-type]
        score=0.9,
        threshold=0.5,
        onset=ONSET,
        offset=ONSET + timedelta(seconds=3) if phase == "end" else None,
        time_synced=True,
        stream=STREAM,
        sample=sample,
        rate_hz=16_000,
        model=ModelRef("starter", "1.0.0", "0" * 64),
    )


def samples(kept: DiskOutbox | MemoryOutbox) -> list[int]:
    return [queued.event.sample for queued in kept.items()]


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


def copied(path: Path, to: Path) -> OutboxSettings:
    """The files as a power cut would leave them: nothing was closed."""
    to.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copy(f"{path}{suffix}", f"{to / path.name}{suffix}")
    return OutboxSettings(to / path.name)


# Where a flush costs nothing: most of these tests look at what SQLite has written, and none can see
# what a disk has.
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def quick() -> Iterator[OutboxSettings]:
    """An outbox for thousands of events."""
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        yield OutboxSettings(Path(folder, "outbox.sqlite3"))


@pytest.fixture
def where(tmp_path: Path) -> OutboxSettings:
    return OutboxSettings(tmp_path / "state" / "outbox.sqlite3")


# --- against a model


@dataclass
class Model:
    """What an outbox should hold, as a plain list; an entry is (size, event)."""

    room: int
    size: Callable[[SoundEvent], int]

    def __post_init__(self) -> None:
        self.entries: list[SoundEvent] = []
        self.dropped = 0

    def put(self, new: SoundEvent) -> None:
        self.entries.append(new)
        while sum(map(self.size, self.entries)) > self.room and len(self.entries) > 1:
            ids = list(dict.fromkeys(one.id for one in self.entries if one.id != new.id))
            if ids:
                left = [one for one in self.entries if one.id != ids[0]]
            else:
                older = self.entries[:-1]
                updates = [one for one in older if one.phase == "update"]
                left = [one for one in self.entries if one is not (updates or older)[0]]
            self.dropped += len(self.entries) - len(left)
            self.entries = left

    def delete(self, index: int) -> None:
        del self.entries[index % len(self.entries)]


IDS = [uuid7() for _ in range(5)]
PHASES = st.sampled_from(["start", "update", "update", "end"])


class DiskMachine(RuleBasedStateMachine):
    """Puts, deletes, orderly ends and power cuts, in any order."""

    @initialize(room=st.integers(1, 12))
    def begin(self, room: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=QUICK))
        self.life = 0
        self.sample = 0
        max_size_mb = room * 860 / 1e6
        self.settings = OutboxSettings(self.folder / "0" / "outbox.sqlite3", max_size_mb)
        self.outbox = DiskOutbox(self.settings)
        self.model = Model(
            int(max_size_mb * 1e6), lambda one: len(one.to_json().encode()) + ROW_BYTES
        )
        self.lost = 0

    @rule(which=st.sampled_from(IDS), phase=PHASES)
    def put(self, which: str, phase: str) -> None:
        self.sample += 1
        new = event(self.sample, phase, which)
        newest = max((queued.key for queued in self.outbox.items()), default=-(10**9))
        assert self.outbox.put(new).key > newest
        self.model.put(new)

    @precondition(lambda self: self.model.entries)
    @rule(index=st.integers(0, 100))
    def delete(self, index: int) -> None:
        kept = self.outbox.items()
        self.outbox.delete(kept[index % len(kept)].key)
        self.model.delete(index)

    @rule(key=st.integers(10**6, 10**7))
    def delete_what_is_not_there(self, key: int) -> None:
        self.outbox.delete(key)

    @rule()
    def tend(self) -> None:
        self.outbox.tend()

    @rule()
    def end_and_begin(self) -> None:
        self.outbox.close()
        self.restart()

    @rule()
    def cut_the_power(self) -> None:
        """Deletions of the last moments may be forgotten, and nothing else."""
        self.life += 1
        after = copied(self.settings.path, self.folder / str(self.life))
        self.outbox.close()
        self.settings = replace(self.settings, path=after.path)
        before = self.model.entries
        self.restart()
        found = [queued.event for queued in self.outbox.items()]
        assert [one for one in found if one in before] == before
        assert all(one.sample <= self.sample for one in found)
        self.model.entries = found

    def restart(self) -> None:
        self.lost += self.model.dropped
        self.model.dropped = 0
        self.outbox = DiskOutbox(self.settings)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "outbox"):
            return
        assert [queued.event for queued in self.outbox.items()] == self.model.entries
        assert len(self.outbox) == len(self.model.entries)
        assert self.outbox.dropped == self.model.dropped
        assert self.outbox.fault is None

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.outbox.close()
            shutil.rmtree(self.folder)


TestAgainstAModel = DiskMachine.TestCase
TestAgainstAModel.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, derandomize=True
)


@settings(derandomize=True)
@given(
    limit=st.integers(1, 8),
    steps=st.lists(st.tuples(st.sampled_from(IDS), PHASES, st.booleans(), st.integers(0, 50))),
)
def test_in_memory_the_same_law_holds(limit: int, steps: list[tuple[str, str, bool, int]]) -> None:
    outbox, model = MemoryOutbox(limit), Model(limit, lambda _one: 1)
    for sample, (which, phase, deleting, index) in enumerate(steps):
        if deleting and model.entries:
            kept = outbox.items()
            outbox.delete(kept[index % len(kept)].key)
            model.delete(index)
        else:
            outbox.put(event(sample, phase, which))
            model.put(event(sample, phase, which))
        assert samples(outbox) == [one.sample for one in model.entries]
        assert (len(outbox), outbox.dropped) == (len(model.entries), model.dropped)


def test_pages_are_the_whole(where: OutboxSettings) -> None:
    with DiskOutbox(where) as outbox:
        keys = [outbox.put(event(sample)).key for sample in range(10)]
        outbox.delete(keys[1])
        outbox.delete(keys[4])
        found: list[int] = []
        after = None
        while page := outbox.items(after, 3):
            assert len(page) <= 3
            found += [queued.event.sample for queued in page]
            after = page[-1].key
        assert found == samples(outbox) == [0, 2, 3, 5, 6, 7, 8, 9]


def test_a_full_outbox_says_so_once(where: OutboxSettings, caplog: Any) -> None:
    with DiskOutbox(replace(where, max_size_mb=0.002)) as outbox:
        for sample in range(20):
            outbox.put(event(sample))
        kept = samples(outbox)
        assert kept == list(range(20 - len(kept), 20))
        assert 1 < len(kept) < 5
        assert outbox.dropped == 20 - len(kept)
    (line,) = [record.message for record in caplog.records]
    assert "is full with 0.002 MB: the oldest events are given up and counted" in line


# --- power cuts and kills

# Programs of their own begin with these lines: importing this file would take them a second.
PRELUDE = f"""
from __future__ import annotations
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.topics import Topics
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.publisher import Publisher
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
STREAM = uuid7()
ONSET = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
{inspect.getsource(event)}
"""
WRITER = f"""{PRELUDE}
with DiskOutbox(OutboxSettings(Path(sys.argv[1]))) as outbox:
    keys = []
    for sample in range(100_000):
        keys.append(outbox.put(event(sample)).key)
        print(sample, flush=True)
        if sample % 2 and sample > 8:
            outbox.delete(keys[sample - 8])
        if sample % 16 == 0:
            outbox.tend()
"""


class Writer:
    """A process that puts 0, 1, 2, ... and deletes odd ones later; `said`: the last one put."""

    def __init__(self, path: Path) -> None:
        self.said = -1
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said = int(line)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Stopped at some instruction; what had been put by then."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        yield self.said
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> int:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.said


def check(kept: OutboxSettings, said: int) -> None:
    with DiskOutbox(kept) as outbox:
        assert outbox.fault is None
        found = samples(outbox)
    assert found == sorted(set(found))
    assert set(range(0, said + 1, 2)) <= set(found)
    # An odd one is deleted once eight more have been put.
    assert set(range(max(0, found[-1] - 7), found[-1])) <= set(found)


def test_no_instant_of_a_power_cut_loses_what_was_put(tmp_path: Path, caplog: Any) -> None:
    rng = random.Random(5)
    where = tmp_path / "outbox.sqlite3"
    writer = Writer(where)
    cuts: list[tuple[OutboxSettings, int]] = []
    try:
        target = 0
        for number in range(25):
            # The log is written back to the file every thousand pages: some hundred events.
            until(lambda at=target: writer.said >= at)  # type: ignore[misc]
            target += rng.randint(0, 120)
            with writer.held() as said:
                cuts.append((copied(where, tmp_path / str(number)), said))
    finally:
        said = writer.kill()
    for kept, put in [*cuts, (OutboxSettings(where), said)]:
        check(kept, put)
    assert said > 1_000
    assert not caplog.records


def test_each_put_is_flushed(where: OutboxSettings) -> None:
    # A process that is killed loses nothing without it either, so that the settings are asked.
    with DiskOutbox(where) as outbox:
        assert outbox._connection is not None
        assert outbox._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert outbox._connection.execute("PRAGMA synchronous").fetchone() == (2,)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(data=st.data())
def test_a_half_written_tail_costs_nothing_that_was_put(data: st.DataObject) -> None:
    """The log as it may be when power fails in the middle of the last put: cut, or garbage."""
    n_before = data.draw(st.integers(0, 5))
    with tempfile.TemporaryDirectory(dir=QUICK) as name:
        folder = Path(name)
        path = folder / "outbox.sqlite3"
        with DiskOutbox(OutboxSettings(path)) as outbox:
            for sample in range(n_before):
                outbox.put(event(sample))
            sound = Path(f"{path}-wal").stat().st_size
            outbox.put(event(n_before))
            torn = copied(path, folder / "torn")
        log = Path(f"{torn.path}-wal")
        content = log.read_bytes()
        cut = data.draw(st.integers(sound, len(content)))
        garbage = data.draw(st.binary(max_size=40)) * data.draw(st.integers(0, 100))
        log.write_bytes(content[:cut] + garbage)
        with DiskOutbox(torn) as outbox:
            found = samples(outbox)
            assert found[:n_before] == list(range(n_before))
            assert found in (list(range(n_before)), list(range(n_before + 1)))
            if cut == len(content):
                assert len(found) == n_before + 1
            outbox.put(event(99))
            assert samples(outbox) == [*found, 99]


# --- damage


def page_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xa5" * 64
    path.write_bytes(content)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE outbox (key INTEGER PRIMARY KEY)")
        other.commit()


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(random.Random(3).randbytes(20_000)),
    "text": lambda path: path.write_text("hello\n" * 500),
    "flipped": page_flipped,
    "truncated": truncated,
    "a few bytes": lambda path: os.truncate(path, 100),
    "foreign": foreign,
    "newer": newer,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside(damage: str, where: OutboxSettings, caplog: Any) -> None:
    with DiskOutbox(where) as outbox:
        for sample in range(60):
            outbox.put(event(sample))
    DAMAGES[damage](where.path)
    found = where.path.read_bytes()
    with DiskOutbox(where) as outbox:
        saved = samples(outbox)
        outbox.put(event(99))
        assert outbox.fault is None
    # As far as it can be read.
    assert saved == sorted(set(saved))
    assert {"truncated": 10 < len(saved) < 60, "newer": len(saved) == 60}.get(damage, not saved)
    aside = Path(f"{where.path}.damaged")
    assert aside.read_bytes() == found
    (record,) = caplog.records
    assert record.message.startswith(f"outbox {where.path} is damaged (")
    assert (
        f"moved to {aside}, a new one is begun with the {len(saved)} messages that could be read"
    ) in record.message
    assert "\n" not in record.message
    with DiskOutbox(where) as outbox:
        assert samples(outbox) == [*saved, 99]


def middle_damaged(path: Path) -> None:
    """Twenty pages in the middle of the file say nothing any more."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096 * 20)


def filled(where: OutboxSettings, n_events: int) -> None:
    """Many events, all in the database itself, nothing in its log."""
    with DiskOutbox(where) as outbox:
        for sample in range(n_events):
            outbox.put(event(sample))


def test_what_lies_behind_the_damage_is_read_and_the_rest_is_counted(
    quick: OutboxSettings, caplog: Any
) -> None:
    filled(quick, 2_000)
    middle_damaged(quick.path)
    with DiskOutbox(quick) as outbox:
        saved = samples(outbox)
        # About five events and twenty entries of an index lie on a page.
        assert 1_850 < len(saved) < 2_000
        assert saved == sorted(saved)
        assert saved[-1] == 1_999
        assert len(saved) + outbox.dropped == 2_000
        assert f"{outbox.dropped} could not, and count as dropped" in caplog.text


def without_index(path: Path) -> None:
    """The page that its index of ids begins with says nothing any more."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'outbox_id'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 64)


def test_without_an_index_too_what_lies_behind_the_damage_is_read(quick: OutboxSettings) -> None:
    filled(quick, 2_000)
    without_index(quick.path)
    with DiskOutbox(quick) as outbox:
        assert samples(outbox) == list(range(2_000))
    without_index(quick.path)
    middle_damaged(quick.path)
    with DiskOutbox(quick) as outbox:
        saved = samples(outbox)
        assert 1_850 < len(saved) < 2_000
        assert saved == sorted(saved)
        assert saved[-1] == 1_999


def test_damage_while_it_is_used_loses_no_order(quick: OutboxSettings) -> None:
    filled(quick, 2_000)
    with DiskOutbox(quick) as outbox:
        middle_damaged(quick.path)
        outbox.put(event(2_000))
        heard: list[int] = []
        after = None
        while found := outbox.items(after, 50):
            heard += [queued.event.sample for queued in found]
            after = found[-1].key
        assert outbox.fault is None
        assert heard == sorted(heard)
        assert heard[-1] == 2_000
        assert len(heard) + outbox.dropped == 2_001


def test_what_was_on_its_way_when_the_file_was_damaged_is_not_dropped(
    quick: OutboxSettings,
) -> None:
    filled(quick, 2_000)
    with DiskOutbox(quick) as outbox:
        (first,) = outbox.items(limit=1)
        with contextlib.closing(sqlite3.connect(quick.path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        middle_damaged(quick.path)
        assert outbox._connection is not None
        outbox._connection.execute("PRAGMA shrink_memory")
        seen = {first.key}
        after = first.key
        while found := outbox.items(after, 50):
            seen |= {queued.key for queued in found}
            after = found[-1].key
        assert outbox.dropped == 0
        missing = sorted(set(range(first.key, first.key + 2_000)) - seen)
        assert len(missing) > 50
        for key in missing[:50]:
            outbox.delete(key)
        outbox.items()
        assert outbox.dropped == len(missing) - 50


def test_on_a_full_disk_a_damaged_file_stays_until_it_can_be_rescued(
    where: OutboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_EVERY_S", 0.0)
    filled(where, 200)
    without_index(where.path)
    found = where.path.read_bytes()
    # Neither the copy nor, with more room, the new file can be written.
    for n_bytes in (40_000, len(found) + 5_000):
        with file_size_limit(n_bytes), DiskOutbox(where) as outbox:
            outbox.tend()
            assert outbox.fault is not None
            assert outbox.dropped == 0
        assert where.path.read_bytes() == found
        assert not [path for path in where.path.parent.iterdir() if ".sqlite3.d" in path.name]
        assert not [path for path in where.path.parent.iterdir() if ".sqlite3.r" in path.name]
    with file_size_limit(40_000):
        outbox = DiskOutbox(where)
        outbox.put(event(200))
    with outbox:
        outbox.tend()
        assert outbox.fault is None
        assert samples(outbox) == list(range(201))


def test_a_rescue_that_is_cut_off_anywhere_is_done_again(
    quick: OutboxSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of a name is the last thing that happens, in turn."""
    filled(quick, 60)
    with DiskOutbox(quick) as outbox:
        outbox.put(event(60))
        cut = copied(quick.path, tmp_path / "cut")
    without_index(cut.path)
    steps = 0
    replace_name, unlink = Path.replace, Path.unlink

    def step() -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise KeyboardInterrupt

    def replaced(path: Path, to: Any) -> Path:
        step()
        return replace_name(path, to)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        step()
        unlink(path, missing_ok=missing_ok)

    for n_steps in range(100):
        folder = tmp_path / str(n_steps)
        there = copied(cut.path, folder)
        steps = n_steps
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replaced)
            patch.setattr(Path, "unlink", unlinked)
            try:
                DiskOutbox(there).close()
            except KeyboardInterrupt:
                whole = False
            else:
                whole = True
        with DiskOutbox(there) as outbox:
            assert samples(outbox) == list(range(61)), n_steps
        assert {path.name.removeprefix(there.path.name) for path in folder.iterdir()} <= {
            "",
            ".lock",
            ".damaged",
            ".damaged-wal",
        }
        if whole:
            break
    assert n_steps > 5


def test_an_empty_file_whose_log_is_not_is_damaged(where: OutboxSettings, tmp_path: Path) -> None:
    with DiskOutbox(where) as outbox:
        outbox.put(event(1))
        cut = copied(where.path, tmp_path / "cut")
    os.truncate(cut.path, 0)
    with DiskOutbox(cut) as outbox:
        assert samples(outbox) == []
    assert Path(f"{cut.path}.damaged-wal").stat().st_size > 0


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 12_000), st.booleans())
def test_no_file_whatsoever_stops_a_sensor(garbage: bytes, at: int, whole: bool) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as name:
        kept = OutboxSettings(Path(name, "outbox.sqlite3"))
        if whole:
            kept.path.write_bytes(garbage)
        else:
            with DiskOutbox(kept) as outbox:
                for sample in range(8):
                    outbox.put(event(sample))
            content = kept.path.read_bytes()
            kept.path.write_bytes(content[:at] + garbage + content[at + len(garbage) :])
        with DiskOutbox(kept) as outbox:
            outbox.tend()
            before = samples(outbox)
            assert outbox.put(event(99)).event.sample == 99
            assert samples(outbox) == [*before, 99]


def test_a_message_that_is_no_event_is_given_up_and_the_rest_is_sent(
    where: OutboxSettings, caplog: Any
) -> None:
    with DiskOutbox(where) as outbox:
        for sample in range(3):
            outbox.put(event(sample))
    with contextlib.closing(sqlite3.connect(where.path)) as other:
        other.execute("UPDATE outbox SET event = x'00ff' WHERE key = 1")
        other.commit()
    with DiskOutbox(where) as outbox:
        assert samples(outbox) == [0, 2]
        assert (len(outbox), outbox.dropped) == (2, 1)
    assert len(caplog.records) == 1
    with DiskOutbox(where) as outbox:
        assert samples(outbox) == [0, 2]
        assert outbox.dropped == 0


# --- a disk that cannot be written


def test_without_a_folder_it_goes_on_in_memory_and_returns_to_the_disk(
    tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_EVERY_S", 0.0)
    state = tmp_path / "state"
    kept = OutboxSettings(state / "outbox.sqlite3")
    with DiskOutbox(kept) as outbox:
        outbox.put(event(0))
    state.rename(tmp_path / "away")
    state.write_text("not a folder")
    with DiskOutbox(kept) as outbox:
        first, second = outbox.put(event(1)), outbox.put(event(2))
        outbox.tend()
        assert samples(outbox) == [1, 2]
        assert (outbox.unsaved, outbox.in_memory) == (2, 2)
        assert str(outbox.fault).startswith(f"outbox {kept.path}: ")
        assert len(caplog.records) == 1
        assert "events are kept in memory" in caplog.text
        outbox.delete(first.key)
        state.unlink()
        (tmp_path / "away").rename(state)
        outbox.tend()
        assert outbox.fault is None
        assert (outbox.unsaved, outbox.in_memory) == (2, 0)
        # What an earlier process left there is older.
        assert samples(outbox) == [0, 2]
        assert outbox.items()[1].key == second.key
        assert outbox.put(event(3)).key > second.key
    assert "can be written again; 1 messages were moved" in caplog.records[-1].message
    with DiskOutbox(kept) as outbox:
        assert samples(outbox) == [0, 2, 3]


@contextlib.contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond: to SQLite a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_everything_in_order(
    where: OutboxSettings, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_EVERY_S", 0.0)
    with DiskOutbox(where) as outbox:
        for sample in range(5):
            outbox.put(event(sample))
        with file_size_limit(Path(f"{where.path}-wal").stat().st_size + 20_000):
            for sample in range(5, 30):
                outbox.put(event(sample))
            outbox.tend()
            assert outbox.fault is not None
            assert 0 < outbox.unsaved == outbox.in_memory < 25
            assert samples(outbox) == list(range(30))
            assert len(outbox) == 30
            outbox.delete(outbox.items()[0].key)
        assert len(caplog.records) == 1
        outbox.tend()
        assert outbox.fault is None
        assert outbox.in_memory == 0
        assert samples(outbox) == list(range(1, 30))
    with DiskOutbox(where) as outbox:
        assert samples(outbox) == list(range(1, 30))


def test_a_file_damaged_while_it_is_used_is_replaced(
    where: OutboxSettings, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_EVERY_S", 0.0)
    with DiskOutbox(where) as outbox:
        for sample in range(60):
            outbox.put(event(sample))
    with DiskOutbox(where) as outbox:
        page_flipped(where.path)
        # What SQLite holds in memory would hide it, as on a sensor that has put little.
        assert outbox._connection is not None
        outbox._connection.execute("PRAGMA shrink_memory")
        outbox.put(event(60))
        outbox.items()
        outbox.put(event(61))
        outbox.tend()
        outbox.put(event(62))
        assert samples(outbox)[-2:] == [61, 62]
        assert outbox.fault is None
    assert "is damaged" in caplog.text


def test_what_is_put_after_the_end_is_no_fault(where: OutboxSettings) -> None:
    outbox = DiskOutbox(where)
    outbox.close()
    outbox.put(event(1))
    outbox.tend()
    outbox.close()
    assert samples(outbox) == [1]


# --- one file, one process


def test_a_second_one_refuses(where: OutboxSettings) -> None:
    with DiskOutbox(where) as outbox:
        with pytest.raises(InputError) as refused:
            DiskOutbox(where)
        outbox.put(event(1))
    assert str(refused.value).startswith(f"outbox {where.path}: another soundpost uses it; ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 3
    with DiskOutbox(where) as outbox:
        assert samples(outbox) == [1]


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    kept = OutboxSettings(tmp_path / "outbox.sqlite3")
    writer = Writer(kept.path)
    try:
        until(lambda: writer.said >= 0)
        with pytest.raises(InputError, match="another soundpost uses it"):
            DiskOutbox(kept)
    finally:
        writer.kill()
    DiskOutbox(kept).close()


# --- clocks


class World:
    """Clocks as a Pi without a battery has them: true time, and a system clock that is set."""

    def __init__(self) -> None:
        self.true_s = 1_790_000_000.0
        self.boot("first")

    def boot(self, name: str, off_s: float = 0.0, synced: bool = True) -> None:
        self._name, self._booted_s = name, self.true_s
        self._off_s, self._synced = off_s, synced

    def set_clock(self, off_s: float = 0.0, synced: bool = True) -> None:
        self._off_s, self._synced = off_s, synced

    def utc(self) -> datetime:
        """By the system clock."""
        return datetime.fromtimestamp(self.true_s + self._off_s, timezone.utc)

    def now(self) -> Moment:
        uptime_s = self.true_s - self._booted_s
        return Moment(self._name, uptime_s, self.true_s + self._off_s, self._synced)


def sent_by(outbox: DiskOutbox, world: World) -> list[SoundEvent]:
    """What would be sent now."""
    now = world.now()
    return [SoundEvent.from_json(queued.payload(now)) for queued in outbox.items()]


def test_the_time_in_the_outbox_is_told_through_steps_and_restarts(where: OutboxSettings) -> None:
    world = World()
    with DiskOutbox(where, world.now) as outbox:
        outbox.put(event(1))
        world.true_s += 10.0
        world.set_clock(off_s=-86_400.0)
        outbox.put(event(2))
        world.set_clock(off_s=3_600.0)
        world.true_s += 5.5
        assert [one.queued_s for one in sent_by(outbox, world)] == [15.5, 5.5]
        world.set_clock()
    world.true_s += 100.0
    with DiskOutbox(where, world.now) as outbox:
        assert [one.queued_s for one in sent_by(outbox, world)] == [115.5, 105.5]
        # Dated by a clock that was right.
        outbox.put(event(3))
    world.true_s += 7_200.0
    world.boot("second", off_s=-7_000.0, synced=False)
    world.true_s += 30.0
    with DiskOutbox(where, world.now) as outbox:
        # How long it was off nobody knows yet: at least since the machine was started.
        assert [one.queued_s for one in sent_by(outbox, world)] == [30.0] * 3
        world.set_clock()
        assert sent_by(outbox, world)[2].queued_s == pytest.approx(7_230.0, abs=1e-3)


def undated(world: World, sample: int, phase: str = "start", id: str = "") -> SoundEvent:
    one = event(sample, phase, id)
    onset = world.utc()
    offset = None if one.offset is None else onset + timedelta(seconds=3)
    return replace(one, onset=onset, offset=offset, time_synced=False)


@pytest.mark.parametrize("tended", [True, False])
def test_events_before_the_clock_was_right_are_dated_when_it_is(
    tended: bool, where: OutboxSettings
) -> None:
    world = World()
    # As a Pi wakes up: at the time when it was switched off, or in 1970.
    world.boot("first", off_s=-1_789_999_990.0, synced=False)
    onsets = []
    with DiskOutbox(where, world.now) as outbox:
        for sample, phase in [(1, "start"), (2, "end")]:
            onsets.append(datetime.fromtimestamp(world.true_s, timezone.utc))
            heard = undated(world, sample, phase)
            world.true_s += 4.0
            outbox.put(heard, age_s=4.0)
        unknown = outbox.put(undated(world, 3))
        world.true_s += 60.0
        outbox.tend()
        assert not any(one.time_synced for one in sent_by(outbox, world))
        world.set_clock()
        world.true_s += 1.0
        if tended:
            outbox.tend()
            # Whatever happens from here on, the disk knows.
            outbox.close()
            world.boot("second", synced=False)
            outbox = DiskOutbox(where, world.now)
        with outbox:
            first, second, third = sent_by(outbox, world)
    for sent, onset in zip((first, second), onsets, strict=True):
        assert sent.time_synced
        assert abs(sent.onset - onset) < timedelta(milliseconds=1)
    assert second.duration_s == 3.0
    assert (third.time_synced, third.onset) == (False, unknown.event.onset)


def test_events_of_an_earlier_run_of_the_machine_cannot_be_dated(where: OutboxSettings) -> None:
    world = World()
    world.boot("first", off_s=-500.0, synced=False)
    with DiskOutbox(where, world.now) as outbox:
        heard = outbox.put(undated(world, 1), age_s=1.0).event
    world.true_s += 100.0
    world.boot("second")
    world.true_s += 20.0
    with DiskOutbox(where, world.now) as outbox:
        outbox.tend()
        (sent,) = sent_by(outbox, world)
    assert sent == replace(heard, queued_s=20.0)


def test_in_memory_they_are_dated_too() -> None:
    world = World()
    world.boot("first", off_s=-500.0, synced=False)
    outbox = MemoryOutbox(now=world.now)
    true = datetime.fromtimestamp(world.true_s, timezone.utc)
    outbox.put(undated(world, 1), age_s=0.0)
    world.true_s += 9.0
    world.set_clock()
    (queued,) = outbox.items()
    assert abs(queued.event.onset - true) < timedelta(milliseconds=1)
    assert queued.event.time_synced


def test_whole_events_that_waited_too_long_go(where: OutboxSettings, caplog: Any) -> None:
    world = World()
    old, lasting, young = uuid7(), uuid7(), uuid7()
    kept = replace(where, max_age_days=1.0)
    with DiskOutbox(kept, world.now) as outbox:
        outbox.put(event(1, "start", old))
        outbox.put(event(2, "start", lasting))
        outbox.put(event(3, "end", old))
        world.true_s += 86_000.0
        outbox.put(event(4, "update", lasting))
        outbox.put(event(5, "start", young))
    world.true_s += 1_000.0
    with DiskOutbox(kept, world.now) as outbox:
        outbox.tend()
        # One event lasts for a day: its start stays with what came of it.
        assert samples(outbox) == [2, 4, 5]
        assert (len(outbox), outbox.dropped) == (3, 2)
    assert "older than 1 days, which are given up" in caplog.text
    with DiskOutbox(kept, world.now) as outbox:
        assert samples(outbox) == [2, 4, 5]


@pytest.mark.parametrize("changes", [{"max_size_mb": 0}, {"max_age_days": -1}])
def test_bounds_are_checked(changes: dict[str, float], where: OutboxSettings) -> None:
    with pytest.raises(UsageError, match="must be more than 0"):
        replace(where, **changes)


# --- with a broker


class Witness:
    """An independent listener: a plain paho client that notes every event, repeats as well."""

    def __init__(self, port: int) -> None:
        self.messages: list[dict[str, Any]] = []
        self.gone = threading.Event()
        ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311, reconnect_on_failure=False
        )
        self._client.on_disconnect = lambda *_: self.gone.set()
        self._client.on_connect = lambda client, *_: client.subscribe("soundpost/+/+/event", 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _c, _u, m: self.messages.append(json.loads(m.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(PATIENCE_S)

    def samples(self, source: str = "mic0") -> list[int]:
        return [one["sample"] for one in self.messages if one["source"] == source]

    def catch_up(self) -> None:
        """Wait for everything that the broker has taken: it keeps the order."""
        mark = {"source": "mark", "sample": len(self.messages)}
        self._client.publish("soundpost/test/mark/event", json.dumps(mark), qos=1)
        until(lambda: mark in self.messages)
        self.messages.remove(mark)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(start_mosquitto: Any) -> Any:
    """A Mosquitto that hands on everything before it acknowledges it, and bounds no queue."""
    return start_mosquitto("allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0")


def address(port: int) -> BrokerSettings:
    return BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2, timeout_s=2.0)


def test_what_a_process_could_not_send_the_next_one_sends_first(
    broker: Any, where: OutboxSettings
) -> None:
    broker.kill()
    with DiskOutbox(where) as outbox, Publisher(address(broker.port), TOPICS, outbox=outbox) as old:
        for sample in range(20):
            old.publish_event(event(sample))
        assert old.close(0.0) == 20
    broker.start()
    witness = Witness(broker.port)
    with (
        DiskOutbox(where) as outbox,
        Publisher(address(broker.port), TOPICS, outbox=outbox) as publisher,
    ):
        assert publisher.queued == 20
        publisher.publish_event(event(20))
        assert publisher.flush(PATIENCE_S)
        assert len(outbox) == 0
        publisher.wait_connected(PATIENCE_S)
        publisher.publish_event(event(21))
        assert publisher.flush(PATIENCE_S)
    until(lambda: len(witness.messages) == 22)
    witness.close()
    assert witness.samples() == list(range(22))
    assert all(one["queued_s"] > 0 for one in witness.messages[:20])
    assert witness.messages[-1]["queued_s"] < 1.0
    with DiskOutbox(where) as outbox:
        assert len(outbox) == 0


def test_what_is_put_while_a_backlog_is_sent_goes_behind_it(
    broker: Any, quick: OutboxSettings
) -> None:
    witness = Witness(broker.port)
    with DiskOutbox(quick) as outbox:
        for sample in range(3_000):
            outbox.put(event(sample, source=f"mic{sample % 2}"))
        with Publisher(address(broker.port), TOPICS, outbox=outbox) as publisher:
            until(lambda: len(outbox) < 3_000)
            waiting = len(outbox)
            for sample in range(3_000, 3_300):
                publisher.publish_event(event(sample, source=f"mic{sample % 2}"))
            assert publisher.flush(PATIENCE_S)
    until(lambda: len(witness.messages) == 3_300)
    witness.close()
    assert waiting > 0
    assert witness.samples("mic0") == list(range(0, 3_300, 2))
    assert witness.samples("mic1") == list(range(1, 3_300, 2))


SENSOR = f"""{PRELUDE}
path, port, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with DiskOutbox(OutboxSettings(path)) as outbox:
    address = BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2)
    publisher = Publisher(address, Topics("soundpost", "porch-pi"), outbox=outbox).start()
    for sample in range(first, first + 100_000, 2):
        sys.stdin.readline()
        one, other = event(sample), event(sample + 1, source="mic1")
        publisher.publish_event(one)
        publisher.publish_event(other)
        print(sample, one.id, other.id, flush=True)
"""


class KilledSensor:
    """A process that publishes two events, of two sources, for each line that it is given."""

    def __init__(self, path: Path, port: int, first: int) -> None:
        self.put: dict[int, str] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SENSOR, path, str(port), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def ask(self, pairs: int) -> None:
        self._in.write("\n" * pairs)
        self._in.flush()

    def take(self, pairs: int) -> None:
        for _ in range(pairs):
            self._note(self._out.readline())

    def kill(self) -> None:
        self._process.kill()
        for line in self._out:
            if line.endswith("\n"):
                self._note(line)
        self._out.close()
        with contextlib.suppress(BrokenPipeError):
            self._in.close()
        self._process.wait()

    def _note(self, line: str) -> None:
        sample, one, other = line.split()
        self.put[int(sample)], self.put[int(sample) + 1] = one, other


def test_sensor_and_broker_are_killed_in_mid_stream_and_everything_arrives(
    broker: Any, tmp_path: Path
) -> None:
    """Four lives of a sensor, each killed while it publishes; in two the broker is killed first."""
    rng = random.Random(11)
    path = tmp_path / "outbox.sqlite3"
    put: dict[int, str] = {}
    heard: list[dict[str, Any]] = []
    for life in range(4):
        witness = Witness(broker.port)
        sensor = KilledSensor(path, broker.port, life * 100_000)
        for _ in range(rng.randint(2, 8)):
            sensor.ask(20)
            sensor.take(20)
            # The broker forgets what waits for a listener: this one is to have it all.
            until(lambda: len(sensor.put) < len(witness.messages) + 60)  # noqa: B023
        if life % 2:
            # What it has acknowledged and not handed on would be lost with it: it gets no further.
            witness.catch_up()
            broker.freeze()
        sensor.ask(20)
        sensor.take(rng.randint(0, 20))
        if life % 2:
            # Nobody acknowledges any more: from here on it is the disk's to remember.
            broker.kill()
        sensor.ask(100)
        sensor.take(rng.randint(20, 90))
        sensor.kill()
        put.update(sensor.put)
        if not life % 2:
            witness.catch_up()
            broker.kill()
        assert witness.gone.wait(PATIENCE_S)
        witness.close()
        heard += witness.messages
        broker.start()
    witness = Witness(broker.port)
    with DiskOutbox(OutboxSettings(path)) as outbox:
        assert len(outbox) > 0
        with Publisher(address(broker.port), TOPICS, outbox=outbox) as publisher:
            assert publisher.flush(PATIENCE_S)
        assert outbox.dropped == 0
    last = max(put)
    until(lambda: last in {one["sample"] for one in witness.messages})
    witness.close()
    heard += witness.messages
    ids: dict[int, str] = {}
    contents: dict[str, dict[str, Any]] = {}
    for one in heard:
        assert ids.setdefault(one["sample"], one["id"]) == one["id"]
        content = {key: value for key, value in one.items() if key != "queued_s"}
        assert contents.setdefault(one["id"], content) == content
    assert put.items() <= ids.items()
    for source in ("mic0", "mic1"):
        order = list(dict.fromkeys(one["sample"] for one in heard if one["source"] == source))
        assert order == sorted(order)
    print(f"{len(put)} put, {len(heard)} heard, {len(heard) - len(ids)} repeats")


def test_a_repeat_that_was_dated_in_between_is_still_a_repeat(broker: Any) -> None:
    received: list[SoundEvent] = []
    with Subscriber(address(broker.port), received.append) as subscriber:
        subscriber.wait_connected(PATIENCE_S)
        world = World()
        world.boot("first", off_s=-500.0, synced=False)
        queued = Queued(0, undated(world, 1, "end"), world.now(), 0.0)
        world.true_s += 3.0
        world.set_clock()
        again = queued.dated(world.now())
        with Publisher(address(broker.port), TOPICS) as publisher:
            publisher.wait_connected(PATIENCE_S)
            for one in (queued.event, again.event, event(2)):
                publisher.publish_event(one)
            assert publisher.flush(PATIENCE_S)
        until(lambda: any(one.sample == 2 for one in received))
    assert again.event.offset != queued.event.offset
    assert [one.sample for one in received] == [1, 2]


def test_logging_is_quiet_while_all_is_well(where: OutboxSettings, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="soundpost.device.disk_outbox")
    with DiskOutbox(where) as outbox:
        outbox.delete(outbox.put(event(1)).key)
        outbox.tend()
    assert not caplog.records
