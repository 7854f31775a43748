"""Announcing to a Home Assistant that is a listener on a real Mosquitto."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.discovery import Discovery
from soundpost.device.home_assistant import (
    AnnouncedSource,
    HomeAssistantSettings,
    discovery_messages,
)
from soundpost.device.mqtt import Publisher
from soundpost.device.topics import Topics

TOPICS = Topics("soundpost", "porch-pi")
DEVICE = "homeassistant/device/porch-pi/config"
SOURCES = [AnnouncedSource("mic0", ("dog", "smoke_alarm")), AnnouncedSource("mic1", ("dog",))]


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class HomeAssistant:
    """Follows discovery as Home Assistant does: which components of this sensor exist now."""

    def __init__(self, port: int) -> None:
        self.components: dict[str, set[str]] = {}
        self.heard: list[str] = []
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("homeassistant/#", qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(20)

    def _take(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.topic.endswith("/config"):
            return
        config = json.loads(message.payload) if message.payload else {}
        known = self.components.setdefault(message.topic, set())
        if message.topic.split("/")[1] != "device":
            known.clear()
            known.update(["it"] if config else [])
        elif not config:
            known.clear()
        else:
            # Home Assistant removes what is left with its platform alone, nothing else.
            for name, component in config["cmps"].items():
                (known.discard if component.keys() == {"p"} else known.add)(name)
        self.heard.append(message.topic)

    def exists(self) -> dict[str, set[str]]:
        return {topic: set(known) for topic, known in self.components.items() if known}

    def born(self) -> None:
        self._client.publish("homeassistant/status", "online", qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def run(
    port: int, mode: str, sources: list[AnnouncedSource], **changes: object
) -> tuple[Publisher, Discovery]:
    settings = HomeAssistantSettings(discovery=mode, **changes)  # type: ignore[arg-type]
    publisher = Publisher(BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2), TOPICS)
    discovery = Discovery(publisher, settings, sources)
    discovery.start()
    publisher.start()
    return publisher, discovery


def stop(running: tuple[Publisher, Discovery]) -> None:
    publisher, discovery = running
    discovery.close()
    assert publisher.close(10) == 0


def wanted(mode: str, sources: list[AnnouncedSource], **changes: object) -> dict[str, set[str]]:
    settings = HomeAssistantSettings(discovery=mode, **changes)  # type: ignore[arg-type]
    messages = discovery_messages(settings, TOPICS, sources)
    return {topic: set(json.loads(text).get("cmps", ["it"])) for topic, text in messages.items()}


def retained(port: int) -> dict[str, set[str]]:
    """What a Home Assistant that starts now would find."""
    late = HomeAssistant(port)
    late.born()
    time.sleep(0.3)
    late.close()
    return late.exists()


def test_nothing_stale_stays_whatever_is_changed_between_two_runs(mosquitto, ends) -> None:
    home = HomeAssistant(mosquitto.port)
    ends.callback(home.close)
    runs: list[tuple[str, list[AnnouncedSource], dict[str, object]]] = [
        ("device", SOURCES, {}),
        ("device", SOURCES[:1], {}),
        ("device", SOURCES, {"labels": ("dog",)}),
        ("component", SOURCES, {}),
        ("component", SOURCES[1:], {}),
        ("device", SOURCES, {}),
        ("off", SOURCES, {}),
    ]
    for mode, sources, changes in runs:
        running = run(mosquitto.port, mode, sources, **changes)
        until(lambda: home.exists() == wanted(mode, sources, **changes))  # noqa: B023
        stop(running)
        assert retained(mosquitto.port) == wanted(mode, sources, **changes)


def test_it_is_told_again_when_home_assistant_or_the_broker_starts(mosquitto, ends) -> None:
    running = run(mosquitto.port, "device", SOURCES)
    ends.callback(stop, running)
    home = HomeAssistant(mosquitto.port)
    until(lambda: home.exists() == wanted("device", SOURCES))
    n_heard = len(home.heard)
    home.born()
    until(lambda: len(home.heard) > n_heard)
    home.close()
    # This Mosquitto keeps nothing over its restart.
    mosquitto.kill()
    mosquitto.start()
    home = HomeAssistant(mosquitto.port)
    ends.callback(home.close)
    until(lambda: home.exists() == wanted("device", SOURCES))


def test_a_change_while_it_runs_takes_back_what_is_gone(mosquitto, ends) -> None:
    home = HomeAssistant(mosquitto.port)
    ends.callback(home.close)
    running = run(mosquitto.port, "device", SOURCES)
    ends.callback(stop, running)
    until(lambda: home.exists() == wanted("device", SOURCES))
    running[1].update(SOURCES[:1], HomeAssistantSettings(discovery="device"))
    until(lambda: home.exists() == wanted("device", SOURCES[:1]))
    assert retained(mosquitto.port) == wanted("device", SOURCES[:1])


def test_others_are_left_alone_and_nonsense_does_no_harm(mosquitto, ends) -> None:
    sender = HomeAssistant(mosquitto.port)
    ends.callback(sender.close)
    other = "homeassistant/device/attic-pi/config"
    sender._client.publish(other, '{"cmps":{"a":{"p":"sensor","x":1}}}', retain=True, qos=1)
    sender._client.publish(DEVICE, '{"cmps":{"a":{}}}', retain=True, qos=1).wait_for_publish(10)
    until(lambda: len(sender.heard) == 2)
    sender.components[DEVICE].clear()
    running = run(mosquitto.port, "device", SOURCES)
    until(lambda: sender.exists().get(DEVICE) == wanted("device", SOURCES)[DEVICE])
    stop(running)
    running = run(mosquitto.port, "off", SOURCES)
    until(lambda: DEVICE not in sender.exists())
    stop(running)
    assert retained(mosquitto.port) == {other: {"a"}}
