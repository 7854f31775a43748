"""Clips of events: the sound around each, from a ring in memory to a FLAC file, past the gate.

    listener's thread                              writer's thread
    blocks -> ring; event ends -> span is copied -> gate (speech.py) -> FLAC -> folder
    the event's `end` goes out, naming the clip  <-  outcome

Off unless asked for. No sound touches the disk before the gate has let it pass, and the gate is
closed to what it cannot judge: a gap, too little or too quiet sound, a detector that fails. A slow
disk delays the `end` of an event, never the listener. A folder that cannot be used is told, and
tried again: it costs the clips, not the alerts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Literal

import soxr

from soundpost.device.audio import AudioBlock, Channel, select_channel
from soundpost.device.clip_ring import ClipRing, Int16Array
from soundpost.device.clip_store import ClipSettings, ClipStore
from soundpost.device.errors import InputError, SoundpostError
from soundpost.device.events import SoundEvent
from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.speech import GATE_MARGIN_S, SpeechGate
from soundpost.device.spoken import SpokenSpans

logger = logging.getLogger(__name__)

# How long after its onset an event may be decided and its pre-roll still be in memory: an alarm is
# told from other beeps by its cadence, which takes some seconds.
_DECISION_S = 15.0
# Clips that wait for the writer, at most: a disk slower than the events leaves them out.
_MAX_WAITING = 8
# Bytes of a source's ring, and of all spans that wait for the writer: the service may take 500 MB.
# Five minutes of one channel at 48 kHz take 30 MB.
MAX_RING_BYTES = 64_000_000
_MAX_WAITING_BYTES = 128_000_000
# How often a folder that cannot be used is tried again, and how often what is too old goes.
_RETRY_S = 60.0
_EXPIRE_S = 3_600.0
# What the listener waits for at the end of a stream.
FINISH_S = 2.0

# Of a FLAC file.
MAX_CHANNELS = 8

Outcome = Literal["written", "speech", "unjudged", "failed"]
# By what they are called in the health record.
_COUNTED: Final[dict[Outcome, str]] = {
    "written": "written",
    "speech": "gated",
    "unjudged": "unjudged",
    "failed": "failed",
}


@dataclass(frozen=True)
class _Job:
    """A span that was copied out of the ring.

    sound : (n_samples, n_channels) int16, the margin on both sides included
    first, n_samples : of the clip itself, within `sound`
    sample : of the clip's first, in the stream
    spoken : whether the bundle's own labels said speech
    """

    event: SoundEvent
    sound: Int16Array
    first: int
    n_samples: int
    sample: int
    rate_hz: int
    spoken: bool


@dataclass
class _Verdict:
    """What became of a source's clip; `done` once it is known."""

    source: str
    done: threading.Event
    outcome: Outcome = "failed"
    name: str | None = None


class Clips:
    """The writer of all sources' clips, its thread and its counters.

    Parameters
    ----------
    settings : enabled
    gate : judges every clip

    A folder that cannot be used is a `fault`, and is tried again: with each clip and each minute.

    Raises MissingExtraError where the speech detector is not installed.
    """

    def __init__(self, settings: ClipSettings, gate: SpeechGate | None = None) -> None:
        self.settings = settings
        self._gate = gate if gate is not None else SpeechGate()
        self._store: ClipStore | None = None
        self._jobs: queue.Queue[tuple[_Job, _Verdict] | None] = queue.Queue(_MAX_WAITING)
        self._counts: Counter[tuple[str, Outcome]] = Counter()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._fault: str | None = None
        self._tend()
        self._thread = threading.Thread(target=self._write_all, name="clips", daemon=True)
        self._thread.start()

    def recorder(
        self, source: str, rate_hz: int, n_channels: int, channel: Channel, manifest: Manifest
    ) -> ClipRecorder:
        """For one stream of a source.

        channel : that the source listens to
        manifest : of its bundle, whose labels of speech close the gate too

        Raises InputError where a file cannot hold so many channels.
        """
        if self.settings.channels == "all" and n_channels > MAX_CHANNELS:
            raise InputError(
                f"source {source}: has {n_channels} channels, and a clip holds at most "
                f'{MAX_CHANNELS}; set clips.channels = "source"'
            )
        return ClipRecorder(self, rate_hz, n_channels, channel, manifest)

    def counts(self, source: str) -> dict[str, int]:
        """Clips `written`, `gated` because someone spoke, `unjudged` (not written) and `failed`."""
        with self._lock:
            return {name: self._counts[source, outcome] for outcome, name in _COUNTED.items()}

    @property
    def fault(self) -> str | None:
        """Why clips cannot be written, or the last one was not, in one line; None since one was."""
        return self._fault

    def submit(self, job: _Job) -> _Verdict:
        """Hand a span over; returns at once."""
        verdict = _Verdict(job.event.source, threading.Event())
        try:
            self._hold(job.sound.nbytes)
            self._jobs.put_nowait((job, verdict))
        except queue.Full:
            self._hold(-job.sound.nbytes)
            self._settle(verdict, "failed", fault="clips wait: the disk or processor is too slow")
        return verdict

    def _hold(self, n_bytes: int) -> None:
        with self._lock:
            self._waiting_bytes += n_bytes
            if n_bytes > 0 and self._waiting_bytes > _MAX_WAITING_BYTES:
                raise queue.Full

    def refuse(self, source: str) -> _Verdict:
        """A clip that cannot be judged."""
        verdict = _Verdict(source, threading.Event())
        self._settle(verdict, "unjudged")
        return verdict

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, as far as time allows, and end the thread."""
        deadline_s = time.monotonic() + timeout_s
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _settle(
        self, verdict: _Verdict, outcome: Outcome, name: str | None = None, fault: str | None = None
    ) -> None:
        with self._lock:
            self._counts[verdict.source, outcome] += 1
            if fault is not None and fault != self._fault:
                logger.warning("clip: %s", fault)
            self._fault = fault if fault is not None or outcome == "written" else self._fault
        verdict.outcome, verdict.name = outcome, name
        verdict.done.set()

    def _opened(self) -> ClipStore:
        """The folder; raises InputError while it cannot be used."""
        if self._store is None:
            self._store = ClipStore(self.settings)
            with self._lock:
                self._fault = None
        return self._store

    def _tend(self) -> None:
        """Try the folder again, or delete what has grown too old in it."""
        try:
            self._opened().expire()
        except SoundpostError as error:
            with self._lock:
                if self._fault != str(error):
                    logger.warning("%s; it listens without clips, and tries again", error)
                self._fault = str(error)

    def _write_all(self) -> None:
        tended_s = time.monotonic()
        while True:
            due_s = tended_s + (_RETRY_S if self._store is None else _EXPIRE_S)
            if time.monotonic() >= due_s:
                self._tend()
                tended_s = time.monotonic()
                continue
            with contextlib.suppress(queue.Empty):
                item = self._jobs.get(timeout=max(0.0, due_s - time.monotonic()))
                if item is None:
                    return
                self._take(*item)
                self._hold(-item[0].sound.nbytes)

    def _take(self, job: _Job, verdict: _Verdict) -> None:
        try:
            self._judge_and_write(job, verdict)
        except SoundpostError as error:
            self._settle(verdict, "failed", fault=str(error))
        except Exception as error:  # A clip's fault must not end the clips, nor hold an event.
            logger.exception("a clip failed by a fault in soundpost")
            self._settle(verdict, "failed", fault=f"fault in soundpost: {error!r}")

    def _judge_and_write(self, job: _Job, verdict: _Verdict) -> None:
        # No line of this method may bring sound to a disk before the gate has said "clear".
        if job.spoken:
            self._settle(verdict, "speech")
            return
        judged = self._gate.judge(job.sound, job.rate_hz)
        if judged != "clear":
            self._settle(verdict, judged)
            return
        store = self._opened()
        event, sound = job.event, job.sound[job.first : job.first + job.n_samples]
        rate_hz = self.settings.rate_hz or job.rate_hz
        begins = event.onset + timedelta(seconds=(job.sample - event.sample) / job.rate_hz)
        name = store.name(begins, event.source, event.label, event.id)
        record = {
            "schema": "soundpost.clip/1",
            "first_sample": job.sample,
            "length_s": round(job.n_samples / job.rate_hz, 6),
            "rate_hz": rate_hz,
            "n_channels": sound.shape[1],
            "event": replace(event, clip=name).to_dict(),
        }
        store.write(name, encode_flac(sound, job.rate_hz, rate_hz), record)
        self._settle(verdict, "written", name)


@dataclass
class _Open:
    """A clip to come: samples first to limit at most, to end once the event has ended."""

    event: SoundEvent
    first: int
    limit: int
    end: int | None = None
    verdict: _Verdict | None = None
    decided_s: float = 0.0


class ClipRecorder:
    """Clips of one stream; used by the thread of its source.

    An event's `end` is held until its clip is judged, at most the post-roll and the writer's time,
    so that it can name the file; `start` and `update` are not.
    """

    def __init__(
        self, clips: Clips, rate_hz: int, n_channels: int, channel: Channel, manifest: Manifest
    ) -> None:
        settings = clips.settings
        self._clips = clips
        self._rate_hz = rate_hz
        self._spoken = SpokenSpans(rate_hz, manifest)
        self._all = settings.channels == "all"
        self._channel = channel
        self._pre, self._post, self._length, self._margin, decision = (
            round(span_s * rate_hz)
            for span_s in (
                settings.pre_roll_s,
                settings.post_roll_s,
                settings.max_length_s,
                GATE_MARGIN_S,
                _DECISION_S,
            )
        )
        channels = n_channels if self._all else 1
        most = MAX_RING_BYTES // (2 * channels) - 2 * self._margin - decision
        if self._length > most:
            logger.warning(
                "clips of %d channels at %d Hz are at most %.0f s long here, not max_length_s "
                "(%g s): they are kept in memory until they are judged",
                *(channels, rate_hz, most / rate_hz, settings.max_length_s),
            )
            self._length = most
        capacity = self._length + 2 * self._margin + decision
        self._ring = ClipRing(capacity, channels)
        self._open: dict[str, _Open] = {}

    def use(self, manifest: Manifest) -> None:
        """Take the labels of speech from this bundle from now on."""
        self._spoken.use(manifest)

    def heard(self, block: AudioBlock) -> None:
        """Add a block to the ring."""
        samples = block.samples
        self._ring.push(
            block.first_sample,
            samples if self._all else select_channel(samples, self._channel)[:, None],
        )

    def scored(self, window: ScoredWindow) -> None:
        """Learn what the bundle's own labels of speech say, if it has any."""
        self._spoken.scored(window, self._ring.first)

    def hold(self, event: SoundEvent, decided_s: float) -> bool:
        """Learn of an event; whether it is kept back, to come out of `ready` later."""
        wanted = self._clips.settings.labels
        if wanted and event.label not in wanted:
            return False
        if event.phase == "start":
            first = max(0, event.sample - self._pre)
            self._open[event.id] = _Open(event, first, first + self._length)
        known = self._open[event.id]
        known.event = event
        if event.offset is None:
            return False
        length = round((event.offset - event.onset).total_seconds() * self._rate_hz)
        known.end = min(event.sample + length + self._post, known.limit)
        known.decided_s = decided_s
        return True

    def ready(self) -> Iterator[tuple[SoundEvent, float]]:
        """Events that were held and need not wait any more, each with its decided_s.

        To be called after each block: spans that are complete go to the writer.
        """
        self._submit(at_once=False)
        for key, known in tuple(self._open.items()):
            if known.end is not None and known.verdict is not None and known.verdict.done.is_set():
                del self._open[key]
                yield _with_clip(known.event, known.verdict), known.decided_s

    def finish(self, timeout_s: float = FINISH_S) -> Iterator[tuple[SoundEvent, float]]:
        """End of the stream: every event that is held, with clips as far as there is sound."""
        self._submit(at_once=True)
        deadline_s = time.monotonic() + timeout_s
        for known in self._open.values():
            if known.verdict is not None and known.end is not None:
                known.verdict.done.wait(max(0.0, deadline_s - time.monotonic()))
                yield _with_clip(known.event, known.verdict), known.decided_s
        self._open.clear()

    def _submit(self, *, at_once: bool) -> None:
        for known in self._open.values():
            end = known.limit if known.end is None else known.end
            if known.verdict is None and (at_once or self._ring.end >= end + self._margin):
                known.verdict = self._hand_over(known, end)

    def _hand_over(self, known: _Open, end: int) -> _Verdict:
        ring, margin = self._ring, self._margin
        end = min(end, ring.end)
        first = max(known.first, ring.first)
        if known.event.sample < ring.begin or first >= end:
            # The event lies across a gap: sound that nobody heard cannot be judged.
            return self._clips.refuse(known.event.source)
        around = max(first - margin, ring.first), min(end + margin, ring.end)
        return self._clips.submit(
            _Job(
                event=known.event,
                sound=ring.read(*around),
                first=first - around[0],
                n_samples=end - first,
                sample=first,
                rate_hz=self._rate_hz,
                spoken=self._spoken.within(*around),
            )
        )


def _with_clip(event: SoundEvent, verdict: _Verdict) -> SoundEvent:
    if not verdict.done.is_set():
        return replace(event, extra={**event.extra, "clip_reason": "late"})
    if verdict.name is not None:
        return replace(event, clip=verdict.name)
    return replace(event, extra={**event.extra, "clip_reason": verdict.outcome})


def encode_flac(sound: Int16Array, rate_hz: int, wanted_hz: int) -> bytes:
    """Content of a FLAC file; sound : (n_samples, n_channels) int16, resampled if need be."""
    import soundfile

    if wanted_hz != rate_hz:
        sound = soxr.resample(sound, rate_hz, wanted_hz)
    content = io.BytesIO()
    soundfile.write(content, sound, wanted_hz, format="FLAC", subtype="PCM_16")
    return content.getvalue()
