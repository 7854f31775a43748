"""Events that wait for the broker's acknowledgement: what an outbox is, and one in memory."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Protocol

from soundpost.device.clock import Moment
from soundpost.device.errors import UsageError
from soundpost.device.events import SoundEvent

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queued:
    """A message that waits for the broker's acknowledgement.

    key : greater than that of every message put before it
    put : when it was
    age_s : from the event's onset to `put`; None where unknown
    """

    key: int
    event: SoundEvent
    put: Moment
    age_s: float | None = None

    @property
    def undated(self) -> bool:
        """Whether the event's times are yet to be told by a clock that is right."""
        return not self.event.time_synced and self.age_s is not None

    def payload(self, now: Moment) -> str:
        """The event as JSON, with the time it has waited until now in `queued_s`."""
        waited_s = round(self.event.queued_s + now.since(self.put), 3)
        return replace(self.event, queued_s=waited_s).to_json()

    def dated(self, now: Moment) -> Queued:
        """With its times by the system clock, if that has become right since it was put.

        Itself where it has not, and where the machine was restarted in between: how long ago its
        onset was is then unknown.
        """
        if not self.undated or not now.synced or now.boot_id != self.put.boot_id:
            return self
        assert self.age_s is not None
        event = self.event
        put_utc_s = now.utc_s - (now.uptime_s - self.put.uptime_s)
        onset = datetime.fromtimestamp(put_utc_s - self.age_s, timezone.utc)
        offset = None if event.offset is None else onset + (event.offset - event.onset)
        return replace(
            self,
            event=replace(event, onset=onset, offset=offset, time_synced=True),
            put=replace(self.put, utc_s=put_utc_s, synced=True),
        )


class Outbox(Protocol):
    """Messages not yet acknowledged, in order; may be called from several threads at once."""

    @property
    def dropped(self) -> int:
        """Messages given up because there was no room, or which waited too long."""
        ...

    @property
    def fault(self) -> str | None:
        """Why messages are less safe than they should be, in one line; None while all is well."""
        ...

    def put(self, event: SoundEvent, age_s: float | None = None) -> Queued:
        """Keep a message; where there is no room, give up the oldest events, each as a whole.

        age_s : since the event's onset, so that it can be dated when the clock is synchronised
        """
        ...

    def delete(self, key: int) -> None:
        """Forget a message; one that is gone already is no error. Never waits for a disk."""
        ...

    def items(self, after: int | None = None, limit: int | None = None) -> list[Queued]:
        """What is kept, oldest first: after a key, and at most so many, where these are given."""
        ...

    def tend(self) -> None:
        """Do what is due; called about every second, and between messages when there are many."""
        ...

    def __len__(self) -> int: ...


class MemoryOutbox:
    """An outbox that lives as long as the process.

    limit : messages kept at most; at about 3 kB each, the default is 3 MB
    """

    fault: str | None = None

    def __init__(self, limit: int = 1000, now: Callable[[], Moment] = Moment.now) -> None:
        if limit < 1:
            raise UsageError(f"event queue must hold 1 message or more, found {limit}")
        self._limit = limit
        self._now = now
        self._lock = threading.Lock()
        self._items: OrderedDict[int, Queued] = OrderedDict()
        self._next_key = 0
        self.dropped = 0

    def put(self, event: SoundEvent, age_s: float | None = None) -> Queued:
        """Keep a message; where there is no room, give up the oldest events, each as a whole."""
        put = self._now()
        with self._lock:
            queued = Queued(self._next_key, event, put, age_s).dated(put)
            self._next_key += 1
        self.keep(queued)
        return queued

    def keep(self, queued: Queued) -> None:
        """Keep a message that has its key; keys must grow."""
        with self._lock:
            self._items[queued.key] = queued
            while len(self._items) > self._limit:
                for key in self._oldest_event(queued):
                    del self._items[key]
                    if not self.dropped:
                        logger.warning(
                            "event queue is full with %d messages: the oldest events are given up "
                            "and counted",
                            self._limit,
                        )
                    self.dropped += 1

    def _oldest_event(self, newest: Queued) -> list[int]:
        """Keys of what goes first. See DiskOutbox._oldest_event for the law."""
        kept = self._items.values()
        oldest = next((q.event.id for q in kept if q.event.id != newest.event.id), None)
        if oldest is not None:
            return [queued.key for queued in kept if queued.event.id == oldest]
        others = [queued for queued in kept if queued.key != newest.key]
        return [min(others, key=lambda queued: (queued.event.phase != "update", queued.key)).key]

    def take(self, key: int) -> bool:
        """Forget a message; whether it was kept."""
        with self._lock:
            return self._items.pop(key, None) is not None

    def delete(self, key: int) -> None:
        """Forget a message; one that is gone already is no error."""
        self.take(key)

    def items(self, after: int | None = None, limit: int | None = None) -> list[Queued]:
        """What is kept, oldest first: after a key, and at most so many, where these are given."""
        now = self._now()
        with self._lock:
            found = [queued for key, queued in self._items.items() if after is None or key > after]
        return [queued.dated(now) for queued in found[:limit]]

    def tend(self) -> None:
        """Nothing is ever due."""

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)
