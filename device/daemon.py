"""The resident sensor: sources in, events out, until told to stop.

One thread per source runs its pipeline; the publisher sends from its own. A source that is lost is
opened again, one that cannot go on says why in its health, and the others go on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from soundpost.device.clips import Clips
from soundpost.device.listener import Listener, SourceTotals, announce_labels
from soundpost.device.observer import Observer, tell_all
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.reload import SourceChanges, compare_plans
from soundpost.device.source_models import SourceModels

logger = logging.getLogger(__name__)

# How long sources may take to end before their successors are started beside them. It is the main
# thread that waits, and the service's watchdog with it.
_END_S = 5.0


class Daemon:
    """Sources, their threads and one publisher; every method may be called from any thread.

    Parameters
    ----------
    plans : at least one source, with distinct names
    publisher : started and closed by the caller
    observers : told of what is heard and reported, in the threads of the sources
    clips : keeps sound of events; None: no sound is kept
    """

    def __init__(
        self,
        plans: Sequence[SourcePlan],
        device_id: str,
        publisher: Publisher,
        observers: Sequence[Observer] = (),
        clips: Clips | None = None,
    ) -> None:
        self._device_id = device_id
        self._publisher = publisher
        self._observer = tell_all(observers)
        self._clips = clips
        # Held while the set of sources changes.
        self._lock = threading.RLock()
        self._by_name = {plan.name: self._listener(plan) for plan in plans}

    def _listener(self, plan: SourcePlan) -> Listener:
        return Listener(plan, self._device_id, self._publisher, self._observer, self._clips)

    @property
    def _listeners(self) -> list[Listener]:
        with self._lock:
            return list(self._by_name.values())

    @property
    def plans(self) -> dict[str, SourcePlan]:
        """What each source listens to and with what, as asked for last."""
        with self._lock:
            return {name: listener.planned for name, listener in self._by_name.items()}

    def start(self) -> None:
        """Start listening in the background."""
        for listener in self._listeners:
            listener.start()

    def stop(self) -> None:
        """Ask every source to end; returns at once."""
        for listener in self._listeners:
            listener.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every source has ended; whether they did in time."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        listeners: list[Listener] = []
        # Once more where other sources have taken the places of those that ended.
        while listeners != (listeners := self._listeners):
            for listener in listeners:
                left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                # Not join(): Python 3.11 takes a thread whose join Ctrl-C interrupted for ended.
                if not listener.ended.wait(left_s):
                    return False
        return True

    def apply(self, plans: Sequence[SourcePlan]) -> SourceChanges:
        """Go on with other plans; only sources that another url or channel needs begin afresh.

        What a source does not share with its old plan is exchanged between two blocks of sound. One
        that has failed is tried again. Pauses stay.
        """
        with self._lock:
            failed = {name for name, listener in self._by_name.items() if listener.error}
            changes = compare_plans(self.plans, plans, failed)
            wanted = {plan.name: plan for plan in plans}
            self._end([self._by_name[name] for name in (*changes.removed, *changes.reopened)])
            for name in changes.removed:
                self._forget(self._by_name.pop(name))
            for name in changes.reopened:
                before = self._by_name[name]
                self._by_name[name] = after = self._listener(wanted[name])
                announce_labels(
                    self._publisher,
                    name,
                    before.plan.bundle.manifest.labels,
                    after.plan.bundle.manifest.labels,
                )
                if before.paused_until_s is not None:
                    after.pause(before.paused_until_s)
                after.start()
            for name in changes.retuned:
                self._by_name[name].retune(wanted[name])
            for name in changes.added:
                self._by_name[name] = listener = self._listener(wanted[name])
                announce_labels(self._publisher, name, (), listener.plan.bundle.manifest.labels)
                listener.start()
            # In the order of the settings.
            self._by_name = {plan.name: self._by_name[plan.name] for plan in plans}
            return changes

    def _end(self, listeners: Sequence[Listener]) -> None:
        """End all of them; none waits for another."""
        for listener in listeners:
            listener.stop()
        deadline_s = time.monotonic() + _END_S
        for listener in listeners:
            if not listener.ended.wait(max(0.0, deadline_s - time.monotonic())):
                name = listener.plan.name
                logger.warning("source %s has not ended within %g s", name, _END_S)

    def _forget(self, listener: Listener) -> None:
        """Take away what is retained of a source."""
        name, topics = listener.plan.name, self._publisher.topics
        announce_labels(self._publisher, name, listener.plan.bundle.manifest.labels, ())
        for topic in (topics.health(name), topics.paused(name)):
            self._publisher.publish_retained(topic, "")

    def pause(self, sources: Iterable[str], duration_s: float | None = None) -> None:
        """Close sources until `resume`, or for so long; returns at once."""
        until_s = math.inf if duration_s is None else time.monotonic() + duration_s
        with self._lock:
            for name in sources:
                self._by_name[name].pause(until_s)

    def resume(self, sources: Iterable[str]) -> None:
        """Open paused sources again; returns at once."""
        with self._lock:
            for name in sources:
                self._by_name[name].resume()

    def notice(self, text: str | None) -> None:
        """What every source's health says of the sensor as a whole from now on."""
        for listener in self._listeners:
            listener.notice(text)

    @property
    def models(self) -> dict[str, SourceModels]:
        """How the models do of the sources that have no bundle of their own, by source."""
        return {
            listener.plan.name: listener.models
            for listener in self._listeners
            if not listener.planned.own_bundle
        }

    def begin_shadow(self, plans: Sequence[SourcePlan], *, only_new: bool = False) -> None:
        """Let sources hear with the models of these plans too, unreported.

        only_new : those that do so already go on; anew where their detector settings are others
        """
        wanted = {plan.name: plan for plan in plans}
        for name, models in self.models.items():
            plan = wanted.get(name)
            if plan is None:
                continue
            if only_new and models.tried_with is not None:
                models.retune_shadow(plan.classes)
            else:
                models.begin_shadow(plan.bundle, plan.interpreter, plan.classes)

    def hears_with(self, sha256: str) -> bool:
        """Whether the last window of every source that listens was scored with this bundle.

        One that is paused, lost or ended, or has a bundle of its own, is not waited for.
        """
        return all(
            listener.models.scored_with == sha256
            for listener in self._listeners
            if listener.is_open
            and listener.paused_until_s is None
            and not listener.planned.own_bundle
        )

    @property
    def totals(self) -> dict[str, SourceTotals]:
        """By source, as they are now."""
        return {listener.plan.name: replace(listener.totals) for listener in self._listeners}

    @property
    def listening(self) -> list[str]:
        """Sources that have not ended and are not paused."""
        return [
            listener.plan.name
            for listener in self._listeners
            if not listener.ended.is_set() and listener.paused_until_s is None
        ]

    @property
    def errors(self) -> dict[str, Exception]:
        """Why sources could not go on, by source."""
        return {
            listener.plan.name: listener.error for listener in self._listeners if listener.error
        }
