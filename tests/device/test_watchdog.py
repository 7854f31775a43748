"""What systemd hears of a sensor: from a model of its sources, and from the real program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError
from soundpost.device.notify import Notifier
from soundpost.device.watchdog import Watchdog

PATIENCE_S = 60.0
SOURCES = ("mic0", "yard")


def block(n_samples: int = 160) -> AudioBlock:
    return AudioBlock(np.zeros((n_samples, 1), np.float32), 0, 16_000, None)


class Manager:
    """The service manager's end: what was told, in order."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("")
        self.address = "@" + self.socket.getsockname()[1:].decode()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def waiting(self) -> list[str]:
        """Messages that have arrived."""
        self.socket.setblocking(False)
        found = []
        while True:
            try:
                found.append(self.socket.recv(65_536).decode())
            except BlockingIOError:
                return found

    def next(self, timeout_s: float = PATIENCE_S) -> str:
        self.socket.settimeout(timeout_s)
        return self.socket.recv(65_536).decode()

    def wait_for(self, what: str) -> list[str]:
        """Messages up to the first that holds these words."""
        found = []
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            found.append(self.next(max(0.1, deadline_s - time.monotonic())))
            if what in found[-1]:
                return found


ACTIONS = st.lists(
    st.tuples(
        st.floats(0, 12),
        st.sampled_from([(what, name) for what in ("heard", "lost", "empty") for name in SOURCES]),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_it_is_fed_while_every_source_gives_signs_of_life(
    actions: list[tuple[float, tuple[str, str]]],
) -> None:
    """Oracle: the times of signs, kept apart; a sign is a sample or an attempt to open."""
    now_s = 100.0
    with Manager() as manager:
        watchdog = Watchdog(Notifier(manager.address, watchdog_s=20.0), lambda: now_s)
        signs = dict.fromkeys(SOURCES, now_s)
        known: set[str] = set()
        fed_s, ready = now_s, False
        watchdog.tend(SOURCES)
        manager.waiting()
        for pause_s, (what, name) in actions:
            now_s += pause_s
            if what == "heard":
                watchdog.heard(name, block())
            elif what == "empty":
                watchdog.heard(name, block(0))
            else:
                watchdog.lost(name, CaptureError("unplugged"))
            if what != "empty":
                signs[name] = now_s
                known.add(name)
            watchdog.tend(SOURCES)
            messages = manager.waiting()
            stuck = {name for name in SOURCES if now_s - signs[name] > 10.0}
            due = now_s - fed_s >= 5.0 and not stuck
            assert ("WATCHDOG=1" in messages) == due
            fed_s = now_s if due else fed_s
            was_ready, ready = ready, ready or known == set(SOURCES)
            assert any("READY=1" in message for message in messages) == (ready and not was_ready)


def test_a_source_that_has_ended_is_not_waited_for() -> None:
    now_s = 0.0
    with Manager() as manager:
        watchdog = Watchdog(Notifier(manager.address, watchdog_s=20.0), lambda: now_s)
        watchdog.tend(SOURCES)
        watchdog.heard("mic0", block())
        now_s = 30.0
        watchdog.heard("mic0", block())
        watchdog.tend(["mic0"])
        assert "READY=1\nSTATUS=listens to mic0" in manager.waiting()


def test_a_pause_neither_starves_it_nor_counts_after_it() -> None:
    now_s = 0.0
    with Manager() as manager:
        watchdog = Watchdog(Notifier(manager.address, watchdog_s=20.0), lambda: now_s)
        watchdog.heard("mic0", block())
        watchdog.tend(["mic0"])
        manager.waiting()
        now_s = 3_600.0
        watchdog.tend([])
        assert "WATCHDOG=1" in manager.waiting()
        now_s = 7_200.0
        watchdog.tend(["mic0"])
        assert "WATCHDOG=1" in manager.waiting()
        now_s = 7_211.0
        watchdog.tend(["mic0"])
        assert manager.waiting() == ["STATUS=mic0 is stuck"]


def test_a_reload_begins_and_ends() -> None:
    with Manager() as manager:
        watchdog = Watchdog(Notifier(manager.address))
        watchdog.heard("mic0", block())
        watchdog.tend(["mic0"])
        manager.waiting()
        watchdog.reloading()
        # A source that is new has to be heard first.
        watchdog.tend(["mic0", "yard"])
        begun, waits = manager.waiting()
        assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert waits == "STATUS=listens to mic0; waits for yard"
        watchdog.heard("yard", block())
        watchdog.tend(["mic0", "yard"])
        assert manager.waiting() == ["READY=1\nSTATUS=listens to mic0, yard"]


def test_a_lost_source_stands_in_the_status_until_it_is_heard() -> None:
    with Manager() as manager:
        watchdog = Watchdog(Notifier(manager.address))
        watchdog.heard("mic0", block())
        watchdog.lost("yard", CaptureError("microphone 'USB'\nis gone"))
        watchdog.tend(SOURCES)
        (message,) = manager.waiting()
        lost = "yard is lost and tried again: microphone 'USB' is gone"
        assert message == f"READY=1\nSTATUS=listens to mic0; {lost}"
        watchdog.tend(SOURCES)
        assert manager.waiting() == []
        watchdog.heard("yard", block())
        watchdog.tend(SOURCES)
        assert manager.waiting() == ["STATUS=listens to mic0, yard"]


# ------------------------------------------------------------------------------ the real program


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(4).standard_normal(16_000), 16_000)
    return path


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as made:
        yield made


def sensor(
    manager: Manager, folder: Path, bundle: Path, *settings: str, watchdog_s: float = 4.0
) -> subprocess.Popen[bytes]:
    sets = [part for text in ("broker.port=0", *settings) for part in ("--set", text)]
    return subprocess.Popen(
        [sys.executable, "-m", "soundpost.device", "run", "--bundle", str(bundle), *sets],
        env={
            **os.environ,
            "XDG_STATE_HOME": str(folder),
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": str(round(1e6 * watchdog_s)),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_a_sensor_is_ready_lives_and_stops(
    manager: Manager, sound: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    loop = ("source.wav.url=file:" + str(sound), "source.wav.loop=true")
    with sensor(manager, tmp_path, tiny_bundle, *loop, watchdog_s=120.0) as process:
        try:
            ready = manager.wait_for("READY=1")
            assert ready[-1] == "READY=1\nSTATUS=listens to wav"
            process.send_signal(signal.SIGTERM)
            assert manager.wait_for("STOPPING=1")[-1].startswith("STOPPING=1\nSTATUS=")
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_a_microphone_that_is_away_stops_neither_the_start_nor_the_watchdog(
    manager: Manager, sound: Path, tmp_path: Path, tiny_bundle: Path, portaudio: object
) -> None:
    sources = ("source.away.url=mic:no such card", f"source.wav.url=file:{sound}")
    sources += ("source.wav.loop=true",)
    with sensor(manager, tmp_path, tiny_bundle, *sources) as process:
        try:
            ready = manager.wait_for("READY=1")[-1]
            assert "STATUS=listens to wav; away is lost and tried again: " in ready
            for _ in range(3):
                manager.wait_for("WATCHDOG=1")
        finally:
            process.kill()


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of source, `hang:`, that opens a pipe nobody writes to, as a driver hangs."""
    os.mkfifo(tmp_path / "pipe")
    packages = tmp_path / "packages"
    information = packages / "hanging-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[soundpost.sources]\nhang = hanging:open_pipe\n")
    code = "def open_pipe(url, **options):\n    return open(url.removeprefix('hang:'), 'rb')\n"
    (packages / "hanging.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(packages))


@pytest.mark.usefixtures("hanging")
def test_a_source_that_hangs_starves_the_watchdog_and_the_log_shows_where(
    manager: Manager, sound: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    sources = (f"source.pipe.url=hang:{tmp_path}/pipe", f"source.wav.url=file:{sound}")
    sources += ("source.wav.loop=true",)
    with sensor(manager, tmp_path, tiny_bundle, *sources) as process:
        try:
            told = manager.wait_for("STATUS=listens to wav; pipe is stuck")
            assert not any("READY" in text for text in told)
            # Twice the time after which it would be fed.
            end_s = time.monotonic() + 2.0
            later = []
            while time.monotonic() < end_s:
                time.sleep(0.1)
                later += manager.waiting()
            assert not any("WATCHDOG=1" in text for text in later)
            # What systemd does then.
            process.send_signal(signal.SIGABRT)
            _, log = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == -signal.SIGABRT
            assert b"hanging.py" in log
            assert b"in open_pipe" in log
        finally:
            process.kill()
