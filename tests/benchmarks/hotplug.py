"""Prints how soon health tells of an unplugged microphone, and how soon one that is back is heard.

python tests/benchmarks/hotplug.py
python tests/benchmarks/hotplug.py --rounds 50

The microphone is one of PulseAudio's, behind ALSA's plug-in, which is unloaded and loaded again;
its sound server has another that takes over in silence, the worst case. Health is timed as it
arrives from the embedded broker, hearing by the first window that the model has scored. After that,
processor time and memory of the process that captures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from machine import children, describe, one_thread, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from sound_server import PulseAudio, Yard

from soundpost.device.broker import LoopbackBroker
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.commands.run import plan_sources
from soundpost.device.config import load_settings
from soundpost.device.daemon import Daemon
from soundpost.device.health import Health
from soundpost.device.observer import Observer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

LIMIT_S = 5.0
PATIENCE_S = 60.0
_TICK_MS = 1e3 / os.sysconf("SC_CLK_TCK")


class Watch(Observer):
    """Waits for a state of health at the broker, or for a window to be scored."""

    def __init__(self, port: int, topic: str) -> None:
        self._changed = threading.Condition()
        self._state = ""
        self._windows = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_connect = lambda *_: self._client.subscribe(topic, qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._state = Health.from_json(message.payload).state
            self._changed.notify_all()

    def scored(self, source: str, window: ScoredWindow) -> None:
        with self._changed:
            self._windows += len(window.scores) > 0
            self._changed.notify_all()

    def failed(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._state == "failed", PATIENCE_S):
                raise SystemExit("the broker was not told that the source fails")

    def scores_again(self) -> None:
        with self._changed:
            before = self._windows
            if not self._changed.wait_for(lambda: self._windows > before, PATIENCE_S):
                raise SystemExit("the source is not heard again")


def used_ms(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_MS


def memory_mb(pid: int, name: str) -> float:
    """Pss, Private_Dirty ... of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1_024 / 1e6
    raise ValueError(name)


def tell(what: str, times_s: list[float]) -> None:
    """Median and worst against the limit."""
    worst_s = max(times_s)
    print(
        f"{what}: median {statistics.median(times_s):.2f} s, worst {worst_s:.2f} s of "
        f"{len(times_s)}: {verdict(worst_s, LIMIT_S)} {LIMIT_S:g} s"
    )


def main() -> None:
    """Unplug and plug in, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if shutil.which("pulseaudio") is None:
        raise SystemExit(
            "pulseaudio is missing: sudo apt-get install pulseaudio libasound2-plugins"
        )
    one_thread()
    describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = PulseAudio(folder)
        try:
            measure(server, Yard(server, folder), arguments.rounds)
        finally:
            server.kill()


def measure(server: PulseAudio, yard: Yard, rounds: int) -> None:
    """All of it with one sensor that runs throughout."""
    os.environ.update(server.environment)
    yard.plug()
    overrides = {"source.mic0.url": "mic:yard", "source.mic0.rate_hz": 48_000, "device_id": "bench"}
    plans = plan_sources(load_settings(None, overrides))
    states = [("mic0", label) for label in plans[0].bundle.manifest.labels]
    with LoopbackBroker(0) as broker:
        watch = Watch(broker.port, "soundpost/bench/mic0/health")
        topics = Topics("soundpost", "bench")
        publisher = Publisher(BrokerSettings(port=broker.port), topics, states=states).start()
        daemon = Daemon(plans, "bench", publisher, [watch])
        daemon.start()
        watch.scores_again()
        told_s, heard_s = [], []
        for _ in range(rounds):
            began_s = time.monotonic()
            yard.unplug()
            watch.failed()
            told_s.append(time.monotonic() - began_s)
            began_s = time.monotonic()
            yard.plug()
            watch.scores_again()
            heard_s.append(time.monotonic() - began_s)
        tell("unplugged until health says so", told_s)
        tell("plugged in until the first window is scored", heard_s)
        (capture,) = [
            pid
            for pid in children(os.getpid())
            if b"capture_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        time.sleep(2)
        began_s, before_ms = time.monotonic(), used_ms(capture)
        time.sleep(20)
        share = (used_ms(capture) - before_ms) / (time.monotonic() - began_s)
        print(
            f"the capture process: {share:.1f} ms of processor time per second of sound, "
            f"{memory_mb(capture, 'Pss'):.1f} MB (PSS), of them "
            f"{memory_mb(capture, 'Private_Dirty'):.1f} MB its own"
        )
        daemon.stop()
        daemon.wait(PATIENCE_S)
        publisher.close()
        yard.unplug()


if __name__ == "__main__":
    main()
