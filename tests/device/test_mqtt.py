from __future__ import annotations

import contextlib
import logging
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker_settings import BrokerSettings, read_password
from soundpost.device.errors import BrokerError, InputError, UsageError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.health import Health
from soundpost.device.identifiers import uuid7
from soundpost.device.level_record import LevelRecord
from soundpost.device.outbox import MemoryOutbox
from soundpost.device.publisher import Publisher
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

TOPICS = Topics("soundpost", "porch-pi")
STATES = [("mic0", "smoke_alarm"), ("mic0", "knock")]


def event(sample: int = 0, phase: str = "start") -> SoundEvent:
    now = datetime.now(timezone.utc)
    return SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        label="smoke_alarm",
        phase=phase,  # type: ignore[arg-type]
        score=0.9,
        threshold=0.5,
        onset=now,
        offset=now if phase == "end" else None,
        time_synced=True,
        stream=uuid7(),
        sample=sample,
        rate_hz=16_000,
        model=ModelRef("starter", "1.0.0", "0" * 64),
    )


def level(laeq_db: float) -> LevelRecord:
    return LevelRecord(
        device="porch-pi",
        source="mic0",
        time=datetime.now(timezone.utc),
        time_synced=True,
        stream=uuid7(),
        sample=0,
        rate_hz=16_000,
        interval_s=1.0,
        measured_s=1.0,
        gaps=0,
        calibrated=False,
        upper_limit_hz=7_200.0,
        laeq_db=laeq_db,
        lceq_db=-40.0,
        lafmax_db=-30.0,
        lasmax_db=-35.0,
        l10_db=-38.0,
        l50_db=-40.0,
        l90_db=-45.0,
        rms_dbfs=-38.0,
        peak_dbfs=-20.0,
    )


def settings(port: int, **changes: object) -> BrokerSettings:
    quick: dict[str, object] = {"retry_min_s": 0.05, "retry_max_s": 0.2, "timeout_s": 2.0}
    return BrokerSettings(port=port, **{**quick, **changes})  # type: ignore[arg-type]


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


class Witness:
    """An independent listener: a plain paho client that notes every message."""

    def __init__(self, port: int, topic: str = "#") -> None:
        self.messages: list[tuple[str, str, bool, int]] = []
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _c, _u, m: self.messages.append(
            (m.topic, bytes(m.payload).decode(), m.retain, m.qos)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(5)

    def payloads(self, topic: str) -> list[str]:
        return [payload for at, payload, _, _ in self.messages if at == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Wire:
    """A TCP relay to the broker that can turn callers away, lose the broker's answers, be cut."""

    def __init__(self, to_port: int, blocked: bool = False) -> None:
        self.blocked = blocked
        self.deaf = False
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.blocked:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                near.close()
                continue
            self._ends += [near, far]
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if not (answers and self.deaf):
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """Closes what a test opened, in the opposite order."""
    with ExitStack() as stack:
        yield stack


def retained(port: int, topic: str = "#") -> dict[str, str]:
    """What a newcomer is told: the broker's retained messages."""
    witness = Witness(port, topic)
    time.sleep(0.2)
    witness.close()
    assert all(is_retained for _, _, is_retained, _ in witness.messages)
    return {at: payload for at, payload, _, _ in witness.messages}


# --- what is published


def test_online_states_and_health_are_retained_and_events_are_not(mosquitto, ends) -> None:
    witness = Witness(mosquitto.port)
    ends.callback(witness.close)
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS, states=STATES))
    publisher.wait_connected(5)
    sent = event()
    health = Health("porch-pi", "mic0", datetime.now(timezone.utc), "ok")
    publisher.publish_health(health)
    publisher.publish_state("mic0", "smoke_alarm", True)
    publisher.publish_event(sent)
    assert publisher.flush(5)
    assert publisher.queued == 0
    assert retained(mosquitto.port) == {
        "soundpost/porch-pi/status": "online",
        "soundpost/porch-pi/mic0/class/smoke_alarm": "ON",
        "soundpost/porch-pi/mic0/class/knock": "OFF",
        "soundpost/porch-pi/mic0/health": health.to_json(),
    }
    until(lambda: witness.payloads(TOPICS.event("mic0")))
    assert witness.payloads(TOPICS.event("mic0")) == [sent.to_json()]
    assert witness.payloads(TOPICS.state("mic0", "smoke_alarm")) == ["OFF", "ON"]
    assert {qos for _, _, _, qos in witness.messages} == {1}
    # Before it speaks up it asks whether another sensor has its name; that is not kept.
    said = [message[:2] for message in witness.messages if message[0] != TOPICS.instance]
    assert said[0] == (TOPICS.status, "online")


def test_close_says_offline_after_everything_else(mosquitto, ends) -> None:
    witness = Witness(mosquitto.port)
    ends.callback(witness.close)
    publisher = Publisher(settings(mosquitto.port), TOPICS).start()
    publisher.wait_connected(5)
    for sample in range(50):
        publisher.publish_event(event(sample))
    assert publisher.close() == 0
    until(lambda: "offline" in witness.payloads(TOPICS.status))
    assert len(witness.payloads(TOPICS.event("mic0"))) == 50
    assert witness.messages[-1][:2] == (TOPICS.status, "offline")
    # One `offline`: the will was withdrawn by an orderly goodbye.
    time.sleep(0.2)
    assert witness.payloads(TOPICS.status) == ["online", "offline"]
    assert publisher.state == "disconnected"
    assert publisher.close() == 0


def test_the_will_says_offline_when_the_process_is_killed(mosquitto, ends) -> None:
    witness = Witness(mosquitto.port)
    ends.callback(witness.close)
    program = (
        "import time\n"
        "from soundpost.device.broker_settings import BrokerSettings\n"
        "from soundpost.device.publisher import Publisher\n"
        "from soundpost.device.topics import Topics\n"
        f"Publisher(BrokerSettings(port={mosquitto.port}), Topics('soundpost', 'porch-pi')).start()"
        ".wait_connected(5)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    ends.callback(child.wait)
    ends.callback(child.kill)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    until(lambda: witness.payloads(TOPICS.status) == ["online"])
    child.kill()
    child.stdout.close()
    until(lambda: witness.payloads(TOPICS.status) == ["online", "offline"])
    assert retained(mosquitto.port, TOPICS.status) == {TOPICS.status: "offline"}


def test_events_of_many_threads_arrive_once_and_in_each_threads_order(mosquitto, ends) -> None:
    received: list[SoundEvent] = []
    subscriber = ends.enter_context(Subscriber(settings(mosquitto.port), received.append))
    subscriber.wait_connected(5)
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(5)

    def publish(first: int) -> None:
        for sample in range(first, first + 100):
            publisher.publish_event(event(sample))
            publisher.publish_state("mic0", "knock", bool(sample % 2))

    threads = [threading.Thread(target=publish, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.flush(10)
    until(lambda: len(received) >= 400)
    samples = [heard.sample for heard in received]
    assert len(set(samples)) == len(samples) == 400
    for i in range(4):
        mine = [sample for sample in samples if sample // 1000 == i]
        assert mine == list(range(1000 * i, 1000 * i + 100))
    assert publisher.queued == 0


# --- a broker that comes and goes


def test_events_and_states_survive_a_broker_that_is_killed_and_restarted(mosquitto, ends) -> None:
    received: list[SoundEvent] = []
    subscriber = ends.enter_context(Subscriber(settings(mosquitto.port), received.append))
    wire = Wire(mosquitto.port)
    ends.callback(wire.close)
    publisher = ends.enter_context(Publisher(settings(wire.port), TOPICS, states=STATES))
    subscriber.wait_connected(5)
    publisher.wait_connected(5)
    publisher.publish_event(event(0))
    until(lambda: len(received) == 1)
    # The subscriber may have it before its acknowledgement is here.
    assert publisher.flush(5)
    mosquitto.kill()
    until(lambda: publisher.state != "connected")
    for sample in range(1, 21):
        publisher.publish_event(event(sample))
    publisher.publish_state("mic0", "knock", True)
    publisher.publish_state("mic0", "smoke_alarm", True)
    publisher.publish_state("mic0", "smoke_alarm", False)
    assert publisher.queued == 20
    wire.blocked = True
    time.sleep(0.3)
    mosquitto.start()
    witness = Witness(mosquitto.port)
    ends.callback(witness.close)
    subscriber.wait_connected(10)
    wire.blocked = False
    publisher.wait_connected(10)
    assert publisher.flush(5)
    assert publisher.queued == 0
    until(lambda: len(received) == 21)
    assert [heard.sample for heard in received] == list(range(21))
    assert received[0].queued_s == 0.0
    assert all(0.3 <= heard.queued_s < 30 for heard in received[1:])
    # The broker kept nothing: what a newcomer learns now was sent again, as it is now.
    assert retained(mosquitto.port) == {
        TOPICS.status: "online",
        TOPICS.state("mic0", "smoke_alarm"): "OFF",
        TOPICS.state("mic0", "knock"): "ON",
    }
    # What happened to a state while nobody could hear it is not replayed.
    assert witness.payloads(TOPICS.state("mic0", "smoke_alarm")) == ["OFF"]
    publisher.publish_event(event(99))
    until(lambda: received[-1].sample == 99)
    assert received[-1].queued_s == 0.0


def test_a_fault_of_ours_does_not_end_the_connecting(mosquitto, ends, caplog) -> None:
    told: list[str] = []

    def fails(state: str, _line: str) -> None:
        told.append(state)
        raise RuntimeError("whoever is told of it fails")

    publisher = ends.enter_context(
        Publisher(settings(mosquitto.port), TOPICS, states=STATES, on_state=fails)
    )
    until(lambda: "connected" in told)
    received: list[SoundEvent] = []
    ends.enter_context(Subscriber(settings(mosquitto.port), received.append)).wait_connected(5)
    for sample in range(3):
        publisher.publish_event(event(sample))
    assert publisher.flush(10)
    until(lambda: len(received) == 3)
    assert "fault in soundpost" in caplog.text


def test_levels_are_sent_once_not_kept_and_dropped_while_offline(mosquitto, ends) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(5)
    mosquitto.kill()
    until(lambda: publisher.state != "connected")
    publisher.publish_level(level(-60.0))
    assert publisher.queued == 0
    mosquitto.start()
    witness = Witness(mosquitto.port)
    ends.callback(witness.close)
    publisher.wait_connected(5)
    sent = [level(-50.0 - n / 10) for n in range(20)]
    for number, one in enumerate(sent):
        publisher.publish_level(one)
        publisher.publish_event(event(number))
    assert publisher.flush(5)
    until(lambda: len(witness.payloads(TOPICS.level("mic0"))) >= 20)
    assert witness.payloads(TOPICS.level("mic0")) == [one.to_json() for one in sent]
    levels = [(kept, qos) for at, _, kept, qos in witness.messages if at == TOPICS.level("mic0")]
    assert set(levels) == {(False, 0)}
    assert TOPICS.level("mic0") not in retained(mosquitto.port)
    # Numbers of messages that nobody acknowledges are not kept for ever.
    until(lambda: not publisher._acknowledged_early and not publisher._unacknowledged)
    until(lambda: not publisher._unwritten)


def test_levels_do_not_hide_that_a_broker_acknowledges_nothing(mosquitto, ends) -> None:
    wire = Wire(mosquitto.port)
    ends.callback(wire.close)
    told: list[str] = []
    publisher = ends.enter_context(
        Publisher(
            settings(wire.port, ack_timeout_s=1.0),
            TOPICS,
            on_state=lambda _state, line: told.append(line),
        )
    )
    publisher.wait_connected(5)
    assert publisher.flush(5)
    wire.deaf = True
    publisher.publish_event(event())
    deadline_s = time.monotonic() + 20
    while not any("has not acknowledged 1 messages for 1 s" in line for line in told):
        assert time.monotonic() < deadline_s, told
        publisher.publish_level(level(-50.0))
        time.sleep(0.05)
    wire.deaf = False
    until(lambda: publisher.queued == 0)


def test_events_before_the_first_connection_arrive_in_order(mosquitto, ends) -> None:
    wire = Wire(mosquitto.port, blocked=True)
    ends.callback(wire.close)
    publisher = ends.enter_context(Publisher(settings(wire.port), TOPICS))
    for sample in range(100):
        publisher.publish_event(event(sample))
    until(lambda: publisher.state == "disconnected")
    witness = Witness(mosquitto.port, TOPICS.event("mic0"))
    ends.callback(witness.close)
    wire.blocked = False
    assert publisher.flush(10)
    until(lambda: len(witness.messages) == 100)
    heard = [SoundEvent.from_json(text) for _, text, _, _ in witness.messages]
    assert [one.sample for one in heard] == list(range(100))
    assert all(one.queued_s > 0 for one in heard)


def test_a_broker_that_freezes_loses_nothing_and_cannot_hold_up_close(mosquitto, ends) -> None:
    publisher = Publisher(settings(mosquitto.port), TOPICS).start()
    publisher.wait_connected(5)
    mosquitto.freeze()
    ends.callback(mosquitto.thaw)
    publisher.publish_event(event())
    assert not publisher.flush(0.3)
    assert publisher.queued == 1
    began_s = time.monotonic()
    assert publisher.close(1.0) == 1
    assert time.monotonic() - began_s < 3.0
    assert not [thread for thread in threading.enumerate() if thread.name == "mqtt"]


def test_an_acknowledgement_that_was_lost_gives_the_event_again_and_the_subscriber_one(
    mosquitto, ends
) -> None:
    received: list[SoundEvent] = []
    subscriber = ends.enter_context(Subscriber(settings(mosquitto.port), received.append))
    subscriber.wait_connected(5)
    witness = Witness(mosquitto.port, TOPICS.event("mic0"))
    ends.callback(witness.close)
    wire = Wire(mosquitto.port)
    ends.callback(wire.close)
    publisher = ends.enter_context(Publisher(settings(wire.port), TOPICS))
    publisher.wait_connected(5)
    assert publisher.flush(5)
    wire.deaf = True
    publisher.publish_event(event(7))
    until(lambda: len(received) == 1)
    assert publisher.queued == 1
    wire.cut()
    wire.deaf = False
    until(lambda: publisher.queued == 0)
    until(lambda: len(witness.messages) == 2)
    first, second = (SoundEvent.from_json(text) for _, text, _, _ in witness.messages)
    assert first.id == second.id
    assert second.queued_s > first.queued_s == 0.0
    time.sleep(0.2)
    assert [heard.sample for heard in received] == [7]


def test_a_full_outbox_gives_up_the_oldest_and_counts_them(mosquitto, ends, caplog) -> None:
    wire = Wire(mosquitto.port, blocked=True)
    ends.callback(wire.close)
    publisher = ends.enter_context(
        Publisher(settings(wire.port), TOPICS, outbox=MemoryOutbox(limit=10))
    )
    for sample in range(25):
        publisher.publish_event(event(sample))
    assert (publisher.queued, publisher.dropped) == (10, 15)
    assert sum("queue is full" in record.message for record in caplog.records) == 1
    received: list[SoundEvent] = []
    subscriber = ends.enter_context(Subscriber(settings(mosquitto.port), received.append))
    subscriber.wait_connected(5)
    wire.blocked = False
    until(lambda: len(received) == 10)
    assert [heard.sample for heard in received] == list(range(15, 25))


# --- causes and remedies


def test_an_absent_broker_is_named_with_cause_and_remedy(start_mosquitto) -> None:
    broker = start_mosquitto()
    broker.kill()
    with Publisher(settings(broker.port), TOPICS) as publisher:
        began_s = time.monotonic()
        with pytest.raises(BrokerError) as caught:
            publisher.wait_connected(30, first_failure=True)
        assert time.monotonic() - began_s < 5
        message = str(caught.value)
        assert f"127.0.0.1:{broker.port}: connection refused: nothing listens there" in message
        assert "\n" not in message
        assert caught.value.exit_code == 4
        # Patience: the same call waits for a broker that comes later.
        later = threading.Timer(0.3, broker.start)
        later.start()
        publisher.wait_connected(10)
        later.join()


def test_a_fault_is_reported_once_however_often_it_is_met(start_mosquitto, caplog) -> None:
    caplog.set_level(logging.INFO, logger="soundpost")
    broker = start_mosquitto()
    broker.kill()
    with Publisher(settings(broker.port, retry_max_s=0.05), TOPICS) as publisher:
        time.sleep(1.0)
        broker.start()
        publisher.wait_connected(5)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2, lines
    assert "connection refused" in lines[0]
    assert lines[1].endswith(": connected")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_an_unknown_name_is_said_to_be_one(host: str) -> None:
    with (
        Publisher(BrokerSettings(host=host), TOPICS) as publisher,
        pytest.raises(BrokerError, match=r"(?s)name not known|resolution"),
    ):
        publisher.wait_connected(20, first_failure=True)


def test_a_port_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with Publisher(settings(port, timeout_s=0.3), TOPICS) as publisher:
            with pytest.raises(BrokerError, match=r"no answer within 0\.3 s"):
                publisher.wait_connected(5, first_failure=True)
            assert publisher.state == "disconnected"


def test_a_port_that_is_no_broker_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def hang_up() -> None:
            connection, _ = other.accept()
            connection.recv(100)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        port = other.getsockname()[1]
        with (
            Publisher(settings(port, version="3.1.1"), TOPICS) as publisher,
            pytest.raises(BrokerError, match="closed the connection without accepting"),
        ):
            publisher.wait_connected(5, first_failure=True)


@pytest.fixture
def guarded(start_mosquitto, tmp_path: Path):
    """A Mosquitto that knows one user, `sensor` with password `right`."""
    passwords = tmp_path / "passwords"
    made = subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "sensor", "right"], capture_output=True
    )
    assert made.returncode == 0, made.stderr
    passwords.chmod(0o644)
    return start_mosquitto(f"allow_anonymous false\npassword_file {passwords}")


@pytest.mark.parametrize(
    "credentials", [{}, {"username": "sensor", "password": "wrong"}, {"username": "nobody"}]
)
def test_a_refusal_is_a_state_of_its_own_and_never_connected(guarded, credentials) -> None:
    told: list[str] = []
    with Publisher(
        settings(guarded.port, **credentials), TOPICS, on_state=lambda state, _: told.append(state)
    ) as publisher:
        began_s = time.monotonic()
        with pytest.raises(BrokerError, match=r"not authorised|bad user name") as caught:
            publisher.wait_connected(30)
        assert time.monotonic() - began_s < 5
        assert "password file" in str(caught.value)
        assert "right" not in str(caught.value)
        assert publisher.state == "refused"
        publisher.publish_event(event())
        time.sleep(0.5)
        assert publisher.state == "refused"
        assert publisher.queued == 1
    assert told == ["refused"]


def test_the_right_password_is_let_in(guarded) -> None:
    with Publisher(settings(guarded.port, username="sensor", password="right"), TOPICS) as known:
        known.wait_connected(5)
        known.publish_event(event())
        assert known.flush(5)


def test_a_subscription_that_is_not_granted_is_a_refusal(start_mosquitto, ends) -> None:
    # Mosquitto 2.0 grants such subscriptions and sends nothing, so a peer of our own answers 0x80.
    listener = socket.create_server(("127.0.0.1", 0))
    ends.callback(listener.close)

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"\x20\x02\x00\x00")
        subscribe = connection.recv(1000)
        connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x80\x80")
        connection.recv(1000)
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    port = listener.getsockname()[1]
    with (
        Subscriber(settings(port, version="3.1.1"), lambda _event: None) as subscriber,
        pytest.raises(BrokerError, match=r"not authorised to read soundpost/\+/\+/event"),
    ):
        subscriber.wait_connected(5)


# --- the subscriber


def test_the_subscriber_filters_devices_tells_status_and_survives_nonsense(
    mosquitto, ends, caplog
) -> None:
    received: list[SoundEvent] = []
    statuses: list[tuple[str, bool]] = []
    subscriber = ends.enter_context(
        Subscriber(
            settings(mosquitto.port),
            received.append,
            base_topic="home/sound",
            device_ids=["porch-pi"],
            on_status=lambda device, online: statuses.append((device, online)),
        )
    )
    subscriber.wait_connected(5)
    attic = ends.enter_context(Publisher(settings(mosquitto.port), Topics("home/sound", "attic")))
    attic.wait_connected(5)
    attic.publish_event(event(1))
    assert attic.flush(5)
    raw = paho.Client(CallbackAPIVersion.VERSION2)
    raw.connect("127.0.0.1", mosquitto.port)
    raw.loop_start()
    ends.callback(raw.loop_stop)
    ends.callback(raw.disconnect)
    for payload in (b"", b"\xff\xfe", b"[]", b"{}", b"x" * 100_000):
        raw.publish("home/sound/porch-pi/mic0/event", payload, qos=1).wait_for_publish(5)
    raw.publish("home/sound/porch-pi/status", b"maybe", qos=1).wait_for_publish(5)
    porch = Publisher(settings(mosquitto.port), Topics("home/sound", "porch-pi")).start()
    ends.callback(porch.close)
    porch.wait_connected(5)
    porch.publish_event(event(2))
    until(lambda: received)
    porch.close()
    until(lambda: len(statuses) == 2)
    assert [heard.sample for heard in received] == [2]
    assert statuses == [("porch-pi", True), ("porch-pi", False)]
    assert subscriber.unreadable == 6
    reports = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(reports) == 2, "one for each topic"


def test_start_and_end_of_one_event_are_no_repeats(mosquitto, ends) -> None:
    received: list[SoundEvent] = []
    subscriber = ends.enter_context(Subscriber(settings(mosquitto.port), received.append))
    subscriber.wait_connected(5)
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(5)
    start = event(1)
    end = event(1, "end")
    end = SoundEvent(**{**vars(end), "id": start.id})
    for one in (start, end, start, end):
        publisher.publish_event(one)
    assert publisher.flush(5)
    until(lambda: len(received) >= 2)
    time.sleep(0.2)
    assert [heard.phase for heard in received] == ["start", "end"]


def test_an_event_takes_milliseconds_even_right_after_another_message(mosquitto, ends) -> None:
    arrived: list[float] = []
    subscriber = ends.enter_context(
        Subscriber(settings(mosquitto.port), lambda _e: arrived.append(time.perf_counter()))
    )
    subscriber.wait_connected(5)
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(5)
    took_s: list[float] = []
    for sample in range(40):
        began_s = time.perf_counter()
        publisher.publish_state("mic0", "knock", True)
        publisher.publish_event(event(sample))
        until(lambda n=sample: len(arrived) == n + 1)  # type: ignore[misc]
        took_s.append(arrived[-1] - began_s)
    # About 1 ms on an idle machine; the bound leaves room for a busy one.
    assert statistics.median(took_s) < 0.025


def test_small_packets_are_not_held_back(mosquitto, ends) -> None:
    publisher = ends.enter_context(Publisher(settings(mosquitto.port), TOPICS))
    publisher.wait_connected(5)
    # Whether Nagle's algorithm delays a packet depends on when the peer's kernel acknowledges the
    # one before: on loopback nearly never, so the option is asked for instead of a time.
    sock = publisher._link._client.socket()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# --- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": ""}, "host is empty"),
        ({"port": 0}, "port must be 1 to 65535, found 0"),
        ({"port": 70000}, "port must be"),
        ({"password": "x"}, "without a user name"),
        ({"keepalive_s": 0}, "keep-alive"),
        ({"timeout_s": 0}, "timeout"),
        ({"retry_min_s": 2, "retry_max_s": 1}, "retry"),
    ],
)
def test_settings_are_checked(changes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BrokerSettings(**changes)


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(BrokerSettings(username="a", password="secret"))


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with pytest.raises(InputError, match="No such file"):
        read_password(path)
    path.write_bytes(b"\n")
    with pytest.raises(InputError, match="first line is empty"):
        read_password(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_password(path)
    path.write_bytes("pässword \r\nother\n".encode())
    assert read_password(path) == "pässword "


def test_messages_show_an_ipv6_address_in_brackets() -> None:
    assert BrokerSettings(host="::1", port=1884).address == "[::1]:1884"
    assert BrokerSettings(host="broker.local").address == "broker.local:1883"
