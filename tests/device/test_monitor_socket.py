"""The socket on which a sensor is watched: nobody who watches holds it up."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from soundpost.device import monitor_socket
from soundpost.device.monitor_socket import (
    MonitorServer,
    folders,
    runtime_folder,
    socket_path,
    sockets,
    watch,
)


class Source:
    """Makes numbered lines and remembers when somebody watched."""

    def __init__(self, length: int = 20) -> None:
        self.made = 0
        self.watched: list[bool] = []
        self._length = length

    def line(self) -> bytes:
        assert self.watched[-1], "a line was made while nobody watches"
        self.made += 1
        return f"{self.made:08d}".encode().ljust(self._length, b".") + b"\n"

    def watch(self, watched: bool) -> None:
        self.watched.append(watched)


Serve = Callable[..., MonitorServer]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(monitor_socket, "INTERVAL_S", 0.02)
    running: list[MonitorServer] = []

    def start(source: Source, name: str = "porch-pi", mode: int = 0o600) -> MonitorServer:
        path = socket_path(tmp_path / "run", name)
        running.append(MonitorServer(path, mode, source.watch, source.line))
        return running[-1]

    yield start
    for server in running:
        server.close()


def wait(met: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def numbers(path: Path, n: int) -> list[int]:
    with closing(watch(path)) as lines:
        return [int(next(lines)[:8]) for _ in range(n)]


def test_lines_come_one_after_the_other_and_none_is_made_while_nobody_watches(
    serve: Serve,
) -> None:
    source = Source()
    path = serve(source).path
    assert numbers(path, 5) == [1, 2, 3, 4, 5]
    wait(lambda: source.watched == [True, False])
    made = source.made
    time.sleep(0.2)
    assert source.made == made
    assert numbers(path, 2) == [made + 1, made + 2]
    wait(lambda: source.watched == [True, False] * 2)


def test_several_watch_and_each_gets_whole_lines(serve: Serve) -> None:
    path = serve(Source(5_000)).path
    found: list[list[bytes]] = []

    def follow() -> None:
        with closing(watch(path)) as lines:
            found.append([next(lines) for _ in range(20)])

    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    for lines in found:
        assert all(len(line) == 5_000 for line in lines)
        taken = [int(line[:8]) for line in lines]
        assert taken == sorted(set(taken))


def test_a_watcher_that_does_not_read_holds_nobody_up_and_gets_whole_lines(serve: Serve) -> None:
    source = Source(100_000)
    path = serve(source).path
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(str(path))
        # Far more than any buffer takes, while another one reads all of them.
        assert len(numbers(path, 50)) == 50
        stuck.settimeout(60)
        received = b""
        while received.count(b"\n") < 6:
            received += stuck.recv(1 << 20)
        *lines, _ = received.split(b"\n")
        assert {len(line) for line in lines} == {100_000}
        taken = [int(line[:8]) for line in lines]
        # It missed some, and what it got is in order.
        assert taken == sorted(set(taken))
        assert taken[-1] > len(taken)


def test_one_that_talks_or_goes_away_at_any_time_is_no_trouble(serve: Serve) -> None:
    source = Source(50_000)
    path = serve(source).path
    for number in range(30):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(path))
            if number % 3 == 1:
                rude.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
            if number % 3 == 2:
                rude.recv(10)
    assert len(numbers(path, 3)) == 3
    wait(lambda: not source.watched[-1])


def test_more_than_it_can_serve_are_sent_away(serve: Serve) -> None:
    path = serve(Source()).path
    watching = []
    for _ in range(16):
        lines = watch(path)
        next(lines)
        watching.append(lines)
    assert list(watch(path)) == []
    watching.pop().close()

    def served() -> bool:
        with closing(watch(path)) as lines:
            return next(lines, None) is not None

    wait(served)
    for lines in watching:
        lines.close()


def test_a_socket_of_a_dead_sensor_is_replaced_and_of_a_living_one_not(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "porch-pi.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    server = serve(Source())
    assert numbers(path, 1) == [1]
    with pytest.raises(OSError, match="another sensor of this name runs"):
        serve(Source())
    assert len(numbers(path, 1)) == 1
    server.close()
    assert list(path.parent.iterdir()) == []


def test_a_socket_that_another_sensor_put_there_is_left(serve: Serve) -> None:
    server = serve(Source())
    server.path.unlink()
    second = serve(Source())
    server.close()
    assert numbers(second.path, 1) == [1]


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_only_those_who_may_can_watch(serve: Serve, mode: int) -> None:
    server = serve(Source(), mode=mode)
    assert stat.S_IMODE(server.path.stat().st_mode) == mode
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700


def test_a_folder_that_somebody_else_made_is_not_used(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    link = tmp_path / "soundpost"
    link.symlink_to(theirs)
    source = Source()
    with pytest.raises(PermissionError, match="belongs to another user"):
        MonitorServer(link / "x.sock", 0o600, source.watch, source.line)
    if os.getuid() == 0:
        os.chown(theirs, 12_345, 12_345)
        with pytest.raises(PermissionError, match="belongs to another user"):
            MonitorServer(theirs / "x.sock", 0o600, source.watch, source.line)
    assert list(theirs.iterdir()) == []


def test_the_folder_is_systemds_else_the_users_else_a_temporary_one(tmp_path: Path) -> None:
    of_user = {"XDG_RUNTIME_DIR": str(tmp_path)}
    systemd = {"RUNTIME_DIRECTORY": "/run/soundpost:/run/more"}
    assert runtime_folder(of_user | systemd) == Path("/run/soundpost")
    assert runtime_folder(of_user) == tmp_path / "soundpost"
    absent = {"XDG_RUNTIME_DIR": str(tmp_path / "absent"), "TMPDIR": str(tmp_path)}
    assert runtime_folder(absent) == tmp_path / f"soundpost-{os.getuid()}"
    assert folders(of_user) == [tmp_path / "soundpost", Path("/run/soundpost")]
    assert folders(systemd) == [Path("/run/soundpost")]


@pytest.mark.parametrize("name", ["a", "a b", "..", "x" * 128, "煙" * 42, "-rf", "a.sock"])
def test_any_device_id_has_a_socket(serve: Serve, name: str, tmp_path: Path) -> None:
    other = serve(Source(), "other")
    server = serve(Source(), name)
    assert server.path.parent == tmp_path / "run"
    assert numbers(server.path, 1) == [1]
    assert sockets([tmp_path / "run"]) == sorted([other.path, server.path])


def test_a_server_that_is_no_sensor_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "endless.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def talk() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    connection.sendall(b"x" * 100_000)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(OSError, match="a line is too long"):
            next(watch(path))
        thread.join(60)
        assert not thread.is_alive()
        silent = watch(path, 0.1)
        with pytest.raises(TimeoutError):
            next(silent)
