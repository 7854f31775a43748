"""Looks for a newer model, fetches it, tries it, and keeps it or takes it back.

One thread, one update at a time. What must survive the sensor's end is in the store and in
`update.json`; what is only in memory (when to look next) may be lost with it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Protocol

from soundpost.device.errors import (
    InputError,
    SoundpostError,
    UpdateDeferredError,
    UpdateError,
    UpdateRefusedError,
    UpdateUnreachableError,
)
from soundpost.device.updates.boot import Boot
from soundpost.device.updates.drift import Drift
from soundpost.device.updates.live_sensor import LiveSensor
from soundpost.device.updates.model_state import ModelState, Result
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Choice, Installed, Offer, choose
from soundpost.device.updates.progress import Progress
from soundpost.device.updates.self_test import run_self_test
from soundpost.device.updates.trial import SelfTest, Trial
from soundpost.device.updates.update_settings import UpdateSettings

_LOGGER = logging.getLogger(__name__)

# First pause after a repository that did not answer; each further one is twice as long, up to the
# interval of the settings.
_RETRY_S = 60.0
# A command that reaches many sensors at once is obeyed within so long.
_REQUEST_SPREAD_S = 5.0
_DRIFT_STEP = 0.05
# How long the sensor waits at its end for a step to break off.
_CLOSE_S = 5.0


class Repository(Protocol):
    """What `trusted_download.TrustedRepository` does."""

    def refresh(self) -> tuple[Offer, ...]:
        """What is offered; raises UpdateError or InputError."""

    def download(
        self, offer: Offer, store: ModelStore, progress: Callable[[int], None] | None = None
    ) -> Path:
        """Fetch a bundle into the store's downloads; raises UpdateError or InputError."""


class _EndingError(Exception):
    """The sensor ends: what is being fetched is broken off, and what has arrived stays."""


class Updater:
    """The updates of one sensor, in a thread of their own.

    Parameters
    ----------
    settings : with a repository
    device : id of the sensor, to which offers may be pinned
    boot : of this start, with a store
    repository : as this device trusts it
    sensor : told what to hear with; its running model is what `boot` chose
    runtime, threads : of the interpreter, for the self-test
    now, utc, local : clocks: monotonic, system, time of day
    """

    def __init__(
        self,
        settings: UpdateSettings,
        device: str,
        boot: Boot,
        repository: Repository,
        sensor: LiveSensor,
        *,
        runtime: str = "auto",
        threads: int = 1,
        now: Callable[[], float] = time.monotonic,
        local: Callable[[], datetime] = datetime.now,
        rng: random.Random | None = None,
        self_test: SelfTest = run_self_test,
    ) -> None:
        assert boot.store is not None
        self._settings, self._device = settings, device
        self._store, self._boot = boot.store, boot
        self._repository, self._sensor = repository, sensor
        self._now, self._local = now, local
        self._random = rng or random.Random()
        self._progress = Progress(device, settings.channel, boot, sensor)
        self._drift = Drift()
        self._drift_fault = ""
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._trial = Trial(
            settings,
            boot,
            sensor,
            self._progress,
            runtime=runtime,
            threads=threads,
            ending=self._ending.is_set,
            now=now,
            self_test=self_test,
        )
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        self._lock = threading.Lock()
        # To install; and whether a request has come since the last look began.
        self._asked = self._requested = False
        self._by_hand: Path | None = None
        # Whether the last step of a probation was a look for another model.
        self._looked_past = False
        self._failures = 0
        self._next_look_s = now() + self._random.uniform(0.0, settings.spread_s)

    def start(self) -> Updater:
        """Begin in the background."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End; a step that can be broken off is. What is not done goes on at the next start."""
        self._ending.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def request(self, install: bool) -> str:
        """Look at the repository now; returns what is going to happen, one line.

        install : take what is offered, also outside of the hours and where the settings say `ask`
        """
        if self._trial.going_on and not self._trial.proof.interruptible:
            return f"an update is going on: {self.state.phase}"
        with self._lock:
            self._asked = self._asked or install
            self._requested = True
            spread_s = min(self._settings.spread_s, _REQUEST_SPREAD_S)
            self._next_look_s = self._now() + self._random.uniform(0.0, spread_s)
        self._wake.set()
        return (
            "looks at the repository and installs what it offers"
            if install
            else ("looks at the repository")
        )

    def choose_by_hand(self, bundle: Path | None) -> None:
        """The settings were read again and name another bundle, with which the sensor now hears.

        What was installed by updates gives way to it; an update that goes on is given up.
        """
        with self._lock:
            self._boot.settings_bundle = bundle
            self._by_hand = self._boot.settings_path
        self._wake.set()

    @property
    def state(self) -> ModelState:
        """As it is published."""
        return self._progress.state

    def step(self) -> float:
        """Do the next thing; returns seconds until the one after it. For the thread, and tests."""
        with self._lock:
            by_hand = self._by_hand
        if by_hand is not None:
            # Again, where the disk is full now.
            self._trial.abandon()
            with self._lock:
                if self._by_hand == by_hand:
                    self._by_hand = None
            self._progress.phase("idle")
        left_s = self._next_look_s - self._now()
        if self._trial.going_on:
            # By turns: requests that come and come must not keep a bad model from being noticed.
            past = left_s <= 0.0 and self._trial.proof.interruptible and not self._looked_past
            self._looked_past = past
            if not past:
                return self._trial.step()
            self._look_past()
            return 0.0
        if left_s > 0.0:
            self._watch_drift()
            self._progress.show()
            return left_s
        return self._look()

    def _run(self) -> None:
        self._progress.show()
        while not self._ending.is_set():
            try:
                wait_s = self.step()
            except _EndingError:
                return
            except SoundpostError as error:
                wait_s = self._failed("failed", str(error))
            except Exception:
                # Updates must not end the sensor, nor one fault all updates.
                _LOGGER.exception("update failed")
                wait_s = self._failed("failed", "a fault of the program; see the log")
            self._wake.wait(min(wait_s, 60.0))
            self._wake.clear()

    def _watch_drift(self) -> None:
        """What is only told must not keep the sensor from its next look."""
        try:
            self._tell_drift()
        except Exception as error:
            # It comes every minute: told once.
            if repr(error) != self._drift_fault:
                _LOGGER.exception("the drift of the model is not known")
            self._drift_fault, self._drift = repr(error), Drift()
            self._progress.drift = None

    def _tell_drift(self) -> None:
        evidence = self._trial.evidence
        tallies, sha256 = self._sensor.tally(), self._sensor.running.sha256
        if evidence.usual(sha256) is None:
            # A model that was never on probation: its first day is its usual one.
            if max((one.heard_s for one in tallies), default=0.0) < self._settings.probation_s:
                return
            evidence.note_usual()
        drift = self._drift.update(sha256, tallies, evidence.usual(sha256))
        shown = self._progress.drift
        # A message for what moves, not for what trembles.
        if drift is None or shown is None or abs(drift - shown) >= _DRIFT_STEP:
            self._progress.drift = None if drift is None else round(drift, 2)

    # -------------------------------------------------------------------------------- the look

    def _look(self) -> float:
        with self._lock:
            asked, self._asked, self._requested = self._asked, False, False
        progress = self._progress
        try:
            progress.phase("refresh")
            choice = self._choose(self._repository.refresh(), self._sensor.running)
            offer = choice.offer
            progress.offered = None if offer is None else _installed(offer)
            if offer is None:
                # How it was tried and taken back is told already, and in more words.
                told = None if choice.result == "rejected" else choice.result
                return self._done(told, choice.reason)
            if self._settings.install == "ask" and not asked:
                return self._done(None, choice.reason)
            wait_s = 0.0 if asked else self._until_hours_s()
            if wait_s > 0.0:
                progress.phase("waiting")
                return self._look_in(wait_s)
            self._fetch(offer)
        except UpdateDeferredError as error:
            return self._failed("deferred", str(error), asked)
        except UpdateUnreachableError as error:
            return self._failed("unreachable", str(error), asked)
        except UpdateRefusedError as error:
            return self._done("refused", str(error))
        except (UpdateError, InputError) as error:
            return self._failed("deferred", str(error), asked)
        self._failures = 0
        self._look_in(self._interval_s())
        return 0.0

    def _look_past(self) -> None:
        """Let the model on probation give way where the repository has another one by now.

        Else it is told how the probation goes, but for what cannot be trusted, and what a person
        has asked for in vain.
        """
        with self._lock:
            asked, self._asked, self._requested = self._asked, False, False
        try:
            pause_s = self._replace(asked)
            self._failures = 0
        except UpdateRefusedError as error:
            self._progress.result("refused", str(error))
            pause_s = self._interval_s()
        except (UpdateError, InputError) as error:
            _LOGGER.warning("on probation, and looking for another model: %s", error)
            if asked:
                gone = isinstance(error, UpdateUnreachableError)
                self._progress.result("unreachable" if gone else "deferred", str(error))
            self._keep_asked(asked)
            pause_s = self._retry_s()
        self._look_in(pause_s)

    def _replace(self, asked: bool) -> float:
        """Fetch what is to take the place of the model on probation; seconds until the next look.

        Raises as `refresh`, `download` and `Proof.supersede`; the probation then goes on.
        """
        offers = self._repository.refresh()
        model, previous = self._store.state.current, self._progress.previous()
        assert model is not None
        offer = self._choose(offers, model).offer
        back = offer is not None and previous is not None and offer.sha256 == previous.sha256
        # The one before is heard with meanwhile: what cannot follow that one would never come.
        if offer is not None and not back and self._choose(offers, previous).offer is None:
            offer = None
        self._progress.offered = None if offer is None else _installed(offer)
        self._progress.proving(model)
        if offer is None or not (asked or self._may_replace(back)):
            return self._interval_s()
        wait_s = 0.0 if asked else self._until_hours_s()
        if wait_s > 0.0:
            return wait_s
        if back:
            self._trial.proof.supersede(f"{offer.name} {offer.version}")
        else:
            self._fetch(offer)
        return self._interval_s()

    def _may_replace(self, back: bool) -> bool:
        """Whether a model on probation may give way unasked; back : to the one before it."""
        automatic = self._settings.install != "ask"
        return automatic and (back or self._trial.proof.may_give_way())

    def _choose(self, offers: Collection[Offer], installed: Installed | None) -> Choice:
        """What the repository has for this device in place of this model."""
        settings, rejected = self._settings, self._store.state.rejected
        return choose(offers, self._device, settings.channel, installed, rejected)

    def _fetch(self, offer: Offer) -> None:
        """Make it the candidate; a probation goes on until it is there, and then ends."""
        progress, trial = self._progress, self._trial
        next_step_s = self._now()

        def received(n_bytes: int) -> None:
            nonlocal next_step_s
            if self._ending.is_set():
                raise _EndingError
            if not trial.going_on:
                progress.phase("download", min(1.0, n_bytes / max(1, offer.length)))
            elif self._now() >= next_step_s:
                next_step_s = self._now() + trial.step()

        received(0)
        path = self._repository.download(offer, self._store, received)
        if trial.going_on:
            by = f"{offer.name} {offer.version}"
            if not trial.proof.interruptible:
                raise UpdateDeferredError(f"{by} waits until another model has been taken back")
            trial.proof.supersede(by)
        progress.phase("check")
        self._store.stage(path, _installed(offer))

    def _done(self, result: Result | None, reason: str) -> float:
        """The look has come to its end; the next one is due in an interval."""
        self._failures = 0
        if result is not None:
            self._progress.result(result, reason)
        self._progress.phase("idle")
        return self._look_in(self._interval_s())

    def _failed(self, result: Result, reason: str, asked: bool = False) -> float:
        """Try again soon, then less and less often; what was asked for stays asked."""
        self._keep_asked(asked)
        self._progress.result(result, reason)
        self._progress.phase("waiting" if result == "deferred" else "idle")
        return self._look_in(self._retry_s())

    def _keep_asked(self, asked: bool) -> None:
        with self._lock:
            self._asked = self._asked or asked

    def _interval_s(self) -> float:
        return self._settings.interval_s * self._random.uniform(0.75, 1.25)

    def _retry_s(self) -> float:
        """Longer with each failure, up to the interval."""
        pause_s = min(_RETRY_S * 2.0 ** min(self._failures, 20), self._settings.interval_s)
        self._failures += 1
        return pause_s * self._random.uniform(0.5, 1.5)

    def _until_hours_s(self) -> float:
        """Until updates may begin: not all at once, and early enough to begin within the hours."""
        wait_s = self._settings.until_hours_s(self._local())
        spread_s = min(self._settings.spread_s, self._settings.hours_s / 2)
        return wait_s + self._random.uniform(0.0, spread_s) if wait_s > 0.0 else 0.0

    def _look_in(self, wait_s: float) -> float:
        """Seconds until the next look; a request that came meanwhile has its own time."""
        with self._lock:
            if not self._requested:
                self._next_look_s = self._now() + wait_s
            return max(0.0, self._next_look_s - self._now())


def _installed(offer: Offer) -> Installed:
    return Installed(offer.name, offer.version, offer.sha256)
