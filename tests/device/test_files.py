"""A file is there whole or not at all."""

from __future__ import annotations

import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from soundpost.device.errors import InputError
from soundpost.device.files import replacing, write_atomically


def test_new_content_replaces_the_old_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_stream_that_breaks_off_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_atomically(path, b"old")

    def break_off() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            assert path.read_bytes() == b"old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert path.read_bytes() == b"old"
    with replacing(path, 0o600) as file:
        for part in (b"n", b"e", b"w"):
            file.write(part)
            assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_every_user_may_read_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"1")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_reader_sees_the_old_or_the_new_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "model"
    contents = {bytes([letter]) * 1_000_000 for letter in b"abc"}
    write_atomically(path, min(contents))
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            for content in sorted(contents):
                write_atomically(path, content)
    finally:
        done.set()
        reader.join()
    assert seen <= contents


# A limit on the size of files is met as a full disk is: in the middle of the writing.
FILL = """
import resource, sys
from pathlib import Path
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), b"n" * 5_000_000)
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits on this system")
@pytest.mark.parametrize("old", [None, b"old"])
def test_what_does_not_fit_leaves_what_was_there(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "scores.csv"
    if old is not None:
        path.write_bytes(old)
    done = subprocess.run(
        [sys.executable, "-c", FILL, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: cannot be written (File too large); free some space")
    assert done.stdout.count("\n") == 1
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/a: cannot be written \(No such file"):
        write_atomically(tmp_path / "none" / "a", b"1")


def test_a_folder_in_its_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        write_atomically(tmp_path / "a", b"1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
