"""A fetched model's way to be the one that is heard with: self-test, shadow, swap, and its proof.

Every step is written down before the next one begins, so that
after whatever end of the sensor it goes on with the step that was not done. A step is a call that
soon returns, with the time until the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from soundpost.device.bundle import read_bundle
from soundpost.device.errors import ConfigError, InputError, SoundpostError
from soundpost.device.updates.boot import Boot, ends_too_often, note_start, settings_mark
from soundpost.device.updates.comparison import compare
from soundpost.device.updates.evidence import Evidence
from soundpost.device.updates.heard_sound import SAVE_S, HeardSound, poll_s
from soundpost.device.updates.live_sensor import LiveSensor, ShadowTally
from soundpost.device.updates.model_state import Result
from soundpost.device.updates.offers import Installed
from soundpost.device.updates.progress import Progress
from soundpost.device.updates.proof import Proof
from soundpost.device.updates.self_test import SelfTestResult, run_self_test
from soundpost.device.updates.update_settings import UpdateSettings

# After a disk that was full.
_RETRY_S = 60.0

SelfTest = Callable[..., SelfTestResult]


class Trial:
    """The candidate, or the model on probation, of a store.

    ending : tells whether the sensor is about to end; a self-test is then broken off
    """

    def __init__(
        self,
        settings: UpdateSettings,
        boot: Boot,
        sensor: LiveSensor,
        progress: Progress,
        *,
        runtime: str = "auto",
        threads: int = 1,
        ending: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
        self_test: SelfTest = run_self_test,
    ) -> None:
        assert boot.store is not None
        assert boot.record is not None
        self.settings = settings
        self._boot, self._store, self._record = boot, boot.store, boot.record
        self._sensor, self._progress = sensor, progress
        self._runtime, self._threads = runtime, threads
        self._ending, self._now, self._self_test = ending, now, self_test
        self.evidence = Evidence(boot.record, sensor)
        # Of the model in the shadow.
        self._beside, self._compared_s, self._saved_s = "", 0.0, 0.0
        self._sound = HeardSound()
        # Of the model that is on probation, or is going to be.
        self.proof = Proof(settings, boot, sensor, progress, self.evidence, now)

    @property
    def going_on(self) -> bool:
        """Whether there is a model to be tried."""
        state = self._store.state
        return state.candidate is not None or not state.confirmed

    def step(self) -> float:
        """Do the next thing; returns seconds until the one after it."""
        candidate = self._store.state.candidate
        try:
            if candidate is not None:
                return self._try(candidate)
            if not self._store.state.confirmed:
                return self.proof.step()
        except InputError as error:
            # The disk: nothing is lost, and the step is done again.
            self._progress.result("deferred", str(error))
            self._progress.show()
            return _RETRY_S
        return 0.0

    def abandon(self) -> None:
        """Another model was chosen by hand: forget the one that is tried.

        A step may have gone on meanwhile, and made the sensor hear with that one again.
        """
        self.evidence.end_shadow()
        self._store.use_settings()
        self.proof.forget()
        chosen = read_bundle(self._boot.settings_path)
        if self._sensor.running.sha256 != chosen.sha256:
            self._sensor.swap(chosen)

    # ------------------------------------------------------------------- before it is heard with

    def _try(self, model: Installed) -> float:
        record = self._record.record.about(model.sha256)
        self._record.save(record)
        if not record.tested:
            self._progress.phase("self_test")
            result = self._self_test(
                self._store.path(model),
                self.settings,
                reference=self._boot.bundle_path(self._store.state.current),
                runtime=self._runtime,
                threads=self._threads,
                ending=self._ending,
            )
            if result.broken_off:
                return 0.0 if self._ending() else _RETRY_S
            if not result.passed:
                return self._reject(model, result.reason)
            self._record.change(tested=True)
            return 0.0
        if not record.shadowed and self.settings.shadow_s > 0.0:
            return self._shadow(model)
        return self._swap(model)

    def _shadow(self, model: Installed) -> float:
        # The start could not reject it where the disk was full.
        too_often = ends_too_often(self._record.record, self.settings.max_crashes)
        if too_often:
            return self._reject(model, too_often)
        # Before it is loaded: one that crashes the sensor is counted by the next start.
        note_start(self._record, model)
        try:
            pairs = self.evidence.pairs(model, self._store.path(model))
        except ConfigError as error:
            # The settings do not go with it; they may be changed, and it be fetched again.
            self._record.try_change(running=False)
            self._store.discard(rejected=False)
            return self._ended("refused", model, str(error))
        except SoundpostError as error:
            self._record.try_change(running=False)
            return self._reject(model, str(error))
        heard_s = self._compared(model, pairs)
        verdict = compare(pairs, self.settings)
        if verdict.outcome == "worse":
            self._record.try_change(running=False)
            return self._reject(model, f"beside the present model: {verdict.reason}")
        share = min(1.0, heard_s / self.settings.shadow_s)
        self._progress.phase("shadow", share)
        if share < 1.0:
            if self._now() - self._saved_s >= SAVE_S:
                self._saved_s = self._now()
                self._record.change(compared_s=heard_s)
            return poll_s(self.settings.shadow_s)
        self._record.change(shadowed=True, agreed=verdict.outcome == "alike")
        return 0.0

    def _compared(self, model: Installed, pairs: Sequence[ShadowTally]) -> float:
        """Sound of the shadow: a sensor that is on for minutes at a time comes to its end, too."""
        if self._beside != model.sha256:
            self._beside, self._saved_s = model.sha256, self._now()
            self._compared_s, self._sound = self._record.record.compared_s, HeardSound()
        self._compared_s += self._sound.more_s([pair.new for pair in pairs])
        return self._compared_s

    def _swap(self, model: Installed) -> float:
        self._progress.phase("swap")
        try:
            bundle = read_bundle(self._store.path(model))
        except SoundpostError as error:
            return self._reject(model, str(error))
        self.evidence.note_usual()
        # Its probation begins anew, whatever it was before.
        self.proof.forget()
        self._record.change(
            settings_sha256=settings_mark(self._boot.settings_bundle), heard_s=0.0, suspected=False
        )
        note_start(self._record, model)
        self.evidence.end_shadow()
        self._store.switch()
        try:
            self._sensor.swap(bundle)
        except SoundpostError as error:
            self._store.roll_back()
            if isinstance(error, ConfigError):
                self._store.forgive(model.sha256)
                return self._ended("refused", model, str(error))
            return self._ended("rejected", model, str(error))
        self.proof.begin()
        self._progress.proving(model)
        return 0.0

    def _reject(self, model: Installed, reason: str) -> float:
        self.evidence.end_shadow()
        self._store.discard(rejected=True)
        return self._ended("rejected", model, reason)

    def _ended(self, result: Result, model: Installed, reason: str) -> float:
        self._progress.ended(result, model, reason)
        return 0.0
