"""One sensor for each device id, over a real Mosquitto: rivals, old wills, cut connections."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError
from soundpost.device.mqtt_faults import Fault
from soundpost.device.presence import Presence
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

paho = pytest.importorskip("paho.mqtt.client")
TOPICS = Topics("soundpost", "porch-pi")


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Witness:
    """Notes what is said on a topic, in order; can speak as anybody."""

    def __init__(self, port: int, topic: str) -> None:
        self.heard: list[str] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _c, _u, m: self.heard.append(bytes(m.payload).decode())
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def say(self, topic: str, payload: str) -> None:
        self.client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def settings(port: int, version: str) -> BrokerSettings:
    return BrokerSettings(
        port=port,
        version=version,  # type: ignore[arg-type]
        retry_min_s=0.05,
        retry_max_s=0.3,
    )


def retained_status(port: int) -> str:
    witness = Witness(port, TOPICS.status)
    until(lambda: witness.heard)
    witness.close()
    return witness.heard[0]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_the_second_sensor_of_an_id_is_refused_and_the_first_is_not_disturbed(
    mosquitto, ends, version: str
) -> None:
    first = ends.enter_context(Publisher(settings(mosquitto.port, version), TOPICS))
    first.wait_connected(20)
    witness = Witness(mosquitto.port, TOPICS.status)
    ends.callback(witness.close)
    until(lambda: witness.heard == ["online"])
    second = Publisher(settings(mosquitto.port, version), TOPICS).start()
    with pytest.raises(BrokerError) as caught:
        second.wait_connected(60)
    assert "another sensor uses the device id porch-pi" in str(caught.value)
    assert "device_id of its own" in str(caught.value)
    assert second.state == "refused"
    assert first.state == "connected"
    assert first.connections == 1
    second.close()
    # Neither its connections nor its end said anything in the name of the first.
    assert witness.heard == ["online"]
    assert retained_status(mosquitto.port) == "online"


def test_the_second_takes_over_when_the_first_has_gone(mosquitto, ends) -> None:
    first = Publisher(settings(mosquitto.port, "auto"), TOPICS).start()
    first.wait_connected(20)
    second = ends.enter_context(Publisher(settings(mosquitto.port, "auto"), TOPICS))
    until(lambda: second.state == "refused")
    first.close()
    until(lambda: second.state == "connected")
    # The farewell of the first may come after it, and is contradicted.
    until(lambda: retained_status(mosquitto.port) == "online")


def test_the_will_of_an_older_run_does_not_stay(mosquitto, ends) -> None:
    """After a power cut the broker learns late that the old connection is dead."""
    program = (
        "import sys, time\n"
        "from soundpost.device.broker_settings import BrokerSettings\n"
        "from soundpost.device.publisher import Publisher\n"
        "from soundpost.device.topics import Topics\n"
        f"settings = BrokerSettings(port={mosquitto.port}, keepalive_s=4)\n"
        "publisher = Publisher(settings, Topics('soundpost', 'porch-pi')).start()\n"
        "publisher.wait_connected(20)\n"
        "assert publisher.flush(20)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    ends.callback(child.wait)
    ends.callback(child.kill)
    assert child.stdout is not None
    ends.callback(child.stdout.close)
    assert child.stdout.readline() == b"up\n"
    # Stopped, it neither answers nor closes: as a machine without power.
    os.kill(child.pid, signal.SIGSTOP)
    witness = Witness(mosquitto.port, TOPICS.status)
    ends.callback(witness.close)
    until(lambda: witness.heard == ["online"])
    again = ends.enter_context(Publisher(settings(mosquitto.port, "auto"), TOPICS))
    again.wait_connected(20)
    until(lambda: "offline" in witness.heard)
    until(lambda: witness.heard[-1] == "online")
    assert retained_status(mosquitto.port) == "online"
    assert again.connections == 1


def test_who_says_offline_for_us_is_contradicted_but_not_in_a_flood(mosquitto, ends) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port, "auto"), TOPICS))
    publisher.wait_connected(20)
    witness = Witness(mosquitto.port, TOPICS.status)
    ends.callback(witness.close)
    until(lambda: witness.heard == ["online"])
    began_s = time.monotonic()
    for _ in range(200):
        witness.say(TOPICS.status, "offline")
    until(lambda: witness.heard.count("offline") == 200 and witness.heard[-1] == "online")
    assert witness.heard.count("online") <= 3 + 2.5 * (time.monotonic() - began_s)
    publisher.close()
    until(lambda: witness.heard[-1] == "offline")
    time.sleep(1.0)
    assert witness.heard[-1] == "offline", "after its goodbye it says nothing"


def test_a_broker_that_lets_it_read_nothing_is_used_all_the_same(start_mosquitto, ends, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic write soundpost/#\ntopic read elsewhere/#\n")
    acl.chmod(0o644)
    broker = start_mosquitto(f"allow_anonymous true\nacl_file {acl}")
    publisher = ends.enter_context(Publisher(settings(broker.port, "auto"), TOPICS))
    publisher.wait_connected(30)


# --- any order of arrival


class _Wire:
    """Broker of the questions and answers of some daemons, in an order that a test chooses."""

    def __init__(self, n: int) -> None:
        self.queues: list[list[str]] = [[] for _ in range(n)]
        self.left = [False] * n
        self.daemons = [Presence(TOPICS, self.send(i), lambda: None) for i in range(n)]
        self.clients = [self.client(i) for i in range(n)]

    def send(self, _sender: int) -> Callable[..., None]:
        return lambda _client, _topic, payload: [
            queue.append(payload) for i, queue in enumerate(self.queues) if not self.left[i]
        ]

    def client(self, i: int) -> object:
        wire = self

        class Leaving:
            def fail(self, _fault: Fault, goodbye: bool) -> None:
                assert goodbye, "its will must not speak for the other"
                wire.left[i] = True

        return Leaving()

    def deliver(self, i: int) -> None:
        if self.queues[i] and not self.left[i]:
            self.daemons[i].take_instance(self.queues[i].pop(0).encode())


@given(st.permutations(range(3)), st.lists(st.integers(0, 2), max_size=40), st.data())
def test_of_daemons_that_all_took_the_id_one_remains(order, steps, data) -> None:
    """Whether they asked at once, or took the id before they heard any other."""
    wire = _Wire(3)
    for i in order:
        wire.daemons[i].release(wire.clients[i])  # type: ignore[arg-type]
        wire.daemons[i]._holds = data.draw(st.booleans(), label=f"{i} holds it already")
        wire.send(i)(None, TOPICS.instance, f"who {wire.daemons[i].instance}")
    for i in itertools.chain(steps, [0, 1, 2] * 60):
        wire.deliver(i)
        for number, daemon in enumerate(wire.daemons):
            if daemon._rival and not daemon._holds:
                wire.left[number] = True
    assert not any(queue and not gone for queue, gone in zip(wire.queues, wire.left, strict=True))
    assert wire.left.count(False) == 1


@given(st.binary(max_size=100))
def test_any_bytes_on_the_topic_are_nobody(payload: bytes) -> None:
    wire = _Wire(1)
    wire.daemons[0].release(wire.clients[0])  # type: ignore[arg-type]
    wire.daemons[0].take_instance(payload)
    wire.daemons[0].take_status(payload)
    assert not wire.left[0]
