"""A running sensor whose microphone is unplugged, whose sound server dies, whose driver hangs: its
health says so within five seconds, and five seconds after the microphone is back it is heard.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.audio import AudioBlock
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle
from soundpost.device.daemon import Daemon
from soundpost.device.errors import SoundpostError
from soundpost.device.health import Health
from soundpost.device.observer import Observer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

DEVICE = "porch-pi"
LIMIT_S = 5.0
PATIENCE_S = 60.0


@pytest.fixture
def busy_s() -> float:
    """What a busy machine may add: time to start ten programs, half a second where it is idle."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return 10 * (time.monotonic() - began_s)


class Sensor(Observer):
    """A daemon with one microphone, and what is seen of it from the broker and from inside."""

    def __init__(self, port: int, bundle_path: Path, url: str, **options: Any) -> None:
        bundle, interpreter, _ = open_bundle(bundle_path)
        classes = bundle.manifest.classes
        channel = options.pop("channel", "mix")
        plan = SourcePlan("mic0", url, bundle, interpreter, classes, channel, options)
        self._changed = threading.Condition()
        self._health: list[tuple[float, Health]] = []
        self._scored: list[tuple[float, int]] = []
        self.blocks: list[AudioBlock] = []
        self.pid = 0
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"soundpost/{DEVICE}/mic0/health", qos=1)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)
        states = [("mic0", label) for label in bundle.manifest.labels]
        broker = BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2)
        self._publisher = Publisher(broker, Topics("soundpost", DEVICE), states=states).start()
        self._publisher.wait_connected(PATIENCE_S)
        self._daemon = Daemon([plan], DEVICE, self._publisher, [self])
        self._daemon.start()

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._health.append((time.monotonic(), Health.from_json(message.payload)))
            self._changed.notify_all()

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        self.blocks.clear()

    def heard(self, source: str, block: AudioBlock) -> None:
        self.blocks.append(block)

    def scored(self, source: str, window: ScoredWindow) -> None:
        if len(window.scores):
            with self._changed:
                self._scored.append((time.monotonic(), window.first_sample))
                self._changed.notify_all()

    def lost(self, source: str, error: SoundpostError) -> None:
        assert len(str(error).splitlines()) == 1

    def _wait(self, seen: Callable[[], float | None]) -> float:
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while (at_s := seen()) is None:
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, (self._health, self._daemon.errors)
                self._changed.wait(left_s)
        return at_s

    def failed_s(self, since_s: float) -> float:
        """How long after since_s the broker knew that the source does not listen."""
        return (
            self._wait(
                lambda: next(
                    (
                        at_s
                        for at_s, health in self._health
                        if at_s >= since_s and health.state == "failed"
                    ),
                    None,
                )
            )
            - since_s
        )

    def scored_s(self, since_s: float) -> float:
        """How long after since_s a window was scored."""
        return (
            self._wait(lambda: next((at_s for at_s, _ in self._scored if at_s >= since_s), None))
            - since_s
        )

    def wait_for(self, state: str, reason: str | None) -> None:
        """Until the latest health has this state, and these words in its reason."""
        self._wait(
            lambda: (
                0.0
                if self.last.state == state and (reason or "None") in str(self.last.reason)
                else None
            )
        )

    @property
    def last(self) -> Health:
        """The latest health."""
        return self._health[-1][1]

    def capture_processes(self) -> list[int]:
        """Processes that capture for this one."""
        found = []
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"capture_process" in command:
                    found.append(int(pid))
        return found

    def close(self) -> None:
        self._daemon.stop()
        assert self._daemon.wait(PATIENCE_S)
        self._publisher.close()
        self._client.disconnect()
        self._client.loop_stop()


Start = Callable[..., Sensor]


@pytest.fixture
def start(mosquitto: Any, tiny_bundle: Path) -> Iterator[Start]:
    sensors: list[Sensor] = []

    def started(url: str, **options: Any) -> Sensor:
        sensors.append(Sensor(mosquitto.port, tiny_bundle, url, **options))
        return sensors[-1]

    yield started
    for sensor in sensors:
        sensor.close()


def test_a_microphone_that_is_unplugged_and_plugged_in_again(
    running: ModuleType, yard: Any, start: Start, busy_s: float
) -> None:
    sensor = start("mic:yard", rate_hz=48_000)
    sensor.scored_s(0.0)
    held_first = None
    for count in range(3):
        unplugged_s = time.monotonic()
        yard.unplug()
        assert sensor.failed_s(unplugged_s) < LIMIT_S + busy_s
        assert "yard" in str(sensor.last.reason)
        replugged_s = time.monotonic()
        yard.plug()
        assert sensor.scored_s(replugged_s) < LIMIT_S + busy_s
        # What was missed is a gap, at the end of the stream before.
        assert sensor.last.last_gap is not None
        assert sensor.last.gaps >= count + 1
        if held_first is None:
            held_first = running.held()
    assert held_first is not None
    running.expect_held_again(held_first)
    assert len(sensor.capture_processes()) == 1


def test_one_that_is_absent_at_the_start_is_heard_when_it_comes(
    yard: Any, start: Start, busy_s: float
) -> None:
    yard.unplug()
    began_s = time.monotonic()
    sensor = start("mic:yard", rate_hz=48_000)
    assert sensor.failed_s(began_s) < LIMIT_S + busy_s
    plugged_s = time.monotonic()
    yard.plug()
    assert sensor.scored_s(plugged_s) < LIMIT_S + busy_s


def test_a_sound_server_that_is_killed_and_started_again(
    pulseaudio: Any, yard: Any, start: Start, busy_s: float
) -> None:
    sensor = start("mic:yard", rate_hz=48_000)
    sensor.scored_s(0.0)
    killed_s = time.monotonic()
    pulseaudio.kill()
    yard.hush()
    assert sensor.failed_s(killed_s) < LIMIT_S + busy_s
    pulseaudio.start()
    back_s = time.monotonic()
    yard.plug()
    assert sensor.scored_s(back_s) < LIMIT_S + busy_s


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["crashes", "hangs"])
def test_a_driver_that_fails_takes_its_process_and_no_more(
    running: ModuleType, yard: Any, start: Start, busy_s: float, number: int
) -> None:
    sensor = start("mic:yard", rate_hz=48_000)
    sensor.scored_s(0.0)
    before = running.held()
    (pid,) = sensor.capture_processes()
    failed_s = time.monotonic()
    os.kill(pid, number)
    assert sensor.failed_s(failed_s) < LIMIT_S + busy_s
    assert sensor.scored_s(time.monotonic()) < LIMIT_S + busy_s
    (another,) = sensor.capture_processes()
    assert another != pid
    running.expect_held_again(before)


def test_a_muted_microphone_is_told_and_listened_to(yard: Any, start: Start) -> None:
    sensor = start("mic:yard", rate_hz=48_000, digital_silence_s=0.5)
    sensor.scored_s(0.0)
    muted_s = time.monotonic()
    sound, yard.sound = yard.sound, lambda n_samples, first: 0 * yard.noise(n_samples, first)
    sensor.failed_s(muted_s)
    # A new stream is as silent: that is no reason to give it up as well.
    sensor.wait_for("degraded", "nothing but zeros")
    assert sensor.last.streams == 2
    yard.sound = sound
    sensor.wait_for("ok", None)


def test_a_channel_without_sound_is_told_beside_one_that_has_it(
    pulseaudio: Any, tmp_path: Path, start: Start
) -> None:
    """Microphones of an interface, one of them unplugged."""
    sound = np.zeros((48_000 * 60, 2), np.float32)
    sound[:, 1] = 0.1 * np.random.default_rng(0).standard_normal(len(sound))
    soundfile.write(tmp_path / "right.wav", sound, 48_000, subtype="PCM_16")
    pulseaudio.play(tmp_path / "right.wav")
    options = {"rate_hz": 48_000, "channels": 2, "digital_silence_s": 0.5}
    sensor = start("mic:pulse", channel=0, **options)
    sensor.failed_s(0.0)
    sensor.wait_for("degraded", "nothing but zeros on channel 0")
    assert sensor.last.streams == 2
