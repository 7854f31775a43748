"""The folder of clips: whole files only, what goes when, and nobody else's file is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device import clip_store
from soundpost.device.clip_store import ClipSettings, ClipStore, slug
from soundpost.device.errors import InputError, UsageError
from soundpost.device.identifiers import uuid7

NOW = datetime.now(timezone.utc)
DAY_S = 86_400.0


class Clock:
    """The machine's clock: how far it is ahead of the right one, and whether it knows the time."""

    ahead_s = 0.0
    synchronised = True


@pytest.fixture(scope="module", autouse=True)
def _replaced() -> Iterator[None]:
    real_s = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real_s() + Clock.ahead_s)
        patch.setattr(clip_store, "clock_synchronised", lambda: Clock.synchronised)
        yield


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()
    Clock.ahead_s, Clock.synchronised = 0.0, True


def named(store: ClipStore, clock: Clock) -> str:
    """Write a clip as a sensor would that reads this clock now."""
    now = datetime.fromtimestamp(time.time(), timezone.utc)
    name = ClipStore.name(now, "porch", "dog", uuid7())
    store.write(name, b"x", {"event": {"time_synced": clock.synchronised}})
    os.utime(store.folder / name, (time.time(), time.time()))
    return name


def settings(folder: Path, **limits: float) -> ClipSettings:
    return ClipSettings(folder=folder, **{"min_free_mb": 0.0, **limits})  # type: ignore[arg-type]


def put(
    store: ClipStore, label: str = "dog", age_days: float = 0.0, n_bytes: int = 1_000, n: int = 0
) -> str:
    begins = NOW - timedelta(days=age_days, microseconds=n)
    name = ClipStore.name(begins, "porch", label, uuid7())
    store.write(name, bytes(n_bytes), {"label": label})
    return name


def flacs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".flac"}


def test_a_clip_is_two_whole_files_named_after_the_event(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path / "a" / "clips"))
    event = uuid7()
    moment = datetime(2026, 11, 20, 11, 0, 1, 250_000, timezone(timedelta(hours=1)))
    name = ClipStore.name(moment, "porch", "smoke_alarm", event)
    assert name == f"20261120T100001.250000Z__porch__smoke_alarm__{event}.flac"
    store.write(name, b"sound", {"label": "smoke_alarm"})
    assert (store.folder / name).read_bytes() == b"sound"
    side_car = (store.folder / name).with_suffix(".json")
    assert json.loads(side_car.read_text(encoding="utf-8")) == {"label": "smoke_alarm"}
    assert len(list(store.folder.iterdir())) == 2
    # Not for every user of the machine.
    assert {path.stat().st_mode & 0o007 for path in store.folder.iterdir()} == {0}


@given(source=st.text(min_size=1, max_size=128), label=st.text(min_size=1, max_size=128))
def test_any_label_makes_a_name_that_the_store_knows_again(
    source: str, label: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clips")
    name = ClipStore.name(NOW, source, label, uuid7())
    assert "/" not in name
    assert len(name.encode()) <= 255
    ClipStore(settings(folder)).write(name, b"x", {})
    assert len(ClipStore(settings(folder))) == 1


def test_slugs() -> None:
    assert slug("smoke_alarm") == "smoke_alarm"
    assert slug("water drops") == "water_drops"
    assert slug("../../etc/passwd") == "etc_passwd"
    assert slug("Tür") == "T_r"
    assert slug("a__b") == "a_b"
    assert slug("犬") == "-"


def test_too_old_goes_at_the_start_and_with_each_clip(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path, max_age_days=10))
    fresh, old = put(store, age_days=9.9), put(store, age_days=10.1)
    assert flacs(tmp_path) == {fresh}
    assert old not in {path.name for path in tmp_path.iterdir()}
    ClipStore(settings(tmp_path, max_age_days=5))
    assert list(tmp_path.iterdir()) == []


def test_beyond_the_space_the_oldest_go(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path, max_size_mb=1))
    names = [put(store, n_bytes=300_000, n=-n) for n in range(6)]
    assert flacs(tmp_path) == set(names[-3:])
    assert store.size_mb <= 1


class Model:
    """What must be kept, from the settings' words alone."""

    def __init__(self, max_age_days: float, max_size: int, min_per_class: int) -> None:
        self.limits = (max_age_days, max_size, min_per_class)
        self.clips: list[tuple[float, str, int, str]] = []

    def expire(self) -> None:
        max_age_days, max_size, min_per_class = self.limits
        for clip in sorted(self.clips, key=lambda clip: -clip[0]):
            age_days, label, _, _ = clip
            newer = sum(other[1] == label and other[0] < age_days for other in self.clips)
            if newer < min_per_class:
                continue
            if age_days > max_age_days or sum(size for _, _, size, _ in self.clips) > max_size:
                self.clips.remove(clip)


@given(
    clips=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from("abc"), st.integers(1, 400)),
        max_size=12,
        unique_by=lambda clip: clip[0],
    ),
    min_per_class=st.integers(0, 3),
    max_size_mb=st.sampled_from([1, 1_000]),
)
def test_retention_keeps_what_the_settings_say(
    clips: list[tuple[int, str, int]],
    min_per_class: int,
    max_size_mb: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("clips")
    store = ClipStore(
        settings(folder, max_age_days=30, min_per_class=min_per_class, max_size_mb=max_size_mb)
    )
    model = Model(30, max_size_mb * 1_000_000, min_per_class)
    for tenth_days, label, kilobytes in clips:
        record = len(json.dumps({"label": label}, indent=1)) + 1
        name = put(store, label, tenth_days / 10 + 0.05, kilobytes * 1_000 - record)
        model.clips.append((tenth_days / 10 + 0.05, label, kilobytes * 1_000, name))
        model.expire()
        assert flacs(folder) == {name for *_, name in model.clips}
    # The folder is its own index.
    again = ClipStore(settings(folder, max_age_days=30, min_per_class=min_per_class))
    assert (len(again), again.size_mb) == (len(store), store.size_mb)
    assert flacs(folder) == {name for *_, name in model.clips}


def test_other_files_are_neither_deleted_nor_counted(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path))
    mine = put(store, age_days=20)
    others = [
        "holiday.flac",
        "notes.json",
        ".holiday.flac.x1.part",
        f"20001120T100001.250000Z__porch__dog__{uuid7()}.wav",
        f"20001320T100001.250000Z__porch__dog__{uuid7()}.flac",
        f"20001120T100001.250000Z__porch__dog__{uuid7()}.flac.bak",
        "20001120T100001.250000Z__porch__dog__1.flac",
    ]
    for other in others:
        (tmp_path / other).write_bytes(b"x" * 2_000_000)
    folder_of_that_name = tmp_path / f"20001120T100001.250000Z__porch__dog__{uuid7()}.flac"
    folder_of_that_name.mkdir()
    store = ClipStore(settings(tmp_path, max_age_days=1, max_size_mb=1))
    assert not (tmp_path / mine).exists()
    assert all((tmp_path / other).exists() for other in others)
    assert folder_of_that_name.is_dir()
    assert (len(store), store.size_mb) == (0, 0.0)


# Writes a clip; the signal comes at the n-th call that touches the folder.
_KILLED = """
import os, signal, sys
from pathlib import Path
from soundpost.device import files
from soundpost.device.clip_store import ClipSettings, ClipStore

store = ClipStore(ClipSettings(folder=Path(sys.argv[1]), min_free_mb=0.0))
left = int(sys.argv[3])

def counted(call):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

os.fsync = counted(os.fsync)
Path.replace = counted(Path.replace)
store.write(sys.argv[2], bytes(100_000), {"label": "dog"})
print("written")
"""


def test_a_kill_at_any_step_leaves_a_whole_clip_or_nothing(tmp_path: Path) -> None:
    name = ClipStore.name(NOW, "porch", "dog", uuid7())
    seen = set()
    for step in range(20):
        folder = tmp_path / str(step)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, folder, name, str(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        store = ClipStore(settings(folder))
        left = sorted(path.name for path in folder.iterdir())
        seen.add(len(left))
        assert left in ([], [name, name.replace(".flac", ".json")])
        assert len(store) == len(left) // 2
        if left:
            assert (folder / name).stat().st_size == 100_000
        if done.stdout == "written\n":
            break
        assert done.returncode == -9, done.stderr
    assert done.stdout == "written\n"
    assert seen == {0, 2}


_NO_ROOM = """
import resource, sys
from pathlib import Path
from soundpost.device.clip_store import ClipSettings, ClipStore
from soundpost.device.errors import InputError
store = ClipStore(ClipSettings(folder=Path(sys.argv[1]), min_free_mb=0.0))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    store.write(sys.argv[2], bytes(100_000), {"label": "dog"})
except InputError as error:
    print(error)
print(len(store))
"""


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    name = ClipStore.name(NOW, "porch", "dog", uuid7())
    done = subprocess.run(
        [sys.executable, "-c", _NO_ROOM, tmp_path, name], capture_output=True, text=True, check=True
    )
    said, kept = done.stdout.splitlines()
    assert f"{name}: cannot be written" in said
    assert kept == "0"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_to_spare_is_refused_before_the_write(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path, min_free_mb=1e6 * 1e6))
    with pytest.raises(InputError, match="the disk is full: a clip would leave"):
        put(store)
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_old_goes_from_a_full_disk_too(tmp_path: Path, clock: Clock) -> None:
    put(ClipStore(settings(tmp_path)))
    store = ClipStore(settings(tmp_path, min_free_mb=1e6 * 1e6))
    Clock.ahead_s = 31 * DAY_S
    with pytest.raises(InputError, match="the disk is full"):
        put(store)
    assert flacs(tmp_path) == set()


def test_a_clock_that_does_not_know_the_time_deletes_nothing(tmp_path: Path, clock: Clock) -> None:
    store = ClipStore(settings(tmp_path))
    kept = {put(store, age_days=age) for age in range(5)}
    Clock.synchronised, Clock.ahead_s = False, 5 * 365 * DAY_S
    kept.add(named(store, clock))
    assert flacs(tmp_path) == kept
    # Right again: the clip from the future is dated now, and goes when it is too old.
    Clock.synchronised, Clock.ahead_s = True, 0.0
    store.expire()
    assert flacs(tmp_path) == kept
    for ahead_days in (20, 29):
        Clock.ahead_s = ahead_days * DAY_S
        ClipStore(settings(tmp_path))
    assert len(flacs(tmp_path)) == 2
    Clock.ahead_s = 31 * DAY_S
    ClipStore(settings(tmp_path))
    assert flacs(tmp_path) == set()


@pytest.mark.parametrize("restarts", [False, True])
def test_what_was_kept_before_the_time_was_known(
    restarts: bool, tmp_path: Path, clock: Clock
) -> None:
    store = ClipStore(settings(tmp_path))
    Clock.synchronised, Clock.ahead_s = False, -400 * DAY_S
    name = named(store, clock)

    def left(ahead_days: float) -> set[str]:
        Clock.synchronised, Clock.ahead_s = True, ahead_days * DAY_S
        if restarts:
            ClipStore(settings(tmp_path))
        else:
            store.expire()
        return flacs(tmp_path)

    assert left(0) == {name}
    assert left(29) == {name}
    assert left(31) == set()


def test_a_clip_goes_by_uptime_where_the_time_is_never_known(tmp_path: Path, clock: Clock) -> None:
    Clock.synchronised = False
    store = ClipStore(settings(tmp_path))
    put(store, age_days=400)
    uptime_s = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: uptime_s + 29 * DAY_S)
        store.expire()
        assert len(flacs(tmp_path)) == 1
        patch.setattr(time, "monotonic", lambda: uptime_s + 31 * DAY_S)
        store.expire()
    assert flacs(tmp_path) == set()


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    file = tmp_path / "clips"
    file.write_text("no folder")
    with pytest.raises(InputError, match=r"clips: cannot hold clips .*choose another"):
        ClipStore(settings(file))


def test_a_folder_that_went_away_is_one_clear_line(tmp_path: Path) -> None:
    store = ClipStore(settings(tmp_path / "clips"))
    store.folder.rmdir()
    with pytest.raises(InputError, match="cannot be written"):
        put(store)


def test_only_names_of_clips_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the name of a clip"):
        ClipStore(settings(tmp_path)).write("../dog.flac", b"", {})


def test_settings_that_contradict() -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        ClipSettings(pre_roll_s=10, max_length_s=10)
    assert not ClipSettings().enabled
