"""What the sensor publishes over MQTT.

Delivery is at least once: an event stays in the outbox until the broker has acknowledged it. How
long that lasts is the outbox's matter. The connection itself is in `mqtt_link`.

Threads: a supervisor (connects, waits, connects again), a sender of events that have waited, one
that hands over incoming messages (`mqtt_inbox`), paho's network thread, and any number of callers.
paho calls `on_publish` while it holds its own lock, which `publish()` also takes: no lock that a
paho callback takes may be held around `publish()`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.clock import Moment
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.leftovers import Leftovers
from soundpost.device.level_record import LevelRecord
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.mqtt_inbox import Handler, Inbox
from soundpost.device.mqtt_link import Link, LinkState
from soundpost.device.outbox import MemoryOutbox, Outbox, Queued
from soundpost.device.presence import OFFLINE, ONLINE, Presence
from soundpost.device.topics import Topics

logger = logging.getLogger(__name__)

# Messages handed to paho and not yet acknowledged, at most, while there are more on disk: paho
# holds them in memory, and a lost connection repeats them.
_WINDOW: Final = 200
_TEND_EVERY_S: Final = 0.5
# How long a broker that is left may take to acknowledge what it was sent.
_FAREWELL_S: Final = 1.0
# A question or an answer that reaches nobody within this time is of no use any more.
_ANSWER_EXPIRY_S: Final = 60


class Publisher:
    """What a sensor says to its broker; every method may be called from any thread.

    topics : of this device
    states : (source, label) of each class; all are `OFF` until `publish_state` says otherwise, and
        what the broker keeps of other labels and sources of this device is taken away
    outbox : keeps unacknowledged events; in memory unless told
    on_state : told of each change of connection instead of the log, with the state and the line
        for a person; called in the supervisor thread

    A broker that is absent at the start or goes away is no error here: it is reported once, events
    wait in the outbox, and on each connection `online`, the retained records as they are now and
    the waiting events are sent, in this order. Events put meanwhile go behind those that wait.
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
        self._live: Client | None = None
        # Key of the event, None for other messages, and topic, by paho's number.
        self._unacknowledged: dict[int, tuple[int | None, str]] = {}
        self._acknowledged_early: dict[int, ReasonCode] = {}
        # Of QoS 0, which paho numbers as well: handed to it and not yet written.
        self._unwritten: set[int] = set()
        self._progress_s = time.monotonic()
        self._refused: set[str] = set()
        self._overruled = False
        self._restored_s = 0.0
        self._actions: list[Callable[[], None]] = []
        # The events after this key are still to be sent on this connection, if it is behind.
        self._sent: int | None = None
        self._behind = False
        self._wake = threading.Event()
        self._ending = False
        self._sender = threading.Thread(target=self._send_waiting, name="mqtt-events", daemon=True)
        self._closed = False
        # Who names no classes speaks for none.
        self._leftovers = Leftovers(topics) if self._retained else None
        self._presence = Presence(topics, self._send_fleeting, self._note_overruled)
        self._link = Link(
            settings,
            # Of this process alone: a broker ends an older connection of the same id.
            f"soundpost-{topics.device_id}-{self._presence.instance[-12:]}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=self._on_down,
            check=self._check,
            on_state=on_state,
        )
        self._inbox = Inbox(self._link.shuns)
        if self._leftovers is not None:
            for topic_filter in self._leftovers.filters:
                self._inbox.add_direct(topic_filter, self._leftovers.take, optional=True)
        self._inbox.add_direct(topics.status, lambda told: self._presence.take_status(told.payload))
        self._inbox.add_direct(
            topics.instance, lambda told: self._presence.take_instance(told.payload)
        )

    def start(self) -> Publisher:
        """Begin to connect in the background."""
        self._sender.start()
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
    def connections(self) -> int:
        """How often a broker was connected to."""
        return self._link.connections

    @property
    def queued(self) -> int:
        """Events that the broker has not acknowledged."""
        return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Events given up because the outbox was full, or which had waited too long."""
        return self._outbox.dropped

    @property
    def messages_dropped(self) -> int:
        """Messages to the sensor that were too large, or came faster than they were handled."""
        return self._inbox.dropped

    @property
    def fault(self) -> str | None:
        """Why waiting events are less safe than they should be, in one line."""
        return self._outbox.fault

    def wait_connected(self, timeout_s: float, *, first_failure: bool = False) -> None:
        """Return once the broker has accepted us.

        first_failure : do not wait for a later attempt when one has failed

        Raises
        ------
        BrokerError
            Refused, or not connected in time; names the address, the cause and a remedy.
        """
        self._link.wait_connected(timeout_s, first_failure)

    def publish_event(self, event: SoundEvent, age_s: float | None = None) -> None:
        """Send an event at QoS 1; it is kept until the broker acknowledges it.

        age_s : since its onset, by the monotonic clock; the event can then be dated once the
            system clock is right
        """
        with self._sending:
            queued = self._outbox.put(event, age_s)
            with self._lock:
                live = self._live
                if len(self._unacknowledged) >= _WINDOW:
                    self._behind = True
                direct = live is not None and not self._behind
                if direct:
                    self._sent = queued.key
                elif live is not None:
                    self._wake.set()
            if live is not None and direct:
                self._send_event(live, queued, queued.event.to_json())

    def publish_state(self, source: str, label: str, on: bool) -> None:
        """Set the retained `ON` or `OFF` of one class."""
        self._publish_retained(self.topics.state(source, label), "ON" if on else "OFF")

    def publish_health(self, health: Health) -> None:
        """Set the retained health of a source."""
        self._publish_retained(self.topics.health(health.source), health.to_json())

    def publish_level(self, level: LevelRecord) -> None:
        """Send levels at QoS 0; while the broker is away they are dropped."""
        with self._sending:
            with self._lock:
                live = self._live
            if live is not None:
                self._send(live, self.topics.level(level.source), level.to_json(), qos=0)

    def publish_model_state(self, payload: str) -> None:
        """Set the retained state of the installed model, a JSON object."""
        self._publish_retained(self.topics.model_state, payload)

    def publish_retained(self, topic: str, payload: str) -> None:
        """Set a retained message, sent again as it is then on each connection.

        An empty payload takes the retained message away.
        """
        self._publish_retained(topic, payload)

    def publish_once(self, topic: str, payload: str) -> bool:
        """Send a message at QoS 1, not retained; whether there was a connection to send it on.

        It does not pass the outbox: a connection that is lost meanwhile may lose it.
        """
        with self._sending:
            with self._lock:
                live = self._live
            if live is not None:
                self._send(live, topic, payload, expiry_s=_ANSWER_EXPIRY_S)
            return live is not None

    def subscribe(self, topic_filter: str, handler: Handler, *, optional: bool = False) -> None:
        """Call the handler for each message whose topic matches, over all connections to come.

        It is called in a thread of its own, one message at a time, and may publish. Messages that
        come while no connection is up are not received, retained ones excepted.

        optional : no warning where the broker refuses it
        """
        self._inbox.add(topic_filter, handler, optional)
        with self._sending:
            with self._lock:
                live = self._live
            if live is not None:
                self._inbox.ask(live, topic_filter)

    def use(self, settings: BrokerSettings) -> None:
        """Connect with other settings from now on; what waits is sent there.

        The broker that is left is told `offline`, as at an end in order.
        """
        with self._sending:
            with self._lock:
                live = self._live
            if live is not None:
                self._take_leave(live)
        if live is not None:
            self.flush(_FAREWELL_S)
        self._link.use(settings)

    def on_connect(self, action: Callable[[], None]) -> None:
        """Run an action after each connection, in the thread of the handlers of `subscribe`."""
        with self._lock:
            self._actions.append(action)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything; whether it did in time."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            while self._outbox or self._unacknowledged or self._unwritten:
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
        self._inbox.close()
        with self._sending:
            # Nothing follows the farewell: what still waits is the next start's.
            self._ending = True
            with self._lock:
                live = self._live
                self._behind = True
            if live is not None:
                self._take_leave(live)
        if live is not None:
            self.flush(max(0.0, deadline_s - time.monotonic()))
        self._link.close(max(0.5, deadline_s - time.monotonic()))
        self._wake.set()
        if self._sender.ident is not None:
            self._sender.join()
        return self.queued

    def _send_event(self, client: Client, queued: Queued, payload: str) -> None:
        topic = self.topics.event(queued.event.source)
        self._send(client, topic, payload, retain=False, key=queued.key)

    def _send_waiting(self) -> None:
        """Thread: send what waits in the outbox at the broker's pace, and tend the outbox."""
        while not self._ending:
            self._wake.wait(_TEND_EVERY_S)
            self._wake.clear()
            while self._send_some():
                self._outbox.tend()
            self._outbox.tend()
            self._look_back()
            self._restore_status()
            self._clear_leftovers()

    def _send_some(self) -> bool:
        """Send the next events that wait, if there is room; whether to ask again at once."""
        with self._sending:
            with self._lock:
                live, sent = self._live, self._sent
                room = _WINDOW - len(self._unacknowledged)
                if live is None or self._ending or not self._behind or room <= 0:
                    return False
                flying = {key for key, _ in self._unacknowledged.values()}
            waiting = self._outbox.items(sent, room)
            if not waiting:
                # While `_sending` is held nothing can be put: from here on events go directly.
                with self._lock:
                    self._behind = False
                return False
            now = Moment.now()
            for queued in waiting:
                if queued.key not in flying:
                    self._send_event(live, queued, queued.payload(now))
            with self._lock:
                self._sent = waiting[-1].key
            return True

    def _look_back(self) -> None:
        """Begin again at the oldest event where some were overlooked.

        While the outbox could not read its disk it did not name what lies there.
        """
        with self._sending, self._lock:
            flying = sum(key is not None for key, _ in self._unacknowledged.values())
            if self._live is not None and not self._behind and len(self._outbox) > flying:
                self._sent, self._behind = None, True

    def _take_leave(self, client: Client) -> None:
        self._presence.resign()
        self._send(client, self.topics.status, OFFLINE, retain=True)

    def _note_overruled(self) -> None:
        with self._lock:
            self._overruled = True
        self._wake.set()

    def _restore_status(self) -> None:
        """Say `online` again where something else was said for us, but not in a flood."""
        now_s = time.monotonic()
        with self._sending:
            with self._lock:
                live = self._live
                due = self._overruled and now_s - self._restored_s >= _TEND_EVERY_S
                if live is None or not due or not self._presence.holds:
                    return
                self._overruled, self._restored_s = False, now_s
            self._send(live, self.topics.status, ONLINE, retain=True)

    def _clear_leftovers(self) -> None:
        """Take away what the broker keeps of labels and sources that are gone."""
        if self._leftovers is None:
            return
        with self._sending:
            with self._lock:
                live = self._live
                if live is None or self._ending:
                    return
                room = _WINDOW - len(self._unacknowledged)
                gone = self._leftovers.gone(self._retained, room)
            for topic in gone:
                logger.info("taken away: %s, of a label or source that is gone", topic)
                self._send(live, topic, "", retain=True)
            if self._leftovers.answered():
                live.unsubscribe([*self._leftovers.filters])

    def _check(self) -> Fault | None:
        """Whether the broker still acknowledges what we send; in the supervisor thread."""
        patience_s = self._link.settings.ack_timeout_s
        with self._lock:
            waiting = len(self._unacknowledged)
            if not waiting or time.monotonic() - self._progress_s < patience_s:
                return None
        return Fault(
            f"it has not acknowledged {waiting} messages for {patience_s:g} s",
            "look at the broker's log, and at its disk and load",
        )

    def _publish_retained(self, topic: str, payload: str) -> None:
        with self._sending:
            with self._lock:
                live = self._live
                self._retained[topic] = payload
                if live is not None and not payload:
                    # What was taken away once need not be taken away on each connection.
                    del self._retained[topic]
            if live is not None:
                self._send(live, topic, payload, retain=True)

    def _send_fleeting(self, client: Client, topic: str, payload: str) -> None:
        self._send(client, topic, payload, expiry_s=_ANSWER_EXPIRY_S)

    def _send(
        self,
        client: Client,
        topic: str,
        payload: str,
        *,
        retain: bool = False,
        key: int | None = None,
        qos: int = 1,
        expiry_s: int | None = None,
    ) -> None:
        limit = client.max_packet_bytes
        if limit is not None and len(topic.encode()) + len(payload.encode()) + 32 > limit:
            self._take_excess(client, topic, limit, key)
            return
        properties = client.publish_properties(expiry_s)
        mid = client.publish(topic, payload, qos, retain, properties).mid
        with self._lock:
            code = self._acknowledged_early.pop(mid, None)
            if qos == 0:
                # Written is not acknowledged: a broker that does not answer has no part in it.
                if code is None:
                    self._unwritten.add(mid)
                return
            if code is not None:
                self._settle(client, code, key, topic)
                return
            if not self._unacknowledged:
                self._progress_s = time.monotonic()
            self._unacknowledged[mid] = (key, topic)

    def _settle(self, client: Client, code: ReasonCode, key: int | None, topic: str) -> None:
        """Take the broker's answer to a message; `_lock` is held."""
        self._progress_s = time.monotonic()
        if code.is_failure:
            self._take_refusal(client, code, key, topic)
        elif key is not None:
            self._outbox.delete(key)
        if self._behind and len(self._unacknowledged) <= _WINDOW // 2:
            self._wake.set()
        self._lock.notify_all()

    def _take_excess(self, client: Client, topic: str, limit: int, key: int | None) -> None:
        # The broker would end the connection.
        if key is not None:
            client.fail(
                Fault(f"it takes messages of {limit} bytes at most", "raise its limit to 64 KiB")
            )
        elif topic not in self._refused and len(self._refused) < 100:
            self._refused.add(topic)
            logger.warning("a message on %s is too large for the broker (%d bytes)", topic, limit)

    def _take_refusal(self, client: Client, code: ReasonCode, key: int | None, topic: str) -> None:
        # MQTT 5 says it where 3.1.1 could only acknowledge.
        if key is not None:
            # The event stays in the outbox, for a broker that has changed its mind.
            client.fail(
                Fault(
                    f"it refused an event on {topic} ({code})",
                    "give this user the right to write there",
                    str(code) == "Not authorized",
                )
            )
        elif topic not in self._refused and len(self._refused) < 100:
            self._refused.add(topic)
            logger.warning("the broker refused a message on %s (%s)", topic, code)

    def _configure(self, client: Client) -> None:
        client.will_set(self.topics.status, OFFLINE, qos=1, retain=True)
        client.on_publish = self._on_publish
        self._inbox.attach(client)

    def _on_publish(
        self,
        client: paho.Client,
        _userdata: object,
        mid: int,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        assert isinstance(client, Client)
        with self._lock:
            if mid in self._unacknowledged:
                self._settle(client, code, *self._unacknowledged.pop(mid))
            elif mid in self._unwritten:
                self._unwritten.discard(mid)
                self._lock.notify_all()
            else:
                # Acknowledged, or written, before `_send` had learnt the number of its message.
                self._acknowledged_early[mid] = code

    def _on_up(self, client: Client) -> Fault | None:
        self._presence.release(client)
        self._inbox.ask(client, *self._presence.filters)
        fault = self._presence.claim(client)
        if fault is not None:
            return fault
        with self._sending:
            with self._lock:
                retained = self._retained
                self._retained = {topic: payload for topic, payload in retained.items() if payload}
            self._send(client, self.topics.status, ONLINE, retain=True)
            for topic, payload in retained.items():
                self._send(client, topic, payload, retain=True)
            # After the state is told, so that an answer to a retained message comes behind it.
            self._inbox.ask(client)
            if self._leftovers is not None and (filters := self._leftovers.ask()):
                self._inbox.ask(client, *filters)
            with self._lock:
                self._live = client
                self._sent, self._behind = None, len(self._outbox) > 0
                actions = tuple(self._actions)
            self._wake.set()
        for action in actions:
            self._inbox.post(action)
        return None

    def _on_down(self) -> None:
        self._presence.release()
        with self._sending, self._lock:
            self._live = None
            self._overruled = False
            self._unacknowledged.clear()
            self._acknowledged_early.clear()
            self._unwritten.clear()
            self._lock.notify_all()
