"""A model that is heard with and has not proved itself yet: kept, taken back, or replaced.

What `probation.judge` decides is done here. As in `trial`, every step is written down before the
next one begins.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from soundpost.device.bundle import Bundle, read_bundle
from soundpost.device.errors import ConfigError, InputError, SoundpostError, UpdateDeferredError
from soundpost.device.updates.boot import Boot, note_start
from soundpost.device.updates.comparison import Verdict, compare
from soundpost.device.updates.evidence import Evidence
from soundpost.device.updates.heard_sound import SAVE_S, HeardSound, poll_s
from soundpost.device.updates.live_sensor import LiveSensor, ShadowTally, Tally
from soundpost.device.updates.offers import Installed
from soundpost.device.updates.probation import enough, judge
from soundpost.device.updates.progress import Progress
from soundpost.device.updates.update_settings import UpdateSettings

_LOGGER = logging.getLogger(__name__)

# How long sources may take to score a first window of a new model. A source that reconnects is not
# among those that listen.
_SWAP_S = 120.0
# Of the probation, for which two models that were found to hear alike are not compared again.
_CLEARED = 0.1
# Models that give way unasked, one after the other, until one has proved itself or was no good.
_GIVE_WAY = 2
# After a disk that was full.
_RETRY_S = 60.0


class Proof:
    """The model on probation of a store that has no candidate."""

    def __init__(
        self,
        settings: UpdateSettings,
        boot: Boot,
        sensor: LiveSensor,
        progress: Progress,
        evidence: Evidence,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        assert boot.store is not None
        assert boot.record is not None
        self._settings = settings
        self._boot, self._store, self._record = boot, boot.store, boot.record
        self._sensor, self._progress, self._evidence = sensor, progress, evidence
        self._now = now
        self._comparable = True
        self._suspected = False
        # The last comparison that ended well, and until when it stands.
        self._cleared: Verdict | None = None
        self._cleared_until_s = 0.0
        self._swap_until_s: float | None = None
        self._heard_s = 0.0
        self._sound = HeardSound()
        self._probed = ""
        self._saved_s = 0.0
        self._condemned = ""

    def forget(self) -> None:
        """What comes next, be it the same model, begins from what the record says of it."""
        self._probed = ""

    def begin(self) -> None:
        """The sensor was told to hear with the model: its first window is due."""
        self._swap_until_s = self._now() + _SWAP_S

    def step(self) -> float:
        """Do the next thing; returns seconds until the one after it.

        Raises InputError where the disk is full: nothing is lost, and the step is to be done again.
        """
        model = self._store.state.current
        assert model is not None
        if model.sha256 == self._condemned:
            return self._roll_back(model, "")
        if self._sensor.running.sha256 != model.sha256:
            # It was not loaded at the start, for its crashes could not have been counted then.
            note_start(self._record, model)
            try:
                self._sensor.swap(read_bundle(self._store.path(model)))
            except SoundpostError as error:
                return self._roll_back(model, str(error))
            self.begin()
        if self._swap_until_s is not None:
            if not self._sensor.swapped:
                if self._now() < self._swap_until_s:
                    self._progress.phase("swap")
                    return 0.2
                return self._roll_back(model, f"scored no window within {_SWAP_S:g} s")
            self._swap_until_s = None
        tallies = self._sensor.tally()
        heard_s = self._heard(model, tallies)
        usual = self._evidence.usual()
        paired = self._paired_verdict(heard_s)
        judgement = judge(
            tallies,
            usual,
            heard_s,
            self._settings,
            paired,
            comparable=self._comparable,
            suspected=self._suspected,
        )
        if judgement.decision == "roll_back":
            return self._roll_back(model, judgement.reason)
        if judgement.decision == "suspect":
            _LOGGER.warning("%s: %s: compared with the old model", _name(model), judgement.reason)
            self._suspect(True)
        self._progress.phase("probation", min(1.0, heard_s / max(self._settings.probation_s, 1e-9)))
        if judgement.decision == "keep":
            return self._confirm(model, judgement.reason)
        if self._now() - self._saved_s >= SAVE_S:
            self._saved_s = self._now()
            self._record.change(heard_s=heard_s)
        return poll_s(self._settings.probation_s)

    @property
    def interruptible(self) -> bool:
        """Whether the model on probation is heard with, so that it may give way to another one."""
        current = self._store.state.current
        return (
            not self._store.state.confirmed
            and self._store.state.candidate is None
            and self._swap_until_s is None
            and current is not None
            and current.sha256 == self._sensor.running.sha256
        )

    def may_give_way(self) -> bool:
        """Whether it may unasked: with releases that come too often none would prove itself."""
        return self._record.record.gave_way < _GIVE_WAY

    def supersede(self, by: str) -> None:
        """Hear with the model before the one on probation again; that one may be offered again.

        What takes its place is so compared with a model that has proved itself. Raises
        UpdateDeferredError where the model before cannot be loaded, InputError where the disk is
        full: the probation then goes on.

        by : for what, for a person
        """
        state = self._store.state
        model = state.current
        assert model is not None
        self._evidence.end_shadow()
        try:
            self._sensor.swap(read_bundle(self._boot.bundle_path(state.previous)))
        except SoundpostError as error:
            raise UpdateDeferredError(
                f"{_name(model)} cannot give way to {by}, for the model before it cannot be "
                f"loaded: {error}"
            ) from error
        try:
            self._store.roll_back(rejected=False)
        except InputError:
            # Where it is written all the same, only what is not needed any more could not go.
            if self._store.state.current == model:
                self._first_loaded([self._store.path(model)])
                raise
        self.forget()
        known = self._record.record
        # It would have to show all of it again.
        self._record.try_change(
            running=False,
            tested=False,
            shadowed=False,
            compared_s=0.0,
            agreed=False,
            gave_way=known.gave_way + 1,
        )
        self._progress.ended("superseded", model, f"gives way to {by} before it has proved itself")

    def _suspect(self, suspected: bool) -> None:
        if suspected != self._suspected:
            self._suspected = suspected
            self._record.change(suspected=suspected)

    def _heard(self, model: Installed, tallies: Sequence[Tally]) -> float:
        """Sound of the probation, which goes on where an earlier start has left it."""
        if self._probed != model.sha256:
            record = self._record.record.about(model.sha256)
            self._record.save(record)
            self._probed, self._saved_s = model.sha256, self._now()
            self._heard_s, self._sound = record.heard_s, HeardSound()
            self._suspected, self._comparable, self._cleared = record.suspected, True, None
        self._heard_s += self._sound.more_s(tallies)
        return self._heard_s

    def _paired_verdict(self, heard_s: float) -> Verdict | None:
        """Of the same sound, while both models hear: until they are found to hear alike."""
        if not self._comparable:
            return None
        if self._record.record.agreed and not self._suspected:
            return self._cleared if heard_s < self._cleared_until_s else None
        previous = self._store.state.previous
        try:
            pairs = self._evidence.pairs(previous, self._boot.bundle_path(previous))
        except ConfigError as error:
            # The settings have come to speak of labels that the old model lacks: nobody's fault.
            # What is odd cannot be compared then, nor condemned for it.
            return Verdict("undecided", f"not compared: {error}", {"heard_s": math.inf})
        except SoundpostError as error:
            if not self._way_back():
                return Verdict("undecided", f"not compared: {error}", {"heard_s": math.inf})
            _LOGGER.warning("the old model cannot be compared with: %s", error)
            self._comparable = False
            return None
        # Here the model on probation is the one that runs.
        verdict = compare([_turned(pair) for pair in pairs], self._settings)
        # Asked again and again, it would be so by chance once.
        if verdict.outcome == "alike" and verdict.figures["heard_s"] >= enough(self._settings):
            self._evidence.end_shadow()
            self._record.change(agreed=True)
            self._suspect(False)
            self._cleared = verdict
            self._cleared_until_s = heard_s + _CLEARED * self._settings.probation_s
        return verdict

    def _way_back(self) -> bool:
        """Whether there is a bundle to go back to that can be read."""
        try:
            read_bundle(self._boot.settings_path)
        except SoundpostError:
            return False
        return True

    def _confirm(self, model: Installed, reason: str) -> float:
        self._store.confirm()
        self._evidence.end_shadow()
        self._record.try_change(running=False, gave_way=0)
        self._evidence.note_usual()
        self._progress.ended("confirmed", model, reason)
        return 0.0

    def _roll_back(self, model: Installed, reason: str) -> float:
        """Back to the model before; without a disk to note it on, first of all by ear."""
        self._evidence.end_shadow()
        self._swap_until_s = None
        first = self._condemned != model.sha256
        if first:
            self._condemned = model.sha256
            self._progress.result("rolled_back", f"{_name(model)}: {reason}")
        self._progress.phase("roll_back")
        previous = self._store.state.previous
        bundle = self._first_loaded([self._boot.bundle_path(previous), self._boot.settings_path])
        try:
            self._store.roll_back()
            self._record.try_change(running=False, gave_way=0)
        except InputError as error:
            _LOGGER.warning("%s", error)
            return _RETRY_S
        if bundle is None:
            self._progress.result(
                "failed", f"{_name(model)}: {reason}; the model before it cannot be loaded"
            )
        self._progress.phase("idle")
        return 0.0

    def _first_loaded(self, paths: Sequence[Path]) -> Bundle | None:
        """Hear with the first of these bundles that can be loaded."""
        for path in paths:
            try:
                bundle = read_bundle(path)
                if self._sensor.running.sha256 != bundle.sha256:
                    self._sensor.swap(bundle)
            except SoundpostError as error:
                _LOGGER.error("%s", error)
            else:
                return bundle
        return None


def _turned(pair: ShadowTally) -> ShadowTally:
    """With old and new exchanged."""
    agreement = {
        label: (both, only_new, only_old, neither)
        for label, (both, only_old, only_new, neither) in pair.agreement.items()
    }
    return ShadowTally(pair.new, pair.old, agreement)


def _name(model: Installed) -> str:
    return f"{model.name} {model.version}"
