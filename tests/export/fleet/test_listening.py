"""What a real broker passes on of many sensors, some of which tell nonsense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from fleet_examples import NOW, OLD, sensor
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.health import Health
from soundpost.device.identifiers import uuid7
from soundpost.export.fleet.listening import FleetListener

PATIENCE_S = 120.0


class Publisher:
    """A client that is none of ours."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1_000)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def tell(
        self, topic: str, payload: str | bytes, retain: bool = True, *, hurry: bool = False
    ) -> None:
        sent = self._client.publish(f"soundpost/{topic}", payload, 1, retain)
        if not hurry:
            sent.wait_for_publish(PATIENCE_S)

    def sensor(self, device: str) -> None:
        """All that a well one retains; there once a later message is."""
        one = sensor(device)
        assert one.state is not None
        self.tell(f"{device}/model/state", one.state.to_json(), hurry=True)
        self.tell(f"{device}/mic0/health", one.health["mic0"].to_json(), hurry=True)
        self.tell(f"{device}/status", "online", hurry=device.startswith("sensor-"))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def publisher(mosquitto: Any) -> Iterator[Publisher]:
    one = Publisher(mosquitto.port)
    yield one
    one.close()


def listener(port: int) -> FleetListener:
    return FleetListener(BrokerSettings(port=port))


def wait(met: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_all_that_a_broker_keeps_is_there(mosquitto: Any, publisher: Publisher) -> None:
    """More than the thousand messages that Mosquitto queues for a client with QoS 1."""
    devices = [f"sensor-{number:04}" for number in range(800)]
    for device in devices:
        publisher.sensor(device)
    publisher.tell("last/status", "online")
    devices = ["last", *devices]
    with listener(mosquitto.port) as fleet:
        fleet.settle(PATIENCE_S, quiet_s=3.0)
        found = fleet.sensors
    assert sorted(found) == devices
    del found["last"]
    assert all(one.online and one.state and "mic0" in one.health for one in found.values())


def test_news_come(mosquitto: Any, publisher: Publisher) -> None:
    publisher.sensor("hall")
    with listener(mosquitto.port) as fleet:
        fleet.settle(PATIENCE_S)
        event = SoundEvent(
            id=uuid7(),
            device="hall",
            source="mic0",
            label="dog",
            phase="start",
            score=0.9,
            threshold=0.5,
            onset=NOW,
            offset=None,
            time_synced=True,
            stream=uuid7(),
            sample=0,
            rate_hz=16_000,
            model=ModelRef("mine", "1.0.0", "0" * 64),
        )
        publisher.tell("hall/mic0/event", event.to_json(), retain=False)
        wait(lambda: fleet.sensors["hall"].last_event == event)
        publisher.tell("hall/status", "offline")
        wait(lambda: fleet.sensors["hall"].online is False)
        failed = Health("hall", "mic1", NOW, "failed", "unplugged")
        publisher.tell("hall/mic1/health", failed.to_json())
        wait(lambda: set(fleet.sensors["hall"].health) == {"mic0", "mic1"})
        assert fleet.sensors["hall"].deaf_sources == {"mic1": "unplugged"}
        # Who takes his retained topics away is no longer told of.
        for topic in ("mic1/health", "model/state", "status"):
            publisher.tell(f"hall/{topic}", b"")
        wait(lambda: fleet.sensors["hall"].online is None)
        assert fleet.sensors["hall"].state is None
        assert set(fleet.sensors["hall"].health) == {"mic0"}


def test_nonsense_is_skipped_and_counted(mosquitto: Any, publisher: Publisher) -> None:
    state = sensor("hall").state
    assert state is not None
    for payload in (b"{", b"[]", b"\xff", b'{"schema": "soundpost.model-state/1"}'):
        publisher.tell("hall/model/state", payload, retain=False)
    publisher.sensor("hall")
    with listener(mosquitto.port) as fleet:
        fleet.settle(PATIENCE_S)
        fleet.on_answer = lambda *_answer: None
        for topic, payload in (
            ("hall/status", b"asleep"),
            ("hall/model/state", b"{"),
            ("hall/model/state", state.to_json().replace("hall", "attic")),
            ("hall/mic0/health", b"\xff\xfe"),
            ("hall/mic0/event", b"{}"),
            ("hall/cmd/update/result", b"7"),
        ):
            publisher.tell(topic, payload, retain=False)
        wait(lambda: fleet.unreadable == 6)
        assert fleet.sensors["hall"].state == state
        assert fleet.sensors["hall"].online is True
        assert fleet.sensors["hall"].state.installed == OLD


def test_a_broker_that_comes_back(mosquitto: Any, publisher: Publisher) -> None:
    publisher.sensor("hall")
    with listener(mosquitto.port) as fleet:
        fleet.settle(PATIENCE_S)
        mosquitto.kill()
        wait(lambda: not fleet.connected)
        assert not fleet.ask_to_update("hall")
        mosquitto.start()
        wait(lambda: fleet.connected)
        again = Publisher(mosquitto.port)
        again.sensor("attic")
        wait(lambda: "attic" in fleet.sensors)
        again.close()


def test_no_broker_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with listener(1) as fleet, pytest.raises(BrokerError) as caught:
        fleet.settle(5.0)
    assert "\n" not in str(caught.value)
    assert caplog.records == []
