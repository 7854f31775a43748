"""A running sensor and what it says: the process, and everything that its broker passes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.level_record import LevelRecord

# Generous: the machine may be busy. Nothing sleeps for as long as it may take.
PATIENCE_S = 60.0
DEVICE = "porch-pi"
SOUNDPOST = [sys.executable, "-m", "soundpost.device"]


def environment_of(folder: Path, changes: dict[str, str]) -> dict[str, str]:
    """What a sensor sees; its outbox lies in the test's folder."""
    known = {key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"}
    return {**known, "XDG_STATE_HOME": str(folder / "state"), **changes}


def held() -> tuple[int, int, int]:
    """File handles, threads and child processes of this process."""
    folder = Path("/proc/self")
    threads = list((folder / "task").iterdir())
    children = 0
    for thread in threads:
        # One that ends now has none.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += len((thread / "children").read_text().split())
    return len(list((folder / "fd").iterdir())), len(threads), children


def expect_held_again(before: tuple[int, int, int]) -> None:
    """Fail where more stays held than `before`.

    Only what stays counts: a database opens its journal for the length of a transaction, and what
    has ended is collected a moment later.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while any(now > then for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline_s, (held(), before)
        time.sleep(0.05)


class Sensor:
    """A running `soundpost run`; its lines are collected as they come."""

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        environment: dict[str, str],
        under: Sequence[str] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*under, *SOUNDPOST, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment_of(cwd, environment),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=pair)
            for pair in [(self.process.stdout, self.out), (self.process.stderr, self.err)]
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, lines: list[str] | None = None) -> str:
        """First line in which the pattern is found; of standard output unless told."""
        deadline_s = time.monotonic() + PATIENCE_S
        where = self.out if lines is None else lines
        while True:
            for line in list(where):
                if re.search(pattern, line):
                    return line
            assert self.process.poll() is None, (self.out, self.err)
            assert time.monotonic() < deadline_s, (self.out, self.err)
            time.sleep(0.02)

    def end(self, which: signal.Signals | None = None) -> int:
        """Exit code, with all lines in; after a signal, if one is given."""
        if which is not None:
            self.process.send_signal(which)
        code = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any("Traceback" in line for line in self.err), self.err
        return code


class Collector:
    """Everything that a broker passes on, in order."""

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._messages: list[tuple[str, str, bool]] = []
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("soundpost/#", qos=1)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._messages.append((message.topic, message.payload.decode(), message.retain))
            self._changed.notify_all()

    def of(self, topic: str) -> list[str]:
        with self._changed:
            return [payload for name, payload, _ in self._messages if name == topic]

    def events(self, source: str = "mic0") -> list[SoundEvent]:
        payloads = self.of(f"soundpost/{DEVICE}/{source}/event")
        return [SoundEvent.from_json(payload) for payload in payloads]

    def health(self, source: str = "mic0") -> list[Health]:
        payloads = self.of(f"soundpost/{DEVICE}/{source}/health")
        return [Health.from_json(payload) for payload in payloads]

    def levels(self, source: str = "mic0") -> list[LevelRecord]:
        payloads = self.of(f"soundpost/{DEVICE}/{source}/level")
        return [LevelRecord.from_json(payload) for payload in payloads]

    def wait(self, met: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while not met():
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, self._messages
                self._changed.wait(left_s)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
