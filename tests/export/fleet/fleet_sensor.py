"""Sensors without a microphone: a real MQTT client, TUF client, model store and download each.

What they hear is simulated: a model is `good` in their ears, or `bad` and taken back, and a sensor
may be `stuck` (obeys, and never gets further) or `mute` (hears no command).
"""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.errors import UpdateError
from soundpost.device.health import Health
from soundpost.device.topics import Topics
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Installed, choose
from soundpost.device.updates.trusted_download import TrustedRepository


@dataclass(frozen=True)
class Ears:
    """What a sensor makes of a new model.

    hears : `good`, `bad`, `stuck` or `mute`
    shadow_s, probation_s : how long each takes
    spread_s : a command is obeyed within so long
    drift : of the scores, once the model has been confirmed
    """

    hears: str = "good"
    shadow_s: float = 0.1
    probation_s: float = 0.2
    spread_s: float = 0.0
    drift: float | None = None


class FleetSensor:
    """One sensor. `installed` is what its settings name."""

    def __init__(
        self,
        device: str,
        port: int,
        url: str,
        root: bytes,
        folder: Path,
        installed: Installed,
        *,
        channel: str = "stable",
        ears: Ears | None = None,
        retry_s: float = 1.0,
    ) -> None:
        self.device, self.ears, self._channel = device, ears or Ears(), channel
        self.commands: list[str] = []
        self._topics = Topics("soundpost", device)
        self._repository = TrustedRepository(
            url, root, folder / "metadata", synchronised=lambda: True
        )
        self._store = ModelStore(folder / "models")
        self._settings = installed
        self._retry_s = retry_s
        self._wake, self._ending = threading.Event(), threading.Event()
        current = self._store.state.current or installed
        self.state = ModelState(device, _now(), "idle", current, channel=channel)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.will_set(self._topics.status, "offline", 1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port, 60)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._client.loop_start()
        self._thread.start()

    def close(self, goodbye: bool = True) -> None:
        """End; without a goodbye the broker publishes the will."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._wake.set()
        if goodbye:
            self._client.publish(self._topics.status, "offline", 1, True).wait_for_publish(10)
            self._client.disconnect()
        self._client.loop_stop()
        if not goodbye:
            peer: Any = self._client.socket()
            peer.close()
        self._thread.join()

    def health(self, state: Any = "ok", reason: str | None = None) -> None:
        record = Health(self.device, "mic0", _now(), state, reason)
        self._client.publish(self._topics.health("mic0"), record.to_json(), 1, True)

    def show(self, **fields: Any) -> None:
        self.state = replace(self.state, time=_now(), **fields)
        self._client.publish(self._topics.model_state, self.state.to_json(), 1, True)

    # ---------------------------------------------------------------------------------- updates

    def _on_connect(self, client: paho.Client, *_rest: Any) -> None:
        client.subscribe(self._topics.cmd("update"), 1)
        client.publish(self._topics.status, "online", 1, True)
        self.health()
        self.show()

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        request = json.loads(message.payload)
        self.commands.append(request["id"])
        answer = {"id": request["id"], "command": "update", "ok": True, "message": "looks"}
        if self.ears.hears == "mute":
            answer.update(ok=False, message="update: not among those that commands.allow has")
        else:
            self._wake.set()
        client.publish(self._topics.cmd_result("update"), json.dumps(answer), 1)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._ending.wait(random.uniform(0.0, self.ears.spread_s)):
                return
            self._update()

    def _update(self) -> None:
        running, state = self.state.installed, self._store.state
        self.show(phase="refresh")
        try:
            choice = choose(
                self._repository.refresh(), self.device, self._channel, running, state.rejected
            )
            if choice.offer is None or self.ears.hears == "stuck":
                self.show(phase="idle")
                return
            offer = choice.offer
            model = Installed(offer.name, offer.version, offer.sha256)
            self.show(phase="download", progress=0.0, offered=model)
            path = self._repository.download(offer, self._store)
        except UpdateError as error:
            self._result("unreachable", str(error), phase="idle", progress=None)
            if not self._ending.wait(self._retry_s):
                self._wake.set()
            return
        self.show(phase="check", progress=None)
        self._store.stage(path, model)
        self.show(phase="shadow")
        self._ending.wait(self.ears.shadow_s)
        self._store.switch()
        self.show(phase="probation", installed=model, previous=running, confirmed=False)
        self._ending.wait(self.ears.probation_s)
        if self.ears.hears == "bad":
            self.show(phase="roll_back")
            back = self._store.roll_back() or self._settings
            self._result(
                "rolled_back",
                "4 times as many events as before",
                phase="idle",
                installed=back,
                previous=None,
                confirmed=True,
            )
            return
        self._store.confirm()
        self._result(
            "confirmed",
            "as before",
            phase="idle",
            confirmed=True,
            offered=None,
            drift=self.ears.drift,
        )

    def _result(self, result: str, reason: str, **fields: Any) -> None:
        self.show(result=result, reason=reason, result_time=_now(), **fields)


def _now() -> datetime:
    return datetime.now(timezone.utc)
