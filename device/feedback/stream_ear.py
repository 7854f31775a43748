"""What one stream sounds like around its hard moments: the last seconds, and the spans in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from soundpost.device.clip_ring import ClipRing, Int16Array
from soundpost.device.clock import SampleClock, clock_synchronised
from soundpost.device.events import ModelRef
from soundpost.device.features import FrontEnd
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.feedback.hard_examples import MAX_EXCURSION_S, Candidate, HardExamples
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.speech import GATE_MARGIN_S
from soundpost.device.spoken import SpokenSpans

# How long after its middle a candidate may be found: a score's peak is known when it is over, and
# the end of an event waits for its clip.
_LATE_S: Final = MAX_EXCURSION_S + 15.0


@dataclass(frozen=True)
class HeardSpan:
    """The sound of a candidate, copied out of the ring.

    sound : (n_samples,) int16, the gate's margin on both sides included
    first, n_samples : of the example itself, within `sound`
    sample : of its first in the stream, at `rate_hz`
    spoken : whether the bundle's own labels said speech
    """

    candidate: Candidate
    source: str
    stream: str
    time: datetime
    time_synced: bool
    sound: Int16Array
    first: int
    n_samples: int
    sample: int
    rate_hz: int
    spoken: bool
    model: ModelRef
    front_end: FrontEnd


class StreamEar:
    """One stream of a source: its last seconds, and candidates whose sound is still to come.

    half, margin : samples of half an example, and of what the gate hears on either side
    plan : its bundle and channel; None before the first
    waiting : candidates
    """

    def __init__(self, settings: FeedbackSettings, stream: str, rate_hz: int) -> None:
        self._settings = settings
        self.stream = stream
        self.rate_hz = rate_hz
        self.half = round(settings.length_s * rate_hz / 2)
        self.margin = round(GATE_MARGIN_S * rate_hz)
        self.ring = ClipRing(round(_LATE_S * rate_hz) + 2 * (self.half + self.margin), 1)
        self.clock = SampleClock(rate_hz)
        self.waiting: list[Candidate] = []
        self.plan: SourcePlan | None = None
        self._finder: HardExamples | None = None
        self._spoken: SpokenSpans | None = None

    def use(self, plan: SourcePlan) -> None:
        """Go by another plan from now on."""
        manifest = plan.bundle.manifest
        self.plan = plan
        if self._finder is None or self._spoken is None:
            self._finder = HardExamples(self._settings, self.rate_hz, manifest, plan.classes)
            self._spoken = SpokenSpans(self.rate_hz, manifest)
        else:
            self._finder.use(manifest, plan.classes)
            self._spoken.use(manifest)

    def ask(self, question: Callable[[HardExamples], list[Candidate]]) -> int:
        """Let the finder learn something; how many duplicates it left out."""
        if self._finder is None:
            return 0
        before = self._finder.duplicates
        self.waiting += question(self._finder)
        return self._finder.duplicates - before

    def note_speech(self, window: ScoredWindow) -> None:
        """Learn what the bundle's own labels of speech say."""
        if self._spoken is not None:
            self._spoken.scored(window, self.ring.first)

    def span(self, source: str, candidate: Candidate) -> HeardSpan | None:
        """The span of a candidate; None where not all of it, with its margins, was heard."""
        assert self.plan is not None
        assert self._spoken is not None
        first, end = candidate.sample - self.half, candidate.sample + self.half
        # A stream begins with what the candidate has: less before it, and no margin.
        around = max(first - self.margin, 0), end + self.margin
        first = max(first, 0)
        if not self.ring.first <= around[0] < around[1] <= self.ring.end:
            return None
        manifest = self.plan.bundle.manifest
        return HeardSpan(
            candidate=candidate,
            source=source,
            stream=self.stream,
            time=self.clock.utc(first),
            time_synced=clock_synchronised(),
            sound=self.ring.read(*around)[:, 0],
            first=first - around[0],
            n_samples=end - first,
            sample=first,
            rate_hz=self.rate_hz,
            spoken=self._spoken.within(*around),
            model=ModelRef(manifest.name, manifest.version, manifest.sha256["model.tflite"]),
            front_end=manifest.front_end,
        )
