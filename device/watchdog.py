"""Tells systemd when the sensor is ready and whether it still lives.

A source lives while its samples advance. A microphone that is away lives too, as long as its thread
goes on trying to open it: a restart would not bring it back, and would stop the others. A thread
that does neither, as one that hangs in a driver, and a main loop that stands still, starve the
watchdog: only a restart mends those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import SoundpostError
from soundpost.device.notify import Notifier
from soundpost.device.observer import Observer


class Watchdog(Observer):
    """Watches every source and passes on what it sees.

    Parameters
    ----------
    notifier : to the service manager; a source that gave no sign of life for half of its watchdog's
        time is stuck. Blocks come every few milliseconds, attempts to open about every second.
    now : monotonic clock
    """

    def __init__(self, notifier: Notifier, now: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._now = now
        self._patience_s = None if notifier.watchdog_s is None else notifier.watchdog_s / 2
        # Written by the thread of each source, read by the main one. What a source last did:
        # samples came (None), or it was lost (why).
        self._sign_s: dict[str, float] = {}
        self._state: dict[str, str | None] = {}
        self._ready = False
        self._status = ""
        self._fed_s = now()

    def heard(self, source: str, block: AudioBlock) -> None:
        """Samples advance; a block without any is no sign of life."""
        if len(block.samples):
            self._sign_s[source] = self._now()
            self._state[source] = None

    def lost(self, source: str, error: SoundpostError) -> None:
        """It is away, and its thread tries."""
        self._sign_s[source] = self._now()
        self._state[source] = str(error)

    def reloading(self) -> None:
        """The settings are about to be read again: the next `tend` that can says ready anew."""
        self._notifier.reloading()
        self._ready = False

    def tend(self, listening: Collection[str]) -> None:
        """Tell what is due; called a few times a second from the main thread.

        listening : names of the sources that have not come to their end
        """
        now_s = self._now()
        stuck = self._stuck(listening, now_s)
        status = self._describe(listening, stuck)
        # The models were loaded before any source started.
        if not self._ready and all(name in self._state for name in listening):
            self._ready = True
            self._notifier.ready(status)
        elif status != self._status:
            self._notifier.status(status)
        self._status = status
        # Four times as often as it has to be: one that is late does no harm.
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None and not stuck and now_s - self._fed_s >= watchdog_s / 4:
            self._fed_s = now_s
            self._notifier.watchdog()

    def _stuck(self, listening: Collection[str], now_s: float) -> list[str]:
        if self._patience_s is None:
            return []
        # A source counts from when it is asked for, at first or again after a pause.
        for name in list(self._sign_s):
            if name not in listening:
                self._sign_s.pop(name)
        signs = {name: self._sign_s.setdefault(name, now_s) for name in listening}
        return [name for name, sign_s in signs.items() if now_s - sign_s > self._patience_s]

    def _describe(self, listening: Collection[str], stuck: Collection[str]) -> str:
        hears, rest = [], []
        for name in listening:
            reason = self._state.get(name, "")
            if name in stuck:
                rest.append(f"{name} is stuck")
            elif reason is None:
                hears.append(name)
            elif reason:
                rest.append(f"{name} is lost and tried again: {reason}")
            else:
                rest.append(f"waits for {name}")
        listens = [f"listens to {', '.join(hears)}"] if hears else []
        return "; ".join(listens + rest) or "all sources have ended"
