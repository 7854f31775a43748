"""What a source tells of itself: what it lost since the start, and when to say so."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from soundpost.device.audio import AudioBlock, Channel
from soundpost.device.board import Board, processor_time_s
from soundpost.device.clips import Clips
from soundpost.device.health import Gap, Health, HealthState
from soundpost.device.observer import Observer
from soundpost.device.publisher import Publisher

HEALTH_INTERVAL_S = 30.0


class SourceHealth:
    """Counts what one source loses and publishes its health when it changes, or is due.

    The first loss is told at once; a machine that loses sound all the time is not given a message
    for each block on top.
    """

    def __init__(
        self,
        device: str,
        source: str,
        publisher: Publisher,
        observer: Observer,
        clips: Clips | None = None,
    ) -> None:
        self.gaps = 0
        self.overflows = 0
        self.lost_s = 0.0
        self.streams = 0
        self.last_gap: Gap | None = None
        # What a person should know of the sensor as a whole; told with the next record.
        self.notice: str | None = None
        self._device = device
        self._source = source
        self._publisher = publisher
        self._observer = observer
        self._clips = clips
        self._began_s = time.monotonic()
        self._due_s = 0.0
        self._cpu = (time.monotonic(), processor_time_s())
        self._told = (0, 0)
        self._fault: str | None = None
        self._notice: str | None = None
        self._state: HealthState | None = None
        self._reason: str | None = None
        # Of the stream that runs or ran last.
        self._stream = ""
        self._rate_hz = 0
        self._channel: Channel = "mix"
        self._expected: int | None = None
        # End of the last gap: one that goes on over several blocks is one.
        self._lost_until = 0
        self._overflows_before = 0
        self._missing: tuple[str, int, int] | None = None
        self._heard_until_s: float | None = None

    @property
    def rate_hz(self) -> int:
        """Of the stream that runs or ran last."""
        return self._rate_hz

    def opened(self, stream: str, rate_hz: int, channel: Channel = "mix") -> None:
        """A stream begins; what it is the successor of is measured when its first block comes.

        channel : the one that is listened to: what others lack is no loss
        """
        if self._expected is not None:
            self._missing = (self._stream, self._rate_hz, self._expected)
        self.streams += 1
        self._stream, self._rate_hz, self._expected = stream, rate_hz, None
        self._channel = channel
        self._lost_until = 0
        self._overflows_before = self.overflows
        self._due_s = 0.0

    def heard(self, block: AudioBlock, end_s: float, overflows: int) -> None:
        """Count a block: its jump in the numbering is a gap, and so is what a new stream missed.

        What is marked as missing in it is a gap, too.

        end_s : monotonic time of the block's end
        overflows : of the stream so far
        """
        if self._missing is not None and self._heard_until_s is not None:
            stream, rate_hz, sample = self._missing
            missed_s = end_s - len(block.samples) / block.rate_hz - self._heard_until_s
            self._lose(Gap(stream, sample, max(0, round(missed_s * rate_hz))), rate_hz)
        elif self._expected is not None and block.first_sample != self._expected:
            self._lose_span(self._expected, block.first_sample, block.rate_hz)
        self._missing = None
        for part in block.missing:
            if part.concerns(self._channel):
                self._lose_span(part.first_sample, part.first_sample + part.length, block.rate_hz)
        self._expected = block.first_sample + len(block.samples)
        self.overflows = self._overflows_before + overflows
        self._heard_until_s = end_s

    def _lose_span(self, first: int, end: int, rate_hz: int) -> None:
        """Lose samples of the running stream; what other channels lacked before counts once."""
        last = self.last_gap
        if last is not None and last.stream == self._stream and first <= self._lost_until:
            more = max(0, end - self._lost_until)
            self.last_gap = Gap(last.stream, last.sample, last.samples + more)
            self.lost_s += more / rate_hz
        else:
            self._lose(Gap(self._stream, first, end - first), rate_hz)
        self._lost_until = max(self._lost_until, end)

    def _lose(self, gap: Gap, rate_hz: int) -> None:
        self.gaps += 1
        self.lost_s += gap.samples / rate_hz
        self.last_gap = gap

    def keep(self, source_fault: str | None) -> None:
        """Between blocks: publish what is new, or what is due.

        source_fault : what is wrong with what the source delivers
        """
        now_s = time.monotonic()
        lost, notice = (self.gaps, self.overflows), source_fault or self.notice
        fault = notice or self._publisher.fault
        if fault is None and self._clips is not None:
            fault = self._clips.fault
        news = lost != self._told or fault != self._fault or self._state in ("failed", "paused")
        at_once = notice != self._notice or (news and self._state != "degraded")
        if now_s < self._due_s and not at_once:
            return
        if source_fault is not None:
            self.report("degraded", source_fault)
        elif lost != self._told:
            self.report("degraded", f"sound was lost: {self.lost_s:.3g} s since the start")
        elif fault is not None:
            self.report("degraded", fault)
        else:
            self.report("ok", None)
        self._told, self._fault, self._notice = lost, fault, notice

    def failing(self, reason: str) -> None:
        """It does not listen: publish that when it is new, or due."""
        self._idle("failed", reason)

    def resting(self, reason: str) -> None:
        """It was told not to listen: publish that when it is new, or due; no sound is lost."""
        self._expected = self._missing = None
        self._idle("paused", reason)

    def _idle(self, state: HealthState, reason: str) -> None:
        if (self._state, self._reason) != (state, reason) or time.monotonic() >= self._due_s:
            self.report(state, reason)

    def report(self, state: HealthState, reason: str | None) -> None:
        """Publish the health as it is now."""
        now_s, used_s = time.monotonic(), processor_time_s()
        span_s, busy_s = now_s - self._cpu[0], max(0.0, used_s - self._cpu[1])
        self._state, self._reason = state, reason
        self._due_s = now_s + HEALTH_INTERVAL_S
        health = Health(
            device=self._device,
            source=self._source,
            time=datetime.now(timezone.utc),
            state=state,
            reason=reason,
            uptime_s=round(now_s - self._began_s, 3),
            streams=self.streams,
            gaps=self.gaps,
            overflows=self.overflows,
            lost_s=round(self.lost_s, 3),
            last_gap=self.last_gap,
            queue=self._publisher.queued,
            dropped=self._publisher.dropped,
            clips=None if self._clips is None else self._clips.counts(self._source),
            temperature_c=Board().temperature_c,
            cpu_percent=round(100 * busy_s / span_s, 1) if span_s > 0.1 else None,
        )
        self._publisher.publish_health(health)
        self._observer.health(health)
        self._cpu = (now_s, used_s)
