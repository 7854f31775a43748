"""One source: heard, scored and reported; opened again when it is lost.

Each opening is a stream of its own, numbered from 0: what was open before it ends, and windows,
events and levels begin afresh.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from soundpost.device.audio import AudioBlock, check_channel, select_channel
from soundpost.device.bundle import Bundle
from soundpost.device.capture import BlockSource, gathered, open_source
from soundpost.device.clips import ClipRecorder, Clips
from soundpost.device.clock import SampleClock, clock_synchronised
from soundpost.device.detection import Detection
from soundpost.device.errors import CaptureError, SoundpostError
from soundpost.device.event_reporter import EventReporter
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.level_record import LevelRecord
from soundpost.device.levels import LevelMeter, Levels
from soundpost.device.observer import Observer
from soundpost.device.pipeline import Pipeline, ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.source_health import HEALTH_INTERVAL_S, SourceHealth
from soundpost.device.source_models import Difference, SourceModels

logger = logging.getLogger(__name__)

# Pause between two attempts to open a source that is away: a microphone that was plugged in again
# is to be heard within five seconds, the driver's own start included.
RETRY_S = 1.0
# Compute times are kept for the median of the last ten minutes, not for a year.
_COMPUTE_KEPT = 2_400


@dataclass
class SourceTotals:
    """What one source has done so far; compute_s holds one value per window."""

    seconds: float = 0.0
    windows: int = 0
    events: int = 0
    gaps: int = 0
    overflows: int = 0
    compute_s: list[float] = field(default_factory=list)

    def median_compute_s(self) -> float:
        """Median compute time of a window, 0 before the first."""
        return statistics.median(self.compute_s) if self.compute_s else 0.0


class Listener(threading.Thread):
    """Runs one source to its end.

    error : why it could not go on, once `ended` is set
    totals : what it has done so far
    models : how its models do
    is_open : whether its source delivers sound
    """

    def __init__(
        self,
        plan: SourcePlan,
        device_id: str,
        publisher: Publisher,
        observer: Observer,
        clips: Clips | None = None,
    ) -> None:
        super().__init__(name=f"source-{plan.name}", daemon=True)
        self.plan = plan
        self.totals = SourceTotals()
        self.error: Exception | None = None
        self.ended = threading.Event()
        self._device_id = device_id
        self._publisher = publisher
        self._observer = observer
        self._clips = clips
        self._changed = threading.Condition()
        self._stopping = False
        self._next: SourcePlan | None = None
        # Monotonic time until which it is paused, infinity without an end; None: it is not.
        self._paused_until_s: float | None = None
        self._health = SourceHealth(device_id, plan.name, publisher, observer, clips)
        self.models = SourceModels(plan.name, self._differ)
        self.is_open = False

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def retune(self, plan: SourcePlan) -> None:
        """Go on with another plan of the same source, url, options and channel.

        It is taken between two blocks: no sample is lost. Another bundle's windows go on where
        those of the old one end, and so do its events.
        """
        with self._changed:
            self._next = plan

    def pause(self, until_s: float = math.inf) -> None:
        """Close the source until `resume`, or until a monotonic time; returns at once."""
        with self._changed:
            self._paused_until_s = until_s
            self._changed.notify_all()

    def resume(self) -> None:
        """Open the source again; returns at once."""
        with self._changed:
            self._paused_until_s = None
            self._changed.notify_all()

    @property
    def planned(self) -> SourcePlan:
        """The plan it has or is about to take."""
        with self._changed:
            return self._next or self.plan

    @property
    def paused_until_s(self) -> float | None:
        """Monotonic time at which it goes on, infinity if only a person says; None: it listens."""
        with self._changed:
            until_s = self._paused_until_s
            return None if until_s is None or until_s <= time.monotonic() else until_s

    def notice(self, text: str | None) -> None:
        """What health says of the sensor as a whole from now on."""
        self._health.notice = text

    def run(self) -> None:
        """Listen until told to stop, the source ends, or it cannot go on."""
        try:
            self._publisher.publish_retained(self._paused_topic, "OFF")
            while not self._stopping:
                if self.paused_until_s is not None:
                    self._rest()
                    continue
                try:
                    if self._listen():
                        self._health.report("ok", "the source has ended")
                        break
                except CaptureError as error:
                    self._lose(error)
        except SoundpostError as error:
            self._fail(error, str(error))
        except Exception as error:  # The one broad catch: a source's fault must not end the others.
            logger.exception("source %s stopped by a fault in soundpost", self.plan.name)
            self._fail(error, f"fault in soundpost: {error!r}")
        finally:
            self.ended.set()

    def _differ(self, found: Difference) -> None:
        """The model that is tried hears something else than the one that runs."""
        sample = round(found.at_s * self._health.rate_hz)
        scores = found.old_score, found.new_score
        self._observer.compared(self.plan.name, sample, found.label, *scores)

    def _fail(self, error: Exception, reason: str) -> None:
        self.error = error
        self._health.report("failed", reason)

    def _lose(self, error: CaptureError) -> None:
        """A sound device that is away may come back: say so, wait, and try again."""
        paused_until_s = self._paused_until_s
        self._health.failing(str(error))
        self._observer.lost(self.plan.name, error)
        self._wait(RETRY_S, paused_until_s)

    def _wait(self, timeout_s: float, paused_until_s: float | None) -> None:
        """Wait until told to stop, to be paused otherwise than until then, or for so long."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._paused_until_s != paused_until_s, timeout_s
            )

    @property
    def _paused_topic(self) -> str:
        return self._publisher.topics.paused(self.plan.name)

    def _rest(self) -> None:
        """Say that it is paused, and when that ends; return when it has."""
        self._publisher.publish_retained(self._paused_topic, "ON")
        while not self._stopping and (until_s := self.paused_until_s) is not None:
            left_s = until_s - time.monotonic()
            self._take_plan(None)
            self._health.resting(
                "paused by a command"
                if math.isinf(until_s)
                else f"paused by a command until {_clock_time(left_s)}"
            )
            # A resume since then, while that was published, ends the wait as well.
            self._wait(min(left_s, HEALTH_INTERVAL_S), until_s)
        self._publisher.publish_retained(self._paused_topic, "OFF")

    def _take_plan(self, stream: _Stream | None) -> None:
        """Change to the next plan, if there is one; a stream that runs does so with its sound."""
        with self._changed:
            old, plan = self.plan, self._next
            if plan is None:
                return
            self.plan, self._next = plan, None
        if stream is not None:
            stream.retune(plan)
        else:
            announce_labels(self._publisher, plan.name, _labels(old), _labels(plan))

    def _listen(self) -> bool:
        """Hear the source; whether it has ended by itself, or because of `stop`."""
        self._take_plan(None)
        plan = self.plan
        with open_source(plan.url, **plan.options) as source:
            stream = _Stream(
                plan,
                source,
                self._device_id,
                self._publisher,
                self._observer,
                self._health,
                self.totals,
                self.models,
                self._clips,
            )
            try:
                self.is_open = True
                for block in gathered(source.blocks(), lambda: stream.wanted):
                    if self._stopping:
                        return True
                    if self.paused_until_s is not None:
                        return False
                    self._take_plan(stream)
                    stream.push(block)
            finally:
                self.is_open = False
                # Also where the source failed: no alert stays on that nobody listens for.
                stream.finish()
        return True


def _clock_time(left_s: float) -> str:
    until = datetime.now(timezone.utc) + timedelta(seconds=left_s)
    return until.strftime("%Y-%m-%d %H:%M:%S UTC")


def _labels(plan: SourcePlan) -> tuple[str, ...]:
    return plan.bundle.manifest.labels


def _model_ref(bundle: Bundle) -> ModelRef:
    manifest = bundle.manifest
    return ModelRef(manifest.name, manifest.version, manifest.sha256["model.tflite"])


def announce_labels(
    publisher: Publisher, source: str, before: Iterable[str], after: Iterable[str]
) -> None:
    """Take the retained states of labels that are gone away, and begin those that are new."""
    for label in sorted(set(before) - set(after)):
        publisher.publish_retained(publisher.topics.state(source, label), "")
    for label in sorted(set(after) - set(before)):
        publisher.publish_state(source, label, False)


class _Stream:
    """One opening of a source, from its first sample to its end."""

    def __init__(
        self,
        plan: SourcePlan,
        source: BlockSource,
        device_id: str,
        publisher: Publisher,
        observer: Observer,
        health: SourceHealth,
        totals: SourceTotals,
        models: SourceModels,
        clips: Clips | None,
    ) -> None:
        check_channel(plan.channel, source.n_channels, source.name)
        source.channel = plan.channel
        self._plan = plan
        self._source = source
        self._device_id = device_id
        self._publisher = publisher
        self._observer = observer
        self._health = health
        self._totals = totals
        self._models = models
        self._id = uuid7()
        self._clock = SampleClock(source.rate_hz)
        self._meter = self._new_meter()
        self._pipeline = Pipeline(
            plan.bundle,
            plan.interpreter,
            source.rate_hz,
            classes=plan.classes,
            channel=plan.channel,
        )
        # Of the labels and events that were told last.
        self._bundle = plan.bundle
        self._reporter = EventReporter(
            device_id,
            plan.name,
            self._id,
            _model_ref(plan.bundle),
            self._pipeline,
            self._clock,
            self._meter,
        )
        self._clips: ClipRecorder | None = None
        if clips is not None:
            manifest = plan.bundle.manifest
            self._clips = clips.recorder(
                plan.name, source.rate_hz, source.n_channels, plan.channel, manifest
            )
        logger.info("source %s listens to %s", plan.name, source.name)
        self._models.opened()
        self._health.opened(self._id, source.rate_hz, plan.channel)
        self._observer.opened(plan.name, self._id, source.rate_hz, source.n_channels)
        self._observer.tuned(plan.name, plan)

    def _new_meter(self) -> LevelMeter | None:
        levels, rate_hz = self._plan.levels, self._source.rate_hz
        if levels is None:
            return None
        return LevelMeter(rate_hz, levels.interval_s, levels.profile, bands=levels.bands)

    def retune(self, plan: SourcePlan) -> None:
        """Go on with another plan of the same sound; between two blocks."""
        if plan.levels != self._plan.levels:
            self._finish_levels()
            self._plan = plan
            self._meter = self._new_meter()
            self._reporter.measure(self._meter)
        self._plan = plan
        self._report(self._pipeline.retune(plan.bundle, plan.interpreter, plan.classes))
        if plan.interpreter is self._pipeline.interpreter:
            self._observer.tuned(plan.name, plan)

    @property
    def wanted(self) -> int:
        """Samples that the next window needs: fewer do not help yet."""
        return self._pipeline.wanted

    def _change_model(self) -> None:
        """The window that comes is the first of another model."""
        before, self._bundle = self._bundle, self._pipeline.bundle
        self._announce(before, self._bundle)
        self._reporter.use(_model_ref(self._bundle))
        if self._clips is not None:
            self._clips.use(self._bundle.manifest)
        self._observer.tuned(self._plan.name, self._plan)
        logger.info("source %s goes on with %s", self._plan.name, self._bundle.where)

    def _announce(self, before: Bundle, after: Bundle) -> None:
        labels = before.manifest.labels, after.manifest.labels
        announce_labels(self._publisher, self._plan.name, *labels)

    def push(self, block: AudioBlock) -> None:
        """Hear one block."""
        arrived_s = block.time_s if block.time_s is not None else time.monotonic()
        self._clock.update(block.first_sample + len(block.samples), arrived_s)
        self._health.heard(block, arrived_s, self._source.overflows)
        self._observer.heard(self._plan.name, block)
        if self._clips is not None:
            self._clips.heard(block)
        # First, so that an event knows how loud the sound was that ended its window.
        self._measure(block)
        for window in self._pipeline.push(block):
            self._take(window)
        self._models.heard(block, self._pipeline)
        if self._clips is not None:
            for event, decided_s in self._clips.ready():
                self._publish(event, decided_s)
        totals = self._totals
        totals.seconds += len(block.samples) / self._source.rate_hz
        totals.gaps, totals.overflows = self._health.gaps, self._health.overflows
        self._health.keep(self._source.fault or self._models.fault)

    def finish(self) -> None:
        """End what is open: the interval of levels, and every event."""
        self._finish_levels()
        for window in self._pipeline.finish():
            self._take(window)
        if self._clips is not None:
            for event, decided_s in self._clips.finish():
                self._publish(event, decided_s)
        # Where another model's first window never came: the next stream begins with it.
        self._announce(self._bundle, self._pipeline.next_bundle or self._pipeline.bundle)

    def _finish_levels(self) -> None:
        if self._meter is not None:
            for levels in self._meter.finish():
                self._publish_level(levels, self._meter)

    def _measure(self, block: AudioBlock) -> None:
        if self._meter is not None:
            mono = select_channel(block.samples, self._plan.channel)
            for levels in self._meter.push(mono, block.first_sample):
                self._publish_level(levels, self._meter)

    def _publish_level(self, levels: Levels, meter: LevelMeter) -> None:
        if self._plan.levels is None or not self._plan.levels.publish:
            return
        record = LevelRecord.of(
            levels,
            meter,
            device=self._device_id,
            source=self._plan.name,
            time=self._clock.utc(levels.first_sample),
            time_synced=clock_synchronised(),
            stream=self._id,
        )
        self._publisher.publish_level(record)
        self._observer.measured(record)

    def _take(self, window: ScoredWindow) -> None:
        pipeline, totals = self._pipeline, self._totals
        if pipeline.bundle is not self._bundle:
            self._change_model()
        self._models.scored(window, pipeline.bundle, pipeline.detector.classes)
        if len(window.scores):
            totals.windows += 1
            totals.compute_s.append(window.seconds)
        if len(totals.compute_s) > _COMPUTE_KEPT:
            del totals.compute_s[: _COMPUTE_KEPT // 2]
        self._observer.scored(self._plan.name, window)
        if self._clips is not None:
            self._clips.scored(window)
        self._report(window.detections)

    def _report(self, detections: Iterable[Detection]) -> None:
        totals = self._totals
        for detection in detections:
            event = self._reporter.event(detection)
            totals.events += detection.phase == "start"
            decided = self._pipeline.to_source_sample(detection.window_end_sample)
            decided_s = self._clock.monotonic_s(decided)
            if self._clips is None or not self._clips.hold(event, decided_s):
                self._publish(event, decided_s)
            if detection.phase != "update":
                on = detection.phase == "start"
                self._publisher.publish_state(self._plan.name, event.label, on)

    def _publish(self, event: SoundEvent, decided_s: float) -> None:
        # The stream's clock knows how long ago that was, whatever the system clock says.
        self._publisher.publish_event(event, max(0.0, self._clock.age_s(event.sample)))
        logger.info("%s %s %s score %.2f", event.source, event.label, event.phase, event.score)
        self._observer.reported(event, decided_s)
