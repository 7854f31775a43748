"""What becomes of one label's scores: settings, events that are open, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from soundpost.device.alarms import TEMPORAL_PATTERNS
from soundpost.device.errors import InputError

# A long event is reported again this often, with its highest score since the last report: proof
# that it goes on, at a rate that no broker minds.
UPDATE_INTERVAL_S = 10.0


@dataclass(frozen=True)
class ClassSettings:
    """How one label's scores become events.

    onset, release : thresholds on the smoothed score, 0 to 1, release not above onset
    smoothing : centre of the last `smoothing_windows` scores (fewer after a gap); on frames, of
        as many frames around each
    min_duration_s : shorter events are not reported
    min_gap_s : events closer than this are one; an event's end is known this much later
    cadence : temporal pattern that must be confirmed, or None
    """

    label: str
    onset: float = 0.5
    release: float = 0.3
    smoothing: Literal["median", "mean", "none"] = "mean"
    smoothing_windows: int = 3
    min_duration_s: float = 0.0
    min_gap_s: float = 1.0
    cadence: Literal["T3", "T4"] | None = None

    def __post_init__(self) -> None:
        def refuse(name: str, found: object, expected: str) -> None:
            raise InputError(
                f"settings of class {self.label!r}: {name} is {found!r}, expected {expected}"
            )

        if not 0.0 < self.onset <= 1.0:
            refuse("onset", self.onset, "a score above 0 and up to 1")
        if not 0.0 < self.release <= self.onset:
            refuse("release", self.release, f"above 0 and not above onset ({self.onset})")
        if self.smoothing not in ("median", "mean", "none"):
            refuse("smoothing", self.smoothing, "median, mean or none")
        if not 1 <= self.smoothing_windows <= 100:
            refuse("smoothing_windows", self.smoothing_windows, "1 to 100")
        if not 0.0 <= self.min_duration_s <= 3_600.0:
            refuse("min_duration_s", self.min_duration_s, "0 to 3600 s")
        if not 0.0 <= self.min_gap_s <= 3_600.0:
            refuse("min_gap_s", self.min_gap_s, "0 to 3600 s")
        if self.cadence is not None and self.cadence not in TEMPORAL_PATTERNS:
            refuse("cadence", self.cadence, f"one of {', '.join(TEMPORAL_PATTERNS)} or none")


@dataclass(frozen=True)
class Detection:
    """One phase of an event.

    phase : "start" once, "update" every `UPDATE_INTERVAL_S` while it lasts, "end" once
    score : smoothed; at the start the highest so far, at an update the highest since the last
        report, at the end the highest of all
    threshold : the label's onset threshold
    onset_sample, offset_sample : first sample and the one after the last; no offset before the end
    window_end_sample : sample after the window, or the last frame, that decided this
    """

    label: str
    phase: Literal["start", "update", "end"]
    score: float
    threshold: float
    onset_sample: int
    offset_sample: int | None
    window_end_sample: int


@dataclass
class OpenEvent:
    """An event that lasts, reported or not yet."""

    onset: int
    offset: int
    score: float
    reported: bool = False
    reported_at: int = 0
    score_since: float = 0.0

    def extend(self, offset: int, score: float) -> None:
        """Go on up to offset with this score."""
        self.offset = max(self.offset, offset)
        self.add(score)

    def add(self, score: float) -> None:
        """Take a score into account."""
        self.score = max(self.score, score)
        self.score_since = max(self.score_since, score)


@dataclass(frozen=True)
class Handed:
    """What the detector of one model leaves to that of the next one, of one label.

    event : that is open, reported or not yet
    rise : since when the score has been at release or above; None: it is below
    settled : up to where the label is decided
    """

    event: OpenEvent | None
    rise: int | None
    settled: int

    def at_rate(self, ratio: float) -> Handed:
        """The same with positions at another rate, that many times this one."""
        if ratio == 1.0:
            return self

        def scaled(sample: int) -> int:
            return round(sample * ratio)

        event = self.event
        if event is not None:
            event = replace(
                event,
                onset=scaled(event.onset),
                offset=scaled(event.offset),
                reported_at=scaled(event.reported_at),
            )
        return Handed(event, None if self.rise is None else scaled(self.rise), scaled(self.settled))


class Leaving(Protocol):
    """A detector whose model is about to be another."""

    @property
    def classes(self) -> Sequence[ClassSettings]:
        """Settings of its labels."""

    def hand_over(self, label: str) -> tuple[list[Detection], Handed]:
        """Decide what waits for more, and leave the rest to the next detector."""

    def end(self, label: str) -> list[Detection]:
        """Decide what waits for more, and end the label's event."""
