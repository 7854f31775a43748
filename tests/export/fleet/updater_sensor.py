"""A sensor of a fleet whose updater is the real one; its time and its ears are simulated.

As a program it is many of them, for a benchmark; what they hear with is the starter:

    python updater_sensor.py --port 1883 --url http://127.0.0.1:8000 --root root.json \
        --folder state --begin 0 --count 50
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import Any

# As a program it finds for itself what pytest finds for tests.
sys.path.insert(0, str(Path(__file__).parents[2] / "device" / "updates"))

import paho.mqtt.client as paho
from fleet_sensor import Ears, FleetSensor
from paho.mqtt.enums import CallbackAPIVersion
from signed_repository import bundle_bytes
from simulated_sensor import SimulatedSensor, World, behaviour

from soundpost.device.bundle import read_bundle, starter_bundle_path
from soundpost.device.topics import Topics
from soundpost.device.updates.boot import boot
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.device.updates.update_settings import UpdateSettings
from soundpost.device.updates.updater import Updater


class _Ears(SimulatedSensor):
    """The simulated sensor of the updater's tests, whose states are published too."""

    def __init__(self, owner: UpdaterSensor, bundle: Any, kind: str, seed: int) -> None:
        first = bundle.sha256
        super().__init__(
            bundle, World(seed), lambda sha: behaviour("old" if sha == first else kind, seed)
        )
        self._owner = owner

    def show(self, state: ModelState) -> None:
        super().show(state)
        self._owner.publish(state)


class UpdaterSensor(FleetSensor):
    """As `FleetSensor`; `kind` of `behaviour` is how it hears with another model than its first.

    speed : simulated seconds in a real one
    content : of the bundle that its settings name; None: that of the tiny student
    """

    def __init__(
        self,
        device: str,
        port: int,
        url: str,
        root: bytes,
        folder: Path,
        installed: Any = None,
        *,
        content: bytes | None = None,
        channel: str = "stable",
        kind: str = "good",
        speed: float = 6_000.0,
        shadow_s: float = 600.0,
        probation_s: float = 7_200.0,
        spread_s: float = 600.0,
        seed: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        bundle = folder / "settings.bundle"
        bundle.write_bytes(content or bundle_bytes("1.0.0"))
        self.device, self.commands = device, []
        self._topics = Topics("soundpost", device)
        self._speed, self.ears = speed, Ears()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._boot = boot(folder / "models", bundle)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.will_set(self._topics.status, "offline", 1, retain=True)
        self._client.on_connect, self._client.on_message = self._on_connect, self._on_message
        self._late_s = 0.0
        self._ears = _Ears(self, read_bundle(self._boot.path), kind, seed)
        settings = UpdateSettings(
            repository=url,
            root=Path("root.json"),
            channel=channel,
            install="ask",
            shadow_s=shadow_s,
            probation_s=probation_s,
            spread_s=spread_s,
        )
        self._updater = Updater(
            settings,
            device,
            self._boot,
            TrustedRepository(url, root, folder / "metadata", synchronised=lambda: True),
            self._ears,
            now=lambda: self._late_s,
            self_test=lambda *_arguments, **_more: SelfTestResult(True, "passed"),
        )
        self.state = self._updater.state
        self._client.connect("127.0.0.1", port, 60)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._client.loop_start()
        self._thread.start()

    def publish(self, state: ModelState) -> None:
        self.state = state
        self._client.publish(self._topics.model_state, state.to_json(), 1, True)

    def show(self, **fields: Any) -> None:
        assert not fields
        self.publish(self._updater.state)

    def close(self, goodbye: bool = True) -> None:
        super().close(goodbye)
        self._updater.close()
        self._boot.ended()

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        super()._on_message(client, _data, message)
        self._updater.request(True)
        self._wake.set()

    def _run(self) -> None:
        while not self._ending.is_set():
            wait_s = min(self._updater.step(), 60.0)
            if wait_s > 0.0:
                began_s = time.monotonic()
                self._wake.wait(wait_s / self._speed + 0.001)
                self._wake.clear()
                wait_s = min(wait_s, (time.monotonic() - began_s) * self._speed)
                self._late_s += wait_s
                self._ears.hear(wait_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--begin", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    starter = starter_bundle_path().read_bytes()
    sensors = [
        UpdaterSensor(
            f"sensor-{number:03}",
            arguments.port,
            arguments.url,
            arguments.root.read_bytes(),
            arguments.folder / f"{number:03}",
            content=starter,
            speed=10.0,
            shadow_s=60.0,
            probation_s=120.0,
            spread_s=50.0,
            seed=number,
        )
        for number in range(arguments.begin, arguments.begin + arguments.count)
    ]
    print(f"{len(sensors)} sensors", flush=True)
    while True:
        time.sleep(3600.0)


if __name__ == "__main__":
    main()
