"""What the sensor publishes of an update while it goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from soundpost.device.bundle import read_bundle
from soundpost.device.errors import SoundpostError
from soundpost.device.updates.boot import Boot
from soundpost.device.updates.live_sensor import LiveSensor
from soundpost.device.updates.model_state import ModelState, Phase, Result
from soundpost.device.updates.offers import Installed

_LOGGER = logging.getLogger(__name__)

# Each state is a retained message; a bar does not need more steps than these.
_STEP = 0.02


def utc_now() -> datetime:
    """The system clock's time."""
    return datetime.now(timezone.utc)


class Progress:
    """Composes the state and shows it where it has changed.

    channel : None: updates are off
    utc : system clock
    """

    def __init__(
        self,
        device: str,
        channel: str | None,
        boot: Boot,
        sensor: LiveSensor,
        utc: Callable[[], datetime] = utc_now,
    ) -> None:
        self._device, self.channel = device, channel
        self._boot, self._sensor = boot, sensor
        self._utc = utc
        self._phase: Phase = "off" if channel is None else "idle"
        self._progress: float | None = None
        self._shown: ModelState | None = None
        self._settings_model: tuple[Path, Installed] | None = None
        self._lock = threading.RLock()
        self.offered: Installed | None = None
        self.drift: float | None = None

    def phase(self, phase: Phase, progress: float | None = None) -> None:
        """What it is doing now."""
        with self._lock:
            if phase != self._phase:
                _LOGGER.info("update: %s", phase)
            near = (
                phase == self._phase
                and progress is not None
                and self._progress is not None
                and abs(progress - self._progress) < _STEP
                and progress < 1.0
            )
            if not near:
                self._phase, self._progress = phase, progress
            self.show()

    def result(self, result: Result, reason: str) -> None:
        """How a try ended; kept on disk."""
        _LOGGER.info("update: %s: %s", result, reason)
        record = self._boot.record
        assert record is not None
        with self._lock:
            # The same again, as from a server that is away for days, is no news to write down.
            known = record.record
            if (known.result, known.reason) != (result, reason):
                record.try_change(result=result, reason=reason[:400], result_time=self._utc())

    def proving(self, model: Installed) -> None:
        """A model is heard with, and has to prove itself."""
        self.result("installed", f"{model.name} {model.version} is on probation")

    def ended(self, result: Result, model: Installed, reason: str) -> None:
        """How the try of a model ended, which was the last step of it."""
        self.result(result, f"{model.name} {model.version}: {reason}")
        self.phase("idle")

    @property
    def state(self) -> ModelState:
        """As it is now."""
        boot, running = self._boot, self._sensor.running
        store = boot.store
        with self._lock:
            known = None if boot.record is None else boot.record.record
            tried = store is not None and running == store.state.current
            return ModelState(
                device=self._device,
                time=self._utc(),
                phase=self._phase,
                installed=running,
                confirmed=not tried or store is None or store.state.confirmed,
                progress=self._progress,
                offered=self.offered if self.offered != running else None,
                previous=self.previous() if tried else None,
                channel=self.channel,
                result=(known.result or None) if known else None,  # type: ignore[arg-type]
                reason=(known.reason or None) if known else boot.fault,
                result_time=known.result_time if known else None,
                drift=self.drift,
            )

    def show(self) -> None:
        """Publish the state, if it says anything new."""
        with self._lock:
            state = self.state
            before = self._shown
            if before is None or state.to_dict() != {
                **before.to_dict(),
                "time": state.to_dict()["time"],
            }:
                self._shown = state
                self._sensor.show(state)

    def previous(self) -> Installed | None:
        """What the model on probation goes back to; None: the settings' bundle cannot be read."""
        assert self._boot.store is not None
        previous = self._boot.store.state.previous
        if previous is not None:
            return previous
        # Another one may be chosen by hand.
        path = self._boot.settings_path
        if self._settings_model is None or self._settings_model[0] != path:
            try:
                bundle = read_bundle(path)
            except SoundpostError:
                return None
            manifest = bundle.manifest
            model = Installed(manifest.name, manifest.version, bundle.sha256)
            self._settings_model = (path, model)
        return self._settings_model[1]
