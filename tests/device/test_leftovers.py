"""Retained messages of what is gone, over a real Mosquitto that keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device import leftovers
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.health import Health
from soundpost.device.leftovers import Leftovers
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

TOPICS = Topics("soundpost", "porch-pi")


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


class Keeper:
    """Knows what the broker keeps, and can make it keep more."""

    def __init__(self, port: int) -> None:
        self.kept: dict[str, str] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, m: self._take(m.topic, m.payload.decode())
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()

    def _take(self, topic: str, payload: str) -> None:
        self.kept[topic] = payload
        if not payload:
            del self.kept[topic]

    def keep(self, topic: str, payload: str = "ON") -> None:
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
        until(lambda: topic in self.kept)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def keeper(mosquitto: Any) -> Any:
    made = Keeper(mosquitto.port)
    yield made
    made.close()


def health(source: str) -> Health:
    return Health("porch-pi", source, datetime.now(timezone.utc), "ok")


def publisher(port: int, *states: tuple[str, str]) -> Publisher:
    return Publisher(BrokerSettings(port=port), TOPICS, states=states)


def test_what_was_taken_out_of_the_settings_meanwhile_is_gone(
    mosquitto: Any, keeper: Keeper
) -> None:
    with publisher(mosquitto.port, ("mic0", "dog"), ("mic0", "siren"), ("yard", "dog")) as before:
        before.wait_connected(20)
        before.publish_state("mic0", "siren", True)
        for source in ("mic0", "yard"):
            before.publish_health(health(source))
            before.publish_retained(TOPICS.paused(source), "ON")
    others = [
        "soundpost/attic-pi/mic0/class/siren",
        "soundpost/porch-pi-2/mic0/health",
        "soundpost/porch-pi/mic0/level",
        "soundpost/porch-pi/cmd/class/pause",
        "soundpost/porch-pi/model/state",
        "elsewhere/porch-pi/mic0/class/siren",
    ]
    for topic in others:
        keeper.keep(topic)
    until(lambda: TOPICS.paused("yard") in keeper.kept)
    with publisher(mosquitto.port, ("mic0", "dog"), ("mic0", "knock")) as now:
        now.wait_connected(20)
        # Of a source that goes on everything stays, also what is not told anew yet.
        expected = {
            TOPICS.status,
            TOPICS.state("mic0", "dog"),
            TOPICS.state("mic0", "knock"),
            TOPICS.health("mic0"),
            TOPICS.paused("mic0"),
            *others,
        }
        until(lambda: keeper.kept.keys() - {TOPICS.instance} == expected)
        # What is added meanwhile is no leftover.
        now.publish_state("hall", "dog", True)
        now.publish_health(health("hall"))
        time.sleep(1.2)
        assert keeper.kept[TOPICS.state("hall", "dog")] == "ON"
        assert TOPICS.health("hall") in keeper.kept


def test_a_thousand_labels_are_taken_away_and_a_thousand_stay(
    mosquitto: Any, keeper: Keeper
) -> None:
    """More than may be on its way at once; none of them stands in the way of a message."""
    for number in range(1_000):
        keeper._client.publish(TOPICS.state("mic0", f"old {number}"), "ON", qos=1, retain=True)
    until(lambda: len(keeper.kept) == 1_000)
    states = [("mic0", f"new {number}") for number in range(1_000)]
    with publisher(mosquitto.port, *states) as now:
        expected = {TOPICS.status, *(TOPICS.state(*state) for state in states)}
        until(lambda: keeper.kept.keys() - {TOPICS.instance} == expected)
        assert now.messages_dropped == 0


def test_the_broker_is_asked_once(
    mosquitto: Any, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later, what others keep below this device is theirs to answer for."""
    monkeypatch.setattr(leftovers, "_COLLECT_S", 0.5)
    with publisher(mosquitto.port, ("mic0", "dog")) as now:
        now.wait_connected(20)
        until(lambda: now._leftovers is not None and now._leftovers._done)
        assert now._leftovers is not None
        assert now._leftovers.ask() == ()
        keeper.keep(TOPICS.state("mic0", "cat"))
        now.use(BrokerSettings(port=mosquitto.port, keepalive_s=61))
        until(lambda: now.connections == 2)
        time.sleep(1.2)
    assert TOPICS.state("mic0", "cat") in keeper.kept


def test_a_connection_that_was_too_short_does_not_count(
    mosquitto: Any, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, cut = Leftovers.take, True
    monkeypatch.setattr(Leftovers, "take", lambda *told: None if cut else take(*told))
    keeper.keep(TOPICS.state("mic0", "cat"))
    with publisher(mosquitto.port, ("mic0", "dog")) as now:
        now.wait_connected(20)
        # What the broker had to say was lost with the connection.
        cut = False
        now.use(BrokerSettings(port=mosquitto.port, keepalive_s=61))
        until(lambda: TOPICS.state("mic0", "cat") not in keeper.kept)


def test_who_speaks_for_no_class_takes_nothing_away(mosquitto: Any, keeper: Keeper) -> None:
    keeper.keep(TOPICS.state("mic0", "cat"))
    with publisher(mosquitto.port) as now:
        now.wait_connected(20)
        time.sleep(1.2)
    assert TOPICS.state("mic0", "cat") in keeper.kept
