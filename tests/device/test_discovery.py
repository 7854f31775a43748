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

from soundpost.device import discovery
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.discovery import Discovery
from soundpost.device.home_assistant import (
    AnnouncedSource,
    HomeAssistantSettings,
    discovery_messages,
)
from soundpost.device.mqtt_inbox import Message
from soundpost.device.publisher import Publisher
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


class Line:
    """A publisher's part in discovery, whose connection breaks when a test says so."""

    topics = TOPICS

    def __init__(self) -> None:
        self.state = "disconnected"
        self.said: list[tuple[str, str]] = []
        self.take: dict[str, Callable[[Message], None]] = {}
        self._up: Callable[[], None] = lambda: None

    def subscribe(self, topic: str, take: Callable[[Message], None], **_how: object) -> None:
        self.take[topic] = take

    def on_connect(self, up: Callable[[], None]) -> None:
        self._up = up

    def publish_retained(self, topic: str, payload: str) -> None:
        self.said.append((topic, payload))

    def connect(self) -> None:
        self._up()
        self.state = "connected"


def gone_of(line: Line) -> list[str]:
    """Components that were taken back, in the message before the announcement."""
    marked = [json.loads(payload)["cmps"] for _, payload in line.said]
    return [name for cmps in marked for name, config in cmps.items() if config.keys() == {"p"}]


@pytest.mark.parametrize("cut_short", [True, False])
def test_what_is_retained_is_taken_back_however_late_it_arrives(
    ends, monkeypatch, cut_short: bool
) -> None:
    """Because the first connection broke before, or because the broker takes its time."""
    monkeypatch.setattr(discovery, "_COLLECT_S", 0.2)
    line = Line()
    settings = HomeAssistantSettings(discovery="device")
    ((_, before),) = discovery_messages(settings, TOPICS, SOURCES).items()
    told = Discovery(line, settings, SOURCES[:1])  # type: ignore[arg-type]
    ends.callback(told.close)
    told.start()
    line.connect()
    if cut_short:
        line.state = "disconnected"
        time.sleep(0.4)
        # Sent on the next connection, this would take the place of what is to be taken back.
        assert line.said == []
        line.connect()
    else:
        until(lambda: line.said)
        assert gone_of(line) == []
        line.said.clear()
    line.take[DEVICE](Message(DEVICE, before.encode(), retained=True))
    until(lambda: len(line.said) == 2)
    assert (
        set(gone_of(line))
        == wanted("device", SOURCES)[DEVICE] - (wanted("device", SOURCES[:1])[DEVICE])
    )
    # What is retained then is what was announced: it is no news on the next connection.
    line.take[DEVICE](Message(DEVICE, line.said[-1][1].encode(), retained=True))
    line.connect()
    time.sleep(0.4)
    assert len(line.said) == 2


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
