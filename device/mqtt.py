"""What the sensor publishes over MQTT, and what a listener receives.

Delivery is at least once while the process lives: an event stays in the outbox until the broker
has acknowledged it. The connection itself is in `mqtt_link`.

Threads: a supervisor (connects, waits, connects again), paho's network thread, and any number of
callers. paho calls `on_publish` while it holds its own lock, which `publish()` also takes: no lock
that a paho callback takes may be held around `publish()`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import (
    DEFAULT_BASE_TOPIC,
    Health,
    SoundEvent,
    Topics,
    check_base_topic,
    event_filter,
    status_filter,
    uuid7,
)
from soundpost.device.mqtt_link import (
    CREDENTIALS,
    DEFAULT_PORT,
    BrokerSettings,
    Fault,
    Link,
    LinkState,
    read_password,
)

__all__ = [
    "DEFAULT_PORT",
    "OFFLINE",
    "ONLINE",
    "BrokerSettings",
    "LinkState",
    "MemoryOutbox",
    "Outbox",
    "Publisher",
    "Queued",
    "Subscriber",
    "read_password",
]

logger = logging.getLogger(__name__)

ONLINE: Final = "online"
OFFLINE: Final = "offline"


# --- publishing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queued:
    """An event that waits for the broker's acknowledgement.

    key : grows with each event put
    put_s : monotonic time when it was put
    """

    key: int
    event: SoundEvent
    put_s: float


class Outbox(Protocol):
    """Events not yet acknowledged, in order. Called from several threads, one at a time."""

    dropped: int

    def put(self, event: SoundEvent) -> Queued:
        """Keep an event; where there is no room, give up the oldest and count it in `dropped`."""
        ...

    def delete(self, key: int) -> None:
        """Forget an event; one that is gone already is no error."""
        ...

    def items(self) -> list[Queued]:
        """All that is kept, oldest first."""
        ...

    def __len__(self) -> int: ...


class MemoryOutbox:
    """An outbox that lives as long as the process.

    limit : events kept at most; at about 1 kB each, the default is 1 MB
    """

    def __init__(self, limit: int = 1000) -> None:
        if limit < 1:
            raise UsageError(f"event queue must hold 1 event or more, found {limit}")
        self._limit = limit
        self._items: OrderedDict[int, Queued] = OrderedDict()
        self._next_key = 0
        self.dropped = 0

    def put(self, event: SoundEvent) -> Queued:
        """Keep an event; where there is no room, give up the oldest and count it in `dropped`."""
        if len(self._items) >= self._limit:
            self._items.popitem(last=False)
            self.dropped += 1
            if self.dropped == 1:
                logger.warning(
                    "event queue is full with %d events: the oldest are given up and counted",
                    self._limit,
                )
        queued = Queued(self._next_key, event, time.monotonic())
        self._next_key += 1
        self._items[queued.key] = queued
        return queued

    def delete(self, key: int) -> None:
        """Forget an event; one that is gone already is no error."""
        self._items.pop(key, None)

    def items(self) -> list[Queued]:
        """All that is kept, oldest first."""
        return list(self._items.values())

    def __len__(self) -> int:
        return len(self._items)


class Publisher:
    """What a sensor says to its broker; every method may be called from any thread.

    topics : of this device
    states : (source, label) of each class; all are `OFF` until `publish_state` says otherwise
    outbox : keeps unacknowledged events; in memory unless told
    on_state : told of each change of connection instead of the log, with the state and the line
        for a person; called in the supervisor thread

    A broker that is absent at the start or goes away is no error here: it is reported once, events
    wait in the outbox, and on each connection `online`, the retained records as they are now and
    the waiting events are sent, in this order.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topics: Topics,
        *,
        states: Iterable[tuple[str, str]] = (),
        outbox: Outbox | None = None,
        on_state: Callable[[LinkState, str], None] | None = None,
    ) -> None:
        self.topics = topics
        self._outbox: Outbox = MemoryOutbox() if outbox is None else outbox
        # Held while messages are handed to paho, so that the order here is the order sent.
        self._sending = threading.Lock()
        # Guards the fields below; never held around a call to paho (see the module's docstring).
        self._lock = threading.Condition()
        self._retained = {topics.state(source, label): "OFF" for source, label in states}
        self._live: paho.Client | None = None
        self._unacknowledged: dict[int, int | None] = {}
        self._acknowledged_early: set[int] = set()
        self._closed = False
        self._link = Link(
            settings,
            f"soundpost-{topics.device_id}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=self._on_down,
            on_state=on_state,
        )

    def start(self) -> Publisher:
        """Begin to connect in the background."""
        self._link.start()
        return self

    def __enter__(self) -> Publisher:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        left = self.close()
        if left:
            logger.warning("%d events were not delivered to %s", left, self._link.settings.address)

    @property
    def state(self) -> LinkState:
        """State of the connection."""
        return self._link.state

    @property
    def reason(self) -> str | None:
        """Cause of the last failure while not connected."""
        return self._link.reason

    @property
    def queued(self) -> int:
        """Events that the broker has not acknowledged."""
        with self._lock:
            return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Events given up because the outbox was full."""
        with self._lock:
            return self._outbox.dropped

    def wait_connected(self, timeout_s: float, *, first_failure: bool = False) -> None:
        """Return once the broker has accepted us.

        first_failure : do not wait for a later attempt when one has failed

        Raises
        ------
        BrokerError
            Refused, or not connected in time; names the address, the cause and a remedy.
        """
        self._link.wait_connected(timeout_s, first_failure)

    def publish_event(self, event: SoundEvent) -> None:
        """Send an event at QoS 1; it is kept until the broker acknowledges it."""
        topic = self.topics.event(event.source)
        with self._sending:
            with self._lock:
                queued = self._outbox.put(event)
                live = self._live
            if live is not None:
                self._send(live, topic, event.to_json(), retain=False, key=queued.key)

    def publish_state(self, source: str, label: str, on: bool) -> None:
        """Set the retained `ON` or `OFF` of one class."""
        self._publish_retained(self.topics.state(source, label), "ON" if on else "OFF")

    def publish_health(self, health: Health) -> None:
        """Set the retained health of a source."""
        self._publish_retained(self.topics.health(health.source), health.to_json())

    def publish_model_state(self, payload: str) -> None:
        """Set the retained state of the installed model, a JSON object."""
        self._publish_retained(self.topics.model_state, payload)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything; whether it did in time."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            while self._outbox or self._unacknowledged:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._lock.wait(left_s)
            return True

    def close(self, timeout_s: float = 3.0) -> int:
        """Flush, say `offline` and disconnect, within the time given.

        Returns
        -------
        int
            Events that the broker never acknowledged; 0 when all arrived. Later calls return 0.
        """
        if self._closed:
            return 0
        self._closed = True
        deadline_s = time.monotonic() + timeout_s
        if self.queued:
            self._link.retry_now()
        # A third is kept for the farewell.
        self.flush(timeout_s * 2 / 3 if self.queued or self.state == "connected" else 0.0)
        with self._sending:
            with self._lock:
                live = self._live
            if live is not None:
                self._send(live, self.topics.status, OFFLINE, retain=True)
        if live is not None:
            self.flush(max(0.0, deadline_s - time.monotonic()))
        self._link.close(max(0.5, deadline_s - time.monotonic()))
        return self.queued

    def _publish_retained(self, topic: str, payload: str) -> None:
        with self._sending:
            with self._lock:
                self._retained[topic] = payload
                live = self._live
            if live is not None:
                self._send(live, topic, payload, retain=True)

    def _send(
        self, client: paho.Client, topic: str, payload: str, *, retain: bool, key: int | None = None
    ) -> None:
        mid = client.publish(topic, payload, qos=1, retain=retain).mid
        with self._lock:
            if mid in self._acknowledged_early:
                self._acknowledged_early.remove(mid)
                self._settle(key)
            else:
                self._unacknowledged[mid] = key

    def _settle(self, key: int | None) -> None:
        if key is not None:
            self._outbox.delete(key)
        self._lock.notify_all()

    def _configure(self, client: paho.Client) -> None:
        client.will_set(self.topics.status, OFFLINE, qos=1, retain=True)
        client.on_publish = self._on_publish

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        _code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._lock:
            if mid in self._unacknowledged:
                self._settle(self._unacknowledged.pop(mid))
            else:
                # Acknowledged before `_send` had learnt the number of its message.
                self._acknowledged_early.add(mid)

    def _on_up(self, client: paho.Client) -> None:
        with self._sending:
            with self._lock:
                retained = dict(self._retained)
                waiting = self._outbox.items()
            self._send(client, self.topics.status, ONLINE, retain=True)
            for topic, payload in retained.items():
                self._send(client, topic, payload, retain=True)
            now_s = time.monotonic()
            for queued in waiting:
                event = queued.event
                waited_s = round(event.queued_s + now_s - queued.put_s, 3)
                payload = replace(event, queued_s=waited_s).to_json()
                topic = self.topics.event(event.source)
                self._send(client, topic, payload, retain=False, key=queued.key)
            with self._lock:
                self._live = client

    def _on_down(self) -> None:
        with self._sending, self._lock:
            self._live = None
            self._unacknowledged.clear()
            self._acknowledged_early.clear()
            self._lock.notify_all()


# --- receiving ----------------------------------------------------------------------------------


class Subscriber:
    """Listens to the sensors of a broker; connects again by itself.

    on_event : called in the network thread for each event; repeats are dropped
    on_status : called with the device id and whether it is online
    device_id : listen to one device only
    on_state : told of each change of connection instead of the log, with the state and the line
        for a person; called in the supervisor thread

    An unreadable payload is counted in `unreadable`, reported once for each topic, and skipped.
    """

    # Repeats come within one reconnection of the sensor; this many events cover it.
    _REMEMBERED = 2048

    def __init__(
        self,
        settings: BrokerSettings,
        on_event: Callable[[SoundEvent], None],
        *,
        base_topic: str = DEFAULT_BASE_TOPIC,
        device_id: str | None = None,
        on_status: Callable[[str, bool], None] | None = None,
        on_state: Callable[[LinkState, str], None] | None = None,
    ) -> None:
        check_base_topic(base_topic)
        self.unreadable = 0
        self._on_event = on_event
        self._on_status = on_status
        self._base = base_topic
        self._events = event_filter(base_topic, device_id)
        self._statuses = status_filter(base_topic, device_id)
        self._seen: OrderedDict[SoundEventKey, None] = OrderedDict()
        self._reported: set[str] = set()
        self._granted = threading.Event()
        self._codes: list[ReasonCode] = []
        self._link = Link(
            settings,
            # No two listeners may share an id: the broker would end the older connection.
            f"soundpost-listener-{uuid7()}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=self._granted.clear,
            on_state=on_state,
        )

    def start(self) -> Subscriber:
        """Begin to connect in the background."""
        self._link.start()
        return self

    def __enter__(self) -> Subscriber:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def state(self) -> LinkState:
        """State of the connection; `connected` once the broker has granted the subscription."""
        return self._link.state

    def wait_connected(self, timeout_s: float, *, first_failure: bool = False) -> None:
        """Return once every later event will be received; raises as `Publisher.wait_connected`."""
        self._link.wait_connected(timeout_s, first_failure)

    def close(self, timeout_s: float = 2.0) -> None:
        """Disconnect; no callback runs afterwards."""
        self._link.close(timeout_s)

    def _configure(self, client: paho.Client) -> None:
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._codes = codes
        self._granted.set()

    def _on_up(self, client: paho.Client) -> Fault | None:
        self._granted.clear()
        client.subscribe([(self._events, 1), (self._statuses, 1)])
        if not self._granted.wait(self._link.settings.timeout_s):
            return Fault(
                f"no answer to the subscription within {self._link.settings.timeout_s:g} s",
                "look at the broker's log",
            )
        if any(code.is_failure for code in self._codes):
            return Fault(f"not authorised to read {self._events}", CREDENTIALS, True)
        return None

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        levels = message.topic[len(self._base) + 1 :].split("/")
        if levels[-1] == "status" and len(levels) == 2:
            self._take_status(levels[0], message)
        else:
            self._take_event(message)

    def _take_status(self, device_id: str, message: paho.MQTTMessage) -> None:
        if self._on_status is None:
            return
        if message.payload in (ONLINE.encode(), OFFLINE.encode()):
            self._on_status(device_id, message.payload == ONLINE.encode())
        else:
            self._skip(message, "expected online or offline")

    def _take_event(self, message: paho.MQTTMessage) -> None:
        try:
            event = SoundEvent.from_json(bytes(message.payload), f"event on {message.topic}")
        except InputError as exc:
            self._skip(message, str(exc))
            return
        key = _event_key(event)
        if key in self._seen:
            self._seen.move_to_end(key)
            return
        self._seen[key] = None
        if len(self._seen) > self._REMEMBERED:
            self._seen.popitem(last=False)
        self._on_event(event)

    def _skip(self, message: paho.MQTTMessage, why: str) -> None:
        self.unreadable += 1
        # Bounded, as topics are a peer's to choose.
        if message.topic in self._reported or len(self._reported) >= 100:
            return
        self._reported.add(message.topic)
        logger.warning("skipped a message of %d bytes: %s", len(message.payload), why)


SoundEventKey = tuple[str, str, float, object]


def _event_key(event: SoundEvent) -> SoundEventKey:
    """What two copies of one message share; `queued_s` differs between them."""
    return (event.id, event.phase, event.score, event.offset)
