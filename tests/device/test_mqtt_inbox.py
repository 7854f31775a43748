"""Messages for the sensor: over a real Mosquitto, its restarts, and handlers that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.mqtt_inbox import MAX_WAITING, MAX_WAITING_BYTES, Message
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

TOPICS = Topics("soundpost", "porch-pi")
COMMANDS = "soundpost/porch-pi/cmd/+"


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


class Sender:
    """A plain paho client that publishes, and notes what comes back."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def send(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def settings(port: int) -> BrokerSettings:
    return BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2)


def test_a_subscription_outlives_the_broker_and_its_handler_may_publish(mosquitto, ends) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    heard: list[Message] = []

    def answer(message: Message) -> None:
        heard.append(message)
        assert publisher.publish_once(TOPICS.cmd_result("pause"), message.payload.decode())
        assert publisher.flush(10), "the network thread is not the one that handles messages"

    publisher.subscribe(COMMANDS, answer)
    publisher.wait_connected(10)
    for turn in range(3):
        if turn:
            mosquitto.kill()
            until(lambda: publisher.state != "connected")
            assert not publisher.publish_once("soundpost/porch-pi/cmd/pause/result", "lost")
            mosquitto.start()
            publisher.wait_connected(20)
        sender = Sender(mosquitto.port)
        # The sensor is heard of before it has subscribed; until it has, nobody answers.
        deadline_s = time.monotonic() + 20
        while not any(topic == TOPICS.cmd_result("pause") for topic, _ in sender.heard):
            assert time.monotonic() < deadline_s
            sender.send(TOPICS.cmd("pause"), f"turn {turn}")
            time.sleep(0.05)
        until(
            lambda sender=sender, turn=turn: (
                (  # type: ignore[misc]
                    TOPICS.cmd_result("pause"),
                    f"turn {turn}".encode(),
                )
                in sender.heard
            )
        )
        sender.close()
    assert {message.topic for message in heard} == {TOPICS.cmd("pause")}


def test_a_later_subscription_reaches_a_running_connection_and_knows_what_is_old(
    mosquitto, ends
) -> None:
    sender = Sender(mosquitto.port)
    ends.callback(sender.close)
    sender.send(TOPICS.cmd("old"), "1", retain=True)
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(10)
    heard: list[Message] = []
    publisher.subscribe(COMMANDS, heard.append)
    until(lambda: heard)
    sender.send(TOPICS.cmd("new"), b"\xff\x00")
    sender.send("soundpost/porch-pi/other", "not for us")
    until(lambda: len(heard) == 2)
    assert heard == [
        Message(TOPICS.cmd("old"), b"1", retained=True),
        Message(TOPICS.cmd("new"), b"\xff\x00"),
    ]


def test_a_handler_that_fails_is_reported_and_called_again(mosquitto, ends, caplog) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    heard: list[bytes] = []

    def fail_once(message: Message) -> None:
        heard.append(message.payload)
        if len(heard) == 1:
            raise RuntimeError("a bug of the handler")

    publisher.subscribe(COMMANDS, fail_once)
    publisher.wait_connected(10)
    sender = Sender(mosquitto.port)
    ends.callback(sender.close)
    sender.send(TOPICS.cmd("barrier"), "0", retain=True)
    until(lambda: heard)
    sender.send(TOPICS.cmd("pause"), "1")
    until(lambda: heard == [b"0", b"1"])
    assert "a bug of the handler" in caplog.text
    assert publisher.state == "connected"


def test_too_large_and_too_many_are_dropped_and_counted_not_kept(mosquitto, ends, caplog) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    heard: list[bytes] = []
    go_on = threading.Event()
    ends.callback(go_on.set)

    def wait(message: Message) -> None:
        heard.append(message.payload)
        assert go_on.wait(60)

    publisher.subscribe(COMMANDS, wait)
    publisher.wait_connected(10)
    sender = Sender(mosquitto.port)
    ends.callback(sender.close)
    sender.send(TOPICS.cmd("first"), b"first", retain=True)
    until(lambda: heard == [b"first"])
    large = b"x" * 200_000
    for _ in range(MAX_WAITING_BYTES // len(large) + 1):
        sender.send(TOPICS.cmd("large"), large)
    until(lambda: publisher.messages_dropped == 1)
    n_large = MAX_WAITING_BYTES // len(large)
    for _ in range(MAX_WAITING - n_large + 10):
        sender.send(TOPICS.cmd("many"), "")
    until(lambda: publisher.messages_dropped == 11)
    go_on.set()
    until(lambda: len(heard) == 1 + MAX_WAITING)
    assert heard[1:] == [large] * n_large + [b""] * (MAX_WAITING - n_large)
    assert caplog.text.count("dropped a message") == 1
