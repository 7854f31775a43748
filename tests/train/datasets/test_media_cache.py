"""Rows on disk: made once, made again when something changes, shared by processes."""

import fcntl
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import RowCache, cache_folder, clip_identity, open_rows


@pytest.fixture
def clips(tmp_path):
    """Ten clips whose files hold their number."""
    found = []
    for i in range(10):
        path = tmp_path / f"{i}.wav"
        path.write_text(str(i))
        found.append(MediaClip(f"clip{i}", path, None, (), "train"))
    return found


class Maker:
    """A row per clip, of a length that differs if wanted; it knows what it was asked for."""

    def __init__(self, varying=False, dtype=np.float32):
        self.asked = []
        self.varying = varying
        self.dtype = dtype

    def __call__(self, clip):
        self.asked.append(clip.id)
        i = int(clip.audio.read_text())
        return np.full((i if self.varying else 3, 4), i, self.dtype)


def opened(clips, make, folder, **more):
    return open_rows(clips, "front end 1", make, folder, rows_per_file=4, quiet=True, **more)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int16])
def test_rows_of_equal_length(clips, tmp_path, dtype):
    rows = opened(clips, Maker(dtype=dtype), tmp_path / "rows")
    assert len(rows) == 10
    assert rows.lengths().tolist() == [3] * 10
    assert rows[7].dtype == dtype
    assert_array_equal(rows[7], np.full((3, 4), 7))
    assert_array_equal(rows[-1], rows[9])
    stacked = rows.stack([9, 0, 4])
    assert stacked.shape == (3, 3, 4)
    assert stacked[:, 0, 0].tolist() == [9, 0, 4]


def test_rows_of_varying_length(clips, tmp_path):
    rows = opened(clips, Maker(varying=True), tmp_path / "rows")
    assert rows.lengths().tolist() == list(range(10))
    for i in range(10):
        assert_array_equal(rows[i], np.full((i, 4), i))


def test_rows_of_single_numbers(clips, tmp_path):
    rows = open_rows(
        clips, "x", lambda clip: np.arange(5.0) + len(clip.id), tmp_path / "rows", quiet=True
    )
    assert_array_equal(rows.stack([0, 1]), [[5, 6, 7, 8, 9]] * 2)


def test_a_row_that_is_not_there(clips, tmp_path):
    rows = opened(clips, Maker(), tmp_path / "rows")
    for row in (10, -11):
        with pytest.raises(IndexError, match=rf"row {row} of 10"):
            rows[row]


def test_rows_are_read_only_views_of_a_mapped_file(clips, tmp_path):
    row = opened(clips, Maker(), tmp_path / "rows")[5]
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1
    base = row
    while not isinstance(base, np.memmap):
        base = base.base
    assert Path(base.filename).parent == tmp_path / "rows"
    # Any tool opens it.
    assert np.load(base.filename).shape == (12, 4)


def test_made_once(clips, tmp_path):
    make = Maker()
    opened(clips, make, tmp_path / "rows")
    assert make.asked == [clip.id for clip in clips]
    opened(clips, make, tmp_path / "rows")
    assert len(make.asked) == 10


def test_made_again_where_a_file_changed_and_nowhere_else(clips, tmp_path):
    make = Maker()
    opened(clips, make, tmp_path / "rows")
    clips[5].audio.write_text("55")
    make.asked.clear()
    rows = opened(clips, make, tmp_path / "rows")
    assert make.asked == ["clip4", "clip5", "clip6", "clip7"]
    assert [rows[i][0, 0] for i in range(4, 8)] == [4, 55, 6, 7]


def test_made_again_by_another_maker_and_for_another_part(clips, tmp_path):
    make = Maker()
    opened(clips, make, tmp_path / "rows")
    open_rows(clips, "front end 2", make, tmp_path / "rows", rows_per_file=4, quiet=True)
    assert len(make.asked) == 20
    halves = [MediaClip(c.id, c.audio, None, (), "train", 0.0, 5.0) for c in clips]
    opened(halves, make, tmp_path / "rows")
    assert len(make.asked) == 30
    # Labels decide nothing.
    relabelled = [MediaClip(c.id, c.audio, None, ("dog",), "test") for c in clips]
    opened(relabelled, make, tmp_path / "rows")
    assert len(make.asked) == 30


def test_a_folder_of_frames_is_known_by_their_number(tmp_path):
    (tmp_path / "video").mkdir()
    clip = MediaClip("a", None, tmp_path / "video", (), "train")
    before = clip_identity(clip)
    assert clip_identity(clip) == before
    (tmp_path / "video" / "I_000001.jpeg").touch()
    os.utime(tmp_path / "video", (1, 1))
    assert clip_identity(clip) != before


def test_a_run_that_is_stopped_goes_on_where_it_was(clips, tmp_path):
    make = Maker()

    def breaks(clip):
        if clip.id == "clip6":
            raise InputError("clip6: cannot be read")
        return make(clip)

    with pytest.raises(InputError, match=r"clip6: cannot be read"):
        opened(clips, breaks, tmp_path / "rows")
    assert not list((tmp_path / "rows").glob("*.part"))
    make.asked.clear()
    rows = opened(clips, make, tmp_path / "rows")
    assert make.asked == [f"clip{i}" for i in range(4, 10)]
    assert [row[0, 0] for row in rows.stack(range(10))] == list(range(10))


@pytest.mark.parametrize("which", ["rows", "lengths"])
def test_a_damaged_file_is_made_again(clips, tmp_path, which):
    make = Maker()
    opened(clips, make, tmp_path / "rows")
    for path in (tmp_path / "rows").glob("*.npy"):
        if path.name.endswith(".lengths.npy") == (which == "lengths"):
            path.write_bytes(path.read_bytes()[:-10])
    rows = opened(clips, make, tmp_path / "rows")
    assert len(make.asked) == 20
    assert rows[9][0, 0] == 9


def test_rows_travel_to_another_process_without_their_content(clips, tmp_path):
    rows = opened(clips, Maker(), tmp_path / "rows")
    rows.stack(range(10))
    there = pickle.loads(pickle.dumps(rows))
    assert isinstance(there, RowCache)
    assert len(pickle.dumps(rows)) < 1_000
    assert_array_equal(there[3], rows[3])


def test_many_files_take_few_descriptors(clips, tmp_path):
    many = [MediaClip(f"{n}", clips[n % 10].audio, None, (), "train") for n in range(150)]
    rows = open_rows(many, "x", Maker(), tmp_path / "rows", rows_per_file=1, quiet=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert [rows[n][0, 0] for n in range(150)] == [n % 10 for n in range(150)]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 128


def _slow(clip):
    time.sleep(0.05)
    with (clip.audio.parent / "asked").open("a") as file:
        file.write(f"{clip.id} {os.getpid()}\n")
    return np.full((1,), int(clip.audio.read_text()), np.int64)


def _work(clips, folder):
    rows = open_rows(clips, "slow", _slow, folder, rows_per_file=2, quiet=True)
    assert rows.stack(range(10))[:, 0].tolist() == list(range(10))


def test_processes_share_the_work(clips, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(clips, tmp_path / "rows")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    # Every row once, and neither of the two made all of them.
    assert sorted(name for name, _ in asked) == sorted(clip.id for clip in clips)
    assert len({process for _, process in asked}) == 2


def test_who_finds_a_file_taken_goes_on_with_the_next(clips, tmp_path):
    folder = tmp_path / "rows"
    keys = opened(clips, Maker(), folder).keys
    for path in folder.glob("*.npy"):
        path.unlink()
    make = Maker()
    taken = (folder / ".locks" / keys[0]).open("w")
    fcntl.flock(taken, fcntl.LOCK_EX)

    def release_late(clip):
        # The last file is made before the first, which another holds until then.
        if clip.id == "clip9":
            taken.close()
        return make(clip)

    opened(clips, release_late, folder)
    assert make.asked == [f"clip{i}" for i in (4, 5, 6, 7, 8, 9, 0, 1, 2, 3)]


def test_rows_of_several_shapes(clips, tmp_path):
    def make(clip):
        return np.zeros((2, 5 if clip.id == "clip2" else 4), np.float32)

    with pytest.raises(
        InputError,
        match=r"clip2: its row is float32 \(2, 5\); expected float32 \(length, 4\), as of clip0",
    ):
        opened(clips, make, tmp_path / "rows")
    with pytest.raises(InputError, match=r"clip1: its row is int64"):
        opened(
            clips,
            lambda clip: np.zeros(2, np.int64 if clip.id == "clip1" else np.float32),
            tmp_path / "rows",
        )


def test_a_clip_whose_file_is_gone(clips, tmp_path):
    clips[3].audio.unlink()
    with pytest.raises(InputError, match=r"3\.wav: cannot be read \(No such file or directory\)"):
        opened(clips, Maker(), tmp_path / "rows")


def test_a_folder_that_cannot_be_written(clips, tmp_path):
    (tmp_path / "rows").write_text("in the way")
    with pytest.raises(InputError, match=r"rows: rows cannot be written .*free some space or cho"):
        opened(clips, Maker(), tmp_path / "rows")


def test_no_clips(tmp_path):
    rows = opened([], Maker(), tmp_path / "rows")
    assert len(rows) == 0
    assert rows.lengths().shape == (0,)


def test_the_folder_of_a_set_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(tmp_path) == tmp_path / "features"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache_folder(tmp_path, "vgg") == tmp_path / "cache" / "soundpost" / "vgg"
