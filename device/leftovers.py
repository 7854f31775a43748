"""What a broker still keeps of labels and sources that this sensor no longer has.

One that is taken out of the settings while the sensor is stopped leaves its retained messages: an
alarm that was `ON` would stay so, and a source `ok`, for ever. The broker is asked once, on the
first connection that lasts long enough for its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Final

from soundpost.device.mqtt_inbox import Message
from soundpost.device.topics import RESERVED_SOURCES, Topics

# For all that is retained to arrive, over a slow network too.
_COLLECT_S: Final = 10.0
# Topics are a peer's to choose.
_MAX_FOUND: Final = 5_000


class Leftovers:
    """Finds retained topics of this device, and of no other, that nobody speaks for any more.

    Methods may be called from any thread and never wait.
    """

    def __init__(self, topics: Topics) -> None:
        self.filters = topics.source_filters
        self._prefix = topics.status.removesuffix("status")
        self._lock = threading.Lock()
        self._found: set[str] = set()
        self._until_s: float | None = None
        self._done = False

    def ask(self) -> tuple[str, ...]:
        """What a fresh connection has to subscribe to; nothing once the broker was asked."""
        with self._lock:
            self._until_s = None if self._done else time.monotonic() + _COLLECT_S
            return () if self._done else self.filters

    def take(self, message: Message) -> None:
        """A message of a source's topic."""
        if message.retained and message.payload:
            with self._lock:
                if len(self._found) < _MAX_FOUND:
                    self._found.add(message.topic)

    def gone(self, ours: Collection[str], most: int) -> list[str]:
        """The next topics to be emptied, `most` at a time.

        ours : topics that this sensor speaks for; also for those of a source that stands in one
        """
        with self._lock:
            if not self._found or most <= 0:
                return []
            sources = {self._levels(topic)[0] for topic in ours}
            self._found = {
                topic for topic in self._found - set(ours) if self._is_stale(topic, sources)
            }
            found = sorted(self._found)[:most]
            self._found.difference_update(found)
            return found

    def answered(self) -> bool:
        """Whether the subscriptions have now done their part; true once."""
        with self._lock:
            if self._until_s is None or self._found or time.monotonic() < self._until_s:
                return False
            self._until_s, self._done = None, True
            return True

    def _is_stale(self, topic: str, sources: Collection[str]) -> bool:
        source, what, *_ = (*self._levels(topic), "")
        if not source or source in RESERVED_SOURCES:
            return False
        # The health of a source that has just begun is yet to be told.
        return what == "class" or source not in sources

    def _levels(self, topic: str) -> list[str]:
        """Of a topic, from the source on; an empty one where it is not of this device."""
        return topic[len(self._prefix) :].split("/") if topic.startswith(self._prefix) else [""]
