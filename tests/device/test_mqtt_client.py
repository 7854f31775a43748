"""What a broker may do to a connection: limits, giants, nonsense, silence."""

from __future__ import annotations

import gc
import random
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import MAX_PACKET_BYTES, Client
from soundpost.device.publisher import Publisher
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

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


def where(port: int, **changes: object) -> BrokerSettings:
    quick: dict[str, object] = {"retry_min_s": 0.02, "retry_max_s": 0.1}
    return BrokerSettings(port=port, **{**quick, **changes})  # type: ignore[arg-type]


def event(sample: int = 0) -> SoundEvent:
    return SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        label="knock",
        phase="start",
        score=0.9,
        threshold=0.5,
        onset=datetime.now(timezone.utc),
        offset=None,
        time_synced=True,
        stream=uuid7(),
        sample=sample,
        rate_hz=16_000,
        model=ModelRef("starter", "1.0.0", "0" * 64),
    )


class Scripted:
    """A broker of our own for what a good one never does: each connection runs the script."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(60)
            self._script(connection)

    def close(self) -> None:
        self._listener.close()


def read_packet(connection: socket.socket) -> tuple[int, bytes]:
    """Type and rest of the next packet; OSError at the end."""

    def exactly(n: int) -> bytes:
        taken = b""
        while len(taken) < n:
            part = connection.recv(n - len(taken))
            if not part:
                raise ConnectionError
            taken += part
        return taken

    head = exactly(1)[0]
    length = place = 0
    while True:
        byte = exactly(1)[0]
        length |= (byte & 0x7F) << place
        place += 7
        if byte < 0x80:
            return head, exactly(length)


ACCEPT_311 = b"\x20\x02\x00\x00"
ACCEPT_5 = b"\x20\x03\x00\x00\x00"


def publish_id(rest: bytes) -> bytes:
    start = 2 + int.from_bytes(rest[:2], "big")
    return rest[start : start + 2]


# --- MQTT 5


def test_no_more_is_in_flight_than_the_broker_receives_at_a_time(ends) -> None:
    """It holds back acknowledgements and counts; the limit comes with CONNACK (MQTT 5, 3.2.2.3)."""
    maximum = 3
    most = 0
    done = threading.Event()

    def script(connection: socket.socket) -> None:
        nonlocal most
        read_packet(connection)
        connection.sendall(b"\x20\x06\x00\x00\x03\x21" + struct.pack("!H", maximum))
        flying: list[bytes] = []
        connection.settimeout(0.2)
        while not done.is_set():
            try:
                head, rest = read_packet(connection)
            except TimeoutError:
                if flying:
                    connection.sendall(b"\x40\x02" + flying.pop(0))
                continue
            if head & 0xF6 == 0x32:
                flying.append(publish_id(rest))
                most = max(most, len(flying))

    broker = Scripted(script)
    ends.callback(broker.close)
    ends.callback(done.set)
    states = [("mic0", f"label{n}") for n in range(20)]
    publisher = Publisher(where(broker.port, version="5"), TOPICS, states=states).start()
    ends.callback(publisher.close)
    publisher.wait_connected(30)
    assert publisher.flush(30)
    assert most == maximum


def test_what_a_broker_says_with_a_refusal_or_an_end_is_shown(ends) -> None:
    said = b"\x1f" + struct.pack("!H", 21) + b"closed for maintenance"[:21]

    def refuse(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(
            b"\x20" + bytes([3 + len(said)]) + b"\x00\x88" + bytes([len(said)]) + said
        )
        connection.recv(100)

    def end(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(ACCEPT_5)
        read_packet(connection)
        connection.sendall(b"\xe0\x02\x8e\x00")
        connection.recv(100)

    refusing, ending = Scripted(refuse), Scripted(end)
    ends.callback(refusing.close)
    ends.callback(ending.close)
    with (
        Publisher(where(refusing.port, version="5"), TOPICS) as publisher,
        pytest.raises(BrokerError, match=r"not available now \(closed for maintenanc\)"),
    ):
        publisher.wait_connected(30, first_failure=True)
    told: list[str] = []
    with Publisher(
        where(ending.port, version="5"), TOPICS, on_state=lambda _state, line: told.append(line)
    ):
        until(lambda: any("another client took over the connection" in line for line in told))


def test_an_event_that_mqtt_5_refuses_stays_and_the_refusal_is_a_state(
    start_mosquitto, ends, tmp_path
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read soundpost/#\ntopic write soundpost/porch-pi/status\n")
    acl.chmod(0o644)
    broker = start_mosquitto(f"allow_anonymous true\nacl_file {acl}")
    publisher = ends.enter_context(Publisher(where(broker.port, version="5"), TOPICS))
    publisher.wait_connected(30)
    publisher.publish_event(event())
    until(lambda: publisher.state == "refused")
    assert "it refused an event on soundpost/porch-pi/mic0/event (Not authorized)" in str(
        publisher.reason
    )
    assert publisher.queued == 1


# --- versions


@pytest.mark.parametrize(
    "answer", [b"\x20\x02\x00\x01", b"", b"\x00\x00"], ids=["refused", "closed", "nonsense"]
)
def test_auto_falls_back_to_311_where_5_is_not_spoken(ends, answer: bytes) -> None:
    levels = []

    def script(connection: socket.socket) -> None:
        _, rest = read_packet(connection)
        levels.append(rest[6])
        if rest[6] == 5:
            connection.sendall(answer)
            return
        connection.sendall(ACCEPT_311)
        while True:
            head, rest = read_packet(connection)
            if head & 0xF6 == 0x32:
                connection.sendall(b"\x40\x02" + publish_id(rest))

    broker = Scripted(script)
    ends.callback(broker.close)
    publisher = ends.enter_context(Publisher(where(broker.port), TOPICS))
    publisher.wait_connected(30, first_failure=True)
    assert levels == [5, 4]
    with (
        Publisher(where(broker.port, version="5"), TOPICS) as fixed,
        pytest.raises(BrokerError),
    ):
        fixed.wait_connected(30, first_failure=True)


# --- giants, nonsense, silence


def giant(connection: socket.socket, topic: bytes, n_bytes: int) -> None:
    """The beginning of a PUBLISH of n_bytes, and as much of the rest as is taken."""
    length = b""
    left = n_bytes
    while True:
        length += bytes([(left & 0x7F) | (0x80 if left > 0x7F else 0)])
        left >>= 7
        if not left:
            break
    connection.sendall(b"\x31" + length + struct.pack("!H", len(topic)) + topic)
    for _ in range(n_bytes // 65_536):
        connection.sendall(b"x" * 65_536)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_giant_message_ends_the_connection_at_once_and_its_topic_is_left_out_then(
    ends, caplog, version: str
) -> None:
    """The largest that MQTT allows, 256 MiB, sent to whoever subscribes to commands."""
    asked: list[list[bytes]] = []
    sent = 0

    def script(connection: socket.socket) -> None:
        nonlocal sent
        read_packet(connection)
        connection.sendall(ACCEPT_5 if version == "5" else ACCEPT_311)
        mine: list[bytes] = []
        asked.append(mine)
        while True:
            head, rest = read_packet(connection)
            if head & 0xF6 == 0x32:
                connection.sendall(b"\x40\x02" + publish_id(rest))
            elif head == 0x82:
                mine.append(rest)
                if b"cmd/" in rest:
                    sent += 1
                    giant(connection, b"soundpost/porch-pi/cmd/pause", 268_435_455)

    broker = Scripted(script)
    ends.callback(broker.close)
    told: list[str] = []
    publisher = Publisher(
        where(broker.port, version=version, timeout_s=20),
        TOPICS,
        on_state=lambda _state, line: told.append(line),
    )
    publisher.subscribe("soundpost/porch-pi/cmd/+", lambda _message: None)
    publisher.subscribe("elsewhere/#", lambda _message: None)
    before = peak_bytes()
    publisher.start()
    ends.callback(publisher.close)
    until(lambda: len(asked) >= 2 and any(b"elsewhere" in rest for rest in asked[1]))
    publisher.wait_connected(30)
    assert sent == 1
    assert not any(b"cmd/" in rest for rest in asked[1])
    line = next(line for line in told if "268435455 bytes" in line)
    assert "came on soundpost/porch-pi/cmd/pause" in line
    assert f"at most {MAX_PACKET_BYTES}" in line
    assert "not listening to soundpost/porch-pi/cmd/+" in caplog.text
    assert peak_bytes() - before < 20_000_000


def peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def test_a_broker_that_never_acknowledges_is_left_and_what_waits_is_bounded(ends) -> None:
    def script(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(ACCEPT_311)
        while True:
            head, _ = read_packet(connection)
            if head == 0xC0:
                connection.sendall(b"\xd0\x00")

    broker = Scripted(script)
    ends.callback(broker.close)
    told: list[str] = []
    publisher = Publisher(
        where(broker.port, version="3.1.1", ack_timeout_s=1.0),
        TOPICS,
        on_state=lambda _state, line: told.append(line),
    ).start()
    ends.callback(lambda: publisher.close(0.5))
    until(lambda: any("not acknowledged" in line for line in told))
    for n in range(20_000):
        publisher.publish_state("mic0", "knock", bool(n % 2))
    until(lambda: sum("not acknowledged" in line for line in told) >= 2)
    until(lambda: publisher.state != "connected")
    assert len(publisher._unacknowledged) < 20_000
    assert "look at the broker's log" in told[-1] or publisher.connections >= 2


class Garbler:
    """A relay to the broker that changes bytes of what the broker says, as a test asks it to."""

    def __init__(self, to_port: int, seed: int) -> None:
        self.share = 0.0
        self._random = random.Random(seed)
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                return
            for ends in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, garbles: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if garbles:
                    data = bytes(
                        self._random.randrange(256) if self._random.random() < self.share else byte
                        for byte in data
                    )
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_after_garbled_bytes_it_goes_on_and_every_event_arrives(
    mosquitto, ends, version: str
) -> None:
    samples: set[int] = set()
    listener = Subscriber(where(mosquitto.port), lambda heard: samples.add(heard.sample))
    ends.enter_context(listener)
    listener.wait_connected(30)
    wire = Garbler(mosquitto.port, seed=1)
    ends.callback(wire.close)
    publisher = ends.enter_context(
        Publisher(where(wire.port, version=version, keepalive_s=5, ack_timeout_s=3), TOPICS)
    )
    publisher.wait_connected(30)
    wire.share = 0.02
    for sample in range(300):
        publisher.publish_event(event(sample))
        time.sleep(0.005)
    wire.share = 0.0
    assert publisher.flush(60)
    # An acknowledgement whose number was garbled into that of another event in flight is
    # indistinguishable from a true one: what it names may be lost, no more than a few.
    with suppress(AssertionError):
        until(lambda: len(samples) == 300, 2)
    assert len(samples) >= 270
    assert publisher.connections >= 2


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes_of_a_broker_end_a_connection_or_do_nothing(
    data: bytes, speaks_5: bool, accepted: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    client = Client(where(1), "test", speaks_5)
    client._create_socket = lambda: near  # type: ignore[method-assign,assignment,return-value]
    with far:
        accept = (ACCEPT_5 if speaks_5 else ACCEPT_311) if accepted else b""
        far.sendall(accept + data)
        far.shutdown(socket.SHUT_WR)
        client.open()
        assert client.wait_ended(30), "the end of the stream is an end"
        client.end(goodbye=False)
    assert client._finished.is_set()


def test_a_connection_that_has_ended_leaves_nothing(
    mosquitto, ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for the garbage collector, which may come hours later: each holds two sockets."""
    made: list[weakref.ref[Client]] = []
    begin = Client.__init__

    def noted(client: Client, *arguments: object, **options: object) -> None:
        begin(client, *arguments, **options)  # type: ignore[arg-type]
        made.append(weakref.ref(client))

    monkeypatch.setattr(Client, "__init__", noted)
    gc.collect()
    gc.disable()
    ends.callback(gc.enable)
    publisher = ends.enter_context(Publisher(where(mosquitto.port), TOPICS, states=[("mic0", "a")]))
    subscriber = ends.enter_context(Subscriber(where(mosquitto.port), lambda _: None))
    for count in range(3):
        if count:
            mosquitto.kill()
            until(lambda: "connected" not in (publisher.state, subscriber.state))
            mosquitto.start()
        publisher.wait_connected(30)
        subscriber.wait_connected(30)
    assert len(made) >= 6
    until(lambda: sum(one() is not None for one in made) == 2)
