"""Anchors of session.json: what time it was at some samples, by the clock of the sound."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from soundpost.device.session.clock_line import Line
from soundpost.device.session.session_json import ClockAnchor


def clock_anchor(line: Line, sample: int, rate_hz: int) -> ClockAnchor:
    """The time of a sample of late, by the line of the sound's clock and the clocks of now."""
    monotonic_s = float(line.monotonic_s(sample / rate_hz))
    now_s, now = time.monotonic(), datetime.now(timezone.utc)
    return ClockAnchor(sample, monotonic_s, now - timedelta(seconds=now_s - monotonic_s))


def fitted_anchors(
    anchors: Iterable[ClockAnchor], line: Line, rate_hz: int
) -> tuple[ClockAnchor, ...]:
    """The same anchors by the line that is known in the end."""
    fitted = []
    for anchor in anchors:
        monotonic_s = float(line.monotonic_s(anchor.sample / rate_hz))
        moved = timedelta(seconds=monotonic_s - anchor.monotonic_s)
        fitted.append(ClockAnchor(anchor.sample, monotonic_s, anchor.utc + moved))
    return tuple(fitted)
