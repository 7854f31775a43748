"""What `soundpost record` shows: meters, what was lost, how long the disk lasts."""

from __future__ import annotations

from typing import Final

import numpy as np

from soundpost.device.session.level_meters import SILENCE_DBFS, Levels
from soundpost.device.session.record_settings import RecordSettings, RecordStatus
from soundpost.device.terminal import Row, Span, Style, clip_row, duration, pad

_EIGHTHS: Final = "▏▎▍▌▋▊▉"
# What a meter spans; a quiet room on a MEMS microphone is at -70.
_LOWEST_DB: Final = -80.0
_HOT_DB: Final = -1.0
_LOUD_DB: Final = -12.0
# A microphone so much below the median of all is worth a look.
_DEAD_BELOW_DB: Final = 30.0
_HEAD_ROWS: Final = 4


def record_rows(
    status: RecordStatus, settings: RecordSettings, columns: int, lines: int
) -> list[Row]:
    """Rows of at most so many columns and lines; microphones stand in groups that fit."""
    rows: list[Row] = [_time(status, settings), _disk(status, settings)]
    if settings.camera is not None:
        rows.append(_camera(status))
    n_channels = len(status.levels.rms)
    room = max(1, lines - len(rows) - 2)
    for first, last in groups(n_channels, room):
        rows.append(_meter(status, first, last, columns))
    quiet = quiet_channels(status)
    if quiet:
        listed = ", ".join(map(str, quiet[:12])) + (" …" if len(quiet) > 12 else "")
        rows.append([Span(f"far below the others: {listed}", "yellow")])
    return [clip_row(row, columns) for row in rows[: max(1, lines)]]


def groups(n_channels: int, most: int) -> list[tuple[int, int]]:
    """Channels first to last (exclusive) of at most so many groups, all but the last of one size.

    Sizes are 1, 2, 4, 8, ...: a number on a board is found again.
    """
    size = 1
    while -(-n_channels // size) > max(1, min(most, 16)):
        size *= 2
    return [(first, min(first + size, n_channels)) for first in range(0, n_channels, size)]


def quiet_channels(status: RecordStatus) -> list[int]:
    """Channels far below the median of all: dead, unplugged, or not there."""
    return quiet_levels(status.levels)


def quiet_levels(levels: Levels) -> list[int]:
    """The same of levels alone."""
    rms = levels.rms
    if len(rms) < 3:
        return []
    quiet = rms < max(float(np.median(rms)) - _DEAD_BELOW_DB, SILENCE_DBFS + 1)
    return [int(channel) for channel in np.flatnonzero(quiet)]


def plain_line(status: RecordStatus, settings: RecordSettings) -> str:
    """The same in one line, for a log."""
    loudest = float(status.levels.peak.max())
    parts = [
        f"{status.n_samples / status.rate_hz:.1f} s",
        f"peak {loudest:.1f} dBFS",
        f"{status.n_gaps} gaps ({status.lost / status.rate_hz:.3f} s)",
        f"disk {status.free_bytes / 1e9:.1f} GB, {duration(time_to_full(status, settings))}",
    ]
    if settings.camera is not None:
        parts.append(f"{status.frames} pictures, {status.camera_fps:.1f} a second")
        if status.frames_dropped:
            parts.append(f"{status.frames_dropped} dropped")
        if status.camera_fault is not None:
            parts.append(status.camera_fault)
    return ", ".join(parts)


def _time(status: RecordStatus, settings: RecordSettings) -> Row:
    of = "" if settings.seconds is None else f" of {duration(settings.seconds)}"
    n_channels = len(status.levels.rms)
    lost_s = status.lost / status.rate_hz
    return [
        Span("recording ", "red"),
        Span(f"{duration(status.n_samples / status.rate_hz)}{of}", "bold"),
        Span(f"  {n_channels} channels at {status.rate_hz / 1e3:g} kHz  "),
        Span(f"{status.n_gaps} gaps, {lost_s:.3f} s", "red" if status.n_gaps else "green"),
    ]


def time_to_full(status: RecordStatus, settings: RecordSettings) -> float:
    """Seconds until recording ends for want of room."""
    return max(0.0, status.free_bytes - settings.keep_free_bytes) / status.bytes_s


def _disk(status: RecordStatus, settings: RecordSettings) -> Row:
    left_s = time_to_full(status, settings)
    style: Style = "red" if left_s < 60 else "yellow" if left_s < 600 else ""
    return [
        Span("disk ", ""),
        Span(f"{status.free_bytes / 1e9:.1f} GB, full in {duration(left_s)}", style),
        Span(f"  {status.bytes_s / 1e6:.1f} MB/s  "),
        Span(
            f"{100 * status.waiting:.0f} % of the queue", "yellow" if status.waiting > 0.3 else ""
        ),
    ]


def _camera(status: RecordStatus) -> Row:
    if status.camera_fault is not None:
        return [Span("camera ", ""), Span(status.camera_fault, "red")]
    return [
        Span("camera "),
        Span(f"{status.camera_fps:.1f} pictures a second, {status.frames} so far  "),
        Span(f"{status.frames_dropped} dropped", "red" if status.frames_dropped else ""),
    ]


def _meter(status: RecordStatus, first: int, last: int, columns: int) -> Row:
    """The loudest of a group: its level as a bar, its peak and its held peak as marks."""
    levels = status.levels
    rms = float(levels.rms[first:last].max())
    held = float(levels.held[first:last].max())
    name = f"{first}" if last == first + 1 else f"{first}-{last - 1}"
    width = max(4, columns - 9 - len(" -100.0 -100.0 dBFS"))
    bar = _bar(rms, width)
    mark = min(width - 1, int(width * _part(held)))
    style: Style = "red" if held > _HOT_DB else "yellow" if held > _LOUD_DB else "green"
    return [
        Span(f"{pad(name, 8, right=True)} "),
        Span(bar[:mark], style),
        Span("│", "bold"),
        Span(bar[mark + 1 :], style),
        Span(f" {rms:6.1f} {held:6.1f} dBFS", "red" if held > _HOT_DB else ""),
    ]


def _part(level_db: float) -> float:
    return min(1.0, max(0.0, 1.0 - level_db / _LOWEST_DB))


def _bar(level_db: float, width: int) -> str:
    eighths = round(8 * width * _part(level_db))
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")
    return pad(bar, width)
