"""Downloads from a real server on this machine, which fails on purpose."""

import hashlib

import numpy as np
import pytest

from soundpost.device.errors import InputError
from soundpost.train.backbones.download import download, file_sha256

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(file_server):
    file_server.files["/w.pth"] = CONTENT
    return f"{file_server.url}/w.pth"


def fetch(url, path, sha256=SHA256):
    return download(url, path, sha256, quiet=True, pause_s=0.01)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], None])
def test_a_file_is_fetched_and_its_hash_returned(url, tmp_path, sha256):
    path = tmp_path / "new" / "folder" / "w.pth"
    assert fetch(url, path, sha256) == SHA256
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == ["w.pth"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert file_sha256(path) == SHA256


def test_a_broken_connection_is_taken_up_where_it_stopped(file_server, url, tmp_path):
    file_server.plan = [{"bytes": 1_000_000}, {"bytes": 1_500_000}]
    assert fetch(url, tmp_path / "w.pth") == SHA256
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    asked = [request.get("Range") for request in file_server.requests]
    assert asked == [None, "bytes=1000000-", "bytes=2500000-"]


def test_a_server_that_cannot_continue_is_asked_for_all_of_it(file_server, url, tmp_path):
    file_server.ranges = False
    file_server.plan = [{"bytes": 2_000_000}]
    assert fetch(url, tmp_path / "w.pth") == SHA256
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_file_that_was_replaced_meanwhile_is_fetched_from_its_start(
    file_server, url, tmp_path, monkeypatch
):
    # Between two connections, another file lies there.
    other = CONTENT[::-1]

    def replace(_seconds):
        file_server.files["/w.pth"], file_server.etag = other, '"2"'

    monkeypatch.setattr("soundpost.train.backbones.download.time.sleep", replace)
    file_server.plan = [{"bytes": 1_000_000}]
    assert fetch(url, tmp_path / "w.pth", None) == hashlib.sha256(other).hexdigest()


def test_a_busy_server_is_asked_again(file_server, url, tmp_path):
    file_server.plan = [{"status": 503}, {"status": 500}]
    assert fetch(url, tmp_path / "w.pth") == SHA256


def test_a_server_that_always_breaks_off_leaves_nothing(file_server, url, tmp_path):
    file_server.plan = [{"bytes": 0}] * 10
    with pytest.raises(InputError, match=r"broke off 4 times.*nothing was kept") as caught:
        fetch(url, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_wrong_hash_leaves_what_was_there(url, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=f"has sha256 {SHA256}, expected 12345678"):
        fetch(url, path, "12345678")
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == ["w.pth"]


def test_a_file_that_is_gone_is_not_asked_for_twice(file_server, tmp_path):
    with pytest.raises(InputError, match="answered 404"):
        fetch(f"{file_server.url}/moved.pth", tmp_path / "w.pth")
    assert len(file_server.requests) == 1
    assert left_in(tmp_path) == []


def test_no_server_at_all_is_named(file_server, url, tmp_path):
    file_server.server_close()
    with pytest.raises(InputError, match="refused"):
        fetch(url, tmp_path / "w.pth")
    assert left_in(tmp_path) == []


def test_an_interrupt_leaves_nothing(url, tmp_path, monkeypatch):
    def interrupt(_file):
        raise KeyboardInterrupt

    monkeypatch.setattr("soundpost.device.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(url, tmp_path / "w.pth")
    assert left_in(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(url, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(url, tmp_path / "file" / "w.pth")
