from __future__ import annotations

import logging
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker import LoopbackBroker
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError, UsageError
from soundpost.device.subscriber import Subscriber


@pytest.fixture
def broker() -> Iterator[LoopbackBroker]:
    with LoopbackBroker() as running:
        yield running


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


class Peer:
    """A plain paho client."""

    def __init__(
        self, port: int, subscribe: str | None = None, will: tuple[str, str] | None = None
    ) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        if subscribe is None:
            self.client.on_connect = lambda *_: ready.set()
        else:
            self.client.on_connect = lambda client, *_: client.subscribe(subscribe, qos=1)
            self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _c, _u, message: self.messages.append(
            (message.topic, bytes(message.payload).decode(), message.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(5)

    def publish(self, topic: str, payload: str, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def listening_addresses(port: int) -> set[str]:
    """Local addresses that the kernel says are listening on a port, IPv4 and IPv6."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:  # noqa: PTH123
            for line in lines.readlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                if state == "0A" and int(address.split(":")[1], 16) == port:
                    found.add(address.split(":")[0])
    return found


def test_it_listens_on_loopback_and_nowhere_else(broker: LoopbackBroker) -> None:
    assert listening_addresses(broker.port) == {"0100007F"}
    assert broker.host == "127.0.0.1"


def test_messages_arrive_once_in_order_and_each_subscriber_gets_its_own(
    broker: LoopbackBroker,
) -> None:
    everything = Peer(broker.port, "#")
    one_level = Peer(broker.port, "a/+/event")
    sender = Peer(broker.port)
    for number in range(200):
        sender.client.publish(f"a/{number % 3}/event", str(number), qos=1)
        sender.client.publish("a/other", "no", qos=0)
    until(lambda: len(everything.messages) == 400 and len(one_level.messages) == 200)
    time.sleep(0.1)
    assert [text for _, text, _ in one_level.messages] == [str(number) for number in range(200)]
    heard = [text for topic, text, _ in everything.messages if topic != "a/other"]
    assert heard == [str(number) for number in range(200)]
    for peer in (everything, one_level, sender):
        peer.close()


def test_a_retained_message_is_told_to_newcomers_as_it_is_now(broker: LoopbackBroker) -> None:
    sender = Peer(broker.port)
    sender.publish("s/state", "ON", retain=True)
    sender.publish("s/state", "OFF", retain=True)
    sender.publish("s/event", "gone")
    newcomer = Peer(broker.port, "s/#")
    until(lambda: newcomer.messages)
    time.sleep(0.1)
    assert newcomer.messages == [("s/state", "OFF", True)]
    sender.close()
    newcomer.close()


def test_nobody_is_told_what_others_subscribed_to(broker: LoopbackBroker) -> None:
    # MQTT 3.1.1, 3.8.4: retained messages are sent for the subscriptions of this client.
    sender = Peer(broker.port)
    sender.publish("s/state", "ON", retain=True)
    other = Peer(broker.port, "s/#")
    until(lambda: other.messages)
    silent = Peer(broker.port)
    elsewhere = Peer(broker.port, "t/#")
    again = Peer(broker.port, "s/#")
    until(lambda: again.messages)
    time.sleep(0.1)
    assert silent.messages == elsewhere.messages == []
    assert again.messages == [("s/state", "ON", True)]
    for peer in (sender, other, silent, elsewhere, again):
        peer.close()


def test_the_will_is_sent_and_retained_when_a_client_dies(broker: LoopbackBroker) -> None:
    witness = Peer(broker.port, "d/status")
    dying = Peer(broker.port, will=("d/status", "offline"))
    dying.publish("d/status", "online", retain=True)
    sock = dying.client.socket()
    assert isinstance(sock, socket.socket)
    dying.client._reconnect_on_failure = False  # paho would come back at once
    sock.shutdown(socket.SHUT_RDWR)
    until(lambda: len(witness.messages) == 2)
    assert [text for _, text, _ in witness.messages] == ["online", "offline"]
    newcomer = Peer(broker.port, "d/status")
    until(lambda: newcomer.messages)
    time.sleep(0.1)
    assert newcomer.messages == [("d/status", "offline", True)]
    for peer in (dying, witness, newcomer):
        peer.close()


def test_a_polite_goodbye_sends_no_will(broker: LoopbackBroker) -> None:
    witness = Peer(broker.port, "#")
    leaving = Peer(broker.port, will=("d/status", "offline"))
    leaving.close()
    time.sleep(0.3)
    assert witness.messages == []
    witness.close()


def test_it_publishes_nothing_about_itself(broker: LoopbackBroker) -> None:
    witness = Peer(broker.port, "$SYS/#")
    time.sleep(0.5)
    assert witness.messages == []
    witness.close()


def test_a_taken_port_is_one_clear_line_and_the_next_start_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        broker = LoopbackBroker(port)
        with pytest.raises(BrokerError) as caught:
            broker.start()
    message = str(caught.value)
    assert f"127.0.0.1:{port} is taken by another program" in message
    assert "\n" not in message
    with pytest.raises(BrokerError, match="not running"):
        _ = broker.port
    with broker:
        assert broker.port == port


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"0 to 65535, found {port}"):
        LoopbackBroker(port)


def test_it_stops_at_once_with_clients_connected_and_starts_again_on_the_same_port() -> None:
    broker = LoopbackBroker()
    broker.stop()
    broker.start()
    port = broker.port
    peers = [Peer(port, "#") for _ in range(3)]
    began_s = time.monotonic()
    broker.stop()
    broker.stop()
    assert time.monotonic() - began_s < 2.0
    assert not listening_addresses(port)
    again = LoopbackBroker(port).start()
    until(lambda: all(peer.client.is_connected() for peer in peers), 15)
    again.stop()
    for peer in peers:
        peer.close()
    assert not [one for one in threading.enumerate() if one.name == "mqtt-broker"]


def test_nonsense_and_port_scans_neither_end_it_nor_fill_the_log(
    broker: LoopbackBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("amqtt").setLevel(logging.NOTSET)
    # Started again, so that it makes itself quiet as it would in a daemon at level INFO.
    with LoopbackBroker() as fresh:
        connect = bytes.fromhex("100d00044d5154540402003c000161")
        for payload in (
            b"",
            b"\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff" * 100,
            b"\x10\xff\xff\xff\xff\x7f",
            connect[:7],
            connect + b"\xf0\x00",
            connect + b"\x82\x03\x00\x01\x00",
            connect + b"\x30\x05\x00\xffab",
            connect + connect,
        ):
            with socket.create_connection(("127.0.0.1", fresh.port)) as stranger:
                stranger.sendall(payload)
        listener = Peer(fresh.port, "a")
        sender = Peer(fresh.port)
        sender.publish("a", "still here")
        until(lambda: listener.messages)
        sender.close()
        listener.close()
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


def test_clients_that_come_while_others_subscribe_are_all_served(broker: LoopbackBroker) -> None:
    sender = Peer(broker.port)
    for number in range(30):
        sender.publish(f"r/{number}", "kept", retain=True)
    failures: list[BaseException] = []

    def come_and_go(name: int) -> None:
        try:
            for turn in range(5):
                peer = Peer(broker.port, f"x/{name}/{turn}")
                other = Peer(broker.port, "r/#")
                other.publish(f"x/{name}/{turn}", "hello")
                until(lambda p=peer, o=other: p.messages and len(o.messages) >= 30)  # type: ignore[misc]
                peer.close()
                other.close()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.close()
    assert failures == []


def test_a_message_takes_milliseconds(broker: LoopbackBroker) -> None:
    listener = Peer(broker.port, "a")
    sender = Peer(broker.port)
    took_s = []
    for number in range(50):
        began_s = time.perf_counter()
        sender.client.publish("b", "first", qos=1)
        sender.client.publish("a", "x", qos=1)
        until(lambda n=number: len(listener.messages) == n + 1)  # type: ignore[misc]
        took_s.append(time.perf_counter() - began_s)
    # About 3 ms here; a broker that polls or waits for acknowledgements would need 40 or more.
    assert statistics.median(took_s) < 0.03
    sender.close()
    listener.close()


def test_it_costs_the_daemon_few_megabytes() -> None:
    program = (
        "def pss_mb():\n"
        "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "    return next(int(x.split()[1]) for x in lines if x.startswith('Pss:')) / 1024\n"
        "import soundpost.device.publisher\n"
        "before = pss_mb()\n"
        "from soundpost.device.broker import LoopbackBroker\n"
        "LoopbackBroker().start()\n"
        "print(pss_mb() - before)\n"
        "import sys\n"
        "heavy = {'pwdlib', 'argon2', 'psutil', 'typer', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # 5 MB were measured; of the daemon's 150 MB the broker may take a tenth.
    assert float(done.stdout) < 15


def test_version_5_is_refused_at_once_so_that_a_client_can_fall_back() -> None:
    with LoopbackBroker(0) as broker:
        began_s = time.monotonic()
        with Subscriber(BrokerSettings(port=broker.port), lambda _event: None) as subscriber:
            subscriber.wait_connected(20, first_failure=True)
        assert time.monotonic() - began_s < BrokerSettings.timeout_s
        only_5 = BrokerSettings(port=broker.port, version="5")
        with (
            Subscriber(only_5, lambda _event: None) as refused,
            pytest.raises(BrokerError, match="does not speak MQTT 5"),
        ):
            refused.wait_connected(20)
