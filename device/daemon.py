"""The resident sensor: sources in, events out, until told to stop.

One thread per source runs its pipeline; the publisher sends from its own. A source that fails
reports why in its health and the others go on.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from soundpost.device.audio import Channel, check_channel
from soundpost.device.bundle import Bundle
from soundpost.device.capture import BlockSource, open_source
from soundpost.device.clock import SampleClock, clock_synchronised
from soundpost.device.detector import ClassSettings, Detection
from soundpost.device.errors import SoundpostError
from soundpost.device.events import Health, HealthState, ModelRef, SoundEvent, uuid7
from soundpost.device.interpreter import Interpreter
from soundpost.device.mqtt import Publisher
from soundpost.device.pipeline import Pipeline, ScoredWindow

logger = logging.getLogger(__name__)

HEALTH_INTERVAL_S = 30.0


@dataclass(frozen=True)
class SourcePlan:
    """What one source listens to and with what.

    name : of its topics
    url : "mic:", "mic:NAME", "file:PATH" or another scheme of soundpost.sources
    options : passed to the opener of the scheme
    classes : detector settings, one per label of the bundle
    """

    name: str
    url: str
    bundle: Bundle
    interpreter: Interpreter
    classes: Sequence[ClassSettings]
    channel: Channel = "mix"
    options: dict[str, Any] = field(default_factory=dict)


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


# Called with an event just handed to the publisher and the monotonic time at which the window that
# decided it ended.
EventHook = Callable[[SoundEvent, float], None]


@dataclass
class _OpenEvent:
    """What all phases of an event share; onset by the clock as it stood at the report."""

    id: str
    onset: datetime
    time_synced: bool


class _SourceThread(threading.Thread):
    """Runs one source to its end; `error` tells why it could not go on."""

    # Compute times are kept for the median of the last ten minutes, not for a year.
    _COMPUTE_KEPT = 2_400

    def __init__(
        self,
        plan: SourcePlan,
        device_id: str,
        publisher: Publisher,
        stopping: threading.Event,
        on_event: EventHook | None,
    ) -> None:
        super().__init__(name=f"source-{plan.name}", daemon=True)
        self.plan = plan
        self.totals = SourceTotals()
        self.error: Exception | None = None
        self.ended = threading.Event()
        self._device_id = device_id
        self._publisher = publisher
        self._stopping = stopping
        self._on_event = on_event
        manifest = plan.bundle.manifest
        self._model = ModelRef(manifest.name, manifest.version, manifest.sha256["model.tflite"])
        self._stream = uuid7()
        self._open: dict[str, _OpenEvent] = {}
        self._began_s = time.monotonic()
        self._health_due_s = 0.0
        self._cpu = (time.monotonic(), time.process_time())
        self._lost = (0, 0)
        self._state: HealthState = "ok"

    def run(self) -> None:
        try:
            self._listen()
        except SoundpostError as error:
            self._fail(error, str(error))
        except Exception as error:  # The one broad catch: a source's fault must not end the others.
            logger.exception("source %s stopped by a fault in soundpost", self.plan.name)
            self._fail(error, f"fault in soundpost: {error!r}")
        finally:
            self.ended.set()

    def _fail(self, error: Exception, reason: str) -> None:
        self.error = error
        self._report("failed", reason)

    def _listen(self) -> None:
        plan = self.plan
        with open_source(plan.url, **plan.options) as source:
            pipeline = Pipeline(
                plan.bundle,
                plan.interpreter,
                source.rate_hz,
                classes=plan.classes,
                channel=plan.channel,
            )
            check_channel(plan.channel, source.n_channels, source.name)
            clock = SampleClock(source.rate_hz)
            logger.info("source %s listens to %s", plan.name, source.name)
            try:
                for block in source.blocks():
                    if self._stopping.is_set():
                        break
                    end = block.first_sample + len(block.samples)
                    arrived = block.time_s if block.time_s is not None else time.monotonic()
                    clock.update(end, arrived)
                    for window in pipeline.push(block):
                        self._take(window, pipeline, clock)
                    self.totals.seconds += len(block.samples) / source.rate_hz
                    self._keep_health(source, pipeline)
            finally:
                # Also where the source failed: no alert stays on that nobody listens for.
                for window in pipeline.finish():
                    self._take(window, pipeline, clock)
        self._report("ok", "the source has ended")

    def _take(self, window: ScoredWindow, pipeline: Pipeline, clock: SampleClock) -> None:
        self.totals.windows = pipeline.windows
        if len(window.scores):
            self.totals.compute_s.append(window.seconds)
        if len(self.totals.compute_s) > self._COMPUTE_KEPT:
            del self.totals.compute_s[: self._COMPUTE_KEPT // 2]
        for detection in window.detections:
            self._publish(detection, pipeline, clock)

    def _publish(self, detection: Detection, pipeline: Pipeline, clock: SampleClock) -> None:
        label = detection.label
        sample = pipeline.to_source_sample(detection.onset_sample)
        if detection.phase == "start":
            self._open[label] = _OpenEvent(uuid7(), clock.utc(sample), clock_synchronised())
            self.totals.events += 1
        known = self._open[label]
        if not known.time_synced and clock_synchronised():
            known.onset, known.time_synced = clock.utc(sample), True
        offset = None
        if detection.offset_sample is not None:
            # By the count of samples: the system clock may have been set since the onset.
            length = pipeline.to_source_sample(detection.offset_sample) - sample
            offset = known.onset + timedelta(seconds=length / pipeline.rate_hz)
        event = SoundEvent(
            id=known.id,
            device=self._device_id,
            source=self.plan.name,
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
        )
        self._publisher.publish_event(event)
        if detection.phase == "start":
            self._publisher.publish_state(self.plan.name, label, True)
        elif detection.phase == "end":
            self._publisher.publish_state(self.plan.name, label, False)
            del self._open[label]
        logger.info("%s %s %s score %.2f", self.plan.name, label, event.phase, event.score)
        if self._on_event is not None:
            decided = pipeline.to_source_sample(detection.window_end_sample)
            self._on_event(event, clock.monotonic_s(decided))

    def _keep_health(self, source: BlockSource, pipeline: Pipeline) -> None:
        lost = self.totals.gaps, self.totals.overflows = (pipeline.gaps, source.overflows)
        now = time.monotonic()
        # The first loss is reported at once; a machine that loses sound all the time is not given
        # a message for each block on top.
        if now < self._health_due_s and (lost == self._lost or self._state == "degraded"):
            return
        if lost == self._lost:
            self._report("ok", None)
        else:
            self._report("degraded", "sound was lost: the machine is too busy")
        self._lost = lost
        self._health_due_s = now + HEALTH_INTERVAL_S

    def _report(self, state: HealthState, reason: str | None) -> None:
        now, used = time.monotonic(), time.process_time()
        span = now - self._cpu[0]
        self._state = state
        self._publisher.publish_health(
            Health(
                device=self._device_id,
                source=self.plan.name,
                time=datetime.now(timezone.utc),
                state=state,
                reason=reason,
                uptime_s=round(now - self._began_s, 3),
                gaps=self.totals.gaps,
                overflows=self.totals.overflows,
                queue=self._publisher.queued,
                dropped=self._publisher.dropped,
                temperature_c=_temperature_c(),
                cpu_percent=round(100 * (used - self._cpu[1]) / span, 1) if span > 0.1 else None,
            )
        )
        self._cpu = (now, used)


def _temperature_c(zone: Path = Path("/sys/class/thermal/thermal_zone0/temp")) -> float | None:
    """Processor temperature, None where the machine does not tell."""
    try:
        return int(zone.read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):
        return None


class Daemon:
    """Sources, their threads and one publisher.

    Parameters
    ----------
    plans : at least one source, with distinct names
    publisher : started and closed by the caller
    on_event : hears of every event and when the window that decided it ended
    """

    def __init__(
        self,
        plans: Sequence[SourcePlan],
        device_id: str,
        publisher: Publisher,
        *,
        on_event: EventHook | None = None,
    ) -> None:
        self._stopping = threading.Event()
        self._threads = [
            _SourceThread(plan, device_id, publisher, self._stopping, on_event) for plan in plans
        ]

    def start(self) -> None:
        """Start listening in the background."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask every source to end; returns at once."""
        self._stopping.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every source has ended; whether they did in time."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            # Not join(): Python 3.11 takes a thread whose join Ctrl-C interrupted for ended.
            if not thread.ended.wait(left_s):
                return False
        return True

    @property
    def totals(self) -> dict[str, SourceTotals]:
        """By source, as they are now."""
        return {thread.plan.name: replace(thread.totals) for thread in self._threads}

    @property
    def errors(self) -> dict[str, Exception]:
        """Why sources could not go on, by source."""
        return {thread.plan.name: thread.error for thread in self._threads if thread.error}
