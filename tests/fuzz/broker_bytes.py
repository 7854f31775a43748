"""A broker that says anything: mutated MQTT packets to the sensor's client and the listener's.

The law: whatever came, both connect to a sound broker on the same address afterwards and understand
it, nothing grows, and no thread fails.
"""

from __future__ import annotations

import random
import resource
import socket
import threading
import time
from pathlib import Path

from mutate import mutated

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.events import SoundEvent
from soundpost.device.publisher import Publisher
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

EXAMPLES = Path(__file__).parents[1] / "device" / "examples"
PATIENCE_S = 30.0


def _length(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append(number % 128 | (128 if number > 127 else 0))
        number //= 128
        if not number:
            return bytes(out)


def _packet(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _length(len(body)) + body


def _publish(topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bytes:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (b"\x00\x07" if qos else b"") + payload
    return _packet(0x30 | qos << 1 | retain, body)


class MadBroker:
    """Answers each connection with the next script, and hangs up."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.served = 0
        self.sound = False
        self._event = next(iter(sorted(EXAMPLES.glob("event*.json")))).read_bytes()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        # 3.1.1, and the same with the properties of 5.
        self._accepted = [_packet(0x20, b"\x00\x00"), _packet(0x20, b"\x00\x00\x00")]
        self._said = [
            *self._accepted,
            _packet(0x20, b"\x00\x05"),
            _packet(0x90, b"\x00\x01\x01\x01"),
            _packet(0x90, b"\x00\x01\x00\x01\x80"),
            _packet(0x40, b"\x00\x01"),
            _packet(0x40, b"\x00\x02\x10\x00"),
            _packet(0x50, b"\x00\x01"),
            _packet(0x62, b"\x00\x01"),
            _packet(0x70, b"\x00\x01"),
            _packet(0xB0, b"\x00\x01"),
            _packet(0xD0, b""),
            _packet(0xE0, b"\x8d\x00"),
            _packet(0xF0, b"\x18\x00"),
            b"\x30\xff\xff\xff\x7f" + b"\x00\x04a/b/" * 20,
            _publish("soundpost/porch-pi/mic0/event", self._event),
            _publish("soundpost/porch-pi/mic0/event", self._event, qos=2),
            _publish("soundpost/porch-pi/status", b"online", retain=True),
            _publish("soundpost/porch-pi/cmd/reload", b"{}"),
            _publish("homeassistant/status", b"online", qos=0),
        ]
        self._blob = b"".join(self._said)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        peer.settimeout(PATIENCE_S if self.sound else 0.2)
        try:
            with peer:
                if self.sound:
                    self._behave(peer)
                else:
                    peer.recv(65_536)
                    self._rave(peer)
        except OSError:
            pass

    def _rave(self, peer: socket.socket) -> None:
        rng = self._rng
        script = b"".join(rng.choices(self._said, k=rng.randrange(1, 6)))
        script = mutated(script, [self._blob], rng)
        # Most get past the first gate, where there is more to break.
        if rng.random() < 0.7:
            script = rng.choice(self._accepted) + script
        self.served += 1
        for part in (script[:100], script[100:]):
            peer.sendall(part)
        if rng.random() < 0.5:
            # What it says to that, and to a granted subscription.
            peer.recv(65_536)
            peer.sendall(_packet(0x90, b"\x00\x01\x01\x01") + mutated(script, [self._blob], rng))

    def _behave(self, peer: socket.socket) -> None:
        """Accept the client, grant its subscriptions, send an event, acknowledge all."""
        buffer = b""
        while data := peer.recv(65_536):
            buffer += data
            while len(buffer) > 1:
                length = shift = 0
                place = 1
                while place < len(buffer):
                    length |= (buffer[place] & 127) << shift
                    place, shift = place + 1, shift + 7
                    if not buffer[place - 1] & 128:
                        break
                if len(buffer) < place + length:
                    break
                kind, body = buffer[0], buffer[place : place + length]
                buffer = buffer[place + length :]
                self._answer(peer, kind, body)

    def _answer(self, peer: socket.socket, kind: int, body: bytes) -> None:
        if kind >> 4 == 1:
            peer.sendall(self._accepted[0])
        elif kind >> 4 == 8:
            count = sum(1 for _ in _filters(body[2:]))
            peer.sendall(_packet(0x90, body[:2] + b"\x01" * count))
            peer.sendall(_publish("soundpost/porch-pi/mic0/event", self._event))
        elif kind >> 4 == 3 and kind & 6:
            length = int.from_bytes(body[:2], "big")
            peer.sendall(_packet(0x40, body[2 + length : 4 + length]))
        elif kind >> 4 == 12:
            peer.sendall(_packet(0xD0, b""))


def _filters(body: bytes) -> list[bytes]:
    found = []
    while body:
        length = int.from_bytes(body[:2], "big")
        found.append(body[2 : 2 + length])
        body = body[3 + length :]
    return found


def fuzz_broker(count: int, seed: int) -> int:
    """Serve so many connections; print, and how much is wrong afterwards."""
    broker = MadBroker(seed)
    settings = BrokerSettings(
        port=broker.port, timeout_s=0.2, retry_min_s=0.001, retry_max_s=0.001, keepalive_s=2
    )
    event = SoundEvent.from_json(broker._event)
    heard: list[SoundEvent] = []
    problems: list[str] = []
    hook, threading.excepthook = threading.excepthook, lambda told: problems.append(repr(told))
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    began_s = time.monotonic()
    silent = {"on_state": lambda *_: None}
    with (
        Subscriber(settings, heard.append, **silent) as subscriber,  # type: ignore[arg-type]
        Publisher(settings, Topics("soundpost", "porch-pi"), **silent) as publisher,  # type: ignore[arg-type]
    ):
        publisher.publish_event(event)
        served, since_s, threads = 0, time.monotonic(), threading.active_count()
        while broker.served < count:
            time.sleep(0.05)
            threads = max(threads, threading.active_count())
            if broker.served != served:
                served, since_s = broker.served, time.monotonic()
            elif time.monotonic() - since_s > PATIENCE_S:
                problems.append(f"nobody connects any more after {served} connections")
                break
        spent_s = time.monotonic() - began_s
        heard.clear()
        broker.sound = True
        deadline_s = time.monotonic() + PATIENCE_S
        # The listener has met this event among the garbage, and drops repeats: its state tells.
        while time.monotonic() < deadline_s:
            if (subscriber.state, publisher.state) == ("connected", "connected"):
                break
            time.sleep(0.05)
        else:
            problems.append(f"afterwards: {subscriber.state}, {publisher.state}")
        publisher.publish_event(event)
        if not publisher.flush(PATIENCE_S):
            problems.append("a sound broker's acknowledgement is not understood")
    threading.excepthook = hook
    growth_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before_mb
    if growth_mb > 100.0:
        problems.append(f"it grew by {growth_mb:.0f} MB")
    print(
        f"broker: {broker.served} connections of mutated packets, "
        f"{broker.served / spent_s:.0f} per second, at most {threads} threads, "
        f"{growth_mb:+.0f} MB, {len(problems)} problems"
    )
    for problem in problems[:10]:
        print(f"  {problem}")
    return len(problems)
