"""A whole sensor while its system clock is set: no event is moved, whatever its zone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE_S = 60.0
# Set forward and backward by a moment, a day, into the past before the machine was made, and years
# ahead.
STEPS_S = [0, 3, -3, -86_400, -1_700_000_000, 315_360_000]


# The sensor with a system clock that a file sets, in seconds beside the machine's; the word `right`
# in it is the kernel's that the clock follows a reference. libfaketime is no way: it breaks
# clock_nanosleep(2), with which Python sleeps.
SENSOR = """
import sys, time
from pathlib import Path
from soundpost.device import clock
step, machine_time = Path(sys.argv.pop(1)), time.time
time.time = lambda: machine_time() + float(step.read_text().split()[0])
time.time_ns = lambda: int(time.time() * 1e9)
clock.clock_synchronised = lambda: "right" in step.read_text()
from soundpost.device.cli import main
sys.exit(main())
"""


@pytest.fixture
def knocking(tmp_path: Path) -> Path:
    """1.2 s with a burst of noise in the middle."""
    sound = np.zeros(19_200)
    sound[6_000:11_000] = 0.3 * np.random.default_rng(8).standard_normal(5_000)
    path = tmp_path / "knocking.wav"
    soundfile.write(path, np.clip(sound, -1, 1), 16_000)
    return path


class Listener:
    """Events as they come."""

    def __init__(self, port: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, m: self.events.append(json.loads(m.payload))
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("soundpost/+/+/event", 1)
        self._client.loop_start()
        assert ready.wait(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


class Sensor:
    """A running sensor whose clock can be set."""

    def __init__(self, folder: Path, port: int, bundle: Path, sound: Path, zone: str) -> None:
        self._step, self._outbox = folder / "step", folder / "outbox.sqlite3"
        self.set_clock(0.0)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", SENSOR, str(self._step), "run", f"--bundle={bundle}"),
                *("--set", f"source.mic0.url=file:{sound}", "--set", "source.mic0.loop=true"),
                *("--set", f"mqtt.port={port}", "--set", "mqtt.host=127.0.0.1"),
                *("--set", f"outbox.path={self._outbox}"),
                *("--set", "class.clap.min_gap_s=0.3"),
            ],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "TZ": zone},
        )

    def set_clock(self, off_s: float, *, right: bool = False) -> None:
        new = self._step.with_suffix(".new")
        new.write_text(f"{off_s} {'right' if right else ''}")
        new.replace(self._step)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stopped at some instruction."""
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def waiting(self) -> int:
        """Events in its outbox."""
        if not self._outbox.exists():
            return 0
        with contextlib.closing(sqlite3.connect(self._outbox)) as database:
            try:
                return int(database.execute("SELECT count(*) FROM outbox").fetchone()[0])
            except sqlite3.OperationalError:
                return 0  # no table yet

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def sense(mosquitto: Any, tiny_bundle: Path, knocking: Path, tmp_path: Path) -> Iterator[Any]:
    """Function that starts a sensor in a time zone."""
    started: list[Sensor] = []

    def start(zone: str = "UTC") -> Sensor:
        started.append(Sensor(tmp_path, mosquitto.port, tiny_bundle, knocking, zone))
        return started[-1]

    yield start
    for sensor in started:
        sensor.kill()


def instant_s(event: dict[str, Any], name: str) -> float:
    """Unix time of an event's onset or offset."""
    assert event[name].endswith("Z")
    return datetime.fromisoformat(event[name][:-1] + "+00:00").timestamp()


def began_s(event: dict[str, Any]) -> float:
    """Unix time of the stream's first sample by an event's onset."""
    return instant_s(event, "onset") - event["sample"] / event["rate_hz"]


def test_neither_steps_of_the_system_clock_nor_its_zone_move_an_event(
    sense: Callable[[str], Sensor], mosquitto: Any
) -> None:
    listener = Listener(mosquitto.port)
    sensor = sense("Asia/Kathmandu")
    moved: list[tuple[int, dict[str, Any]]] = []
    try:
        for step_s in STEPS_S:
            sensor.set_clock(step_s, right=True)
            # What was under way when the clock was set may tell either time.
            under_way = len(listener.events)
            until(lambda: len(listener.events) >= under_way + 2)  # noqa: B023
            first = len(listener.events)
            until(lambda: len(listener.events) >= first + 2)  # noqa: B023
            moved += [(step_s, one) for one in listener.events[first : first + 2]]
    finally:
        sensor.kill()
        listener.close()
    # By the machine's own clock, every onset lies where the count of samples says.
    starts_s = [began_s(event) - step_s for step_s, event in moved if event["phase"] == "start"]
    assert len(starts_s) == len(STEPS_S)
    assert max(starts_s) - min(starts_s) < 0.020
    assert abs(time.time() - starts_s[0]) < 10 * PATIENCE_S
    begun = {one["id"]: one for one in listener.events if one["phase"] == "start"}
    ends = [one for one in listener.events if one["phase"] == "end"]
    assert len(ends) >= len(STEPS_S)
    # From the count of samples: neither the clock nor a busy machine changes it.
    lengths_s = [instant_s(end, "offset") - instant_s(end, "onset") for end in ends]
    assert max(lengths_s) - min(lengths_s) <= 0.051
    assert all(end["onset"] == begun[end["id"]]["onset"] for end in ends)


def test_what_was_heard_before_the_clock_was_right_is_dated_when_it_is(
    sense: Callable[[], Sensor], mosquitto: Any
) -> None:
    """A Pi without a battery: it boots in 1970, hears, is told the time, and reaches its broker."""
    mosquitto.kill()
    sensor = sense()
    sensor.set_clock(-time.time())
    before_s = time.time()
    until(lambda: sensor.waiting() >= 6)
    told_s = time.time()
    sensor.set_clock(0.0, right=True)
    more = sensor.waiting()
    until(lambda: sensor.waiting() >= more + 2)
    with sensor.held():
        mosquitto.start()
        listener = Listener(mosquitto.port)
    until(lambda: len(listener.events) >= more + 2)
    sensor.kill()
    listener.close()
    assert all(event["time_synced"] for event in listener.events)
    starts_s = [began_s(event) for event in listener.events]
    assert max(starts_s) - min(starts_s) < 0.020
    assert before_s <= starts_s[0] <= told_s
    waited_s = [event["queued_s"] for event in listener.events[:more]]
    assert waited_s == sorted(waited_s, reverse=True)
    assert told_s - before_s - 60.0 < waited_s[0] < time.time() - before_s
