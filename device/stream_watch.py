"""Faults of a stream that keeps delivering: nothing but zeros, or samples at a wrong rate."""

from __future__ import annotations

import math

from soundpost.device.audio import Channel, FloatArray
from soundpost.device.errors import DigitalSilenceError, SampleRateError


class ZeroWatch:
    """Notices a stream of nothing but zeros: a microphone in a quiet room still has noise.

    A new stream is what helps a driver that failed. Where that brings zeros too, the microphone is
    muted: then the stream stays open, and a new one is tried only every five minutes.

    limit_s : how long zeros may last; 0: for ever
    reopened : whether zeros were why the stream before was given up
    channel : the one that is used and must hold more than zeros; "mix": any may
    """

    _TRY_AGAIN_S = 300.0

    def __init__(self, what: str, rate_hz: int, limit_s: float, reopened: bool = False) -> None:
        self._what = what
        self._rate_hz = rate_hz
        self._limit_s = limit_s
        self._zeros = 0
        self._faulty = reopened
        self.channel: Channel = "mix"

    @property
    def fault(self) -> str | None:
        """What is wrong, one line, or None."""
        return self._line(self._limit_s) if self._faulty else None

    def _line(self, zeros_s: float) -> str:
        where, remedy = "", ""
        if self.channel != "mix":
            where, remedy = f" on channel {self.channel}", ", choose another channel"
        return (
            f"{self._what} delivers nothing but zeros{where} for {zeros_s:g} s: it is muted, or "
            f"its driver failed; unmute it (alsamixer) or plug it in again{remedy}, or, where its "
            "silence is digital by design, set digital_silence_s = 0"
        )

    def check(self, samples: FloatArray) -> None:
        """Take note of (n_samples, n_channels); raises DigitalSilenceError at the limit."""
        used = samples if self.channel == "mix" else samples[:, self.channel]
        if used.any():
            self._zeros, self._faulty = 0, False
            return
        self._zeros += len(samples)
        limit_s = max(self._limit_s, self._TRY_AGAIN_S) if self._faulty else self._limit_s
        if 0 < limit_s * self._rate_hz <= self._zeros:
            raise DigitalSilenceError(self._line(limit_s))


class RateWatch:
    """Notices a stream whose samples come too fast or too slowly for its rate.

    Chunks arrive late by whatever holds them up, never early: compared are the least late of each
    span of time. Gross errors (twice, half) are told after two spans of 1 s that agree; errors of
    some percent, 44.1 for 48 kHz among them, after two of 10 s.
    """

    _SPANS = ((1.0, 0.15), (10.0, 0.02))

    def __init__(self, what: str, rate_hz: int) -> None:
        self._what = what
        self._rate_hz = rate_hz
        self._spans = [_Spans(*span) for span in self._SPANS]

    def check(self, end: int, arrived_s: float, lost: bool) -> None:
        """Take note that the samples before end had arrived; raises SampleRateError.

        lost : the driver reported that it lost sound before the last of them, how much the count
            does not tell
        """
        late_s = arrived_s - end / self._rate_hz
        for spans in self._spans:
            if lost:
                spans.restart()
            slow = spans.add(late_s, arrived_s)
            if slow is not None:
                raise SampleRateError(
                    f"{self._what} delivers {self._rate_hz * (1 - slow):.0f} samples a second "
                    f"instead of {self._rate_hz}: its clock or driver is at fault; plug it in "
                    "again, or set rate_hz to a rate that it keeps"
                )


class _Spans:
    """Lateness over two spans of time in a row, and whether it grew or fell in both."""

    def __init__(self, span_s: float, tolerance: float) -> None:
        self._span_s = span_s
        self._tolerance = tolerance
        self.restart()

    def restart(self) -> None:
        self._ends_s = -math.inf
        # Lateness and when it was, of the least late in this span and in the one before.
        self._least: tuple[float, float] | None = None
        self._least_before: tuple[float, float] | None = None
        self._slow_before = 0.0

    def add(self, late_s: float, now_s: float) -> float | None:
        """Part of its rate by which the stream is too slow, where it is at fault, else None."""
        if self._least is not None and now_s < self._ends_s:
            self._least = min(self._least, (late_s, now_s))
            return None
        slow, slow_before = 0.0, self._slow_before
        if self._least is not None and self._least_before is not None:
            (late, at), (before, then) = self._least, self._least_before
            slow = (late - before) / (at - then)
        self._ends_s = now_s + self._span_s
        self._least_before, self._least, self._slow_before = self._least, (late_s, now_s), slow
        wrong = min(abs(slow), abs(slow_before)) > self._tolerance
        return slow if wrong and slow * slow_before > 0 else None
