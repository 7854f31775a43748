"""What `soundpost top` shows of a sensor: scores as bars, thresholds, open events, health.

It reads what another version of Soundpost may have written: a value of an unexpected kind is shown
as `-`, and never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from soundpost.device.terminal import Row, Span, Style, clip_row, duration, pad, printable

_STATES: Final[dict[str, Style]] = {
    "ok": "green",
    "degraded": "yellow",
    "paused": "yellow",
    "failed": "red",
}
_EIGHTHS: Final = "▏▎▍▌▋▊▉"


def top_rows(record: Mapping[str, Any], columns: int, lines: int) -> list[Row]:
    """A `soundpost.monitor/1` record in at most so many columns and lines."""
    rows = _head(record)
    sources = [_table(source) for source in _list(record, "sources")]
    left = max(0, lines - len(rows))
    # Each source has the same share; what one does not need goes to those after it.
    for number, source in enumerate(sources):
        if left <= 0:
            break
        part = _source(source, columns, left // (len(sources) - number) or 1)
        rows += part[:left]
        left -= len(part)
    return [clip_row(row, columns) for row in rows[: max(1, lines)]]


def _head(record: Mapping[str, Any]) -> list[Row]:
    broker = _table(record.get("broker"))
    uptime_s = _number(record, "uptime_s")
    clock = "" if record.get("time_synced") is True else "  clock unsure"
    hot = (
        ""
        if record.get("temperature_c") is None
        else f"  {_shown(record, 'temperature_c', 'g')} °C"
    )
    first: Row = [
        Span(_text(record, "device"), "bold"),
        Span(f"  up {'-' if uptime_s is None else duration(uptime_s)}"),
        Span(f"  cpu {_shown(record, 'cpu_percent', '.1f')} %"),
        Span(hot),
        Span(clock, "yellow"),
        Span(f"  soundpost {_text(record, 'version')}", "dim"),
    ]
    connected = broker.get("state") == "connected"
    reason = "" if connected or broker.get("reason") is None else f": {_text(broker, 'reason')}"
    dropped = _number(broker, "dropped") or 0.0
    second: Row = [
        Span("broker "),
        Span(f"{_text(broker, 'state')}{reason}", "green" if connected else "red"),
        Span(f"  {_shown(broker, 'queue', '.0f')} events wait"),
        Span(f"  {dropped:.0f} given up", "red" if dropped else ""),
        Span("" if broker.get("fault") is None else f"  {_text(broker, 'fault')}", "yellow"),
    ]
    return [first, second]


def _source(source: Mapping[str, Any], columns: int, lines: int) -> list[Row]:
    model = _table(source.get("model"))
    state = _text(source, "state")
    rate_hz = _number(source, "rate_hz")
    rate = "not open" if rate_hz is None else f"{rate_hz / 1000:g} kHz"
    rows: list[Row] = [
        [],
        [
            Span(_text(source, "source"), "bold"),
            Span(f"  {state}", _STATES.get(state, "")),
            Span(f"  {rate}  {_shown(source, 'rms_dbfs', '.1f')} dBFS"),
            Span(f" peak {_shown(source, 'peak_dbfs', '.1f')}"),
            Span(f"  {_shown(source, 'compute_ms', '.1f')} ms a window"),
            Span(f"  {_shown(source, 'gaps', '.0f')} gaps"),
            Span(f"  {_text(model, 'name')} {_text(model, 'version')}", "dim"),
        ],
    ]
    if source.get("reason") is not None:
        rows.append([Span(f"  {_text(source, 'reason')}", _STATES.get(state, ""))])
    rows += _level(source)
    open_events = [_table(event) for event in _list(source, "open")]
    since = {_text(event, "label"): _number(event, "since_s") for event in open_events}
    scores = [_table(score) for score in _list(source, "scores")]
    listed = [_text(score, "label") for score in scores]
    # First what is going on, be its score low between two groups of an alarm.
    ongoing = [score for score, label in zip(scores, listed, strict=True) if label in since]
    others = [score for score, label in zip(scores, listed, strict=True) if label not in since]
    ongoing += [event for event in open_events if _text(event, "label") not in listed]
    for score in ongoing + others:
        label = _text(score, "label")
        rows.append(_bar(label, score, columns, since.get(label), label in since))
    if len(rows) > lines and lines > 1:
        return rows[:lines]
    # A single line goes to the source, not to the empty one above it.
    return rows[1:2] if lines == 1 else rows


def _level(source: Mapping[str, Any]) -> list[Row]:
    if source.get("level") is None:
        return []
    level = _table(source.get("level"))
    unit = "dB SPL" if level.get("calibrated") is True else "dBFS"
    names = [("LAeq", "laeq_db"), ("LAFmax", "lafmax_db"), ("L10", "l10_db"), ("L50", "l50_db")]
    names.append(("L90", "l90_db"))
    values = "  ".join(f"{name} {_shown(level, key, '.1f')}" for name, key in names)
    span = _shown(level, "interval_s", "g")
    return [[Span(f"  {span} s: {values} {unit}")]]


def _bar(
    label: str, score: Mapping[str, Any], columns: int, since_s: float | None, is_open: bool
) -> Row:
    """One label: name, score, a bar from 0 to 1 with its onset threshold, and since when."""
    value = min(1.0, max(0.0, _number(score, "score") or 0.0))
    # An open event that is not among the scores has a threshold of its own.
    onset = _number(score, "onset")
    onset = _number(score, "threshold") if onset is None else onset
    name_columns = max(8, min(24, columns // 4))
    width = columns - name_columns - 8 - len(" now, 12 min 00 s")
    style: Style = "red" if is_open else ""
    if not is_open and onset is not None and value >= onset:
        # Not an event yet: its score must hold, or an alarm's cadence be confirmed.
        style = "yellow"
    cells = [Span(f"  {pad(label, name_columns)} {value:.2f} ", "red" if is_open else "")]
    if width > 0:
        cells += _cells(value, onset, width, style)
    if is_open:
        cells.append(Span(f" now{'' if since_s is None else f', {duration(since_s)}'}", "red"))
    return cells


def _cells(value: float, onset: float | None, width: int, style: Style) -> list[Span]:
    eighths = round(8 * width * value)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")
    bar = pad(bar, width)
    if onset is None or not 0 <= onset <= 1:
        return [Span(bar, style)]
    mark = min(width - 1, int(onset * width))
    return [Span(bar[:mark], style), Span("│", "bold"), Span(bar[mark + 1 :], style)]


# --- values of any kind -------------------------------------------------------------------------


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(record: Mapping[str, Any], name: str) -> list[object]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return printable(value) if isinstance(value, str) else "-"


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer may be too great for a float, and 1e999 is none.
    return float(value) if abs(value) < 1e15 and math.isfinite(value) else None


def _shown(record: Mapping[str, Any], name: str, form: str) -> str:
    value = _number(record, name)
    return "-" if value is None else format(value, form)
