"""Messages that the broker sends to the sensor, handed to those who asked for them.

Handlers run in one thread of their own, in the order of arrival: they may publish, and take their
time, while paho's network thread goes on acknowledging. What waits for them is bounded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

logger = logging.getLogger(__name__)

# What waits for a handler, at most.
MAX_WAITING: Final = 200
MAX_WAITING_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class Message:
    """topic : it was published to; retained : it is old, the broker kept it."""

    topic: str
    payload: bytes
    retained: bool = False


Handler = Callable[[Message], None]
Action = Callable[[], None]


class Inbox:
    """Subscriptions that outlive connections, and the thread that hands over what they bring.

    A message that comes while MAX_WAITING others or MAX_WAITING_BYTES wait is dropped and counted
    in `dropped`; the first is reported. A handler that fails is logged with its
    traceback and called again for the next message.

    shuns : whether a filter is left out of the next connection
    """

    def __init__(self, shuns: Callable[[str], bool]) -> None:
        self.dropped = 0
        self._shuns = shuns
        self._lock = threading.Lock()
        self._handlers: dict[str, Handler] = {}
        self._direct: dict[str, Handler] = {}
        self._optional: set[str] = set()
        self._asked: dict[int, str] = {}
        self._waiting: queue.SimpleQueue[Message | Action | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._hand_over, name="mqtt-messages", daemon=True)

    def add(self, topic_filter: str, handler: Handler, optional: bool = False) -> None:
        """Call the handler for every message whose topic matches; from the next `ask` on.

        optional : a broker that refuses it is no fault
        """
        with self._lock:
            self._handlers[topic_filter] = handler
            if optional:
                self._optional.add(topic_filter)
            self._start()

    def post(self, action: Action) -> None:
        """Run an action in the handlers' thread, behind the messages that wait."""
        with self._lock:
            self._start()
        self._waiting.put(action)

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def add_direct(self, topic_filter: str, handler: Handler, optional: bool = False) -> None:
        """Call the handler, and no other, in the network thread; it must not wait.

        The owner asks for these by name.
        """
        with self._lock:
            self._direct[topic_filter] = handler
            if optional:
                self._optional.add(topic_filter)

    def attach(self, client: paho.Client) -> None:
        """Set the callbacks of a fresh client."""
        with self._lock:
            self._asked.clear()
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    def ask(self, client: paho.Client, *topic_filters: str) -> None:
        """Subscribe a connected client to these filters, or to all that `add` was given."""
        with self._lock:
            for topic_filter in topic_filters or tuple(self._handlers):
                if self._shuns(topic_filter):
                    logger.warning(
                        "not listening to %s for now: a message there was too large", topic_filter
                    )
                    continue
                _, mid = client.subscribe(topic_filter, qos=1)
                if mid is not None:
                    self._asked[mid] = topic_filter

    def close(self, timeout_s: float = 1.0) -> None:
        """End the thread after the message that is being handled; what waits is dropped."""
        if self._thread.ident is None:
            return
        self._closed = True
        self._waiting.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        with self._lock:
            topic_filter = self._asked.pop(mid, None)
        for code in codes:
            if topic_filter is None:
                continue
            if not code.is_failure:
                # What serves the connection itself is nothing that a person waits for.
                own = topic_filter in self._optional or topic_filter in self._direct
                level = logging.DEBUG if own else logging.INFO
                logger.log(level, "subscribed to %s", topic_filter)
            else:
                logger.log(
                    logging.INFO if topic_filter in self._optional else logging.WARNING,
                    "the broker refused the subscription to %s (%s): give this user the right to "
                    "read it",
                    topic_filter,
                    code,
                )

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._drop("a topic that is not UTF-8", len(message.payload))
            return
        found = Message(topic, bytes(message.payload), message.retain)
        for topic_filter, direct in self._direct.items():
            if paho.topic_matches_sub(topic_filter, topic):
                direct(found)
                return
        with self._lock:
            fits = self._waiting_bytes + len(found.payload) <= MAX_WAITING_BYTES
            if fits and self._waiting.qsize() < MAX_WAITING:
                self._waiting_bytes += len(found.payload)
                self._waiting.put(found)
                return
        self._drop(f"{topic}: too many wait already", len(found.payload))

    def _drop(self, why: str, n_bytes: int) -> None:
        self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "dropped a message of %d bytes from the broker: %s; further ones are counted only",
                n_bytes,
                why,
            )

    def _hand_over(self) -> None:
        while (found := self._waiting.get()) is not None and not self._closed:
            if not isinstance(found, Message):
                self._run(found, "what follows a connection")
                continue
            with self._lock:
                self._waiting_bytes -= len(found.payload)
                handlers = dict(self._handlers)
            for topic_filter, handler in handlers.items():
                if paho.topic_matches_sub(topic_filter, found.topic):
                    self._run(partial(handler, found), f"a message on {found.topic}")

    def _run(self, action: Action, what: str) -> None:
        try:
            action()
        except Exception:  # of whoever subscribed: the others still get theirs
            logger.exception("%s could not be handled", what)
