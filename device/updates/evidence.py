"""What speaks for and against a model that is tried: what is usual, and the other model's ear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from soundpost.device.bundle import read_bundle
from soundpost.device.updates.comparison import merge
from soundpost.device.updates.live_sensor import LiveSensor, ShadowTally, Tally
from soundpost.device.updates.offers import Installed
from soundpost.device.updates.update_record import RecordFile


class Evidence:
    """Collects it from the sensor; what must survive a restart is in the record."""

    def __init__(self, record: RecordFile, sensor: LiveSensor) -> None:
        self._record, self._sensor = record, sensor
        # The model that hears beside the one that runs; None: there is none.
        self._beside: str | None = None
        self._seen = False

    def pairs(self, model: Installed | None, path: Path) -> Sequence[ShadowTally]:
        """What both models have made of the same sound since this one hears beside the other.

        It is made to hear where it does not yet, or no more. Raises SoundpostError where it cannot
        be loaded.

        model, path : None, and its file: the model of the settings
        """
        mark = "" if model is None else model.sha256
        if self._beside == mark:
            pairs = self._sensor.shadow()
            if pairs or not self._seen:
                self._seen = bool(pairs)
                return pairs
        self._sensor.begin_shadow(read_bundle(path))
        self._beside, self._seen = mark, False
        return ()

    def end_shadow(self) -> None:
        """Let the sensor hear with one model again."""
        if self._beside is not None:
            self._sensor.end_shadow()
            self._beside = None

    def note_usual(self) -> None:
        """What is usual for the model that runs, unless more of its sound is noted already."""
        tally, sha256 = merge(self._sensor.tally()), self._sensor.running.sha256
        known = self._record.record
        if known.usual_sha256 == sha256 and known.usual_heard_s >= tally.heard_s:
            return
        self._record.try_change(
            usual_sha256=sha256,
            usual={label: list(counts) for label, counts in tally.scores.items()},
            usual_events=dict(tally.events),
            usual_windows=tally.windows,
            usual_heard_s=tally.heard_s,
            usual_compute_s=tally.compute_s,
        )

    def usual(self, sha256: str | None = None) -> Tally | None:
        """What was noted, of this model if one is named; None: nothing was."""
        known = self._record.record
        if known.usual is None or sha256 not in (None, known.usual_sha256):
            return None
        return Tally(
            "",
            known.usual_heard_s,
            known.usual_windows,
            0,
            known.usual_compute_s,
            known.usual_events or {},
            known.usual,
        )
