"""Detections of one stream as the events that are published: identity, times, level."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from soundpost.device.clock import SampleClock, clock_synchronised
from soundpost.device.detection import Detection
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.levels import LevelMeter
from soundpost.device.pipeline import Pipeline


@dataclass
class _OpenEvent:
    """What all phases of an event share; onset by the clock as it stood at the report.

    sample : of the onset, at the source's rate: another model's front end may round it otherwise
    """

    id: str
    onset: datetime
    sample: int
    time_synced: bool
    level_dba: float | None = None
    reports: int = 0


class EventReporter:
    """Makes events of one stream's detections.

    device, source, stream, model : as every event names them
    meter : tells how loud an event was, if its microphone is calibrated
    """

    def __init__(
        self,
        device: str,
        source: str,
        stream: str,
        model: ModelRef,
        pipeline: Pipeline,
        clock: SampleClock,
        meter: LevelMeter | None,
    ) -> None:
        self._device = device
        self._source = source
        self._stream = stream
        self._model = model
        self._pipeline = pipeline
        self._clock = clock
        self.measure(meter)
        self._open: dict[str, _OpenEvent] = {}

    def measure(self, meter: LevelMeter | None) -> None:
        """Take levels from this meter from now on."""
        self._meter = meter if meter is not None and meter.profile.calibrated else None

    def use(self, model: ModelRef) -> None:
        """Name another model from now on; events that are open go on."""
        self._model = model

    def event(self, detection: Detection) -> SoundEvent:
        """The event of a detection."""
        label, clock, pipeline = detection.label, self._clock, self._pipeline
        if detection.phase == "start":
            sample = pipeline.to_source_sample(detection.onset_sample)
            onset = clock.utc(sample)
            self._open[label] = _OpenEvent(uuid7(), onset, sample, clock_synchronised())
        known = self._open[label]
        sample = known.sample
        if not known.time_synced and clock_synchronised():
            known.onset, known.time_synced = clock.utc(sample), True
        offset = end = None
        if detection.offset_sample is not None:
            # By the count of samples: the system clock may have been set since the onset.
            end = pipeline.to_source_sample(detection.offset_sample)
            offset = known.onset + timedelta(seconds=(end - sample) / pipeline.rate_hz)
        report, known.reports = known.reports, known.reports + 1
        if detection.phase == "end":
            del self._open[label]
        return SoundEvent(
            id=known.id,
            device=self._device,
            source=self._source,
            label=label,
            phase=detection.phase,
            score=round(min(1.0, float(detection.score)), 4),
            threshold=round(float(detection.threshold), 4),
            onset=known.onset,
            offset=offset,
            time_synced=known.time_synced,
            stream=self._stream,
            sample=sample,
            rate_hz=pipeline.rate_hz,
            model=self._model,
            level_dba=self._loudest_dba(known, sample, end),
            # A steady sound says nothing else that tells one update from the next.
            report=report,
        )

    def _loudest_dba(self, known: _OpenEvent, sample: int, end_sample: int | None) -> float | None:
        """LAFmax of an event so far in dB SPL, None without a calibrated microphone."""
        if self._meter is None:
            return None
        # The meter remembers a minute; what was louder before was taken at an earlier phase.
        found = self._meter.fast_max_db(sample, end_sample)
        if found is not None:
            found = round(found, 1)
            known.level_dba = found if known.level_dba is None else max(known.level_dba, found)
        return known.level_dba
