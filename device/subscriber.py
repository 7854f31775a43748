"""What a listener receives over MQTT from one or many sensors, each event once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import paho.mqtt.client as paho

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError
from soundpost.device.events import SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.mqtt_link import Link, LinkState
from soundpost.device.presence import OFFLINE, ONLINE
from soundpost.device.topics import (
    DEFAULT_BASE_TOPIC,
    check_base_topic,
    event_filter,
    status_filter,
)

logger = logging.getLogger(__name__)


class Subscriber:
    """Listens to the sensors of a broker; connects again by itself.

    on_event : called in the network thread for each event; repeats are dropped
    on_status : called with the device id and whether it is online
    device_ids : listen to these devices only; none: to all
    client_id : the broker keeps events for a listener of this name while it is away
    hold : the broker is told that an event has arrived by `acknowledge`, and not before: one that
        is not acknowledged comes again with the next connection of `client_id`
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
        device_ids: Sequence[str] = (),
        client_id: str | None = None,
        hold: bool = False,
        on_status: Callable[[str, bool], None] | None = None,
        on_state: Callable[[LinkState, str], None] | None = None,
    ) -> None:
        check_base_topic(base_topic)
        self.unreadable = 0
        self._on_event = on_event
        self._on_status = on_status
        self._base = base_topic
        devices = device_ids or (None,)
        self._events = [event_filter(base_topic, device) for device in devices]
        self._statuses = [status_filter(base_topic, device) for device in devices]
        self._hold = hold
        self._lock = threading.Lock()
        # Where to acknowledge each event that is held: its connection and its message's number.
        self._held: dict[SoundEventKey, tuple[paho.Client, int]] = {}
        self._seen: OrderedDict[SoundEventKey, None] = OrderedDict()
        self._reported: set[str] = set()
        self._link = Link(
            settings,
            # No two listeners may share an id: the broker would end the older connection.
            client_id or f"soundpost-listener-{uuid7()}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=lambda: None,
            on_state=on_state,
            persistent=client_id is not None,
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

    def acknowledge(self, event: SoundEvent) -> None:
        """Tell the broker that an event, as `on_event` was given it, need not come again."""
        with self._lock:
            held = self._held.pop(_event_key(event), None)
        if held is not None:
            client, message = held
            client.ack(message, 1)

    def close(self, timeout_s: float = 2.0) -> None:
        """Disconnect; no callback runs afterwards."""
        self._link.close(timeout_s)

    def _configure(self, client: Client) -> None:
        client.manual_ack_set(self._hold)
        client.on_message = self._on_message

    def _on_up(self, client: Client) -> Fault | None:
        return client.listen_to([*self._events, *self._statuses])

    def _on_message(
        self, client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        held = False
        try:
            levels = message.topic[len(self._base) + 1 :].split("/")
        except UnicodeDecodeError:
            # paho decodes a topic when it is asked for; raised here, this ends its thread.
            self.unreadable += 1
            levels = []
        if len(levels) == 2 and levels[1] == "status":
            self._take_status(levels[0], message)
        elif levels:
            held = self._take_event(client, message)
        if self._hold and not held:
            client.ack(message.mid, message.qos)

    def _take_status(self, device_id: str, message: paho.MQTTMessage) -> None:
        if self._on_status is None:
            return
        if message.payload in (ONLINE.encode(), OFFLINE.encode()):
            self._on_status(device_id, message.payload == ONLINE.encode())
        else:
            self._skip(message, "expected online or offline")

    def _take_event(self, client: paho.Client, message: paho.MQTTMessage) -> bool:
        """Pass an event on; whether its acknowledgement is left to `acknowledge`."""
        try:
            event = SoundEvent.from_json(bytes(message.payload), f"event on {message.topic}")
        except InputError as exc:
            self._skip(message, str(exc))
            return False
        key = _event_key(event)
        with self._lock:
            repeat = key in self._seen
            held = self._hold and message.qos == 1 and (not repeat or key in self._held)
            if held:
                # A repeat of what is still held came on a new connection: the old one's number
                # means nothing there.
                self._held[key] = (client, message.mid)
        if repeat:
            self._seen.move_to_end(key)
            return held
        self._seen[key] = None
        if len(self._seen) > self._REMEMBERED:
            self._seen.popitem(last=False)
        self._on_event(event)
        return held

    def _skip(self, message: paho.MQTTMessage, why: str) -> None:
        self.unreadable += 1
        # Bounded, as topics are a peer's to choose.
        if message.topic in self._reported or len(self._reported) >= 100:
            return
        self._reported.add(message.topic)
        logger.warning("skipped a message of %d bytes: %s", len(message.payload), why)


SoundEventKey = tuple[str, str, int | None, float, float | None, float | None]


def _event_key(event: SoundEvent) -> SoundEventKey:
    """What two copies of one message share; `queued_s` differs, and times that were set right."""
    said = (event.score, event.level_dba, event.duration_s)
    return (event.id, event.phase, event.report, *said)
