"""Feedback: hard examples of a sensor, from what it hears to files past the privacy gate.

    source's thread                                      writer's thread
    blocks -> ring; candidates -> span is copied    ->   place of the day? -> gate -> file

Off unless asked for. It watches the sensor as an Observer: a fault in it costs the examples, never
an alert. Neither sound nor features touch the disk before the gate has let the sound pass; the gate
is closed to what it cannot judge.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from soundpost.device.audio import AudioBlock, select_channel
from soundpost.device.errors import SoundpostError
from soundpost.device.events import SoundEvent
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.example_content import example_content, example_of
from soundpost.device.feedback.example_store import ExampleStore
from soundpost.device.feedback.fair_sample import FairSample
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.feedback.stream_ear import HeardSpan, StreamEar
from soundpost.device.observer import Observer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.rate_limit import TokenBucket
from soundpost.device.records import dump
from soundpost.device.speech import SpeechGate

logger = logging.getLogger(__name__)

STATE_SCHEMA: Final = "soundpost.feedback/1"
# Spans that wait for the writer, at most: a slow disk leaves them out.
_MAX_WAITING: Final = 8
# Middles that are so close are one sound, whichever labels it confuses.
_SAME_S: Final = 0.5
_TEND_S: Final = 60.0
# Spans that the gate is shown, at most: where people speak all day it would judge without end, and
# takes some tenths of a second of a small processor for each.
_JUDGED_PER_MINUTE: Final = 12
_COUNTED: Final = ("written", "gated", "unjudged", "no_place", "duplicate", "failed")


class Feedback(Observer):
    """All sources' hard examples, the writer's thread, and what a person asks of them.

    Parameters
    ----------
    settings : enabled
    publish : takes the state, a JSON object, whenever it changes
    gate : judges every span; its own, for it serves one thread

    A folder that cannot be used is a `fault`, and is tried again each minute.

    Raises MissingExtraError where the speech detector is not installed: then nothing is kept.
    """

    def __init__(
        self,
        settings: FeedbackSettings,
        device_id: str,
        publish: Callable[[str], None] = lambda _: None,
        gate: SpeechGate | None = None,
    ) -> None:
        self.settings = settings
        self._device_id = device_id
        self._publish = publish
        self._gate = gate if gate is not None else SpeechGate()
        self._judgements = TokenBucket(_JUDGED_PER_MINUTE)
        self._ears: dict[str, StreamEar] = {}
        self._jobs: queue.Queue[HeardSpan | None] = queue.Queue(_MAX_WAITING)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._fault: str | None = None
        self._labels: tuple[str, ...] = ()
        self._store: ExampleStore | None = None
        self._day: str | None = None
        self._sample = FairSample(0, "")
        # Middles of the last examples of each stream.
        self._last: dict[str, list[int]] = {}
        self._told: str | None = None
        self._tend()
        self._tell()
        self._thread = threading.Thread(target=self._write_all, name="feedback", daemon=True)
        self._thread.start()

    # --- what is heard, in the threads of the sources

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        """A stream begins; what waited of the one before it will never be whole."""
        self._give_up(source)
        if not self.settings.sources or source in self.settings.sources:
            self._ears[source] = StreamEar(self.settings, stream, rate_hz)

    def tuned(self, source: str, plan: SourcePlan) -> None:
        """Its windows are of this bundle from now on."""
        ear = self._ears.get(source)
        if ear is not None:
            ear.use(plan)
            with self._lock:
                found = dict.fromkeys([*self._labels, *plan.bundle.manifest.labels])
                self._labels = tuple(found)

    def heard(self, source: str, block: AudioBlock) -> None:
        """Add a block to the ring, and hand over what is whole with it."""
        ear = self._ears.get(source)
        if ear is None or ear.plan is None:
            return
        # What was found since the last block, before a jump makes its sound unreadable.
        self._hand_over(source, ear)
        end = block.first_sample + len(block.samples)
        ear.clock.update(end, block.time_s if block.time_s is not None else time.monotonic())
        mono = select_channel(block.samples, ear.plan.channel)
        ear.ring.push(block.first_sample, mono[:, None])
        self._hand_over(source, ear)

    def _hand_over(self, source: str, ear: StreamEar) -> None:
        """Give the writer what is whole."""
        after = ear.half + ear.margin
        ready = [known for known in ear.waiting if known.sample + after <= ear.ring.end]
        for candidate in ready:
            ear.waiting.remove(candidate)
            self._submit(ear.span(source, candidate))

    def scored(self, source: str, window: ScoredWindow) -> None:
        """Look for scores near a threshold."""
        ear = self._ears.get(source)
        if ear is not None:
            ear.note_speech(window)
            self._count("duplicate", ear.ask(lambda finder: finder.scored(window)))

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        """Look for events that were over at once."""
        ear = self._ears.get(event.source)
        if ear is not None and event.stream == ear.stream:
            self._count("duplicate", ear.ask(lambda finder: finder.ended(event)))

    def compared(
        self, source: str, sample: int, label: str, score: float, new_score: float
    ) -> None:
        """Two models disagree."""
        ear = self._ears.get(source)
        if ear is not None:
            found = ear.ask(lambda finder: finder.compared(sample, label, score, new_score))
            self._count("duplicate", found)

    def _give_up(self, source: str) -> None:
        ear = self._ears.pop(source, None)
        if ear is not None:
            self._count("unjudged", len(ear.waiting))

    def _count(self, what: str, n: int = 1) -> None:
        with self._lock:
            self._counts[what] += n

    def _submit(self, job: HeardSpan | None) -> None:
        if job is None:
            # It lies across a gap, or was found too late: what nobody heard cannot be judged.
            self._count("unjudged")
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._count("failed")

    # --- what others ask

    @property
    def fault(self) -> str | None:
        """Why examples cannot be written, in one line."""
        return self._fault

    @property
    def store(self) -> ExampleStore | None:
        """Where examples wait; None while the folder cannot be used."""
        return self._store

    def counts(self) -> dict[str, int]:
        """Since the start: `written`; `gated` as someone may speak; `unjudged` and so not kept.

        And `no_place`: the day's examples, or what can be judged in a minute, went to others;
        `duplicate`: too close to another; `failed`: the disk, or it was too slow.
        """
        with self._lock:
            return {name: self._counts[name] for name in _COUNTED}

    def taken_away(self, example: Example) -> None:
        """A person has an example, and it was deleted here."""
        with self._lock:
            if example.day == self._day:
                self._sample.forget(example.id, collected=True)
        self._tell()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, as far as time allows, and end the thread."""
        deadline_s = time.monotonic() + timeout_s
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    # --- the writer

    def _write_all(self) -> None:
        due_s = time.monotonic() + _TEND_S
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, due_s - time.monotonic()))
            except queue.Empty:
                self._tend()
                self._tell()
                due_s = time.monotonic() + _TEND_S
                continue
            if job is None:
                return
            try:
                self._take(job)
            except SoundpostError as error:
                self._fail(str(error))
            except Exception as error:  # One example's fault must not end the others.
                logger.exception("an example failed by a fault in soundpost")
                self._fail(f"fault in soundpost: {error!r}")
            self._tell()

    def _fail(self, why: str) -> None:
        self._count("failed")
        if why != self._fault:
            logger.warning("feedback: %s", why)
        self._fault = why

    def _tend(self) -> None:
        """Try the folder again, or delete what has grown too old in it."""
        try:
            self._opened().expire()
        except SoundpostError as error:
            if self._fault != str(error):
                logger.warning("%s; it listens without feedback, and tries again", error)
            self._fault = str(error)

    def _opened(self) -> ExampleStore:
        if self._store is None:
            self._store = ExampleStore(self.settings)
            self._fault = None
        return self._store

    def _begin_day(self, store: ExampleStore, day: str) -> None:
        ids: dict[str, list[str]] = {}
        seen: dict[str, int] = {}
        for example in store.examples:
            if example.day == day:
                ids.setdefault(example.label, []).append(example.id)
                seen[example.label] = max(seen.get(example.label, 0), example.seen)
        with self._lock:
            self._day = day
            self._sample = FairSample(
                self.settings.per_day, f"{self._device_id} {day}", ids, seen, store.taken(day)
            )

    def _take(self, job: HeardSpan) -> None:
        # No line of this method may bring sound or features to a disk before the gate has said
        # "clear".
        store, label = self._opened(), job.candidate.label
        day = job.time.strftime("%Y-%m-%d")
        if day != self._day:
            self._begin_day(store, day)
        middles = self._last.get(job.stream, [])
        if any(abs(job.candidate.sample - at) < _SAME_S * job.rate_hz for at in middles):
            self._count("duplicate")
            return
        with self._lock:
            draw = self._sample.draw(label)
            judged_too_often = draw.kept and not job.spoken and not self._judgements.take()
            if judged_too_often or not draw.kept:
                self._sample.pass_over(label)
        if judged_too_often or not draw.kept:
            self._count("no_place")
            return
        judged = "speech" if job.spoken else self._gate.judge(job.sound[:, None], job.rate_hz)
        if judged != "clear":
            self._count("gated" if judged == "speech" else "unjudged")
            return
        content = example_content(job, self.settings.what)
        store.know(self._labels)
        seen = self._sample.seen(label) + 1
        example = example_of(job, self._device_id, self.settings.what, content, seen)
        store.write(example, content)
        with self._lock:
            if draw.out is not None:
                self._sample.forget(draw.out)
            self._sample.put(label, example.id)
            there = {known.id for known in store.examples}
            if example.id not in there:
                # The store has no room for what says so little.
                self._sample.forget(example.id)
        if draw.out is not None:
            store.delete(draw.out)
        # Of the streams that run, not of all since the start.
        running = {ear.stream for ear in list(self._ears.values())} | {job.stream}
        self._last = {key: at for key, at in self._last.items() if key in running}
        self._last[job.stream] = [*middles, job.candidate.sample][-20:]
        self._count("written")
        self._fault = None

    def _tell(self) -> None:
        """Publish the state, if it is news."""
        store = self._store
        examples = [] if store is None else store.examples
        state = dump(
            {
                "schema": STATE_SCHEMA,
                "device": self._device_id,
                "what": self.settings.what,
                "examples": len(examples),
                "waiting": sum(not known.collected for known in examples),
                "n_bytes": sum(known.n_bytes for known in examples),
                "labels": dict(sorted(Counter(known.label for known in examples).items())),
                "counts": self.counts(),
                "fault": self._fault,
            }
        )
        if state != self._told:
            self._told = state
            self._publish(state)
