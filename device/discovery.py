"""Keeps Home Assistant told of the sensor, and takes back what is gone.

What was announced is read from the broker, where it is retained: no list of our own can differ.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from soundpost.device.home_assistant import (
    AnnouncedSource,
    HomeAssistantSettings,
    component_filter,
    device_topic,
    discovery_messages,
    removals,
)
from soundpost.device.mqtt_inbox import Message
from soundpost.device.presence import ONLINE
from soundpost.device.publisher import Publisher

logger = logging.getLogger(__name__)

# Topics are a peer's to choose.
_MAX_FOUND: Final = 5_000
# For the retained messages of an earlier announcement to arrive; for Home Assistant to forget an
# entity before the same is announced on another topic; and so that a house full of sensors does
# not answer a Home Assistant that has just started in one instant.
_COLLECT_S: Final = 1.0
_FORGET_S: Final = 2.0
_BIRTH_DELAY_S: Final = (0.5, 3.0)


class Discovery:
    """Announces one sensor on its publisher's connection; start it before the publisher.

    Once connected it reads what is announced, removes what is gone, and announces. The publisher
    repeats that on each connection, and this class when Home Assistant says that it is online.
    """

    def __init__(
        self,
        publisher: Publisher,
        settings: HomeAssistantSettings,
        sources: Sequence[AnnouncedSource],
        can_update: bool = False,
    ) -> None:
        self._publisher = publisher
        self._settings = settings
        self._lock = threading.Lock()
        self._wanted: Mapping[str, str] = discovery_messages(
            settings, publisher.topics, sources, can_update
        )
        self._found: dict[str, str] = {}
        self._announced = False
        self._timer: threading.Timer | None = None
        self._closed = False

    def start(self) -> None:
        """Listen for what was announced, and for Home Assistant."""
        publisher, settings = self._publisher, self._settings
        publisher.subscribe(device_topic(settings, publisher.topics), self._take, optional=True)
        publisher.subscribe(component_filter(settings, publisher.topics), self._take, optional=True)
        if self._wanted:
            publisher.subscribe(f"{settings.prefix}/status", self._take_birth, optional=True)
        publisher.on_connect(self._take_connection)

    def update(
        self,
        sources: Sequence[AnnouncedSource],
        settings: HomeAssistantSettings,
        can_update: bool = False,
    ) -> None:
        """Announce other sources or labels, and take back what is gone; the prefix stays."""
        with self._lock:
            self._found = {**self._found, **self._wanted}
            self._settings = settings
            self._wanted = discovery_messages(settings, self._publisher.topics, sources, can_update)
            self._announced = False
        # Not at once: what is retained may be arriving.
        self._later(_COLLECT_S)

    def close(self) -> None:
        """Announce nothing any more; what is announced stays."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _take(self, message: Message) -> None:
        if not message.retained or not message.payload:
            return
        payload = message.payload.decode("utf-8", "replace")
        with self._lock:
            if len(self._found) < _MAX_FOUND:
                self._found[message.topic] = payload
            late = self._announced and bool(removals({message.topic: payload}, self._wanted))
            if late:
                self._announced = False
        if late:
            self._later(_COLLECT_S)

    def _take_connection(self) -> None:
        with self._lock:
            announced = self._announced
        if not announced:
            self._later(_COLLECT_S)

    def _take_birth(self, message: Message) -> None:
        if message.payload == ONLINE.encode() and not message.retained:
            self._later(random.uniform(*_BIRTH_DELAY_S))

    def _later(self, delay_s: float) -> None:
        with self._lock:
            if self._closed:
                return
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(delay_s, self._announce)
            self._timer.daemon = True
            self._timer.start()

    def _announce(self) -> None:
        with self._lock:
            if self._closed:
                return
            if not self._announced and self._publisher.state != "connected":
                # Nobody knows what is retained, and what is announced now would be sent in its
                # place: the next connection begins anew.
                return
            gone = {} if self._announced else removals(self._found, self._wanted)
            self._found.clear()
            self._announced = True
            wanted = dict(self._wanted)
        for topic, payload in gone.items():
            self._publisher.publish_retained(topic, payload)
        if any(topic not in wanted for topic in gone) and wanted:
            # Its entities come back on other topics under the same identities.
            time.sleep(_FORGET_S)
        for topic, payload in wanted.items():
            self._publisher.publish_retained(topic, payload)
        logger.debug("announced %d topics to Home Assistant, took back %d", len(wanted), len(gone))
